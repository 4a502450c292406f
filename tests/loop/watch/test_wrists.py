"""The loop on series: a watch is moved to the other wrist, and nobody steps in."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.loop.watch import wrists

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec(wrists.PACKAGE) is None, reason=f"{wrists.PACKAGE} has the data: make install"),
]


def test_most_of_what_the_other_wrist_costs_comes_back_and_the_first_one_stays() -> None:
    life = wrists.live(0)
    print(life)
    assert life.left_before - life.right_before >= 0.1
    assert "promoted" in life.outcomes
    assert life.labels <= 200
    assert life.recovered >= 0.5
    assert life.left_after >= life.left_before - 0.02
