"""A limit that passes at any moment of a training leaves the best model until then."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from speciate.jobs.folder import RunFolder, write_whole
from speciate.jobs.run import Run, Stopped
from speciate.tasks import predictor
from speciate.training import train, train_run
from speciate.training.networks import trial_steps
from speciate.training.networks.trial_steps import FittedWork, PlannedWork, StepCost
from speciate.training.resource_usage import Usage
from speciate.training.train_spec import TrainSpec
from speciate.training.training_context import BestSoFar, TrainingContext
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset, thirds, train_now

_OURS = str(Path(train_run.__file__).parent)
QUICK = {"num_train_epochs": 4, "learning_rate": [2e-3, 1e-3], "batch_size": 16}
QUICK_LINES = {"method": "classical", "hyperparameters": {"candidates": ["neighbours", "ridge", "logistic", "svm"]}}
LIMIT = {"limits": {"run_seconds": 600.0}}


class Moment:
    """Raises Stopped, as a signal does, at the so-many-th line of code of the training's own modules."""

    def __init__(self, at: int | None) -> None:
        self.at, self.seen = at, 0

    def __enter__(self) -> Moment:
        sys.settrace(self._called)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(_OURS) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.seen += 1
        if self.seen == self.at:
            sys.settrace(None)
            raise Stopped
        return self._line


def _flowers(workspace: Workspace, *, validation: bool = True) -> None:
    chance = np.random.default_rng(0)
    kinds = [i % 3 for i in range(90)]
    columns = {
        "long": [float(kind + chance.normal(0, 0.6)) for kind in kinds],
        "wide": [float(kind % 2 + chance.normal(0, 0.6)) for kind in kinds],
    }
    labels = [("rose", "iris", "lily")[kind] for kind in kinds]
    splits = thirds(90) if validation else ["train"] * 90
    make_dataset(workspace, "flowers", "tabular", columns, labels=labels, splits=splits, inputs=list(columns))


def _begin(workspace: Workspace, job: str, method: dict[str, Any]) -> RunFolder:
    spec = TrainSpec(name="model", dataset="flowers", **method)
    folder = RunFolder(workspace.folders.runs / f"{job}.1")
    payload = train.plan(spec, workspace).payload_json()
    folder.create({"payload": payload, "job": job, "workspace": str(workspace.folders.root), "row": LIMIT})
    return folder


def _no_time_passes() -> float:
    """So each better one is written at once."""
    return 0.0


class KeepingIsSlow:
    """A clock that each look moves by a second: of better ones only the first is written at once."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def _interrupted(
    workspace: Workspace,
    job: str,
    method: dict[str, Any],
    at: int | None,
    clock: Callable[[], float] = _no_time_passes,
) -> tuple[RunFolder, int]:
    """With how many lines passed."""
    folder = _begin(workspace, job, method)
    run = Run(folder, clock=clock)
    moment = Moment(at)
    try:
        with moment:
            result = train_run.run(run)
    except Stopped:
        return folder, moment.seen
    write_whole(folder.outputs / "result.json", json.dumps(result))
    return folder, moment.seen


def _reported(folder: RunFolder) -> list[float]:
    """Values of the candidates of whatever the folder would end with."""
    best = folder.best_so_far()
    if best is None:
        return []
    collected = train.collect(best)
    model = predictor.load(best.outputs / "model")
    assert model.labels == ("iris", "lily", "rose")
    assert any("limit passed" in note for note in collected.report["notes"])
    chosen = [one["value"] for one in collected.report["candidates"] if one["chosen"]]
    assert chosen == [collected.report["validation"]["value"]]
    return [float(one["value"]) for one in collected.report["candidates"] if one["value"] is not None]


def test_a_stop_loses_no_better_candidate_that_had_not_been_written_yet(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock by which keeping the first takes too long to keep the next at once."""
    _flowers(workspace)
    finished: list[float] = []
    usual = BestSoFar.offer

    def offer(self: BestSoFar, make: Any, **more: bool) -> None:
        usual(self, make, **more)
        finished.append(next(each.estimate.value for each in make.args if hasattr(each, "estimate")))

    def checkpoint(self: TrainingContext) -> None:
        if len(finished) == 2:
            raise Stopped

    monkeypatch.setattr(BestSoFar, "offer", offer)
    monkeypatch.setattr(TrainingContext, "checkpoint", checkpoint)
    folder, _ = _interrupted(workspace, "job-stopped", QUICK_LINES, None, KeepingIsSlow())
    best = folder.best_so_far()
    assert best is not None
    assert len(set(finished)) == 2
    assert train.collect(best).report["validation"]["value"] == max(finished)


