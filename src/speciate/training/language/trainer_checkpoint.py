"""What a checkpoint of a language model's training holds, and how it is restored: name by name, or it is refused.

    state.json           whose training it is, how far it was, scheduler and rates, and what a trainer has more
    weights, optimizer   parameters that are trained and buffers; the moments of those that were trained
    best                 the weights of the best evaluation, where there was one
    trainer_state.json   from which transformers' Trainer reads itself how far it was

transformers would keep the optimizer as a pickle and rename weights on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from speciate.errors import Code, SpeciateError
from speciate.training.networks import optimizer
from speciate.training.networks.training_checkpoints import CheckpointFacts, Tensors, TrainingState, check_names
from speciate.training.old_option_names import with_new_names

if TYPE_CHECKING:
    import torch


_TRAINER_STATE = "trainer_state.json"
_FORMAT = 1
_RESUMED = ("global_step", "epoch", "num_input_tokens_seen", "logging_steps", "eval_steps", "save_steps")
"""The part of the trainer's own state that is restored: the rest is made anew, or is ours."""


class Learning(NamedTuple):
    """What a step changes."""

    model: Any
    optimizer: Any
    """torch's, or accelerate's around it."""
    scheduler: Any


class Best(NamedTuple):
    """The best of the evaluations so far, with the weights of its step."""

    step: int
    loss: float
    weights: dict[str, torch.Tensor]
    held: dict[str, float]


class Progress(NamedTuple):
    """How far a training is, beside what it learned."""

    step: int
    ended: str | None
    """Why; None while it trains."""
    best: Best | None
    without_gain: int
    """Evaluations since the best one."""
    watch: list[Any]
    """The state of the watch over the loss."""


# Saving


def checkpoint_state(
    identity: Mapping[str, Any], progress: Progress, learning: Learning, more: CheckpointFacts,
    groups: Mapping[str, Tensors],
) -> TrainingState:  # fmt: skip
    """`more` and `groups`: what a trainer has beside this, as JSON and as tensors."""
    named, inner, best = trained_parameters(learning.model), _unwrapped(learning.optimizer), progress.best
    facts = {
        **identity,
        "step": progress.step,
        "ended": progress.ended,
        "best": [best.step, best.loss, best.held] if best else None,
        "without_gain": progress.without_gain,
        "watch": progress.watch,
        "optimized": sorted(name for name, each in named.items() if each in inner.state),
        "scheduler": _as_json(learning.scheduler.state_dict()),
        "rates": [float(group["lr"]) for group in inner.param_groups],
        "more": more,
    }
    tensors: dict[str, Tensors] = {
        **groups,
        "weights": trained_weights(learning.model),
        "optimizer": optimizer.optimizer_moments(inner, named),
        "best": best.weights if best else {},
    }
    return TrainingState(facts, tensors)


def checkpoint_identity(trainer: type[Any], said: Mapping[str, Any]) -> CheckpointFacts:
    """What must be the same for a checkpoint to fit. `said`: of the training, beside its trainer."""
    return {"format": _FORMAT, "trainer": trainer.__name__, "identity": _as_json(dict(said))}


def trainer_state(said: Any) -> dict[str, bytes]:
    """State of a Trainer as a file. `said`: transformers' TrainerState."""
    return {_TRAINER_STATE: json.dumps({name: getattr(said, name) for name in _RESUMED}).encode()}


# Restoring


def check_identity(found: TrainingState, own: Mapping[str, Any], options: type[BaseModel]) -> None:
    """Raises INVALID unless the checkpoint is of the training whose `identity` is `own`. `options`: the class of its
    hyperparameters, which may have been called otherwise when it was written."""
    known, identity = dict(found.facts), found.facts.get("identity", {})
    if "parameters" in identity:
        known["identity"] = identity | {"parameters": with_new_names(options, identity["parameters"])}
    for what, here in own.items():
        if known.get(what) != here:
            raise SpeciateError(
                Code.INVALID,
                f"The checkpoint is of another training: {what} was {known.get(what)!r} and is {here!r}.",
                "Call train_model again to begin anew.",
            )


def restore_weights(found: TrainingState, model: Any) -> None:
    check_names(found.tensors["weights"], trained_weights(model), "weights")
    copy_weights(found.tensors["weights"], model)


def restore_optimizer(found: TrainingState, learning: Learning) -> None:
    """Restore the optimizer and the scheduler."""
    facts, tensors = found
    check_names(tensors["optimizer"], optimizer.moment_names(facts["optimized"]), "moments")
    inner = _unwrapped(learning.optimizer)
    optimizer.set_moments(inner, trained_parameters(learning.model), tensors["optimizer"])
    learning.scheduler.load_state_dict(facts["scheduler"])
    for group, rate in zip(inner.param_groups, facts["rates"], strict=True):
        group["lr"] = rate


def read_progress(found: TrainingState, model: Any) -> Progress:
    facts, tensors = found
    check_names(tensors["best"], trained_weights(model) if facts["best"] else (), "best weights")
    best = None
    if facts["best"]:
        step, loss, held = facts["best"]
        best = Best(step, loss, copy_to_cpu(tensors["best"]), held)
    return Progress(facts["step"], facts["ended"], best, facts["without_gain"], facts["watch"])


def write_resume_folder(folder: Path, files: Mapping[str, bytes], micro: int) -> str:
    """The path of `folder`, made anew with the one file of which a trainer reads itself how far it was. `files`: those
    of the checkpoint; `micro`: examples in memory at once, which may be fewer than they were."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    state = json.loads(files[_TRAINER_STATE]) | {"train_batch_size": micro}
    (folder / _TRAINER_STATE).write_text(json.dumps(state))
    return str(folder)


# Weights


def trained_parameters(model: Any) -> dict[str, torch.Tensor]:
    """Parameters that learn, each once where several names share it."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """What training changes: parameters that learn, and buffers that are saved with them."""
    saved = model.state_dict().keys()
    return trained_parameters(model) | {name: each for name, each in model.named_buffers() if name in saved}


def copy_to_cpu(some: Tensors) -> dict[str, torch.Tensor]:
    """Copies on the processor: what is only kept takes none of a GPU's memory."""
    return {name: each.detach().to("cpu", copy=True) for name, each in some.items()}


def copy_weights(source: Tensors, model: Any) -> None:
    """Copy all weights in `source` into the model."""
    import torch

    with torch.no_grad():
        for name, tensor in trained_weights(model).items():
            tensor.copy_(source[name])


def _unwrapped(wrapped: Any) -> Any:
    """accelerate's wrapper aside."""
    return getattr(wrapped, "optimizer", wrapped)


def _as_json(said: Any) -> Any:
    """What JSON makes of it."""
    return json.loads(json.dumps(said, default=str))
