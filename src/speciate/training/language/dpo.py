"""Recipe `dpo`: a language model learns which of two answers is better, from pairs (direct preference optimization).

Rafailov et al. 2023; ipo is Azar et al. 2023, robust Chowdhury et al. 2024. It is held to the base model's answers:
with low-rank changes that is the model without them, so that no second copy is in memory.
"""

from __future__ import annotations

import time

from speciate.training.language import judging
from speciate.training.language.durable_trainer import durable
from speciate.training.language.pairs import as_pairs, prepared
from speciate.training.language.pupil import changes, digest, finished, session, settings
from speciate.training.language.specs import DpoParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 2e-6


def fit(study: Study, parameters: DpoParameters) -> Chosen:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    began = time.monotonic()
    study.progress(0, None, "", "loading the base model")
    with study.tally.stage("preparing"):
        found = prepared(study, parameters)
        learner = found.learner
        trainer = durable(DPOTrainer)(
            model=learner.model,
            processing_class=learner.tokenizer,
            args=DPOConfig(
                **settings(study, parameters, _USUAL_RATE),
                max_length=min(parameters.max_length, learner.longest),
                beta=parameters.beta,
                loss_type=[parameters.loss, *(["sft"] if parameters.imitation else [])],
                loss_weights=[1.0, parameters.imitation] if parameters.imitation else None,
                label_smoothing=parameters.smoothing,
            ),
            train_dataset=as_pairs(found.train, found.asked),
            eval_dataset=as_pairs(found.held, found.asked),
            peft_config=changes(parameters),
        )
        trainer.begin(session(study, parameters, learner, digest(found.train, found.held, found.asked)))
    ending = trainer.go()
    predictor = finished(study, trainer, learner, found.asked, parameters)
    return judging.chosen(study, predictor, parameters, ending, began)
