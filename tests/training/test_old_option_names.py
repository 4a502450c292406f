"""Options under their former names: calls, stored specs, cards and checkpoints mean what they meant."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.training import train
from speciate.training.hyperparameters import EwcParameters, LoraParameters, Parameters
from speciate.training.language_hyperparameters import (
    DpoParameters,
    EnvironmentSpec,
    GrpoParameters,
    KtoParameters,
    LanguageDistillParameters,
    SftParameters,
)
from speciate.training.networks.optimizer import LoopParameters
from speciate.training.old_option_names import OLD_NAMES, with_new_names
from speciate.training.train_spec import PARAMETERS, Payload, TrainSpec, parameters_of
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset, thirds

NETWORK: dict[str, Any] = {
    "epochs": 7, "micro_batch": 4, "warmup": 0.2, "schedule": "constant", "clip": 2.0, "patience": 3,
}  # fmt: skip
LANGUAGE: dict[str, Any] = {
    **NETWORK, "steps": 9, "recompute": True, "rank": 4, "alpha": 8.0, "changes": "full", "max_new_tokens": 5,
}  # fmt: skip
REINFORCED: dict[str, Any] = {**LANGUAGE, "generations": 4, "iterations": 2, "skip_cut": True}
STORED: dict[tuple[str, str], dict[str, Any]] = {
    ("classical", ""): {"candidates": ["ridge"]},
    ("probe", ""): {"strengths": [2.0, 4.0]},
    ("lora", ""): {**NETWORK, "form": "dora", "rank": 4, "alpha": 3.0, "dropout": 0.1},
    ("full", ""): NETWORK,
    ("sft", "text-generation"): {**LANGUAGE, "dropout": 0.1},
    ("sft", "image-text-to-text"): {**LANGUAGE, "eyes": "learned"},
    ("dpo", "text-generation"): {**LANGUAGE, "loss": "robust", "smoothing": 0.2, "imitation": 0.5},
    ("kto", "text-generation"): {**LANGUAGE, "good_weight": 2.0, "bad_weight": 3.0},
    ("orpo", "text-generation"): {**LANGUAGE, "weight": 0.3},
    ("simpo", "text-generation"): {**LANGUAGE, "beta": 3.0, "margin": 0.7},
    ("reward", "preference"): {**LANGUAGE, "centre": 0.01},
    ("grpo", "text-generation"): {
        **REINFORCED, "loss": "grpo", "scale": "batch", "level": "sequence",
        "environment": {"file": "desk.py:Desk", "rounds": 2, "weight": 0.5},
    },
    ("rloo", "text-generation"): {**REINFORCED, "normalise": True},
    ("replay", ""): {**NETWORK, "buffer_size": 9, "share": 0.3},
    ("der", ""): {**NETWORK, "buffer_size": 9, "alpha": 0.2, "beta": 0.0},
    ("lwf", ""): {**NETWORK, "alpha": 2.0},
    ("ewc", ""): {**NETWORK, "strength": 7.0},
    ("slda", ""): {"shrinkage": 0.1},
    ("distill", ""): {**NETWORK, "alpha": 0.4, "temperature": 3.0},
    ("distill", "text-generation"): {
        **LANGUAGE, "answers": "student", "divergence": 0.5, "share": 0.25, "layers": 2, "temperature": 2.0,
    },
}  # fmt: skip
"""Method and task -> hyperparameters as a spec of before has them."""


def _reviews(workspace: Workspace) -> None:
    labels = ["good" if i % 4 < 2 else "bad" for i in range(60)]
    make_dataset(
        workspace, "reviews", "text", {"text": [f"{label} {i}" for i, label in enumerate(labels)]}, labels=labels,
        splits=thirds(60), inputs=["text"],
    )  # fmt: skip


def test_every_method_is_here() -> None:
    assert {method for method, _ in STORED} == PARAMETERS.keys()


@pytest.mark.parametrize(("method", "task"), STORED)
def test_a_stored_spec_makes_the_same_parameters_as_one_of_today(method: str, task: str) -> None:
    options, stored = parameters_of(method, task), STORED[method, task]
    today = with_new_names(options, stored)
    assert today.keys() <= options.model_fields.keys()
    parameters = options.model_validate(stored)
    assert parameters == options.model_validate(today)
    given = parameters.model_dump(exclude_unset=True, mode="json", exclude={"environment"})
    assert given == {name: value for name, value in today.items() if name != "environment"}
    assert options.model_validate(parameters.model_dump(mode="json")) == parameters


@pytest.mark.parametrize(("method", "task"), STORED)
def test_a_queued_payload_is_read(method: str, task: str) -> None:
    manifest = Manifest(name="d", version=1, id="x", modality="text", parts=(), columns={}, rows=1)
    stored = {
        "spec": {"name": "m", "dataset": "d", "method": method, "hyperparameters": STORED[method, task]},
        "manifest": manifest.model_dump(mode="json"), "dataset": "d@v1", "task": task, "target": None,
        "objective": {"metric": "accuracy"}, "threads": 1, "parameters": STORED[method, task],
        "dearer": [{"method": "full", "base_model": "new:bert"}],
    }  # fmt: skip
    payload = Payload.model_validate(stored)
    assert payload.parameters == parameters_of(method, task).model_validate(STORED[method, task])
    assert payload.model_dump(mode="json")["dearer"] == stored["dearer"]


def test_the_names_are_those_of_the_libraries() -> None:
    peft = pytest.importorskip("peft")
    trl = pytest.importorskip("trl")
    for ours, theirs in (
        (SftParameters, trl.SFTConfig), (DpoParameters, trl.DPOConfig), (KtoParameters, trl.KTOConfig),
        (GrpoParameters, trl.GRPOConfig),
    ):  # fmt: skip
        known = {*theirs.__dataclass_fields__, *peft.LoraConfig.__dataclass_fields__}
        new = {new for each in ours.__mro__ for new in OLD_NAMES.get(each.__name__, {}).values()}
        # of older versions (`warmup_ratio`, `rpo_alpha`), and of transformers' callback
        assert new - known <= {"warmup_ratio", "early_stopping_patience", "rpo_alpha"}


@pytest.mark.parametrize("options", [LoraParameters, EwcParameters, LoopParameters, EnvironmentSpec, KtoParameters])
def test_no_former_name_is_a_name_of_today(options: type[Parameters]) -> None:
    former = {old for each in options.__mro__ for old in OLD_NAMES.get(each.__name__, {})}
    assert former
    assert not former & options.model_fields.keys()


def test_a_value_under_both_names_is_refused(workspace: Workspace) -> None:
    with pytest.raises(ValidationError, match="'layers' is the former name of 'num_hidden_layers'"):
        LanguageDistillParameters.model_validate({"layers": 1, "num_hidden_layers": 2})
    _reviews(workspace)
    spec = TrainSpec(name="m", dataset="reviews", method="probe", hyperparameters={"strengths": [1], "C": [2]})
    with pytest.raises(SpeciateError, match="'strengths' is the former name of 'C'") as refused:
        train.plan(spec, workspace)
    assert refused.value.code is Code.INVALID


def test_a_plan_records_the_names_of_today(workspace: Workspace) -> None:
    _reviews(workspace)
    spec = TrainSpec(
        name="m", dataset="reviews", method="full", base_model="new:bert", hyperparameters={"epochs": 2, "clip": 3.0}
    )
    pytest.importorskip("torch")
    payload = Payload.model_validate(train.plan(spec, workspace).payload)
    assert payload.spec.hyperparameters == {"num_train_epochs": 2, "max_grad_norm": 3.0}
