"""Former names of options, which are called today as trl, peft, transformers, scikit-learn or avalanche call them.

Calls, stored specs, cards and checkpoints may have the former names: they are read, and today's are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

_TRAINER = {
    "epochs": "num_train_epochs",
    "micro_batch": "per_device_train_batch_size",
    "warmup": "warmup_ratio",
    "schedule": "lr_scheduler_type",
    "clip": "max_grad_norm",
    "patience": "early_stopping_patience",
}
_LORA = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}

OLD_NAMES: Mapping[str, Mapping[str, str]] = {
    "ProbeParameters": {"strengths": "C"},
    "LoopParameters": _TRAINER,
    "FullParameters": _TRAINER,
    "LoraParameters": _LORA | {"form": "adapter_type"},
    "EwcParameters": {"strength": "ewc_lambda"},
    "ReplayParameters": {"buffer_size": "mem_size"},
    "LanguageParameters": _TRAINER | _LORA | {"steps": "max_steps", "recompute": "gradient_checkpointing"},
    "DpoParameters": {"loss": "loss_type", "smoothing": "label_smoothing", "imitation": "rpo_alpha"},
    "KtoParameters": {"good_weight": "desirable_weight", "bad_weight": "undesirable_weight"},
    "OrpoParameters": {"weight": "beta"},
    "SimpoParameters": {"margin": "simpo_gamma"},
    "RewardParameters": {"centre": "center_rewards_coefficient"},
    "ReinforcementParameters": {
        "generations": "num_generations",
        "max_new_tokens": "max_completion_length",
        "iterations": "num_iterations",
        "skip_cut": "mask_truncated_completions",
    },
    "GrpoParameters": {"loss": "loss_type", "scale": "scale_rewards", "level": "importance_sampling_level"},
    "RlooParameters": {"normalise": "normalize_advantages"},
    "EnvironmentSpec": {"rounds": "max_tool_calling_iterations"},
    "LanguageDistillParameters": {"divergence": "beta", "share": "lmbda", "layers": "num_hidden_layers"},
}
"""Class of options -> former name -> today's. A subclass has the former names of its bases, too."""


def with_new_names(options: type[BaseModel], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of `options` under today's names; where a value is there under both, both stay."""
    names = _renamed(options)
    found = {name if names.get(name) in values else names.get(name, name): value for name, value in values.items()}
    if isinstance(environment := found.get("environment"), Mapping):
        found["environment"] = {
            OLD_NAMES["EnvironmentSpec"].get(name, name): value for name, value in environment.items()
        }
    return found


class Options(BaseModel):
    """Options that are also read under their former names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        for old, new in _renamed(cls).items():
            if old in values and new in values:
                raise ValueError(f"{old!r} is the former name of {new!r}, and both are there: leave {old!r} out")
        return with_new_names(cls, values)


def _renamed(options: type[BaseModel]) -> dict[str, str]:
    return {old: new for each in options.__mro__ for old, new in OLD_NAMES.get(each.__name__, {}).items()}
