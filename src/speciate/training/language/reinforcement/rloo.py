"""Recipe `rloo`: a language model learns from what its own answers are worth (REINFORCE leave-one-out).

Ahmadian et al. 2024: each answer is compared with the mean of the other answers to its question, and learned as a
whole. The distance to the base model is taken from the reward.
"""

from __future__ import annotations

from speciate.training.language.reinforcement.rewarded import learned
from speciate.training.language.specs import RlooParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study


def fit(study: Study, parameters: RlooParameters) -> Chosen:
    from trl.trainer.rloo_config import RLOOConfig
    from trl.trainer.rloo_trainer import RLOOTrainer

    return learned(study, parameters, RLOOTrainer, RLOOConfig, normalize_advantages=parameters.normalise)
