"""Recipe `orpo`: a language model learns the better of two answers word by word, and to prefer it (Hong et al. 2024).

No base model is held to: one copy is in memory. trl has it among its experiments, where the words of the question are
learned with those of the better answer, as the paper's own code does it.
"""

from __future__ import annotations

from speciate.training.language.preference.pairs import as_sequences
from speciate.training.language.preference.preferring import preferred
from speciate.training.language.specs import OrpoParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 1e-5


def fit(study: Study, parameters: OrpoParameters) -> Chosen:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    return preferred(
        study, parameters, ORPOTrainer, ORPOConfig, _USUAL_RATE,
        shown=as_sequences,
        beta=parameters.weight,
    )  # fmt: skip
