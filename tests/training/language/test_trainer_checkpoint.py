"""What a checkpoint of a language model's training holds, and what of it goes back: all of it, or nothing."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.models.language.chat_templates import ChatFormat, TokenizedExample
from speciate.training.language import model_setup, trainer_checkpoint
from speciate.training.language.tokenized_examples import TokenizedSplits
from speciate.training.language.trainer_checkpoint import Best, Learning, Progress
from speciate.training.language_hyperparameters import EnvironmentSpec, GrpoParameters
from speciate.training.networks.training_checkpoints import TrainingState
from speciate.training.old_option_names import OLD_NAMES
from speciate.training.recipes.preference import PairTokens

if TYPE_CHECKING:
    import torch


def _learning() -> Learning:
    """One step of a linear layer whose bias stays as it is, beside a norm with buffers."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model[0].bias.requires_grad = False
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    model(torch.rand(4, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    return Learning(model, optimizer, scheduler)


def _best(learning: Learning) -> Best:
    return Best(
        1, 0.5, trainer_checkpoint.copy_to_cpu(trainer_checkpoint.trained_weights(learning.model)), {"accuracy": 0.9}
    )


def _kept(learning: Learning, best: Best | None) -> TrainingState:
    """Through JSON, as a checkpoint is."""
    progress = Progress(3, None, best, 2, [1, 0, 0.5, 0.5, 0.25])
    identity = trainer_checkpoint.checkpoint_identity(dict, {"seed": 1})
    facts, tensors = trainer_checkpoint.checkpoint_state(identity, progress, learning, {"seen": 1}, {"good": {}})
    return TrainingState(json.loads(json.dumps(facts)), tensors)


def test_the_names_of_what_is_kept_are_those_that_earlier_checkpoints_have() -> None:
    learning = _learning()
    facts, tensors = _kept(learning, _best(learning))
    assert list(facts) == [
        "format", "trainer", "identity", "step", "ended", "best", "without_gain", "watch", "optimized", "scheduler",
        "rates", "more",
    ]  # fmt: skip
    assert (facts["format"], facts["trainer"], facts["best"]) == (1, "dict", [1, 0.5, {"accuracy": 0.9}])
    assert sorted(tensors) == ["best", "good", "optimizer", "weights"]
    weights = {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert tensors["weights"].keys() == tensors["best"].keys() == weights
    assert facts["optimized"] == ["0.weight", "1.bias", "1.weight"]


def test_what_is_kept_goes_back_where_it_was() -> None:
    kept, other = _learning(), _learning()
    _change(other.model)
    other.optimizer.step()
    other.scheduler.step()
    found = _kept(kept, _best(kept))
    trainer_checkpoint.restore_weights(found, other.model)
    trainer_checkpoint.restore_optimizer(found, other)
    assert _numbers(trainer_checkpoint.trained_weights(other.model)) == _numbers(
        trainer_checkpoint.trained_weights(kept.model)
    )
    assert other.scheduler.state_dict() == kept.scheduler.state_dict()
    assert other.optimizer.param_groups[0]["lr"] == kept.optimizer.param_groups[0]["lr"]
    before, after = _kept(kept, None).tensors["optimizer"], _kept(other, None).tensors["optimizer"]
    assert _numbers(after) == _numbers(before)
    progress = trainer_checkpoint.read_progress(found, other.model)
    assert progress.best is not None
    assert progress._replace(best=None) == Progress(3, None, None, 2, [1, 0, 0.5, 0.5, 0.25])
    assert progress.best[:2] == (1, 0.5)
    assert trainer_checkpoint.read_progress(_kept(kept, None), other.model).best is None


def test_a_checkpoint_of_another_training_is_refused_by_name() -> None:
    found = _kept(_learning(), None)
    trainer_checkpoint.check_identity(found, trainer_checkpoint.checkpoint_identity(dict, {"seed": 1}), GrpoParameters)
    for other, what in (((dict, {"seed": 2}), "identity"), ((list, {"seed": 1}), "trainer")):
        with pytest.raises(SpeciateError, match=f"another training: {what} was") as refusal:
            trainer_checkpoint.check_identity(found, trainer_checkpoint.checkpoint_identity(*other), GrpoParameters)
        assert refusal.value.code == Code.INVALID


def test_a_checkpoint_with_former_names_of_options_is_of_the_same_training() -> None:
    parameters = GrpoParameters(num_train_epochs=4, loss_type="grpo", environment=EnvironmentSpec(file="desk.py:Desk"))
    now = parameters.model_dump(mode="json", exclude={"max_completion_length"})
    own = trainer_checkpoint.checkpoint_identity(dict, {"seed": 1, "parameters": now})
    former = {new: old for each in GrpoParameters.__mro__ for old, new in OLD_NAMES.get(each.__name__, {}).items()}
    written = {former.get(name, name): value for name, value in now.items()}
    written["environment"]["rounds"] = written["environment"].pop("max_tool_calling_iterations")
    assert {"epochs", "loss", "generations"} <= written.keys()
    found = _kept(_learning(), None)
    found.facts["identity"] = {"seed": 1, "parameters": written}
    trainer_checkpoint.check_identity(found, json.loads(json.dumps(own)), GrpoParameters)
    found.facts["identity"]["parameters"]["epochs"] = 5
    with pytest.raises(SpeciateError, match="another training: identity was"):
        trainer_checkpoint.check_identity(found, own, GrpoParameters)


def test_digests_are_those_of_earlier_checkpoints() -> None:
    """Of what `repr` said of the same examples before their classes had other names."""
    said = "Lessons(train=[Lesson(ids=[1, 2], labels=[-100, 2])], held=[])"
    found = TokenizedSplits([TokenizedExample([1, 2], [-100, 2])], [])
    pairs = [PairTokens([1], [2], [3])], ChatFormat(template="plain")
    written = "[Tokens(asked=[1], chosen=[2], rejected=[3])]", "Form(template='plain', system=None, begins=None)"
    assert model_setup.digest(found) == hashlib.sha256(said.encode()).hexdigest()
    assert model_setup.digest(*pairs) == hashlib.sha256("".join(written).encode()).hexdigest()


def test_weights_and_moments_of_another_model_are_refused_by_name() -> None:
    import torch

    found, learning = _kept(_learning(), None), _learning()
    learning.model.append(torch.nn.Linear(2, 2))
    with pytest.raises(SpeciateError, match=r"weights are not those of this training; missing: '2.bias', '2.weight'"):
        trainer_checkpoint.restore_weights(found, learning.model)
    found.facts["optimized"].append("2.weight")
    with pytest.raises(SpeciateError, match=r"moments are not those of this training; missing: '2.weight.exp_avg'"):
        trainer_checkpoint.restore_optimizer(found, learning)


def test_weights_that_are_kept_are_copies_on_the_processor() -> None:
    import torch

    learned = torch.nn.Parameter(torch.ones(2))
    kept = trainer_checkpoint.copy_to_cpu({"w": learned})["w"]
    with torch.no_grad():
        learned += 1
    assert kept.tolist() == [1, 1]
    assert (kept.device.type, kept.requires_grad) == ("cpu", False)


def _change(model: Any) -> None:
    import torch

    with torch.no_grad():
        for each in trainer_checkpoint.trained_weights(model).values():
            each.add_(1)


def _numbers(tensors: Any) -> dict[str, Any]:
    named: dict[str, torch.Tensor] = dict(tensors)
    return {name: each.tolist() for name, each in named.items()}
