"""The worker's side of `race`: ask round by round, and leave out who is surely worse."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from speciate.errors import SpeciateError
from speciate.evaluation import race
from speciate.evaluation.compare_models import MetricScores, difference, estimate, score
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.metrics import judged
from speciate.evaluation.predictors.answering import PredictorRequest, check_answer
from speciate.evaluation.predictors.published import predict_published
from speciate.evaluation.race import RacePayload, rounds, stratified_order, surely_worse
from speciate.evaluation.run_evaluation import LoadedSuite, load_suite, possible_labels
from speciate.evaluation.statistics import Codes
from speciate.jobs.run import Run
from speciate.vocabulary import find_metric


class _OutOfTime(Exception):
    pass


class _Round(NamedTuple):
    scores: dict[str, MetricScores]
    values: dict[str, tuple[float, float, float]]
    """Model -> (value, low, high), with the ends of the interval."""
    clusters: Codes
    size: int


def run(run: Run) -> Mapping[str, object]:
    """`{rows, survivors, out}`: a row for each model that answered a whole round, best first."""
    payload = run.read_payload(RacePayload)
    evaluation, began = payload.evaluation, time.monotonic()
    suite = load_suite(run, evaluation)
    order = stratified_order(suite.references, payload.seed)
    metric = find_metric(evaluation.metrics[0])
    alive, out = [one.name for one in evaluation.models], dict(payload.refused)
    models = {one.name: one for one in evaluation.models}
    seconds: dict[str, float] = dict.fromkeys(alive, 0.0)
    rows: dict[str, dict[str, object]] = {}

    def check_time(_: int) -> None:
        if payload.seconds is not None and time.monotonic() - began > payload.seconds:
            raise _OutOfTime

    for size in rounds(len(order)):
        asked = _Round({}, {}, _clusters(suite, order[:size]), size)
        late = False
        for name in list(alive):
            started = time.monotonic()
            run.progress(len(rows), len(models), "models", f"{name}: {size} examples")
            try:
                check_time(0)
                found = _scores(run, payload, models[name], suite, order[:size], asked.clusters, check_time)
            except _OutOfTime:
                late = True
                break
            except SpeciateError as error:  # of one model: the others go on
                out[name] = error.message
                alive.remove(name)
                continue
            finally:
                seconds[name] += time.monotonic() - started
            made = estimate(metric, found, asked.clusters)
            asked.scores[name], asked.values[name] = found, (made.value, made.low, made.high)
        for name, (value, low, high) in asked.values.items():
            rows[name] = {
                "model": name, "value": _number(value), "interval": _interval(low, high), "n": size,
                "seconds": round(seconds[name], 3),
            }  # fmt: skip
        if late:
            break
        for name in _worse(asked, metric.sign, metric):
            best = _best(asked, metric.sign)
            out[name] = f"Surely worse than {best} on {size} examples."
            alive.remove(name)
        if len(alive) < 2:
            break
    for name in [each for each in alive if each not in rows]:
        out[name] = "The budget ended before it had answered a round."
        alive.remove(name)
    ordered = sorted(alive, key=lambda name: _standing(rows[name], metric.sign))
    return {
        "metric": metric.name,
        "rows": [rows[name] for name in sorted(rows, key=lambda name: _standing(rows[name], metric.sign))],
        "survivors": ordered,
        "out": [{"model": name, "why": why} for name, why in out.items()],
        "seconds": round(time.monotonic() - began, 3),
    }


def _scores(
    run: Run,
    payload: RacePayload,
    model: EvaluatedModel,
    suite: LoadedSuite,
    places: Sequence[int],
    clusters: Codes,
    on_progress: Callable[[int], None],
) -> MetricScores:
    evaluation = payload.evaluation
    examples = [suite.examples[place] for place in places]
    references = [suite.references[place] for place in places]
    targets = [one.target for one in suite.training] or suite.references
    request = PredictorRequest(
        run, evaluation, model, examples, possible_labels(evaluation, targets), targets, suite.training, on_progress,
        references,
    )  # fmt: skip
    (answers,) = predict_published(request).repeats
    answers = [check_answer(answer, evaluation.family) for answer in answers]
    labels = sorted(possible_labels(evaluation, targets))
    one = judged(
        evaluation.family, references, [each.output for each in answers], [each.probabilities for each in answers],
        labels, evaluation.positive_label,
    )  # fmt: skip
    return score(find_metric(evaluation.metrics[0]), (one,), clusters, payload.seed)


def _worse(asked: _Round, sign: int, metric: Any) -> list[str]:
    best = _best(asked, sign)
    found = []
    for name, scores in asked.scores.items():
        if name == best:
            continue
        apart = difference(metric, asked.scores[best], scores, asked.clusters, race.LEVEL)
        if surely_worse(apart.low, apart.high, sign):
            found.append(name)
    return found


def _best(asked: _Round, sign: int) -> str:
    return max(asked.values, key=lambda name: (np.nan_to_num(sign * asked.values[name][0], nan=-np.inf), name))


def _clusters(suite: LoadedSuite, places: Sequence[int]) -> Codes:
    groups = [suite.examples[place].group or suite.examples[place].id for place in places]
    codes: Codes = np.unique(np.array(groups), return_inverse=True)[1]
    return codes


def _standing(row: Mapping[str, object], sign: int) -> tuple[float, str]:
    value = row["value"]
    return (-sign * float(value) if isinstance(value, float) else np.inf), str(row["model"])


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _interval(low: float, high: float) -> list[float] | None:
    return [float(low), float(high)] if np.isfinite(low) and np.isfinite(high) else None
