"""Recipe `sft`: supervised fine-tuning of a language model on answers about texts or images, with trl.

Only the answer is learned unless asked otherwise. Where there are held-out examples their loss is measured after each
epoch, and the weights of the lowest one are kept."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from speciate.models.language import vision_language
from speciate.models.language.text_generation import Sampling
from speciate.tasks.vision_language_predictor import VisionLanguagePredictor
from speciate.training.language import answer_validation
from speciate.training.language.durable_trainer import make_durable
from speciate.training.language.model_setup import (
    LoadedModel,
    digest,
    finished_predictor,
    load_base_model,
    lora_config,
    make_session,
    merge_adapters,
    trainer_arguments,
)
from speciate.training.language.tokenized_examples import choose_prompt_form, find_turns, token_rows, tokenize_splits
from speciate.training.language.vision_examples import ImageCollator, choose_image_prompt, tokenize_image_splits
from speciate.training.language_hyperparameters import SftParameters, VisionSftParameters
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.training_context import TrainingContext
from speciate.training.training_report import MethodReport

_USUAL_RATE = 5e-5


def fit_sft(context: TrainingContext, parameters: SftParameters | VisionSftParameters) -> SelectedModel:
    if isinstance(parameters, VisionSftParameters):
        return fit_sft_images(context, parameters)
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    began = time.monotonic()
    context.progress(0, None, "", "loading the base model")
    with context.meter.stage("preparing"):
        learner = load_base_model(context, parameters)
        chat_format = choose_prompt_form(
            context, learner.tokenizer, parameters, [each.prompt for each in find_turns(context, context.train)]
        )
        found = tokenize_splits(context, learner.tokenizer, chat_format, parameters, parameters.learn, learner.longest)
        trainer = make_durable(SFTTrainer)(
            model=learner.model,
            processing_class=learner.tokenizer,
            args=SFTConfig(
                **trainer_arguments(context, parameters, _USUAL_RATE),
                max_length=min(parameters.max_length, learner.longest) if parameters.packing else None,
                packing=parameters.packing,
                eval_packing=False,
            ),
            train_dataset=token_rows(found.train),
            eval_dataset=token_rows(found.held) if found.held else None,
            peft_config=lora_config(parameters),
        )
        trainer.begin(make_session(context, parameters, learner, digest(found)))
    ending = trainer.go()
    predictor = finished_predictor(context, trainer, learner, chat_format, parameters)
    return answer_validation.select_trained(context, predictor, parameters, ending, began)


_USUAL_IMAGE_RATE = 2e-5


def fit_sft_images(context: TrainingContext, parameters: VisionSftParameters) -> SelectedModel:
    """Learn the answers to questions about images word by word, with trl.

    vision_examples.py makes tokens and labels, so that an image is never cut and none of its tokens is a target; the
    trainer gets them with the pixels of each batch.
    """
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    began = time.monotonic()
    context.progress(0, None, "", "loading the base model")
    with context.meter.stage("preparing"):
        assert context.payload.base_folder is not None, "the plan refuses fresh weights"
        folder = Path(context.payload.base_folder)
        processor, model = (
            vision_language.load_processor(folder, parameters.chat_template),
            vision_language.load_model(folder),
        )
        given: Any = model
        given.config.use_cache = False
        learner = LoadedModel(given, processor.tokenizer, folder, vision_language.longest(given))
        shown = choose_image_prompt(context, processor, parameters)
        context.progress(0, None, "", "looking at the examples")
        found = tokenize_image_splits(context, processor, shown, parameters, learner.longest)
        pages = ImageCollator(processor, [*found.train, *found.held])
        trainer = make_durable(SFTTrainer)(
            model=given,
            processing_class=processor,
            args=SFTConfig(
                **trainer_arguments(context, parameters, _USUAL_IMAGE_RATE),
                max_length=None,
                remove_unused_columns=False,
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            data_collator=pages,
            train_dataset=_place_rows(0, len(found.train)),
            eval_dataset=_place_rows(len(found.train), len(found.held)) if found.held else None,
            peft_config=lora_config(parameters, **_frozen_vision(context, given, parameters)),
        )
        trainer.begin(make_session(context, parameters, learner, found.digest))
    ending = trainer.go()
    sampling = Sampling(max_new_tokens=parameters.max_new_tokens)
    predictor = VisionLanguagePredictor(merge_adapters(trainer), processor, shown, sampling)
    return answer_validation.select_trained(context, predictor, parameters, ending, began)


def _place_rows(start: int, count: int) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"place": list(range(start, start + count))})


def _frozen_vision(context: TrainingContext, model: Any, parameters: VisionSftParameters) -> MethodReport:
    """What sees is left as it is, where that was asked for and it can be told from the rest."""
    if parameters.eyes == "learned":
        return {}
    apart = vision_language.vision_encoder(model)
    if apart is None:
        context.notes.append("What sees is no part of its own in this model, so it is learned with the rest.")
        return {}
    name, module = apart
    module.requires_grad_(False)
    return {"exclude_modules": rf"(.*\.)?{re.escape(name)}\..*"}
