"""The request and the result of a predictor, and how a model on this machine is asked: chunk by chunk, each answer
checked.

Cached answers are not asked for again. If a model fails on an example, its answer is an error. If a whole chunk fails,
its examples are asked one by one, so that one bad example costs only itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from speciate.datasets.loading.loader import Example, example_keys
from speciate.evaluation import answer_cache
from speciate.evaluation.answer_cache import AnswerKey, CachedAnswer, Journal
from speciate.evaluation.compare_models import Cost
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.metrics.metric import LARGEST
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.predictors.timing import TimedModel
from speciate.evaluation.reports.report import LabelCoverage
from speciate.jobs.run import Run, Stopped
from speciate.modalities.audio_answers import is_audio_answer
from speciate.modalities.image_answers import is_image_answer
from speciate.tasks.task import Prediction, TaskExample
from speciate.vocabulary import Family

CHUNK = 256
_ROUNDING = 1e-3
"""Tolerance of probabilities."""
_COMPUTES = 1
"""Raised when our own code comes to answer otherwise from the same files."""
Item = TypeVar("Item")


class Answer(NamedTuple):
    """`output` as in Prediction; None with `error` where there is none."""

    output: Any
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    error: str | None = None


AskModel = Callable[[Sequence[Example]], Sequence[Prediction]]
OnProgress = Callable[[int], None]
"""Called with the number of answers that are there."""


def answer_all(
    run: Run,
    identity: str,
    examples: Sequence[Example],
    ask: AskModel,
    on_progress: OnProgress,
    repeat: int = 0,
    at_once: int = CHUNK,
) -> list[Answer]:
    """One answer per example. `identity`: of everything that decides what the model answers; `repeat`: of one that may
    answer otherwise each time, which time it is. `at_once`: answers that are on disk together; a kill costs no more.

    Raises Stopped between chunks where the run was asked to stop.
    """
    asked = [AnswerKey(key, repeat) for key in example_keys(examples)]
    fingerprint = answer_cache.digest(f"{identity} {_COMPUTES}")
    known = {
        key: cached for key, cached in answer_cache.read(run.folders, fingerprint, asked).items() if not cached.passing
    }
    missing = {key: example for key, example in zip(asked, examples, strict=True) if key not in known}
    on_progress(len(examples) - len(missing))
    with Journal(run.folders, fingerprint, run.folder.path.name) as journal:
        for chunk in _chunks(list(missing.items()), at_once):
            if run.stopping:
                raise Stopped
            answers = _ask_chunk(ask, [example for _, example in chunk])
            cached = [(key, _answer_to_cache(answer)) for (key, _), answer in zip(chunk, answers, strict=True)]
            journal.keep(cached)
            known |= dict(cached)
            on_progress(sum(key in known for key in asked))
    return [answer_from_cache(known[key]) for key in asked]


def answer_from_cache(cached: CachedAnswer) -> Answer:
    return Answer(cached.output, cached.confidence, cached.probabilities, cached.error)


def _answer_to_cache(answer: Answer) -> CachedAnswer:
    """An error may have been the machine's, so the next evaluation asks again."""
    return CachedAnswer(
        answer.output, answer.confidence, answer.probabilities, answer.error, answer.error is not None,
        created=time.time(),
    )  # fmt: skip


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def check_answer(answer: Answer, family: Family | None = None) -> Answer:
    """The answer, or an error in its place where it is none: no JSON with finite numbers alone, not what an answer of
    this family is made of, or a confidence or probabilities that are no shares."""
    if answer.error is not None or answer.output is None:
        return Answer(None, error=str(answer.error or "it gave no answer")[:300])
    why = _invalid_output(answer.output, family) or _invalid_confidence(answer)
    return answer if why is None else Answer(None, error=f"{_quote_output(answer.output)}: {why}")


