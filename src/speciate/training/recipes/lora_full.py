"""Recipes `lora` and `full`: fine-tune a network, by low-rank adapters (LoRA, DoRA, IA3) or in every weight.

Adapters need less memory and forget less of what the base model knows (Hu et al. 2022; Liu et al. 2024; Liu et al.
2022). peft inserts and merges them; what is saved is an ordinary network. The steps are made by
networks/training_loop.py; language models get their LoRA in language/model_setup.py."""

from __future__ import annotations

from functools import partial
from typing import Any

from speciate.models.backbones.architectures import usual_rate
from speciate.models.backbones.contract import Backbone
from speciate.training.hyperparameters import FullParameters, LoraParameters
from speciate.training.model_selection import SelectedModel
from speciate.training.networks.train_network import NetworkMethod, train_all_weights, train_best_network
from speciate.training.planning.base_models import without_linear
from speciate.training.training_context import TrainingContext

_USUAL_LORA_RATE = 3e-3
"""About ten times that of full fine-tuning, whatever the model (Schulman et al. 2025, "LoRA Without Regret")."""


def fit_lora(context: TrainingContext, parameters: LoraParameters) -> SelectedModel:
    """Train low-rank adapters (LoRA, DoRA) or scaling vectors (IA3) beside the weights, and merge them at the end."""
    return train_best_network(context, parameters, lora_method(parameters))


def lora_method(parameters: LoraParameters) -> NetworkMethod:
    return NetworkMethod(partial(_add_adapters, parameters=parameters), _merge_adapters, lambda base: _USUAL_LORA_RATE)


def _add_adapters(backbone: Backbone, parameters: LoraParameters) -> None:
    """The base model's weights are frozen from here on."""
    from peft import IA3Config, LoraConfig, inject_adapter_in_model

    linear = _linear_layers(backbone.module)
    if not linear:
        raise without_linear(backbone.base_model)
    config: Any
    if parameters.adapter_type == "ia3":
        config = IA3Config(target_modules=linear, feedforward_modules=[])
    else:
        config = LoraConfig(
            r=parameters.r,
            lora_alpha=parameters.lora_alpha,  # type: ignore[arg-type]  # a float does
            lora_dropout=parameters.lora_dropout,
            target_modules=linear,
            use_dora=parameters.adapter_type == "dora",
        )
    inject_adapter_in_model(config, backbone.module)


def _linear_layers(module: Any) -> list[str]:
    """All of them: names from old recipes, such as `query`, are not those of today's models."""
    from torch import nn

    return [name for name, each in module.named_modules() if isinstance(each, nn.Linear)]


def _merge_adapters(backbone: Backbone) -> None:
    """The changes become part of the weights, and the layers are what they were before."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, each) for name, each in backbone.module.named_modules() if isinstance(each, BaseTunerLayer)]
    for name, layer in adapted:
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(backbone.module.get_submodule(parent), own, layer.get_base_layer())
    backbone.module.requires_grad_(True)


def fit_full(context: TrainingContext, parameters: FullParameters) -> SelectedModel:
    """Train every weight of a network, from published weights or from fresh ones (`new:`, `timm:`)."""
    return train_best_network(context, parameters, full_method(parameters))


def full_method(parameters: FullParameters) -> NetworkMethod:
    return NetworkMethod(train_all_weights, train_all_weights, usual_rate)
