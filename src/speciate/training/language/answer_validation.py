"""The value of a trained language model: it answers validation examples, which the objective's metric scores."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.errors import SpeciateError
from speciate.evaluation.statistics import Estimate
from speciate.jobs.run import Stopped
from speciate.tasks.task import Prediction, Predictor, SavablePredictor
from speciate.training.held_out import measure_answers, scores_of
from speciate.training.language.durable_trainer import TrainerEnding
from speciate.training.language_hyperparameters import LanguageParameters
from speciate.training.selection.selected_model import CandidateResult, SelectedModel
from speciate.training.training_context import TrainingContext

_ANSWERS_AT_ONCE = 16
NOT_MEASURED = Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0, "not judged")


def select_trained(
    context: TrainingContext,
    predictor: SavablePredictor,
    parameters: LanguageParameters,
    ending: TrainerEnding,
    began: float,
    known: Estimate | None = None,
) -> SelectedModel:
    """The model with its value on validation examples, the first `judged` of them in the order of their ids. `known`:
    that value, where asking the model by itself would not tell."""
    held = sorted(context.validation, key=lambda each: each.id)[: parameters.judged]
    estimate = known or (score_on_validation(context, predictor, held) if held else NOT_MEASURED)
    if not context.validation:
        context.notes.append("There is no validation split, so nothing says yet how good the model is.")
    elif len(held) < len(context.validation):
        context.notes.append(f"{len(held)} of {len(context.validation)} validation examples were answered (`judged`).")
    if told := unchanged_note(ending, parameters.warmup_ratio):
        context.notes.append(told)
    context.report["training"] = {
        "ended": ending.why, "steps": ending.steps, "kept_step": ending.step, "held_loss": ending.held_loss,
        "held": dict(ending.held),
    }  # fmt: skip
    name = f"{context.payload.spec.method} of {context.payload.spec.base_model}"
    tried = (CandidateResult(name, time.monotonic() - began, estimate.value, chosen=True),)
    return SelectedModel(predictor, estimate, context.how if held else "not judged", tried)


def unchanged_note(ending: TrainerEnding, warmup: float) -> str | None:
    """A note where the weights that are kept are those that the training began with."""
    if ending.step == 0:
        return f"None of {ending.steps} steps was better on held-out examples: the weights are as they were before."
    if ending.step == 1 and warmup > 0:
        return (
            f"The weights are as they were before: kept is step 1 of {ending.steps}, in which the learning rate is "
            "still 0 (`warmup_ratio`). More `num_train_epochs`, a smaller `batch_size` or warmup_ratio=0 make "
            "steps that learn."
        )
    return None


class TextScores(NamedTuple):
    """`scores`: of each example with a reference, NaN where the metric does not count it; empty of a corpus metric."""

    estimate: Estimate
    scores: list[float]


def score_texts(context: TrainingContext, held: Sequence[Example], texts: Sequence[str]) -> TextScores | None:
    """What the objective's metric says of these answers; None where no example has a reference."""
    asked = [(each, text) for each, text in zip(held, texts, strict=True) if context.label(each) is not None]
    if not asked:
        return None
    examples = [each for each, _ in asked]
    given = [Prediction(text, None, None) for _, text in asked]
    estimate = measure_answers(context, context.task_head, examples, given)
    return TextScores(estimate, scores_of(context, context.task_head, examples, given))


def score_on_validation(context: TrainingContext, predictor: Predictor, held: Sequence[Example]) -> Estimate:
    """Raises Stopped between batches. A question that the model cannot be asked, such as one that is too long, has an
    empty answer: a finished training is not lost for it."""
    given: list[Prediction] = []
    refused = 0
    with context.meter.stage("judging"), on_device(context.payload.device, predictor):
        for start in range(0, len(held), _ANSWERS_AT_ONCE):
            if context.run.stopping:
                raise Stopped
            context.progress(len(given), len(held), "answers", "validation examples are answered")
            for each in _predict_each(predictor, held[start : start + _ANSWERS_AT_ONCE]):
                refused += each is None
                given.append(each or Prediction("", None, None))
        context.progress(len(given), len(held), "answers", "validation examples are answered")
    if refused:
        context.notes.append(
            f"{refused} of {len(held)} validation examples could not be asked, as they are too long or cannot be "
            "written as the model reads them: each counts as an empty answer."
        )
    return measure_answers(context, context.task_head, held, given)


@contextmanager
def on_device(device: str, predictor: Predictor) -> Iterator[None]:
    """A language model answers where one was trained, and is on the processor again afterwards."""
    model: Any = getattr(predictor, "model", None)
    if device == "cpu" or model is None:
        yield
        return
    model.to(device)
    try:
        yield
    finally:
        model.cpu()


def _predict_each(predictor: Predictor, some: Sequence[Example]) -> list[Prediction | None]:
    """None for one that it refuses."""
    try:
        return list(predictor.predict(some))
    except SpeciateError:
        return [None] if len(some) == 1 else [each for one in some for each in _predict_each(predictor, [one])]
