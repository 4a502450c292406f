"""A training in a run: stopped, killed, out of memory or out of time, it loses nothing and says how it went."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RESUMABLE, Outcome
from speciate.jobs.run import OutOfMemory, Run, Stopped
from speciate.training.networks import durable_training
from speciate.training.networks.batches import Items
from speciate.training.networks.optimizer import LoopParameters
from speciate.training.networks.stopping import Diverged
from speciate.training.networks.training_log import read_metrics
from speciate.training.networks.training_loop import HeldOutData, Scores
from speciate.training.networks.trial_steps import MeasuredTraining
from speciate.training.resource_usage import CostMeter
from speciate.worker import main
from tests.training.networks import world
from tests.training.networks.world import TwoLabels, checkpoints, held, new_run, training

pytestmark = pytest.mark.durable

WORK = f"{Path(world.__file__).resolve()}:work"


class Calling:
    """Items that do something when they are taken for the `at`th time."""

    def __init__(self, items: Items, at: int, act: Callable[[], None]) -> None:
        self._items, self._left, self._act, self.lengths = items, at, act, items.lengths

    def take(self, places: Any) -> Any:
        self._left -= 1
        if not self._left:
            self._act()
        return self._items.take(places)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    learning = training()
    durable_training.train_durably(new_run(tmp_path_factory.mktemp("whole")), learning, held())
    return learning.digest()


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("at", [1, 5, 20, 47, 60])
def test_sigterm_saves_at_the_end_of_the_step_and_passes(tmp_path: Path, at: int, uninterrupted: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    first, run = training(around=lambda items: Calling(items, at, terminate)), new_run(tmp_path)
    with pytest.raises(Stopped):
        durable_training.train_durably(run, first, held())
    assert signal.getsignal(signal.SIGTERM) is before
    assert (saved := checkpoints(run).newest()) is not None
    assert saved.state.facts["step"] == first.step == -(-at // 3)  # three parts a step
    second, run = training(), new_run(tmp_path, 2)
    assert durable_training.train_durably(run, second, held()).why == "finished"
    assert second.digest() == uninterrupted
    steps = [line["step"] for line in read_metrics(run.folder.path / "metrics.jsonl")]
    assert steps == sorted(set(steps))
    assert steps[-1] == second.total


def test_a_request_during_an_evaluation_judges_again(tmp_path: Path, uninterrupted: str) -> None:
    judged = held()
    stopping = judged._replace(items=Calling(judged.items, 2, terminate))
    with pytest.raises(Stopped):
        durable_training.train_durably(new_run(tmp_path), training(), stopping)
    learning, run = training(), new_run(tmp_path, 2)
    durable_training.train_durably(run, learning, judged)
    assert learning.digest() == uninterrupted
    judgements = [line["epoch"] for line in read_metrics(run.folder.path / "metrics.jsonl") if "held_value" in line]
    assert judgements == [1, 2, 3, 4]


def test_the_run_is_asked_each_step(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    learning = training(around=lambda items: Calling(items, 10, (run.folder.path / "cancel").touch))
    with pytest.raises(Stopped):
        durable_training.train_durably(run, learning, held())
    assert learning.step == 4


def work(folder: Path, attempt: int, take: int = 0, save: int = 0) -> tuple[int, Run]:
    """A worker in a process of its own, forked as a zygote does, and its exit code."""
    run = new_run(folder, attempt, entry=WORK, payload={"take": take, "save": save})
    if (pid := os.fork()) == 0:
        os._exit(main(str(run.folder.path)))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), run


def test_kill_minus_nine_in_a_step_and_in_a_save(tmp_path: Path, uninterrupted: str) -> None:
    assert work(tmp_path, 1, take=17)[0] == -signal.SIGKILL
    code, run = work(tmp_path, 2, save=6)
    assert code == -signal.SIGKILL
    left = [path.name for path in (run.checkpoints / "training").iterdir()]
    assert any(name.startswith(".unfinished") for name in left), left
    code, run = work(tmp_path, 3)
    assert code == 0
    result = json.loads((run.outputs / "result.json").read_text())
    assert result["digest"] == uninterrupted
    assert result["resumed_at"] > 5


def test_a_worker_that_is_terminated_ends_resumable(tmp_path: Path) -> None:
    """The whole way: the worker's own handler stands again after the training."""
    run = new_run(tmp_path, entry=f"{Path(__file__).resolve()}:terminated")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert main(str(run.folder.path)) == RESUMABLE
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert run.folder.outcome() == Outcome(RESUMABLE, "stopped", "stopped on request")


