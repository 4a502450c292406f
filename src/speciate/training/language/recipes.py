"""The methods that train language models, in one table: what is entered here is entered in specs.py, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from speciate.training.language import sft
from speciate.training.language.preference import dpo, kto, orpo, reward, simpo
from speciate.training.language.reinforcement import grpo, rloo
from speciate.training.selection import Chosen
from speciate.training.study import Study

LANGUAGE_RECIPES: dict[str, Callable[[Study, Any], Chosen]] = {
    "sft": sft.fit,
    "dpo": dpo.fit,
    "kto": kto.fit,
    "orpo": orpo.fit,
    "simpo": simpo.fit,
    "reward": reward.fit,
    "grpo": grpo.fit,
    "rloo": rloo.fit,
}
