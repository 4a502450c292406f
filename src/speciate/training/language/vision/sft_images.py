"""Recipe `sft` of models that see: the answers to questions about pictures are learned word by word, with trl.

As sft.py does it of texts. Tokens and labels are made by sights.py, so that a picture is never cut and nothing of it is
learned; the trainer gets them with the pixels of each batch.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from speciate.language import seeing
from speciate.language.generation import Sampling
from speciate.tasks.seeing import SeeingPredictor
from speciate.training.language import judging
from speciate.training.language.durable_trainer import durable
from speciate.training.language.pupil import Pupil, changes, merged, session, settings
from speciate.training.language.vision.sights import Pages, sight, sights
from speciate.training.language.vision.specs import SeeingSftParameters
from speciate.training.selection import Chosen
from speciate.training.study import Study

_USUAL_RATE = 2e-5


def fit(study: Study, parameters: SeeingSftParameters) -> Chosen:
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    began = time.monotonic()
    study.progress(0, None, "", "loading the base model")
    with study.tally.stage("preparing"):
        assert study.payload.base_folder is not None, "the plan refuses fresh weights"
        folder = Path(study.payload.base_folder)
        processor, model = seeing.load_processor(folder, parameters.chat_template), seeing.load_model(folder)
        given: Any = model
        given.config.use_cache = False
        learner = Pupil(given, processor.tokenizer, folder, seeing.longest(given))
        shown = sight(study, processor, parameters)
        study.progress(0, None, "", "looking at the examples")
        found = sights(study, processor, shown, parameters, learner.longest)
        pages = Pages(processor, [*found.train, *found.held])
        trainer = durable(SFTTrainer)(
            model=given,
            processing_class=processor,
            args=SFTConfig(
                **settings(study, parameters, _USUAL_RATE),
                max_length=None,
                remove_unused_columns=False,
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            data_collator=pages,
            train_dataset=_places(0, len(found.train)),
            eval_dataset=_places(len(found.train), len(found.held)) if found.held else None,
            peft_config=changes(parameters, **_spared(study, given, parameters)),
        )
        trainer.begin(session(study, parameters, learner, found.digest))
    ending = trainer.go()
    sampling = Sampling(max_new_tokens=parameters.max_new_tokens)
    predictor = SeeingPredictor(merged(trainer), processor, shown, sampling)
    return judging.chosen(study, predictor, parameters, ending, began)


def _places(start: int, count: int) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"place": list(range(start, start + count))})


def _spared(study: Study, model: Any, parameters: SeeingSftParameters) -> dict[str, Any]:
    """What sees is left as it is, where that was asked for and it can be told from the rest."""
    if parameters.eyes == "learned":
        return {}
    apart = seeing.eyes(model)
    if apart is None:
        study.notes.append("What sees is no part of its own in this model, so it is learned with the rest.")
        return {}
    name, module = apart
    module.requires_grad_(False)
    return {"exclude_modules": rf"(.*\.)?{re.escape(name)}\..*"}
