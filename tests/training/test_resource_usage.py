from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.jobs.kinds import Plan
from speciate.settings import Capacity
from speciate.training import resource_usage, train, train_run
from speciate.training.planning.measure_run import _in_fork
from speciate.training.train_spec import Method, RequestedResources, TrainSpec
from speciate.workspace.workspace import Workspace
from tests.data import peptide_fasta, review_rows, run_job
from tests.training.world import make_dataset, thirds, train_now

QUICK = {"num_train_epochs": 2, "learning_rate": [1e-3]}
ONE = RequestedResources(cpu=1)


def _pairs(count: int) -> list[str]:
    """`thirds` of pairs, as labels take turns."""
    return [split for split in thirds(count // 2) for _ in range(2)]


@pytest.fixture
def peptides(workspace: Workspace, tmp_path: Path) -> str:
    lines = peptide_fasta(tmp_path / "p.fasta", 60).read_text().splitlines()
    kinds = [line.partition("kind=")[2] for line in lines[::2]]
    make_dataset(
        workspace, "peptides", "protein", {"sequence": lines[1::2]}, labels=kinds, splits=_pairs(60),
        inputs=["sequence"],
    )  # fmt: skip
    return "peptides"


def _refused(workspace: Workspace, dataset: str, **more: object) -> SpeciateError:
    with pytest.raises(SpeciateError) as refusal:
        train_now(
            workspace, name="m", dataset=dataset, method="full", hyperparameters=QUICK, **{"resources": ONE} | more
        )
    assert refusal.value.code is Code.REFUSED
    assert refusal.value.message.startswith("does_not_fit: ")
    return refusal.value


def test_what_needs_more_memory_than_it_may_have_ends_before_it_trains(workspace: Workspace, peptides: str) -> None:
    refusal = _refused(workspace, peptides, resources=RequestedResources(cpu=1, memory_mb=20))
    assert "20 MB" in refusal.message
    assert "method='classical'" in refusal.recovery


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted anew on Linux alone")
def test_a_smaller_micro_batch_that_fits_is_named(
    workspace: Workspace, peptides: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([200.0, 230.0])
    monkeypatch.setattr("speciate.training.networks.trial_steps.peak_mb", lambda: next(peaks))
    assert (
        "'per_device_train_batch_size': 8}"
        in _refused(workspace, peptides, resources=RequestedResources(cpu=1, memory_mb=300)).recovery
    )


def test_a_budget_that_is_too_small_for_a_step_ends_before_it_trains(workspace: Workspace, peptides: str) -> None:
    refusal = _refused(workspace, peptides, budget_minutes=0.0001)
    assert "a single step and a look at the held-out examples take about" in refusal.message
    assert "budget_minutes=" in refusal.recovery


def test_a_network_that_fits_records_what_it_cost(workspace: Workspace, peptides: str) -> None:
    spec = {"name": "m", "dataset": peptides, "method": "full", "hyperparameters": QUICK, "resources": ONE}
    cost = train_now(workspace, **spec)["report"]["cost"]
    assert cost["steps"] == cost["planned_steps"] == 2
    assert cost["visits"] == 2 * 30
    assert 0 < cost["stages"]["training"][1] < cost["cpu_seconds"]
    assert cost["peak_memory_mb"] >= cost["loaded_memory_mb"]
    assert 12 <= cost["length"] <= 30


def test_resources_are_kept_free_and_threads_follow(workspace: Workspace, peptides: str) -> None:
    spec = TrainSpec(name="m", dataset=peptides, method="classical", resources=RequestedResources(cpu=1, memory_mb=700))
    plan = train.plan(spec, workspace)
    assert (plan.resources.cpu, plan.resources.memory_mb) == (1, 700)
    assert (plan.payload_json()["threads"], plan.payload_json()["memory_mb"]) == (1, 700)


def test_gpus_are_kept_free_and_each_has_a_process(workspace: Workspace, peptides: str) -> None:
    def planned(method: Method = "full", **room: int) -> Plan:
        return train.plan(
            TrainSpec(name="m", dataset=peptides, method=method, resources=RequestedResources(cpu=1, **room)), workspace
        )

    assert (planned().resources.gpu, planned().payload_json()["device"]) == (0, "cpu")
    workspace.settings = workspace.settings.model_copy(update={"capacity": Capacity(gpu=4)})
    one, two, none = planned(), planned(gpu=2), planned(gpu=0)
    assert [each.resources.gpu for each in (one, two, none)] == [1, 2, 0]
    assert [each.payload_json()["processes"] for each in (one, two, none)] == [1, 2, 1]
    assert [each.payload_json()["device"] for each in (one, two, none)] == ["cuda", "cuda", "cpu"]
    assert (two.resources.cpu, two.resources.memory_mb) == (2, 2 * one.resources.memory_mb)
    assert planned("classical").resources.gpu == 0
    with pytest.raises(SpeciateError, match="'classical' computes on processors alone") as refused:
        planned("classical", gpu=1)
    assert refused.value.code is Code.INVALID


def test_runs_get_gpus_that_no_other_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    first, second = multiprocessing.get_context("fork").Pipe()
    if (other := os.fork()) == 0:
        second.send(train_run.take_gpus(tmp_path, 2))
        second.recv()
        os._exit(0)
    assert first.recv() == [0, 1]
    assert train_run.take_gpus(tmp_path, 2) == [2, 3]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    first.send("end")
    os.waitpid(other, 0)
    assert train_run.take_gpus(tmp_path, 1) == [0]


@pytest.mark.slow
def test_an_estimate_is_measured_and_then_known(workspace: Workspace) -> None:
    rows = review_rows(200)
    texts = {"text": [row["text"] for row in rows]}
    labels = [row["label"] for row in rows]
    make_dataset(workspace, "reviews", "text", texts, labels=labels, splits=_pairs(200), inputs=["text"])
    report = run_job(workspace, "measure", dataset="reviews", method="classical", budget_minutes=0.0001)["report"]
    (candidate,) = report["candidates"]
    assert candidate["estimate"]["known_from"] == ["measured"]
    assert min(candidate["estimate"][figure] for figure in ("cpu_seconds", "peak_memory_mb", "p95_latency_ms")) > 0
    assert candidate["why"].startswith("does_not_fit")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_what_fails_or_is_killed_in_a_measurement_is_told() -> None:
    def fail() -> dict[str, object]:
        raise SpeciateError(Code.INVALID, "Too little.", "Add more.")

    assert _in_fork(fail) == {"error": "Too little. Add more."}
    assert _in_fork(lambda: {"seconds": 1}) == {"seconds": 1}
    assert _in_fork(lambda: os.kill(os.getpid(), 9) or {})["error"].startswith("does_not_fit")


def test_memory_is_told_in_mebibytes() -> None:
    kept = bytearray(os.urandom(1)) * (64 << 20)
    assert resource_usage.peak_mb() + 1 > resource_usage.resident_mb() > 64  # the system counts to a few pages
    assert resource_usage.room_mb() > resource_usage.resident_mb()
    assert len(kept) == 64 << 20
