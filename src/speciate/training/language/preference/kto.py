"""Recipe `kto`: a language model learns from single answers that are good or bad (Ethayarajh et al. 2024).

Each pair gives two of them. It is held to the base model's answers, the distance to which is measured in every batch
by answers to other questions: so at least two are in memory at once, and how many is no matter of roundings alone.
"""

from __future__ import annotations

from functools import partial

from speciate.errors import Code, SpeciateError
from speciate.training.language.memory import micro_batch
from speciate.training.language.preference.pairs import as_verdicts
from speciate.training.language.preference.preferring import preferred
from speciate.training.language.specs import KtoParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 2e-6


def fit(study: Study, parameters: KtoParameters) -> Chosen:
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    together = micro_batch(parameters.batch_size, parameters.micro_batch, study.run.memory_retries)
    if together < 2:
        raise SpeciateError(
            Code.INVALID,
            "kto measures the distance to the base model by the answers to other questions in memory, and there is "
            "one answer in memory at a time.",
            "Call train_model again with an even batch_size and a smaller hyperparameters={'max_length': ...}, with "
            "{'recompute': true}, or with method='dpo'.",
        )
    return preferred(
        study, parameters, KTOTrainer, KTOConfig, _USUAL_RATE,
        shown=partial(as_verdicts, seed=study.payload.spec.seed, together=together),
        beta=parameters.beta,
        desirable_weight=parameters.good_weight,
        undesirable_weight=parameters.bad_weight,
    )  # fmt: skip
