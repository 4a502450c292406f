"""What a training of a language model does when memory, time or numbers run out, and what it leaves on disk."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from speciate.errors import SpeciateError
from speciate.jobs.run import OutOfMemory
from speciate.training.language import durable_trainer
from speciate.training.language.durable_trainer import micro_batch
from speciate.workspace.workspace import Workspace
from tests.training.language.world import (
    Killed,
    attempt,
    base,
    broken_off,
    make_sums,
    model_id,
    payload,
    run,
    saving_each_step,
)

pytestmark = pytest.mark.slow

GIVEN = {
    "changes": "full",
    "num_train_epochs": 1,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "max_new_tokens": 3,
    "judged": 0,
}


def _asked(workspace: Workspace, folder: Path, spec: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    make_sums(workspace)
    found = payload(
        workspace, name="adder", dataset="sums", method="sft", hyperparameters=GIVEN | given,
        base_model=base(folder / "base"), resources={"cpu": 1}, **(spec or {}),
    )  # fmt: skip
    return dict(found)


@pytest.mark.parametrize(
    ("batch", "asked", "retries", "micro"),
    [
        (16, None, 0, 16),
        (16, None, 1, 8),
        (16, 4, 1, 2),
        (12, 5, 0, 4),
        (10, None, 1, 5),
        (7, None, 1, 1),
        (4, 8, 9, 1),
    ],
)
def test_a_micro_batch_divides_its_batch(batch: int, asked: int | None, retries: int, micro: int) -> None:
    assert micro_batch(batch, asked, retries) == micro
    assert batch % micro == 0


def test_memory_that_runs_out_halves_the_micro_batch_and_not_the_step(workspace: Workspace, tmp_path: Path) -> None:
    asked, sizes = _asked(workspace, tmp_path), list[int]()
    whole = run(attempt(workspace, asked, "job-whole"))["report"]["training"]
    step = durable_trainer.DurableTrainer.training_step

    def small(trainer: Any, model: Any, inputs: Any, count: Any = None) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if len(inputs["input_ids"]) > 4:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return step(trainer, model, inputs, count)

    with patch.object(durable_trainer.DurableTrainer, "training_step", small):
        with pytest.raises(OutOfMemory):
            run(attempt(workspace, asked, "job-full"))
        halved = run(attempt(workspace, asked, "job-full-2", retries=2))["report"]["training"]
    assert sizes[0] == 16
    assert set(sizes[1:]) == {4}
    assert halved["steps"] == whole["steps"] == 5
    assert np.isclose(halved["held_loss"], whole["held_loss"], atol=1e-3)


def test_one_example_that_is_too_much_is_no_matter_of_smaller_parts(workspace: Workspace, tmp_path: Path) -> None:
    def never(*given: Any) -> Any:
        raise MemoryError

    asked = _asked(workspace, tmp_path)
    with (
        patch.object(durable_trainer.DurableTrainer, "training_step", never),
        pytest.raises(SpeciateError, match="one example at a time") as refusal,
    ):
        run(attempt(workspace, asked, "job-x", retries=4))
    assert "max_length" in refusal.value.recovery


def test_a_training_that_diverges_is_stopped_and_says_what_to_do(workspace: Workspace, tmp_path: Path) -> None:
    asked = _asked(workspace, tmp_path)
    step = durable_trainer.DurableTrainer.training_step

    def broken(trainer: Any, model: Any, inputs: Any, count: Any = None) -> Any:
        loss = step(trainer, model, inputs, count)
        trainer._loss = float("nan") if trainer.state.global_step == 2 else trainer._loss
        return loss

    with (
        patch.object(durable_trainer.DurableTrainer, "training_step", broken),
        pytest.raises(SpeciateError, match="diverged at step 3") as refusal,
    ):
        run(attempt(workspace, asked, "job-x"))
    assert "0.0003" in refusal.value.recovery


def test_a_budget_and_patience_end_a_training_early(workspace: Workspace, tmp_path: Path) -> None:
    spent = _asked(workspace, tmp_path, {"budget_minutes": 1e-6})
    assert run(attempt(workspace, spent, "job-spent"))["report"]["training"]["ended"] == "budget"
    bored = payload(
        workspace, name="adder", dataset="sums", method="sft", base_model=f"path:{tmp_path / 'base'}",
        hyperparameters=GIVEN | {"num_train_epochs": 40, "early_stopping_patience": 1, "learning_rate": 0.3,
        "warmup_ratio": 0},
    )  # fmt: skip
    training = run(attempt(workspace, bored, "job-bored"))["report"]["training"]
    assert training["ended"] == "patience"
    assert training["kept_step"] < training["steps"] < 200


def test_a_checkpoint_of_another_training_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    asked = _asked(workspace, tmp_path)
    first = attempt(workspace, asked, "job-x")
    with saving_each_step(), broken_off(2, "kill"), pytest.raises(Killed):
        run(first)
    files = {path.suffix for path in (first.checkpoints / "training").rglob("*") if path.is_file()}
    assert files == {".safetensors", ".json", ".jsonl"}
    other = _asked_again(workspace, tmp_path, learning_rate=1e-3)
    with pytest.raises(SpeciateError, match="another training: identity"):
        run(attempt(workspace, other, "job-x", first))


def _asked_again(workspace: Workspace, folder: Path, **given: Any) -> dict[str, Any]:
    found = payload(
        workspace, name="adder", dataset="sums", method="sft", hyperparameters=GIVEN | given,
        base_model=f"path:{folder / 'base'}", resources={"cpu": 1},
    )  # fmt: skip
    return dict(found)


def test_kill_9_of_the_process_costs_nothing_but_time(workspace: Workspace, tmp_path: Path) -> None:
    """A fork of this process is killed as soon as it has saved twice."""
    asked = _asked(workspace, tmp_path, num_train_epochs=4)
    whole = run(attempt(workspace, asked, "job-whole"))
    first = attempt(workspace, asked, "job-killed")
    child = os.fork()
    if child == 0:
        with saving_each_step():
            run(first)
        os._exit(0)
    saved, until = first.checkpoints / "training", time.monotonic() + 120
    while len(list(saved.glob("checkpoint-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it had ended before"
    assert model_id(run(attempt(workspace, asked, "job-killed", first))) == model_id(whole)
