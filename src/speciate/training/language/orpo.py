"""Recipe `orpo`: a language model learns the better of two answers word by word, and to prefer it (Hong et al. 2024).

No base model is held to: one copy is in memory. trl has it among its experiments.
"""

from __future__ import annotations

import time

from speciate.training.language import judging
from speciate.training.language.durable_trainer import durable
from speciate.training.language.pairs import as_pairs, prepared
from speciate.training.language.pupil import changes, digest, finished, session, settings
from speciate.training.language.specs import OrpoParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 1e-5


def fit(study: Study, parameters: OrpoParameters) -> Chosen:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    began = time.monotonic()
    study.progress(0, None, "", "loading the base model")
    with study.tally.stage("preparing"):
        found = prepared(study, parameters)
        learner = found.learner
        trainer = durable(ORPOTrainer)(
            model=learner.model,
            processing_class=learner.tokenizer,
            args=ORPOConfig(
                **settings(study, parameters, _USUAL_RATE),
                max_length=min(parameters.max_length, learner.longest),
                beta=parameters.weight,
            ),
            train_dataset=as_pairs(found.train, found.asked),
            eval_dataset=as_pairs(found.held, found.asked),
            peft_config=changes(parameters),
        )
        trainer.begin(session(study, parameters, learner, digest(found.train, found.held, found.asked)))
    ending = trainer.go()
    predictor = finished(study, trainer, learner, found.asked, parameters)
    return judging.chosen(study, predictor, parameters, ending, began)
