"""The worker's side of `scorer`: everybody's answers through a function of the caller's, to scores like other metrics'.

What the function is given: `example` has the columns, `id`, `input` (unless it is a picture, a sound or the like) and
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
from speciate.evaluation import scorers
from speciate.evaluation.answers import Answer
from speciate.evaluation.marks import Marks, Unscored
from speciate.evaluation.own_scorer import Scored, ScorerError, failures
from speciate.evaluation.predictors.contract import Sheet
from speciate.evaluation.task import Scoring
from speciate.jobs.run import Run

_SHOWN = 200


def mark(
    run: Run, scoring: Scoring, examples: Sequence[Example], truths: Sequence[Any], sheets: Sequence[Sheet],
    tell: Callable[[int], None],
) -> list[Marks]:  # fmt: skip
    """A metric for each name that the function gives its scores."""
    scorer = scorers.find(scoring.ref)
    if scorer.metric() != scoring.metric:
        raise SpeciateError(
            Code.CONFLICT,
            f"The scorer {scoring.metric} has changed since the evaluation was asked for.",
            "Call evaluate_models again: it is another metric now.",
        )
    given = [_example(example, truth) for example, truth in zip(examples, truths, strict=True)]
    scored: dict[str, list[list[Scored]]] = {}
    for sheet in sheets:
        for answers in sheet.repeats:
            rows = [
                {"example": example, "prediction": _prediction(answer)}
                for example, answer in zip(given, answers, strict=True)
            ]
            scored.setdefault(sheet.contestant.name, []).append(scorer.score_all(run.folder.path, rows))
            tell(sum(len(times) for times in scored.values()) * len(examples))
    every = [each for times in scored.values() for time in times for each in time]
    names = list(dict.fromkeys(name for each in every if isinstance(each, dict) for name in each))
    if not names:
        raise _nothing(scoring, every)
    notes, unscored = _notes(scoring, every), _unscored(examples, scored)
    return [
        Marks(
            scorer.metric(name),
            {model: [_scores(time, name) for time in times] for model, times in scored.items()},
            notes if name == names[0] else (),
            unscored=unscored if name == names[0] else (),
        )
        for name in names
    ]


def expanded(metrics: Sequence[str], scoring: Scoring, made: Sequence[Marks]) -> tuple[str, ...]:
    """The metrics' names, with those that the function gave in the place that was kept for them."""
    names = [marks.metric for marks in made]
    return tuple(name for each in metrics for name in (names if each == scoring.metric else [each]))


def _scores(time: Sequence[Scored], name: str) -> Any:
    return np.array([each.get(name, math.nan) if isinstance(each, dict) else math.nan for each in time], np.float64)


def _unscored(examples: Sequence[Example], scored: Mapping[str, Sequence[Sequence[Scored]]]) -> list[Unscored]:
    return [
        Unscored(model, example.id, repeat, each.failure, " ".join(each.detail.split())[:_SHOWN])
        for model, times in scored.items()
        for repeat, time in enumerate(times)
        for example, each in zip(examples, time, strict=True)
        if isinstance(each, ScorerError)
    ]


def _notes(scoring: Scoring, every: Sequence[Scored]) -> list[str]:
    """Reasons only: what the code said is foreign text."""
    failed = failures(every)
    if not failed:
        return []
    why = ", ".join(f"{count} {failure.replace('_', ' ')}" for failure, count in failed.items())
    return [
        f"{scoring.metric} has no score of {sum(failed.values())} of {len(every)} answers ({why}); these do not count."
    ]


def _nothing(scoring: Scoring, every: Sequence[Scored]) -> SpeciateError:
    why = ", ".join(f"{count} {failure.replace('_', ' ')}" for failure, count in failures(every).items())
    return SpeciateError(
        Code.INVALID,
        f"{scoring.metric} gave no score of any of {len(every)} answers: {why}.",
        "Mend the function, then call evaluate_models again: recorded answers are not asked for again.",
        _first(every),
    )


def _first(every: Sequence[Scored]) -> str:
    """What the code raised first; where it raised nothing, what else was wrong first. Foreign text, of one line."""
    failed = [each for each in every if isinstance(each, ScorerError)]
    raised = [each for each in failed if each.failure == "raised"]
    return " ".join((raised or failed)[0].detail.split())[:_SHOWN] if failed else ""


def _example(example: Example, truth: Any) -> dict[str, Any]:
    own = {"input": example.media} if _is_plain(example.media) else {}
    said = {**example.columns, **own, "id": example.id, "truth": truth}
    plain: dict[str, Any] = json.loads(json.dumps(said, default=str))
    return plain


def _is_plain(media: Any) -> bool:
    """Whether it is JSON; pictures, sounds and the like are not handed over."""
    parts = media.values() if isinstance(media, dict) else [media]
    return not any(isinstance(part, np.ndarray | dict) for part in parts)


def _prediction(answer: Answer) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(answer._asdict(), default=str))
    return plain
