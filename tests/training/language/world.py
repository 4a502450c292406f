"""Trainings of a tiny language model that are broken off at a step and gone on with, as kill -9 and pause do it."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run, Stopped
from speciate.training import train, train_run
from speciate.training.language import durable_trainer
from speciate.training.networks.training_log import read_metrics
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace
from tests.models.language.world import sums
from tests.training.world import make_dataset


class Killed(BaseException):
    """Nothing of the process is left after it but what lies on disk."""


def make_sums(workspace: Workspace, name: str = "sums", count: int = 100) -> None:
    pairs = sums(count)
    splits = ["test" if at % 10 == 0 else "validation" if at % 10 == 5 else "train" for at in range(len(pairs))]
    make_dataset(
        workspace, name, "text", {"question": [q for q, _ in pairs], "answer": [a for _, a in pairs]},
        labels=[a for _, a in pairs], splits=splits, inputs=["question"],
    )  # fmt: skip


def make_pairs(
    workspace: Workspace, name: str = "pairs", count: int = 60, tested: Sequence[int] = (), **columns: Any
) -> None:
    """Of two answers one is better: yes or sure, and not no. `columns`: others in their place; None: not there.
    `tested`: examples of the test split."""
    splits = ["test" if at in tested else "validation" if at % 6 == 5 else "train" for at in range(count)]
    asked = [f"is {at} good?" for at in range(count)]
    made = {
        "prompt": asked,
        "chosen": [("yes", "sure")[at % 2] for at in range(count)],
        "rejected": ["no"] * count,
    } | columns
    made = {column: cells for column, cells in made.items() if cells is not None}
    make_dataset(workspace, name, "text", made, labels=[""] * count, splits=splits, inputs=["prompt"])


@contextmanager
def broken_off(at: int, how: str) -> Iterator[None]:
    """After that step and a checkpoint `kill`: the process is gone. `pause`: it is asked to stop."""
    after = durable_trainer.DurableTrainer._after_step

    def step(trainer: Any) -> None:
        if how == "pause" and trainer.state.global_step == at:
            (trainer._session.context.run.folder.path / "cancel").touch()
        after(trainer)
        if how == "kill" and trainer.state.global_step == at:
            raise Killed

    with patch.object(durable_trainer.DurableTrainer, "_after_step", step):
        yield


@contextmanager
def saving_each_step() -> Iterator[None]:
    with patch.object(durable_trainer, "SAVE_SECONDS", 0.0), patch.object(durable_trainer, "SAVE_SHARE", 0.0):
        yield


def ends_alike(workspace: Workspace, asked: Mapping[str, Any], breaks: Sequence[tuple[str, int]]) -> None:
    """A job that is killed or paused after these steps, each attempt going on where the one before it was, ends as one
    that is left alone: the same model, the same report of the training, each step told once."""
    whole = run(attempt(workspace, asked, "job-whole"))
    last = None
    with saving_each_step():
        for how, at in breaks:
            folder = attempt(workspace, asked, "job-broken", last)
            with broken_off(at, how), pytest.raises(Killed if how == "kill" else Stopped):
                run(folder)
            last = folder
        final = attempt(workspace, asked, "job-broken", last)
        result = run(final)
    assert model_id(result) == model_id(whole)
    assert result["report"]["training"] == whole["report"]["training"]
    assert result["report"].get("watched") == whole["report"].get("watched")
    steps = [line["step"] for line in read_metrics(final.path / "metrics.jsonl")]
    assert steps == sorted(set(steps))
    assert steps[-1] == result["report"]["training"]["steps"]


def payload(workspace: Workspace, **spec: Any) -> Mapping[str, Any]:
    return train.plan(TrainSpec(**spec), workspace).payload_json()


def attempt(
    workspace: Workspace, asked: Mapping[str, Any], job: str, earlier: RunFolder | None = None, retries: int = 0
) -> RunFolder:
    """The folder of the next attempt of this job, which is not run yet."""
    number = 1 if earlier is None else int(earlier.path.name.rpartition(".")[2]) + 1
    folder = RunFolder(workspace.folders.runs / f"{job}.{number}")
    resumed = [] if earlier is None else [str(earlier.path), *earlier.spec()["resume_from"]]
    spec = {"payload": dict(asked), "job": job, "workspace": str(workspace.folders.root)}
    folder.create(spec | {"resume_from": resumed, "memory_retries": retries})
    return folder


def run(folder: RunFolder) -> dict[str, Any]:
    """What is alive now is no garbage of this training's: transformers' trainer looks for that twice, in all there is,
    which took a quarter of the time."""
    gc.collect(1)
    gc.freeze()
    return train_run.run(Run(folder))


def model_id(result: Mapping[str, Any]) -> str:
    return str(result["card"]["id"])


def base(folder: Path, **options: Any) -> str:
    from tests.models.language.world import tiny_model

    return tiny_model(folder, **options)