def terminated(run: Run) -> None:
    durable_training.train_durably(run, training(around=lambda items: Calling(items, 10, terminate)), held())


class Full(TwoLabels):
    """Has memory for no more than `most` examples at once."""

    def __init__(self, most: int) -> None:
        self.most = most

    def loss(self, head: Any, states: Any, targets: Any) -> torch.Tensor:
        if len(targets) > self.most:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"
            )
        return super().loss(head, states, targets)


def test_memory_that_ran_out_is_tried_again_with_half_the_micro_batch(tmp_path: Path) -> None:
    parameters = LoopParameters(num_train_epochs=2, batch_size=8)
    for attempt in (1, 2, 3):
        run = new_run(tmp_path, attempt, memory_retries=attempt - 1)
        learning = training(parameters, task_head=Full(2), batch_norm=False, memory_retries=run.memory_retries)
        if attempt < 3:
            with pytest.raises(OutOfMemory):
                durable_training.train_durably(run, learning, held())
    assert durable_training.train_durably(run, learning, held()).why == "finished"
    assert (learning.micro_batch, learning.step) == (2, learning.total)


def test_memory_that_ran_out_with_batches_that_cannot_be_divided_gives_advice(tmp_path: Path) -> None:
    learning = training(LoopParameters(num_train_epochs=2, batch_size=8), task_head=Full(2), batch_norm=True)
    with pytest.raises(SpeciateError, match="cannot be divided") as caught:
        durable_training.train_durably(new_run(tmp_path), learning, held())
    assert caught.value.code == Code.INVALID
    assert "{'batch_size': 4}" in caught.value.recovery


def test_what_a_killed_attempt_spent_until_its_checkpoint_is_counted(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    meter, plain = CostMeter(run), training()
    tallied = MeasuredTraining(
        meter, plain.backbone, plain.head, plain.task_head, plain._items, plain._targets, plain.parameters, seed=1
    )
    tallied.run_until(3)
    checkpoints(run).save(tallied.state(), {})
    tallied.run_until(5)  # and is killed
    again = CostMeter(new_run(tmp_path, 2))
    assert again.steps == 3
    assert 0 < again.stages["training"].seconds < again.spent.seconds
    assert CostMeter(new_run(tmp_path / "other")).steps == 0


def test_where_one_example_is_too_much_nothing_is_tried_again(tmp_path: Path) -> None:
    learning = training(task_head=Full(0), memory_retries=5)
    with pytest.raises(SpeciateError, match="one example at a time") as caught:
        durable_training.train_durably(new_run(tmp_path), learning, held())
    assert caught.value.code == Code.INVALID


def test_other_errors_of_torch_stay_what_they_are(tmp_path: Path) -> None:
    class Wrong(TwoLabels):
        def loss(self, head: Any, states: Any, targets: Any) -> torch.Tensor:
            return super().loss(head, states, [99] * len(targets))

    with pytest.raises(IndexError):
        durable_training.train_durably(new_run(tmp_path), training(task_head=Wrong()), held())


def test_divergence_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_training, "_SAVE_SHARE", 0)

    class Breaks(TwoLabels):
        calls = 0

        def loss(self, head: Any, states: Any, targets: Any) -> torch.Tensor:
            self.calls += 1
            return super().loss(head, states, targets) * (float("nan") if self.calls > 30 else 1)

    run = new_run(tmp_path)
    with pytest.raises(Diverged, match=r"step 11.*learning rate of"):
        durable_training.train_durably(run, training(task_head=Breaks()), save_seconds=0.0)
    assert (saved := checkpoints(run).newest()) is not None
    assert saved.state.facts["step"] == 10
    assert all(torch.isfinite(each).all() for each in saved.state.tensors["weights"].values())


def scripted(values: list[float]) -> HeldOutData:
    """A measure that says these values, one after the other."""
    said = iter(values)
    return held()._replace(measure=lambda scores: next(said))


