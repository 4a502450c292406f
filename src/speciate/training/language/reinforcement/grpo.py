"""Recipe `grpo`: a language model learns from what its own answers are worth (group relative policy optimization).

Shao et al. 2024: several answers to a question are compared with each other, and what is better than their mean becomes
likelier. `loss` has later forms of it: DAPO (Yu et al. 2025), Dr. GRPO (Liu et al. 2025), CISPO (MiniMax 2025); with
`level=sequence` it is GSPO (Zheng et al. 2025).
"""

from __future__ import annotations

from speciate.training.language.reinforcement.rewarded import learned
from speciate.training.language.specs import GrpoParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study


def fit(study: Study, parameters: GrpoParameters) -> Chosen:
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    return learned(
        study, parameters, GRPOTrainer, GRPOConfig,
        loss_type=parameters.loss,
        scale_rewards=parameters.scale,
        epsilon_high=parameters.epsilon_high,
        importance_sampling_level=parameters.level,
    )  # fmt: skip
