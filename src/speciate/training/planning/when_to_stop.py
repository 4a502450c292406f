"""When a cascade of trainings has enough: pure rules from what was measured on validation examples.

The verdict is given on the test split, whose labels nobody looks at before. What is known of it is its size, and so how
wide the interval on it will be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

from speciate.sample_size import LEVEL
from speciate.training.train_spec import Method

SURE = 0.9
"""Probability of a passing verdict from which another training is not worth its cost."""
WORTH_A_LOOK = 1 - SURE
"""Probability of a passing verdict below which the test rows are not looked at once more."""
_BEYOND = 4.0
"""Standard errors that the target must lie above what could be reached before trying is given up."""
MOST_REMOVED: dict[Method, float] = {"probe": 0.75, "lora": 0.8, "full": 0.9, "sft": 0.8}
"""Share of the error of a cheaper model that a dearer method removed at most, in the trainings of evals/LOG.md. Other
methods: all of it."""

EndReason = Literal["sure_pass", "all_tried", "budget", "out_of_reach"]


class Measured(NamedTuple):
    """The best model so far on validation examples. Higher is better: errors come with their sign turned."""

    value: float
    standard_error: float
    examples: int


def probability_of_pass(measured: Measured, target: float, test_examples: int | None, level: float = LEVEL) -> float:
    """That the whole interval of this level on so many test examples will reach the target.

    The true value is about normal around the measured one; the test value is about normal around the true one; the
    interval is as wide as the one on validation examples, scaled by the root of their numbers. `test_examples` None:
    as many as validation examples.
    """
    if measured.examples < 1 or not math.isfinite(measured.value):
        return 0.0
    known = measured.standard_error
    if not math.isfinite(known):
        return 0.0
    on_test = known * math.sqrt(measured.examples / (test_examples or measured.examples))
    room = measured.value - target - NormalDist().inv_cdf((1 + level) / 2) * on_test
    spread = math.hypot(known, on_test)
    return NormalDist().cdf(room / spread) if spread > 0 else float(room >= 0)


def is_out_of_reach(measured: Measured, target: float, best_possible: float | None, methods: Sequence[Method]) -> bool:
    """Whether none of the methods that are left can reach the target, even if it removes as much of the error as one
    ever did. `best_possible`: of the metric, None where it has no bound: then nothing is out of reach."""
    if best_possible is None or not methods or not math.isfinite(measured.value):
        return False
    removed = max(MOST_REMOVED.get(method, 1.0) for method in methods)
    reachable = best_possible - (1 - removed) * (best_possible - measured.value)
    return target > reachable + _BEYOND * (1 - removed) * measured.standard_error
