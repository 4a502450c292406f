"""Recipe `lora`: small changes to a base model's weights learn (LoRA, DoRA, IA3), and are merged into them at the end.

Needs less memory than `full`, and forgets less of what the base model knows (Hu et al. 2022; Liu et al. 2024; Liu et
al. 2022). peft puts the changes in and merges them; what is saved is an ordinary network.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from speciate.models.backbones.contract import Backbone
from speciate.training.bases import without_linear
from speciate.training.network.choosing import Method, choose
from speciate.training.selection import Chosen
from speciate.training.specs import LoraParameters
from speciate.training.study import Study

_USUAL_RATE = 3e-3
"""About ten times that of full fine-tuning, whatever the model (Schulman et al. 2025, "LoRA Without Regret")."""


def fit(study: Study, parameters: LoraParameters) -> Chosen:
    return choose(study, parameters, method(parameters))


def method(parameters: LoraParameters) -> Method:
    return Method(partial(_adapt, parameters=parameters), _merge, lambda base: _USUAL_RATE)


def _adapt(backbone: Backbone, parameters: LoraParameters) -> None:
    """The base model's weights stand still from here on."""
    from peft import IA3Config, LoraConfig, inject_adapter_in_model

    linear = _linear_layers(backbone.module)
    if not linear:
        raise without_linear(backbone.base_model)
    config: Any
    if parameters.form == "ia3":
        config = IA3Config(target_modules=linear, feedforward_modules=[])
    else:
        config = LoraConfig(
            r=parameters.rank,
            lora_alpha=parameters.alpha,  # type: ignore[arg-type]  # a float does
            lora_dropout=parameters.dropout,
            target_modules=linear,
            use_dora=parameters.form == "dora",
        )
    inject_adapter_in_model(config, backbone.module)


def _linear_layers(module: Any) -> list[str]:
    """All of them: names from old recipes, such as `query`, are not those of today's models."""
    from torch import nn

    return [name for name, each in module.named_modules() if isinstance(each, nn.Linear)]


def _merge(backbone: Backbone) -> None:
    """The changes become part of the weights, and the layers are what they were before."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, each) for name, each in backbone.module.named_modules() if isinstance(each, BaseTunerLayer)]
    for name, layer in adapted:
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(backbone.module.get_submodule(parent), own, layer.get_base_layer())
    backbone.module.requires_grad_(True)
