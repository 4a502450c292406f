"""What test_own_heads.py tries on one double of each adapter, on the others. It takes minutes: only in test-slow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tests.models.published import test_own_heads as own
from tests.models.published.learning import LEARNING

OTHERS = [name for name in LEARNING if name not in {each.values[0] for each in own.FIRST}]
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("name", OTHERS)]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from own.without_warnings(monkeypatch)


def test_adapters_merge_without_a_gap(name: str, tmp_path: Path) -> None:
    own.test_adapters_merge_without_a_gap_and_leave_tied_and_attention_layers_alone(name, tmp_path)


def test_a_training_that_stops_and_resumes_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    own.test_a_training_that_stops_and_resumes_ends_in_the_same_bits(name, tmp_path)


def test_divided_batches_give_the_gradient_of_the_whole_or_are_refused(name: str, tmp_path: Path) -> None:
    own.test_divided_batches_give_the_gradient_of_the_whole_or_are_refused(name, tmp_path)
