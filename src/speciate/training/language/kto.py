"""Recipe `kto`: a language model learns from single answers that are good or bad (Ethayarajh et al. 2024).

Each pair gives two of them. It is held to the base model's answers.
"""

from __future__ import annotations

import time

from speciate.training.language import judging
from speciate.training.language.durable_trainer import durable
from speciate.training.language.pairs import as_verdicts, prepared
from speciate.training.language.pupil import changes, digest, finished, session, settings
from speciate.training.language.specs import KtoParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 2e-6


def fit(study: Study, parameters: KtoParameters) -> Chosen:
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    began = time.monotonic()
    study.progress(0, None, "", "loading the base model")
    with study.tally.stage("preparing"):
        found = prepared(study, parameters)
        learner = found.learner
        trainer = durable(KTOTrainer)(
            model=learner.model,
            processing_class=learner.tokenizer,
            args=KTOConfig(
                **settings(study, parameters, _USUAL_RATE),
                max_length=min(parameters.max_length, learner.longest),
                beta=parameters.beta,
                desirable_weight=parameters.good_weight,
                undesirable_weight=parameters.bad_weight,
            ),
            train_dataset=as_verdicts(found.train, found.asked),
            eval_dataset=as_verdicts(found.held, found.asked),
            peft_config=changes(parameters),
        )
        trainer.begin(session(study, parameters, learner, digest(found.train, found.held, found.asked)))
    ending = trainer.go()
    predictor = finished(study, trainer, learner, found.asked, parameters)
    return judging.chosen(study, predictor, parameters, ending, began)
