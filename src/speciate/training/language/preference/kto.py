"""Recipe `kto`: a language model learns from single answers that are good or bad (Ethayarajh et al. 2024).

Each pair gives two of them. It is held to the base model's answers.
"""

from __future__ import annotations

from speciate.training.language.preference.pairs import as_verdicts
from speciate.training.language.preference.preferring import preferred
from speciate.training.language.specs import KtoParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 2e-6


def fit(study: Study, parameters: KtoParameters) -> Chosen:
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    return preferred(
        study, parameters, KTOTrainer, KTOConfig, _USUAL_RATE,
        shown=as_verdicts,
        beta=parameters.beta,
        desirable_weight=parameters.good_weight,
        undesirable_weight=parameters.bad_weight,
    )  # fmt: skip
