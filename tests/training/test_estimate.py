from __future__ import annotations

import pytest

from speciate.training.estimate import Asked, Estimate, Known, Measured, Recorded, estimate
from speciate.training.network import trial


def _asked(examples: int, method: str = "classical", visits: int = 0, length: float = 1.0) -> Asked:
    return Asked(method, None, "text", "classification", examples, length, visits)


def _run(job: str, asked: Asked, training: float, rest: float = 1.0, share: float | None = None) -> Recorded:
    stages = {"preparing": (0.0, 0.0), "training": (training, training), "judging": (0.0, 0.0)}
    return Recorded(job, asked, stages, (rest, rest), 100, 150, 250, share)


def test_nothing_is_said_before_a_like_run_was_recorded() -> None:
    runs = Known([_run("a", _asked(1000, "probe"), 10)], [])
    assert estimate(runs, _asked(1000)) is None
    assert estimate(runs, _asked(1000, "probe")._replace(modality="image")) is None
    assert estimate(runs, _asked(1000, "probe")._replace(family="regression")) is None


def test_what_grows_with_the_examples_is_scaled_and_the_rest_is_not() -> None:
    found = estimate(Known([_run("a", _asked(1000), 10)], []), _asked(3000))
    assert found is not None
    assert found.seconds == found.cpu_seconds == 31
    assert found.peak_memory_mb == 100 + 3 * 150
    assert found.known_from == ("a",)


def test_runs_of_several_sizes_tell_how_it_grows() -> None:
    runs = [_run("a", _asked(1000), 1, 0), _run("b", _asked(2000), 4, 0), _run("c", _asked(4000), 16, 0)]
    found = estimate(Known(runs, []), _asked(8000))
    assert found is not None
    assert found.seconds == pytest.approx(64)


def test_small_data_are_not_estimated_below_what_starting_costs() -> None:
    found = estimate(Known([_run("a", _asked(100), 2)], []), _asked(1))
    assert found is not None
    assert found.seconds == 3


def test_a_network_costs_what_its_steps_read_and_their_memory_stays() -> None:
    run = _run("a", _asked(1000, "full", visits=10_000, length=50), 10)
    found = estimate(Known([run], []), _asked(2000, "full", visits=5_000, length=100))
    assert found is not None
    assert found.seconds == 11
    assert found.peak_memory_mb == 100 + 4 * 50 + 100


def test_what_was_measured_of_the_very_training_counts_most() -> None:
    asked = _asked(1000)._replace(dataset="notes@v1", hyperparameters={"folds": 5})
    own = Estimate(7, 6, 300, 1.5, ("measured", "job-1"))
    known = Known([_run("a", _asked(1000), 10)], [Measured("job-1", asked, own)])
    assert estimate(known, asked) == own
    other = estimate(known, asked._replace(dataset="notes@v2"))
    assert other is not None
    assert (other.seconds, other.p95_latency_ms) == (11, 1.5)


def test_work_counts_every_rung_fold_and_the_last_training_on_everything() -> None:
    assert trial.work(1, 3, 10, [(100, 20)], None) == trial.Work(30, 80, 1, 1, 3)
    assert trial.work(1, 3, 10, [(50, 50), (50, 50)], 100) == trial.Work(15 + 15 + 30, 200 + 200, 4, 1, 9)


def test_the_largest_micro_batch_that_fits_is_named() -> None:
    need = trial.Need(one=100, each=10)
    assert need.at(32) == 410
    assert need.fitting(200, 32) == 8
    assert need.fitting(99, 32) is None
