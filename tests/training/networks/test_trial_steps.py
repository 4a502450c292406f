"""In which precision a network learns is found out once, and is a part of the training from then on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from speciate.errors import SpeciateError
from speciate.models import registry
from speciate.training import provenance
from speciate.training.hyperparameters import AskedPrecision
from speciate.training.networks import trial_steps
from speciate.training.networks.data_parallel import ALONE, Alone
from speciate.training.networks.optimizer import LoopParameters, Precision
from speciate.training.networks.stopping import Diverged
from speciate.training.networks.training_checkpoints import TrainingState
from speciate.training.networks.trial_steps import MeasuredTraining, PrecisionChoice, PrecisionComparison, StepCost
from speciate.training.old_option_names import OLD_NAMES
from speciate.training.resource_usage import CostMeter, Usage
from speciate.workspace.workspace import Workspace
from tests.training.networks.test_train_network import QUICK, flowers
from tests.training.networks.world import new_run, training
from tests.training.world import train_now

FASTER = PrecisionComparison(3.0, 2.0, [0.7, 0.6], [0.7001, 0.6])
SECOND = StepCost(Usage(1.0, 1.0), Usage(), Usage())


def tallied(parameters: LoopParameters | None = None) -> MeasuredTraining:
    plain = training(parameters)
    given = plain.backbone, plain.head, plain.task_head, plain._items, plain._targets, plain.parameters
    return MeasuredTraining(CostMeter(), *given, 1)


@pytest.mark.parametrize(
    ("found", "used", "said"),
    [
        (FASTER, "bfloat16", "1.50 times as fast"),
        (FASTER._replace(other_seconds=2.6), "float32", "less than 1.2"),
        (FASTER._replace(other_losses=[0.7, 0.62]), "float32", "its loss is another by 3.3%"),
        (FASTER._replace(losses=[0.7, 0.001], other_losses=[0.7, 0.002]), "bfloat16", "1.50 times"),
    ],
)
def test_it_must_be_faster_and_as_good(found: PrecisionComparison, used: str, said: str) -> None:
    settled = trial_steps.decide_precision(found)
    assert settled.used == used
    assert said in settled.why
    assert settled.ratio == pytest.approx(found.seconds / found.other_seconds, abs=1e-3)


def settle(asked: AskedPrecision, seconds: float, tried: Any = None) -> PrecisionChoice:
    """Without `tried` there is nothing that a step could be asked of."""
    return trial_steps.choose_precision(asked, tried, "cpu", SECOND, seconds)


@pytest.mark.parametrize("flags", [frozenset(), frozenset({"avx2", "avx512f"})])
def test_a_processor_without_it_costs_nothing(monkeypatch: pytest.MonkeyPatch, flags: frozenset[str]) -> None:
    monkeypatch.setattr(provenance, "processor_flags", lambda: flags)
    assert settle("auto", 1e9) == PrecisionChoice("float32", "this device has no bfloat16 of its own")
    assert settle("bfloat16", 1e9).used == "bfloat16"


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_a_short_training_is_not_worth_the_trial(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.setattr(provenance, "processor_flags", lambda: frozenset({flag}))

    class Tried:
        def compare(self) -> PrecisionComparison:
            return FASTER

    enough = 50.0 * trial_steps.COMPARED_STEPS
    assert settle("auto", enough - 1).used == "float32"
    assert settle("auto", enough, Tried()).used == "bfloat16"
    assert settle("float32", enough).used == "float32"


@pytest.mark.parametrize("error", [RuntimeError("not implemented for 'BFloat16'"), Diverged(1, 0.1, "no number")])
def test_what_fails_in_it_learns_in_float32(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(trial_steps, "has_native_bfloat16", lambda device: True)

    class Failing:
        team = ALONE

        def compare(self) -> PrecisionComparison:
            raise error

    assert settle("auto", 1e9, Failing()) == PrecisionChoice("float32", "bfloat16 failed")


def test_a_team_that_waits_in_a_step_is_not_left_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_steps, "has_native_bfloat16", lambda device: True)

    class Waited(Alone):
        size = 2

    class Failing:
        team = Waited()

        def compare(self) -> PrecisionComparison:
            raise RuntimeError("not implemented for 'BFloat16'")

    with pytest.raises(RuntimeError, match="BFloat16"):
        settle("auto", 1e9, Failing())


def test_the_same_steps_are_taken_in_both() -> None:
    tried = tallied()
    found = tried.compare()
    assert found.losses != found.other_losses
    assert found.losses == pytest.approx(found.other_losses, rel=0.02)
    alone = training()
    with alone.random_states:
        assert [alone.advance().loss for _ in found.losses] == list(found.losses)
    assert min(found.seconds, found.other_seconds) > 0


def learned(precision: Precision) -> torch.Tensor:
    learning = training(LoopParameters(num_train_epochs=1, batch_size=8, precision=precision))
    learning.run_until(learning.total)
    return torch.cat([each.detach().flatten() for each in learning.head.parameters()])


def test_weights_stay_float32_and_learn_nearly_the_same() -> None:
    full, half = learned("float32"), learned("bfloat16")
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, rtol=0.05, atol=0.005)


def test_a_checkpoint_of_the_other_precision_is_refused() -> None:
    state = training(LoopParameters(num_train_epochs=1, batch_size=8)).state()
    with pytest.raises(SpeciateError, match="another training"):
        training(LoopParameters(num_train_epochs=1, batch_size=8, precision="bfloat16")).restore(state)


def test_a_checkpoint_with_former_names_of_options_is_resumed() -> None:
    learning = training(LoopParameters(num_train_epochs=2, batch_size=8, warmup_ratio=0.2))
    learning.run_until(3)
    facts, tensors = learning.state()
    former = {new: old for old, new in OLD_NAMES["LoopParameters"].items()}
    facts["parameters"] = {former.get(name, name): value for name, value in facts["parameters"].items()}
    assert {"epochs", "warmup", "clip"} <= facts["parameters"].keys()
    resumed = training(LoopParameters(num_train_epochs=2, batch_size=8, warmup_ratio=0.2))
    resumed.restore(TrainingState(facts, tensors))
    for each in (learning, resumed):
        each.run_until(each.total)
    assert resumed.digest() == learning.digest()


def test_later_attempts_have_what_the_first_settled(tmp_path: Path) -> None:
    first, second = new_run(tmp_path), new_run(tmp_path, 2)
    assert trial_steps.kept_choice(second) is None
    trial_steps.keep_choice(first, settled := trial_steps.decide_precision(FASTER))
    assert trial_steps.kept_choice(first) == trial_steps.kept_choice(second) == settled


@pytest.mark.slow
def test_what_was_found_out_is_told_recorded_and_repeated(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowers(workspace)
    monkeypatch.setattr(trial_steps, "_WORTH_SECONDS", 0.0)
    monkeypatch.setattr(trial_steps, "_TRIAL_SHARE", 0)
    monkeypatch.setattr(trial_steps, "has_native_bfloat16", lambda device: True)
    monkeypatch.setattr(MeasuredTraining, "compare", lambda self: FASTER)
    spec = {"dataset": "flowers", "method": "full", "base_model": "new:tab-resnet"}
    report = train_now(workspace, name="net", hyperparameters=QUICK, **spec)["report"]
    assert report["precision"] | {"loss_difference": 0} == {
        "used": "bfloat16", "why": "a step in bfloat16 is 1.50 times as fast", "ratio": 1.5, "loss_difference": 0,
    }  # fmt: skip

    def never(self: MeasuredTraining) -> PrecisionComparison:
        raise AssertionError("it was known")

    monkeypatch.setattr(MeasuredTraining, "compare", never)
    again = train_now(workspace, "job-y", like="net@v1")["report"]
    assert again["precision"]["used"] == "bfloat16"
    assert again["repetition"]["same_model"]
    for name, asked in (("half", "bfloat16"), ("full", "float32")):
        told = train_now(workspace, f"job-{name}", name=name, hyperparameters=QUICK | {"precision": asked}, **spec)
        assert told["report"]["precision"]["why"] == "as asked"
    ids = [registry.resolve(workspace.database, workspace.folders, name).card.id for name in ("net", "half", "full")]
    assert ids[0] == ids[1] != ids[2]