def _invalid_output(output: Any, family: Family | None) -> str | None:
    try:
        text = json.dumps(output, allow_nan=False, ensure_ascii=False, default=_numpy_to_json)
        text.encode()
    except RecursionError:
        return "the answer is nested too deep"
    except (TypeError, ValueError):  # also half a character
        return "the answer holds what is no JSON, such as a number that is not finite"
    match family:
        case "classification" | "ordinal" | "anomaly" if isinstance(output, list | tuple | dict):
            return "the answer is no label"
        case "regression" if not _is_number(output):
            return "the answer is no number"
        case "transcription" | "generation" if not isinstance(output, str):
            return "the answer is no text"
        case "image-generation" if not is_image_answer(output):
            return "the answer is no image"
        case "speech-synthesis" if not is_audio_answer(output):
            return "the answer is no audio"
        case "multi-label" if not _is_list(output, _is_label):
            return "the answer is no list of labels"
        case "tokens" if not _is_list(output, lambda each: isinstance(each, str)):
            return "the answer is no list of tags"
        case "retrieval" if not _is_list(output, _is_number):
            return "the answer is no list of numbers"
    return None


def _invalid_confidence(answer: Answer) -> str | None:
    if answer.confidence is not None and not _is_share(answer.confidence):
        return "its confidence is no number from 0 to 1"
    if answer.probabilities is None:
        return None
    named = isinstance(answer.probabilities, dict) and all(isinstance(name, str) for name in answer.probabilities)
    if not named or not all(map(_is_share, answer.probabilities.values())):
        return "its probabilities are no numbers from 0 to 1, each by its label"
    return None


def _is_number(value: Any) -> bool:
    """Whether a value is a number whose powers are finite, too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= LARGEST


def _is_share(value: Any) -> bool:
    return _is_number(value) and -_ROUNDING <= value <= 1 + _ROUNDING


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(map(holds, value))


def _numpy_to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError


def _quote_output(output: Any) -> str:
    return ascii(output)[:60] if isinstance(output, str | int | float) else f"a {type(output).__name__}"


def _ask_chunk(ask: AskModel, chunk: Sequence[Example]) -> list[Answer]:
    try:
        predictions = list(ask(chunk))
        if len(predictions) != len(chunk):
            raise ValueError(f"{len(predictions)} answers to {len(chunk)} examples")
        return [_answer(prediction) for prediction in predictions]
    except Exception:  # noqa: BLE001 - a model may fail in any way; which example it was shows one by one
        return [_ask_one(ask, example) for example in chunk]


def _ask_one(ask: AskModel, example: Example) -> Answer:
    try:
        (predictions,) = ask([example])
        return _answer(predictions)
    except Exception as error:  # noqa: BLE001 - recorded beside the example, and counted
        return Answer(None, error=f"{type(error).__name__}: {error}"[:300])


def _answer(prediction: Prediction) -> Answer:
    return check_answer(Answer(prediction.output, prediction.confidence, prediction.probabilities))


class PredictorRequest(NamedTuple):
    run: Run
    task: EvaluationPayload
    evaluated_model: EvaluatedModel
    examples: list[Example]
    """With the columns that this model may see."""
    labels: tuple[str, ...]
    """The possible answers; empty if answers are not labels."""
    training_targets: Sequence[Any]
    """The references of the training split; without one, those of the examples themselves."""
    training_examples: Sequence[TaskExample]
    """For few-shot prompts."""
    on_progress: OnProgress
    references: Sequence[Any] = ()
    """The references of the examples: a published model's labels are compared with them. No model sees them."""


class ModelAnswers(NamedTuple):
    """`repeats`: for each repeat, a list with one answer per example."""

    evaluated_model: EvaluatedModel
    repeats: tuple[list[Answer], ...]
    cost: Cost = Cost()
    served: tuple[str, ...] = ()
    """The model names that an endpoint reported; several, if it changed meanwhile."""
    notes: tuple[str, ...] = ()
    coverage: LabelCoverage | None = None
    """How far a published model's labels cover the user's."""
    timed: TimedModel | None = None
    """A loaded model whose `cost` is still to be measured, by turns with the others."""
