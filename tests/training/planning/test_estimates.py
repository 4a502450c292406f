from __future__ import annotations

import json
from pathlib import Path

import pytest

from speciate.training.networks import trial_steps
from speciate.training.planning import estimates
from speciate.training.planning.estimates import (
    Estimate,
    KnownCosts,
    MeasuredRun,
    RecordedRun,
    TrainingRequest,
    bytes_written,
    estimate,
    known_costs,
)
from speciate.workspace.workspace import Workspace


def _asked(examples: int, method: str = "classical", visits: int = 0, length: float = 1.0) -> TrainingRequest:
    return TrainingRequest(method, None, "text", "classification", examples, length, visits)


def _run(
    job: str, asked: TrainingRequest, training: float, rest: float = 1.0, share: float | None = None,
    preparing: float = 0.0,
) -> RecordedRun:  # fmt: skip
    stages = {"preparing": (preparing, preparing), "training": (training, training), "judging": (0.0, 0.0)}
    return RecordedRun(job, asked, stages, (rest, rest), 100, 150, 250, share)


def test_nothing_is_said_before_a_like_run_was_recorded() -> None:
    runs = KnownCosts([_run("a", _asked(1000, "probe"), 10)], [])
    assert estimate(runs, _asked(1000)) is None
    assert estimate(runs, _asked(1000, "probe")._replace(modality="image")) is None
    assert estimate(runs, _asked(1000, "probe")._replace(family="regression")) is None


def test_shipped_figures_are_of_this_machine_alone(workspace: Workspace) -> None:
    assert known_costs(workspace.database).shipped
    assert not known_costs(workspace.database, "hpc").shipped


def test_what_grows_with_the_examples_is_scaled_and_the_rest_is_not() -> None:
    found = estimate(KnownCosts([_run("a", _asked(1000), 10)], []), _asked(3000))
    assert found is not None
    assert found.seconds == found.cpu_seconds == 31
    assert found.peak_memory_mb == 100 + 3 * 150
    assert found.known_from == ("a",)


def test_runs_of_several_sizes_tell_how_it_grows() -> None:
    runs = [_run("a", _asked(1000), 1, 0), _run("b", _asked(2000), 4, 0), _run("c", _asked(4000), 16, 0)]
    found = estimate(KnownCosts(runs, []), _asked(8000))
    assert found is not None
    assert found.seconds == pytest.approx(64)


def test_small_data_are_not_estimated_below_what_starting_costs() -> None:
    found = estimate(KnownCosts([_run("a", _asked(100), 2)], []), _asked(1))
    assert found is not None
    assert found.seconds == 3


def test_a_network_costs_what_its_steps_read_and_their_memory_stays() -> None:
    run = _run("a", _asked(1000, "full", visits=10_000, length=50), 10)
    found = estimate(KnownCosts([run], []), _asked(2000, "full", visits=5_000, length=100))
    assert found is not None
    assert found.seconds == 11
    assert found.peak_memory_mb == 100 + 4 * 50 + 100


def test_what_a_network_does_not_read_of_a_long_text_costs_nothing() -> None:
    """A probe on documents was said to take 1,351 s at least, so a search left it out; it took 51 s in all."""

    def spent(method: str, base_model: str | None, length: float) -> float:
        request = _asked(1000, method, length=50)._replace(base_model=base_model)
        run = _run("a", request, 1, rest=0, preparing=10)
        found = estimate(KnownCosts([run], []), request._replace(length=length))
        assert found is not None
        return found.seconds

    assert spent("probe", "pkg:minilm", 100) == 21, "its heads learn from vectors of one width"
    assert spent("probe", "pkg:minilm", 5_000) == spent("probe", "pkg:minilm", 50_000) == pytest.approx(205.8)
    assert spent("classical", None, 5_000) == spent("sft", "path:writer", 5_000) == 1_100


def test_what_one_process_took_says_nothing_about_several() -> None:
    one, two = _asked(1000, "full", visits=10_000), _asked(1000, "full", visits=10_000)._replace(processes=2)
    runs = [_run("a", one, 10)]
    assert estimate(KnownCosts(runs, [MeasuredRun("job-1", one, Estimate(7, 6, 300, 1.5, ("job-1",)))]), two) is None
    found = estimate(KnownCosts([*runs, _run("b", two, 6)], []), two)
    assert found is not None
    assert (found.seconds, found.known_from) == (7, ("b",))