def weights_of_epoch(epoch: int) -> str:
    learning = training()
    learning.run_until(epoch * learning.epoch_steps)
    return learning.digest()


def test_patience_ends_with_the_best_weights_also_after_a_restart(tmp_path: Path) -> None:
    parameters = LoopParameters(
        num_train_epochs=9, batch_size=8, per_device_train_batch_size=3, learning_rate=0.01, early_stopping_patience=2
    )
    learning = training(parameters)
    ending = durable_training.train_durably(new_run(tmp_path), learning, scripted([0.5, 0.8, 0.7, float("nan")]))
    assert ending == durable_training.Ending("patience", 0.8, 2 * learning.epoch_steps)
    again = training(parameters)
    assert durable_training.train_durably(new_run(tmp_path, 2), again, scripted([])) == ending
    assert again.digest() == learning.digest()
    alone = training(parameters)
    alone.run_until(2 * learning.epoch_steps)
    assert alone.digest() == learning.digest()


def test_enough_twice_in_a_row_ends_it_and_less_may_be_better(tmp_path: Path) -> None:
    """Also where a restart lies between the two."""

    def go(attempt: int, values: list[float], until: int | None = None) -> durable_training.Ending:
        judged = scripted(values)._replace(sign=-1)
        return durable_training.train_durably(
            new_run(tmp_path, attempt), training(parameters), judged, until=until,
            enough=lambda evaluation: evaluation.value < 2,
        )  # fmt: skip

    parameters = LoopParameters(num_train_epochs=9, batch_size=8, per_device_train_batch_size=3, learning_rate=0.01)
    assert go(1, [3.0, 1.0, 2.5, 1.5], until=24).why == "paused"
    assert go(2, [0.5]) == durable_training.Ending("enough", 0.5, 30)


def test_the_budget_ends_it_at_the_best_point(tmp_path: Path) -> None:
    learning = training()
    over = iter([False] * 15 + [True])
    ending = durable_training.train_durably(
        new_run(tmp_path), learning, scripted([0.9, 0.8, 0.7]), over_budget=lambda: next(over)
    )
    assert (ending.why, ending.value, ending.step, learning.step) == ("budget", 0.9, learning.epoch_steps, 15)
    assert learning.digest() == weights_of_epoch(1)


def test_without_held_out_examples_the_last_weights_are_kept(tmp_path: Path, uninterrupted: str) -> None:
    learning = training()
    assert durable_training.train_durably(new_run(tmp_path), learning) == durable_training.Ending(
        "finished", None, learning.total
    )
    assert learning.digest() == weights_of_epoch(4)


def test_metrics_and_curves_tell_how_it_went(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    learning = training(LoopParameters(num_train_epochs=10, batch_size=8))
    durable_training.train_durably(run, learning, held())
    lines = read_metrics(run.folder.path / "metrics.jsonl")
    assert {"step", "epoch", "loss", "learning_rate", "grad_norm", "examples_per_second", "rss_mb"} <= lines[0].keys()
    assert len(lines) < learning.total
    assert all(0 < line["loss"] < 10 and line["rss_mb"] > 50 for line in lines)
    assert [line["step"] for line in lines if "held_value" in line] == list(range(6, 61, 6))
    assert (progress := run.folder.progress()) is not None
    assert (progress.done, progress.total, progress.unit) == (60, 60, "steps")
    with Image.open(run.outputs / "curves.png") as opened:
        picture = np.asarray(opened.convert("RGB")).astype(int)
    assert picture.shape == (300, 960, 3)
    for colour, half in (
        ((31, 119, 180), slice(0, 480)),
        ((214, 39, 40), slice(0, 480)),
        ((44, 160, 44), slice(480, 960)),
    ):
        ink = (np.abs(picture[34:270, half] - colour).sum(2) < 30).sum()
        assert ink > 300, f"{colour}: {ink} pixels"


def test_curves_of_a_single_point_and_of_the_loss_alone(tmp_path: Path) -> None:
    run = new_run(tmp_path)

    def undefined(scores: Scores) -> float:
        return float("nan")

    durable_training.train_durably(
        run, training(LoopParameters(num_train_epochs=1, batch_size=64)), held()._replace(measure=undefined)
    )
    with Image.open(run.outputs / "curves.png") as picture:
        assert picture.size == (480, 300)
