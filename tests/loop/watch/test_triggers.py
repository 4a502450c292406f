"""When each trigger fires, from what is seen alone."""

from __future__ import annotations

import pytest

from speciate.loop.watch.triggers import DOUBLY, surely_disagree


@pytest.mark.parametrize(
    ("alpha", "answers", "fires"),
    [
        # 3 sqrt(D (1 - D) / n) / 0.5, of D = (1 - alpha) / 2, against 0.6 - alpha
        (0.5, 674, False), (0.5, 677, True),  # 3 sqrt(.25 .75 / n) / .5 = .1 at 675
        (0.2, 53, False), (0.2, 55, True),  # 3 sqrt(.4 .6 / n) / .5 = .4 at 54
        (0.59, 10_000, False), (0.6, 10**9, False), (0.7, 10**9, False), (1.0, 10**9, False),
        (-1.0, 50, True), (-3.0, 50, True),
        (-1.0, DOUBLY - 1, False), (-1.0, DOUBLY, True),
    ],
)  # fmt: skip
def test_labels_disagree_only_where_it_is_no_luck(alpha: float, answers: int, fires: bool) -> None:
    assert surely_disagree(alpha, answers) == fires
