"""Recipe `reward`: a language model learns to give answers a number, from pairs of a better and a worse one.

The loss is that of Bradley and Terry (1952): the better answer of a pair should get the larger number (Ouyang et al.
2022). The model does the task `preference`, so it is evaluated like any model (`accuracy`: share of held-out pairs told
apart, 0.5 by chance), and trainings by reward name it: `{'kind': 'model', 'model': 'judge@v1'}`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.modalities.messages import Conversation, format_readable
from speciate.models.language import causal_lm, chat_templates, example_checks
from speciate.models.language.chat_templates import ChatFormat
from speciate.tasks.families.preference import FIRST, AnswerPair, parse_pair
from speciate.tasks.language_predictor import RewardPredictor
from speciate.training.language import answer_validation, tokenized_examples
from speciate.training.language.durable_trainer import make_durable
from speciate.training.language.model_setup import (
    LoadedModel,
    digest,
    lora_config,
    make_session,
    merge_adapters,
    trainer_arguments,
)
from speciate.training.language.tokenized_examples import choose_prompt_form
from speciate.training.language_hyperparameters import RewardParameters
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.training_context import TrainingContext

_USUAL_RATE = 1e-5
_SHOWN = 60
_MANY, _OFTEN = 20, 0.9
"""With at least so many pairs, a note says when the longer answer is the better one in at least this share of them."""


class _Pair(NamedTuple):
    """Token ids of both answers with their question."""

    chosen: list[int]
    rejected: list[int]


def fit_reward_model(context: TrainingContext, parameters: RewardParameters) -> SelectedModel:
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    began = time.monotonic()
    context.progress(0, None, "", "loading the base model")
    with context.meter.stage("preparing"):
        learner, head = _load_grader(context, parameters)
        train, held = _offers(context, context.train), _offers(context, context.validation)
        _check(context, train, held)
        chat_format = choose_prompt_form(context, learner.tokenizer, parameters, [offer.asked for offer, _ in train])
        train_pairs = _pairs(context, learner, chat_format, parameters, train, "training")
        held_out = _pairs(context, learner, chat_format, parameters, held, "validation")
        trainer = make_durable(RewardTrainer)(
            model=learner.model,
            processing_class=learner.tokenizer,
            args=RewardConfig(
                **trainer_arguments(context, parameters, _USUAL_RATE),
                max_length=None,  # what is too long is excluded already, and said
                disable_dropout=False,
                center_rewards_coefficient=parameters.center_rewards_coefficient or None,
            ),
            train_dataset=_rows(train_pairs),
            eval_dataset=_rows(held_out) if held_out else None,
            peft_config=lora_config(parameters, "SEQ_CLS", modules_to_save=[head]),
        )
        trainer.begin(make_session(context, parameters, learner, digest(train_pairs, held_out)))
    ending = trainer.go()
    predictor = RewardPredictor(merge_adapters(trainer), learner.tokenizer, chat_format)
    return answer_validation.select_trained(context, predictor, parameters, ending, began)


def _load_grader(context: TrainingContext, parameters: RewardParameters) -> tuple[LoadedModel, str]:
    """The base model with a fresh head of one output, and that head's name."""
    assert context.payload.base_folder is not None, "the plan refuses fresh weights"
    folder = causal_lm.transformers_folder(Path(context.payload.base_folder), context.folders.cache)
    tokenizer = causal_lm.load_tokenizer(folder, parameters.chat_template)
    found = causal_lm.load_scoring_model(folder, context.payload.spec.seed)
    found.model.config.use_cache = False
    return LoadedModel(found.model, tokenizer, folder, causal_lm.longest(found.model)), found.head


def _offers(context: TrainingContext, examples: Sequence[Example]) -> list[tuple[AnswerPair, bool]]:
    """Pairs of answers, each with whether the first answer is the better one."""
    found = []
    for example, label in zip(examples, context.labels(examples), strict=True):
        offer = parse_pair(str(example.media))
        assert offer is not None, "the task poses pairs"
        found.append((offer, label == FIRST))
    return found


