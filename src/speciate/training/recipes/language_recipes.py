"""Method -> its recipe, of methods that train language models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from speciate.training.model_selection import SelectedModel
from speciate.training.recipes import dpo_kto_orpo_simpo, grpo_rloo, reward_model, sft
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