def test_what_was_measured_of_the_very_training_counts_most() -> None:
    asked = _asked(1000)._replace(dataset="notes@v1", hyperparameters={"folds": 5})
    own = Estimate(7, 6, 300, 1.5, ("measured", "job-1"))
    known = KnownCosts([_run("a", _asked(1000), 10)], [MeasuredRun("job-1", asked, own)])
    assert estimate(known, asked) == own
    other = estimate(known, asked._replace(dataset="notes@v2"))
    assert other is not None
    assert (other.seconds, other.p95_latency_ms) == (11, 1.5)


def test_work_counts_every_rung_fold_and_the_last_training_on_everything() -> None:
    assert trial_steps.planned_work(1, 3, 10, [(100, 20)], None) == trial_steps.PlannedWork(30, 80, 1, 1, 3)
    assert trial_steps.planned_work(1, 3, 10, [(50, 50), (50, 50)], 100) == trial_steps.PlannedWork(
        15 + 15 + 30, 200 + 200, 4, 1, 9
    )


def test_the_largest_micro_batch_that_fits_is_named() -> None:
    need = trial_steps.MemoryNeed(one=100, each=10)
    assert need.at(32) == 410
    assert need.fitting(200, 32) == 8
    assert need.fitting(99, 32) is None


# What a training is expected to write.


@pytest.mark.parametrize(
    ("method", "changes", "times"),
    [("full", None, 10), ("replay", None, 10), ("sft", "full", 10), ("sft", "lora", 1.5), ("lora", None, 1.5)],
)
def test_it_follows_from_the_weights_of_the_base(
    tmp_path: Path, method: str, changes: str | None, times: float
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "tokenizer.json").write_bytes(b"x" * 9999)
    assert bytes_written(method, changes, str(tmp_path)) == 1000 * times


def test_without_a_base_on_disk_nothing_is_known(tmp_path: Path) -> None:
    assert bytes_written("classical", None, None) is None
    assert bytes_written("full", None, str(tmp_path / "nowhere")) is None


def test_the_shipped_pace_stands_in_where_no_like_run_is_recorded_and_for_every_family() -> None:
    shipped = (_run("shipped", _asked(1000), 10),)
    asked = _asked(1000)._replace(family="regression")
    found = estimate(KnownCosts([], [], shipped), asked)
    assert found is not None
    assert found.known_from == ("shipped",)
    own = estimate(KnownCosts([_run("a", asked, 30)], [], shipped), asked)
    assert own is not None
    assert own.known_from == ("a",)
    assert estimate(KnownCosts([], [], shipped), asked._replace(base_model="pkg:other")) is None


def test_the_table_of_pace_is_scaled_to_this_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cost = {
        "family": "classification", "length": 1.0, "visits": 0, "seconds": 12.0, "cpu_seconds": 14.0,
        "stages": {"training": [10.0, 12.0]}, "steps": 0, "planned_steps": 0, "start_memory_mb": 100.0,
        "loaded_memory_mb": 120.0, "peak_memory_mb": 200.0,
    }  # fmt: skip
    run = {"method": "classical", "base_model": None, "modality": "tabular", "examples": 500, "cost": cost}
    path = tmp_path / "pace.json"
    path.write_text(json.dumps({"reference_seconds": 0.001, "runs": [run]}))
    monkeypatch.setattr(estimates, "PACE", path)
    monkeypatch.setattr(estimates, "reference_seconds", lambda: 0.003)
    estimates.shipped_runs.cache_clear()
    try:
        (slow,) = estimates.shipped_runs()
    finally:
        estimates.shipped_runs.cache_clear()
    assert slow.stages["training"] == pytest.approx((30.0, 36.0))
    assert slow.rest == pytest.approx((6.0, 6.0))


def test_the_shipped_table_tells_how_each_training_grows() -> None:
    """A table of 112 rows beside one of 37, which counts as 100, told nothing: 960 rows were said to take ten times as
    long as they did."""
    sizes: dict[tuple[str, str | None, str], list[float]] = {}
    for run in estimates.shipped_runs():
        asked = run.request
        sizes.setdefault((asked.method, asked.base_model, asked.modality), []).append(asked.volume)
    assert len(sizes) > 20
    assert all(max(each) > estimates._SIZES_APART * min(each) for each in sizes.values())