def _pairs(
    context: TrainingContext,
    learner: LoadedModel,
    chat_format: ChatFormat,
    parameters: RewardParameters,
    offers: Sequence[tuple[AnswerPair, bool]],
    which: str,
) -> list[_Pair]:
    """As tokens; what is too long is excluded, for the end of an answer is what it is judged by."""
    limit = min(parameters.max_length, learner.longest)
    whole = []
    for offer, first in offers:
        two = (
            _tokenize(learner, offer.asked, offer.first, chat_format),
            _tokenize(learner, offer.asked, offer.second, chat_format),
        )
        whole.append(_Pair(*two) if first else _Pair(*reversed(two)))
    lengths = [max(len(each.chosen), len(each.rejected)) for each in whole]
    found = [each for each, length in zip(whole, lengths, strict=True) if length <= limit]
    lost = len(whole) - len(found)
    enough = example_checks.truncation(lengths, lengths, limit).enough
    if which == "training" and not found:
        raise SpeciateError(
            Code.INVALID,
            f"All {len(whole)} training pairs are longer than {limit} tokens, and a cut answer cannot be judged.",
            f"{enough} tokens hold 95 of 100; this base model sees at most {learner.longest}.",
            next=[CallAgain("train_model", {"hyperparameters": {"max_length": enough}})]
            if enough <= learner.longest
            else [],
        )
    if lost:
        context.notes.append(
            f"{lost} of {len(whole)} {which} pairs are longer than {limit} tokens and are excluded; "
            f"max_length={enough} would hold 95 of 100."
        )
    return found


def _tokenize(learner: LoadedModel, prompt: Conversation, said: str, how: ChatFormat) -> list[int]:
    try:
        return chat_templates.tokenize_example(learner.tokenizer, prompt, said, how, "completion").ids
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID,
            "A question cannot be written as the model reads it; untrusted says which, and why.",
            "Call train_model again with another chat_template.",
            f"{format_readable(prompt)[:_SHOWN]!r}: {error}",
        ) from error


def _rows(found: Sequence[_Pair]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(
        {"chosen_ids": [each.chosen for each in found], "rejected_ids": [each.rejected for each in found]}
    )


def _check(
    context: TrainingContext, train: Sequence[tuple[AnswerPair, bool]], held: Sequence[tuple[AnswerPair, bool]]
) -> None:
    """What a model could learn in place of what is better, and held-out pairs that stand in the training split."""
    better = [_best_first(offer, first) for offer, first in train]
    longer = sum(len(good) > len(bad) for good, bad in better)
    if len(better) >= _MANY and not _OFTEN > longer / len(better) > 1 - _OFTEN:
        which = "longer" if longer > len(better) / 2 else "shorter"
        share = max(longer, len(better) - longer) / len(better)
        context.notes.append(
            f"In {share:.0%} of the training pairs the better answer is the {which} one: the model may learn length, "
            "and what is trained by it will write accordingly."
        )
    learned = [_pair_text(offer) for offer, _ in train]
    unseen = [
        offer
        for each in tokenized_examples.posed_test_examples(context)
        if (offer := parse_pair(str(each.example.media))) is not None
    ]
    for split, there in (("validation", [offer for offer, _ in held]), ("test", unseen)):
        if found := example_checks.find_leaks(learned, [_pair_text(offer) for offer in there]):
            context.notes.append(
                f"{len(found)} of {len(there)} {split} pairs stand in the training split as well, or share 13 words in "
                "a row with it: what is measured on them is too good."
            )


def _best_first(offer: AnswerPair, first: bool) -> tuple[str, str]:
    return (offer.first, offer.second) if first else (offer.second, offer.first)


def _pair_text(offer: AnswerPair) -> str:
    return "\n".join((format_readable(offer.asked), *sorted((offer.first, offer.second))))
