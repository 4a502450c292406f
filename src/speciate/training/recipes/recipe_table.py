"""Method -> its recipe, `fit(context, parameters)`. A new method is entered here and in the hyperparameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from speciate.training.networks import train_network
from speciate.training.recipes import (
    classical,
    continual,
    distill_network,
    dpo_kto_orpo_simpo,
    grpo_rloo,
    lora_full,
    probe,
    reward_model,
    sft,
)
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.training_context import TrainingContext

LANGUAGE_RECIPES: dict[str, Callable[[TrainingContext, Any], SelectedModel]] = {
    "sft": sft.fit_sft,
    "dpo": dpo_kto_orpo_simpo.fit_dpo,
    "kto": dpo_kto_orpo_simpo.fit_kto,
    "orpo": dpo_kto_orpo_simpo.fit_orpo,
    "simpo": dpo_kto_orpo_simpo.fit_simpo,
    "reward": reward_model.fit_reward_model,
    "grpo": grpo_rloo.fit_grpo,
    "rloo": grpo_rloo.fit_rloo,
}


RECIPES: dict[str, Callable[[TrainingContext, Any], SelectedModel]] = {
    "classical": classical.fit_classical,
    "probe": probe.fit_probe,
    "lora": lora_full.fit_lora,
    "full": lora_full.fit_full,
    **LANGUAGE_RECIPES,
    "replay": continual.fit_replay,
    "der": continual.fit_der,
    "lwf": continual.fit_lwf,
    "ewc": continual.fit_ewc,
    "distill": distill_network.fit_distill,
    "slda": continual.fit_slda,
}
METHODS: dict[str, Callable[[Any], train_network.NetworkMethod]] = {
    "lora": lora_full.lora_method,
    "full": lora_full.full_method,
    "replay": continual.replay_method,
    "der": continual.der_method,
    "lwf": continual.lwf_method,
    "ewc": continual.ewc_method,
    "distill": distill_network.distill_method,
}
"""Method -> what makes its `NetworkMethod`, for the methods that train networks."""
