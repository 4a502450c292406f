"""Recipe `dpo`: a language model learns which of two answers is better, from pairs (direct preference optimization).

Rafailov et al. 2023; ipo is Azar et al. 2023, robust Chowdhury et al. 2024. It is held to the base model's answers:
with low-rank changes that is the model without them, so that no second copy is in memory.
"""

from __future__ import annotations

from speciate.training.language.preference.preferring import preferred
from speciate.training.language.specs import DpoParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 2e-6


def fit(study: Study, parameters: DpoParameters) -> Chosen:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    return preferred(
        study, parameters, DPOTrainer, DPOConfig, _USUAL_RATE,
        beta=parameters.beta,
        loss_type=[parameters.loss, *(["sft"] if parameters.imitation else [])],
        loss_weights=[1.0, parameters.imitation] if parameters.imitation else None,
        label_smoothing=parameters.smoothing,
    )  # fmt: skip
