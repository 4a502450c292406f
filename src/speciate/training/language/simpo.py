"""Recipe `simpo`: a language model learns which of two answers is better, by their mean log-probability per token.

Meng et al. 2024. No base model is held to: one copy is in memory. trl has it among its experiments, as a loss of CPO.
"""

from __future__ import annotations

import time

from speciate.training.language import judging
from speciate.training.language.durable_trainer import durable
from speciate.training.language.pairs import as_pairs, prepared
from speciate.training.language.pupil import changes, digest, finished, session, settings
from speciate.training.language.specs import SimpoParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 2e-6


def fit(study: Study, parameters: SimpoParameters) -> Chosen:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    began = time.monotonic()
    study.progress(0, None, "", "loading the base model")
    with study.tally.stage("preparing"):
        found = prepared(study, parameters)
        learner = found.learner
        trainer = durable(CPOTrainer)(
            model=learner.model,
            processing_class=learner.tokenizer,
            args=CPOConfig(
                **settings(study, parameters, _USUAL_RATE),
                max_length=min(parameters.max_length, learner.longest),
                loss_type="simpo",
                cpo_alpha=0.0,
                beta=parameters.beta,
                simpo_gamma=parameters.margin,
            ),
            train_dataset=as_pairs(found.train, found.asked),
            eval_dataset=as_pairs(found.held, found.asked),
            peft_config=changes(parameters),
        )
        trainer.begin(session(study, parameters, learner, digest(found.train, found.held, found.asked)))
    ending = trainer.go()
    predictor = finished(study, trainer, learner, found.asked, parameters)
    return judging.chosen(study, predictor, parameters, ending, began)
