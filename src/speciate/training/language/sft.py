"""Recipe `sft`: a language model learns the answers of examples word by word (supervised fine-tuning), with trl.

What is learned of an example is its answer alone unless asked otherwise. Where there are held-out examples their loss
is measured after each epoch, and the weights of the lowest one are kept. Questions about pictures are in sft_images.py.
"""

from __future__ import annotations

import time

from speciate.training.language import judging
from speciate.training.language.durable_trainer import durable
from speciate.training.language.lessons import form, lessons, rows, turns
from speciate.training.language.pupil import changes, digest, finished, pupil, session, settings
from speciate.training.language.specs import SftParameters
from speciate.training.language.vision import sft_images
from speciate.training.language.vision.specs import SeeingSftParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 5e-5


def fit(study: Study, parameters: SftParameters | SeeingSftParameters) -> Chosen:
    if isinstance(parameters, SeeingSftParameters):
        return sft_images.fit(study, parameters)
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    began = time.monotonic()
    study.progress(0, None, "", "loading the base model")
    with study.tally.stage("preparing"):
        learner = pupil(study, parameters)
        asked = form(study, learner.tokenizer, parameters, [each.asked for each in turns(study, study.train)])
        found = lessons(study, learner.tokenizer, asked, parameters, parameters.learn, learner.longest)
        trainer = durable(SFTTrainer)(
            model=learner.model,
            processing_class=learner.tokenizer,
            args=SFTConfig(
                **settings(study, parameters, _USUAL_RATE),
                max_length=min(parameters.max_length, learner.longest) if parameters.packing else None,
                packing=parameters.packing,
                eval_packing=False,
            ),
            train_dataset=rows(found.train),
            eval_dataset=rows(found.held) if found.held else None,
            peft_config=changes(parameters),
        )
        trainer.begin(session(study, parameters, learner, digest(found)))
    ending = trainer.go()
    predictor = finished(study, trainer, learner, asked, parameters)
    return judging.chosen(study, predictor, parameters, ending, began)
