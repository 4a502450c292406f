from __future__ import annotations

from speciate.training.estimate import Recorded, estimate
from speciate.training.specs import Option

CLASSICAL = Option(method="classical")


def _run(job: str, examples: int, seconds: float, method: str = "classical") -> Recorded:
    return Recorded(job, method, None, "text", examples, seconds)


def test_nothing_is_said_before_a_like_run_was_recorded() -> None:
    assert estimate([_run("a", 1000, 10, "probe")], CLASSICAL, "text", 1000) is None
    assert estimate([_run("a", 1000, 10)], CLASSICAL, "image", 1000) is None


def test_time_grows_with_the_examples_and_the_median_run_counts() -> None:
    runs = [_run("a", 1000, 10), _run("b", 1000, 1000), _run("c", 2000, 20)]
    found = estimate(runs, CLASSICAL, "text", 3000)
    assert found is not None
    assert found.seconds == 30
    assert found.known_from == ("a", "b", "c")


def test_small_data_are_not_estimated_below_what_starting_costs() -> None:
    found = estimate([_run("a", 100, 2)], CLASSICAL, "text", 1)
    assert found is not None
    assert found.seconds == 2
