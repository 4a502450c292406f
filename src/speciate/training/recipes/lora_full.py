"""Recipes `lora` and `full`: fine-tune a network, by low-rank adapters (LoRA, DoRA, IA3) or in every weight.

Adapters need less memory and forget less of what the base model knows (Hu et al. 2022; Liu et al. 2024; Liu et al.
2022). peft inserts and merges them; what is saved is an ordinary network. The steps are made by
networks/training_loop.py; language models get their LoRA in language/model_setup.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from speciate.models.backbones.architectures import usual_rate
from speciate.models.backbones.contract import Network
from speciate.training.hyperparameters import FullParameters, LoraParameters
from speciate.training.networks.train_network import NetworkMethod, train_all_weights, train_best_network
from speciate.training.planning.base_models import without_linear
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.training_context import TrainingContext

_USUAL_LORA_RATE = 3e-3
"""About ten times that of full fine-tuning, whatever the model (Schulman et al. 2025, "LoRA Without Regret")."""


def fit_lora(context: TrainingContext, parameters: LoraParameters) -> SelectedModel:
    """Train low-rank adapters (LoRA, DoRA) or scaling vectors (IA3) beside the weights, and merge them at the end."""
    return train_best_network(context, parameters, lora_method(parameters))


def lora_method(parameters: LoraParameters) -> NetworkMethod:
    return NetworkMethod(partial(_add_adapters, parameters=parameters), _merge_adapters, lambda base: _USUAL_LORA_RATE)


def _add_adapters(backbone: Network, parameters: LoraParameters) -> None:
    """The base model's weights are frozen from here on, but for those of a published head that depend on the labels."""
    import torch.distributed
    from peft import IA3Config, LoraConfig, inject_adapter_in_model

    if torch.distributed.is_available():
        import torch.distributed.tensor  # peft looks into it, and what imported transformers lean left it out
    of_labels = tuple(getattr(backbone, "label_tensors", ()))
    linear = adaptable_layers(backbone.module, of_labels)
    if not linear:
        raise without_linear(backbone.base_model)
    targets = "|".join(map(re.escape, linear))  # of a list, every name that ends alike would be adapted
    config: Any
    if parameters.adapter_type == "ia3":
        config = IA3Config(target_modules=targets, feedforward_modules=[])
    else:
        config = LoraConfig(
            r=parameters.r,
            lora_alpha=parameters.lora_alpha,  # type: ignore[arg-type]  # a float does
            lora_dropout=parameters.lora_dropout,
            target_modules=targets,
            use_dora=parameters.adapter_type == "dora",
        )
    with _with_embeddings(backbone.module):
        inject_adapter_in_model(config, backbone.module)
    for name in of_labels:
        backbone.module.get_parameter(name).requires_grad_(True)


@contextmanager
def _with_embeddings(module: Any) -> Iterator[None]:
    """peft asks for the embeddings of words, and some networks without any raise (Deformable DETR)."""
    from torch.nn import Identity

    try:
        module.get_input_embeddings()
    except NotImplementedError:
        module.get_input_embeddings = Identity
        try:
            yield
        finally:
            del module.get_input_embeddings
    except AttributeError:
        yield  # no class of transformers
    else:
        yield


def adaptable_layers(module: Any, of_labels: tuple[str, ...] = ()) -> list[str]:
    """Linear layers that an adapter may change, by name: names from old recipes, such as `query`, are not those of
    today's models.

    Left out are layers that share their weight with another one, such as a tied `lm_head`: merging would change both.
    So are layers inside torch's own MultiheadAttention, which reads their weights past any adapter, and those whose
    parameters are `of_labels`.
    """
    from torch import nn

    owners: dict[int, int] = {}
    for each in module.modules():
        for parameter in each.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    inside = set(_inside_attention(module))
    whole = {name.rpartition(".")[0] for name in of_labels}
    return [
        name
        for name, each in module.named_modules()
        if isinstance(each, nn.Linear) and owners[id(each.weight)] == 1 and name not in inside | whole
    ]


def _inside_attention(module: Any) -> Iterator[str]:
    from torch import nn

    for name, each in module.named_modules():
        if isinstance(each, nn.MultiheadAttention):
            yield from (f"{name}.{inner}" if name else inner for inner, _ in each.named_modules() if inner)


def _merge_adapters(backbone: Network) -> tuple[str, ...]:
    """The changes become part of the weights, and the layers are what they were before. Returns the layers whose
    adapters are as they began: their input is always zero, or nothing reads them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, each) for name, each in backbone.module.named_modules() if isinstance(each, BaseTunerLayer)]
    silent = tuple(name for name, each in adapted if _is_silent(each))
    for name, layer in adapted:
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(backbone.module.get_submodule(parent), own, layer.get_base_layer())
    backbone.module.requires_grad_(True)
    return silent


def _is_silent(layer: Any) -> bool:
    """Whether LoRA left the layer as it was: its second matrix begins at zero."""
    later = getattr(layer, "lora_B", None) or {}
    return bool(later) and all(not each.weight.any() for each in later.values())


def fit_full(context: TrainingContext, parameters: FullParameters) -> SelectedModel:
    """Train every weight of a network, from published weights or from fresh ones (`new:`, `timm:`)."""
    return train_best_network(context, parameters, full_method(parameters))


def full_method(parameters: FullParameters) -> NetworkMethod:
    return NetworkMethod(train_all_weights, train_all_weights, usual_rate)