def test_a_resumed_training_keeps_nothing_worse_than_the_attempt_before_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins anew with the first candidate, and where the limit passes the newest attempt that kept any counts."""
    _flowers(workspace)
    finished: list[float] = []
    usual, most = BestSoFar.offer, 2

    def offer(self: BestSoFar, make: Any, **more: bool) -> None:
        usual(self, make, **more)
        finished.append(next(each.estimate.value for each in make.args if hasattr(each, "estimate")))

    def checkpoint(self: TrainingContext) -> None:
        if len(finished) == most:
            raise Stopped

    monkeypatch.setattr(BestSoFar, "offer", offer)
    monkeypatch.setattr(TrainingContext, "checkpoint", checkpoint)
    first, _ = _interrupted(workspace, "job-resumed", QUICK_LINES, None)
    assert finished[0] < finished[1]
    document = first.spec() | {"resume_from": [str(first.path)]}
    for number, (offered, kept) in enumerate([(1, None), (2, finished[1])], start=2):
        finished.clear()
        most = offered
        again = RunFolder(workspace.folders.runs / f"job-resumed.{number}")
        again.create(document)
        with pytest.raises(Stopped):
            train_run.run(Run(again, clock=_no_time_passes))
        best = again.best_so_far()
        assert (train.collect(best).report["validation"]["value"] if best else None) == kept


def _survives(workspace: Workspace, method: dict[str, Any], moments: int) -> None:
    whole, lines = _interrupted(workspace, "job-whole", method, None)
    first = len(whole.path.joinpath("progress.jsonl").read_text().splitlines())
    assert first > 1
    chance, kept, best = random.Random(0), 0, float("-inf")
    for number, at in enumerate(sorted(chance.randrange(1, lines) for _ in range(moments))):
        folder, _ = _interrupted(workspace, f"job-{number}", method, at)
        values = _reported(folder)
        assert kept == 0 or values, "later limits never leave less"
        if values:
            kept += 1
            assert max(values) >= best
            best = max(values)
    assert kept >= moments // 2


def test_a_limit_at_a_drawn_moment_of_a_classical_training_leaves_the_best_so_far(workspace: Workspace) -> None:
    _flowers(workspace)
    _survives(workspace, {"method": "classical"}, 4)  # a hundred in the slow one


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        {"method": "classical"},
        {"method": "full", "base_model": "new:tab-resnet", "hyperparameters": QUICK},
    ],
    ids=["classical", "network"],
)
def test_a_hundred_limits_leave_the_best_so_far(workspace: Workspace, method: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    _flowers(workspace)
    _survives(workspace, method, 100)


def test_a_run_near_its_limit_ends_by_itself_with_what_it_has(workspace: Workspace) -> None:
    """A clock that each look moves by 200 s: the limit of 600 s leaves time for few candidates, and all is whole."""
    _flowers(workspace)
    folder, now = _begin(workspace, "job-clock", {"method": "classical"}), [0.0]

    def clock() -> float:
        now[0] += 200
        return now[0]

    report = train_run.run(Run(folder, clock=clock))["report"]
    tried = [one for one in report["candidates"] if one["value"] is not None]
    skipped = [one for one in report["candidates"] if one["value"] is None]
    assert tried
    assert {one["reason"] for one in skipped} == {"the budget had ended"}


def _slowly_written() -> tuple[BestSoFar, list[float], list[int]]:
    """Best so far, of which each writing takes 3 s; the clock; and what was written."""
    now, kept = [0.0], list[int]()

    def keep(model: int) -> None:
        now[0] += 3
        kept.append(model)

    best = BestSoFar(keep, lambda: now[0])
    return best, now, kept


def test_keeping_the_best_costs_a_twentieth_at_most() -> None:
    best, now, kept = _slowly_written()
    for model in range(200):
        now[0] += 1
        best.offer(lambda model=model: model)  # type: ignore[misc]
    assert kept[0] == 0
    assert 3 * len(kept) <= 0.07 * now[0]


def test_what_waits_is_written_when_it_is_due_and_before_a_stop() -> None:
    best, now, kept = _slowly_written()
    best.offer(lambda: 1)
    best.offer(lambda: 2)
    best.offer(lambda: 3)
    best.keep_due()
    assert kept == [1]
    now[0] += 120
    best.keep_due()
    best.keep_due()
    assert kept == [1, 3]
    best.offer(lambda: 4)
    best.keep_waiting()
    best.keep_waiting()
    assert kept == [1, 3, 4]


def test_what_learns_on_waits_as_the_copy_that_was_the_best() -> None:
    weights, kept = [1], list[list[int]]()
    best = BestSoFar(kept.append, KeepingIsSlow())
    for value in (1, 2):
        weights[0] = value
        best.offer(weights.copy, learns_on=True)
    weights[0] = 3
    best.keep_waiting()
    assert kept == [[1], [2]]


def test_a_stop_while_a_model_is_written_leaves_it_to_be_written() -> None:
    kept, stopped = list[int](), [True]

    def keep(model: int) -> None:
        if stopped.pop():
            raise Stopped
        kept.append(model)

    best = BestSoFar(keep, lambda: 0.0)
    with pytest.raises(Stopped):
        best.offer(lambda: 1)
    stopped.append(False)
    best.keep_waiting()
    assert kept == [1]


def test_what_cannot_be_kept_ends_no_training() -> None:
    def keep(model: int) -> None:
        raise OSError("the disk is full")

    best = BestSoFar(keep, lambda: 0.0)
    best.offer(lambda: 1)
    best.offer(lambda: pytest.fail("it is not tried again"))


def _work(rates: int, epochs: int) -> PlannedWork:
    return PlannedWork(steps=100 * rates * epochs, judged=0, builds=rates, saves=0, epochs=rates * epochs)


PACE = StepCost(step=Usage(0.1, 0.1), judged=Usage(), build=Usage())


@pytest.mark.parametrize(
    ("seconds", "fitted"),
    [
        (1e9, (3, 30)),
        (900.0, (3, 30)),
        (300.0, (3, 10)),
        (240.0, (3, 8)),
        (200.0, (2, 10)),
        (90.0, (1, 9)),
        (20.0, (1, 2)),
        (1.0, (1, 1)),
    ],
)
def test_epochs_follow_the_measured_pace(seconds: float, fitted: tuple[int, int]) -> None:
    """10 s an epoch and rate."""
    assert trial_steps.fit_to_budget(_work, PACE, 3, 30, seconds) == FittedWork(*fitted)


@pytest.mark.parametrize(("seconds", "steps"), [(100.0, 9), (12.0, 1), (11.0, 0), (1.0, 0), (-5.0, 0)])
def test_steps_leave_time_to_judge(seconds: float, steps: int) -> None:
    """8 s a step with what is kept back, 2 s to judge."""
    pace = StepCost(step=Usage(8.0, 8.0), judged=Usage(0.1, 0.1), build=Usage())
    look = PlannedWork(steps=0, judged=20, builds=1, saves=0, epochs=1)
    assert trial_steps.steps_in_time(pace, look, seconds + 0.5) == steps


@pytest.mark.parametrize("validation", [True, False])
def test_where_not_one_epoch_fits_a_few_steps_end_in_a_model(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, validation: bool
) -> None:
    pytest.importorskip("torch")
    _flowers(workspace, validation=validation)
    monkeypatch.setattr(trial_steps, "_WORTH_SECONDS", 0.0)
    monkeypatch.setattr(trial_steps, "step_cost", lambda *given: StepCost(Usage(20.0, 20.0), Usage(), Usage()))
    method = {"method": "full", "base_model": "new:tab-resnet", "hyperparameters": QUICK}
    report = train_now(workspace, name="model", dataset="flowers", budget_minutes=1, **method)["report"]
    assert any("2 steps at one learning rate were planned" in note for note in report["notes"])
    assert report["cost"]["planned_steps"] == 2
    assert report["cost"]["steps"] == (2 if validation else 8), "of the search, two more folds and the whole"
    assert report["validation"]["value"] is not None
