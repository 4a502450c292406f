"""The worker's side of `scorer`: everybody's answers through a function of the caller's, to scores like other metrics'.

What the function is given: `example` has the columns, `id`, `input` (unless it is an image, audio or the like) and
`truth`; `prediction` has `output`, `confidence`, `probabilities` and `error`, whose `output` is None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.evaluation.compare_models import ExtraScores, Unscored
from speciate.evaluation.payload import Scoring
from speciate.evaluation.predictors.answering import Answer, ModelAnswers
from speciate.evaluation.scorers import scorer as scorers
from speciate.evaluation.scorers.sandboxed_scorers import ScorerError, ScoreResult, count_failures
from speciate.jobs.run import Run

_SHOWN = 200


def score_answers(
    run: Run,
    scoring: Scoring,
    examples: Sequence[Example],
    references: Sequence[Any],
    all_answers: Sequence[ModelAnswers],
    on_progress: Callable[[int], None],
) -> list[ExtraScores]:
    """A metric for each name that the function gives its scores."""
    scorer = scorers.find_scorer(scoring.ref)
    if scorer.metric() != scoring.metric:
        raise SpeciateError(
            Code.CONFLICT,
            f"The scorer {scoring.metric} has changed since the evaluation was asked for.",
            "Call evaluate_models again: it is another metric now.",
        )
    given = [_example(example, reference) for example, reference in zip(examples, references, strict=True)]
    scored: dict[str, list[list[ScoreResult]]] = {}
    for model_answers in all_answers:
        for answers in model_answers.repeats:
            rows = [
                {"example": example, "prediction": _prediction(answer)}
                for example, answer in zip(given, answers, strict=True)
            ]
            scored.setdefault(model_answers.evaluated_model.name, []).append(scorer.score_all(run.folder.path, rows))
            on_progress(sum(len(times) for times in scored.values()) * len(examples))
    every = [each for times in scored.values() for time in times for each in time]
    names = list(dict.fromkeys(name for each in every if isinstance(each, dict) for name in each))
    if not names:
        raise _no_scores_error(scoring, every)
    notes, unscored = _notes(scoring, every), _unscored(examples, scored)
    return [
        ExtraScores(
            scorer.metric(name),
            {model: [_scores(time, name) for time in times] for model, times in scored.items()},
            notes if name == names[0] else (),
            unscored=unscored if name == names[0] else (),
        )
        for name in names
    ]


def expand_metrics(metrics: Sequence[str], scoring: Scoring, made: Sequence[ExtraScores]) -> tuple[str, ...]:
    """The metrics' names, with those that the function gave in the place that was kept for them."""
    names = [scores.metric for scores in made]
    return tuple(name for each in metrics for name in (names if each == scoring.metric else [each]))


def _scores(time: Sequence[ScoreResult], name: str) -> Any:
    return np.array([each.get(name, math.nan) if isinstance(each, dict) else math.nan for each in time], np.float64)


def _unscored(examples: Sequence[Example], scored: Mapping[str, Sequence[Sequence[ScoreResult]]]) -> list[Unscored]:
    return [
        Unscored(model, example.id, repeat, each.failure, " ".join(each.detail.split())[:_SHOWN])
        for model, times in scored.items()
        for repeat, time in enumerate(times)
        for example, each in zip(examples, time, strict=True)
        if isinstance(each, ScorerError)
    ]


def _notes(scoring: Scoring, every: Sequence[ScoreResult]) -> list[str]:
    """Reasons only: what the code said is foreign text."""
    failed = count_failures(every)
    if not failed:
        return []
    why = ", ".join(f"{count} {failure.replace('_', ' ')}" for failure, count in failed.items())
    return [
        f"{scoring.metric} has no score of {sum(failed.values())} of {len(every)} answers ({why}); these do not count."
    ]


def _no_scores_error(scoring: Scoring, every: Sequence[ScoreResult]) -> SpeciateError:
    why = ", ".join(f"{count} {failure.replace('_', ' ')}" for failure, count in count_failures(every).items())
    return SpeciateError(
        Code.INVALID,
        f"{scoring.metric} gave no score of any of {len(every)} answers: {why}.",
        "Mend the function, then call evaluate_models again: recorded answers are not asked for again.",
        _first(every),
    )


def _first(every: Sequence[ScoreResult]) -> str:
    """What the code raised first; where it raised nothing, what else was wrong first. Foreign text, of one line."""
    failed = [each for each in every if isinstance(each, ScorerError)]
    raised = [each for each in failed if each.failure == "raised"]
    return " ".join((raised or failed)[0].detail.split())[:_SHOWN] if failed else ""


def _example(example: Example, reference: Any) -> Mapping[str, object]:
    own = {"input": example.media} if _is_plain(example.media) else {}
    said = {**example.columns, **own, "id": example.id, "truth": reference}
    plain: Mapping[str, object] = json.loads(json.dumps(said, default=str))
    return plain


def _is_plain(media: Any) -> bool:
    """Whether it is JSON; images, audio and the like are not handed over."""
    parts = media.values() if isinstance(media, dict) else [media]
    return not any(isinstance(part, np.ndarray | dict) for part in parts)


def _prediction(answer: Answer) -> Mapping[str, object]:
    plain: Mapping[str, object] = json.loads(json.dumps(answer._asdict(), default=str))
    return plain
