"""Recipe `simpo`: a language model learns which of two answers is better, by their mean log-probability per token.

Meng et al. 2024. No base model is held to: one copy is in memory. trl has it among its experiments, as a loss of CPO.
"""

from __future__ import annotations

from speciate.training.language.preference.pairs import as_sequences
from speciate.training.language.preference.preferring import preferred
from speciate.training.language.specs import SimpoParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 2e-6


def fit(study: Study, parameters: SimpoParameters) -> Chosen:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    return preferred(
        study, parameters, CPOTrainer, CPOConfig, _USUAL_RATE,
        shown=as_sequences,
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=parameters.beta,
        simpo_gamma=parameters.margin,
    )  # fmt: skip
