"""Where a model errs, from the stored rows: confusion, calibration, the worst examples, and where models disagree.

Runs in a service process. What it returns is foreign text (labels, previews, messages of models): the caller shows it
as untrusted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from speciate.evaluation.reports.stored_answers import (
    LOST,
    RECOVERY,
    Answer,
    Example,
    StoredRequest,
    by_example,
    has_labels,
    label_text,
    output_of,
    read_answers,
    read_examples,
)
from speciate.tasks.families.ordinal import rank_labels
from speciate.vocabulary import Metric, find_metric
from speciate.workspace import integrity

NO_ANSWER, OTHERS = "(no answer)", "(others)"


class Confusion(TypedDict):
    model: str
    answers: int
    wrong: int
    labels: list[str]
    """If there are more than requested, those in the most mistakes, and `(others)`."""
    others: int
    """Labels that `(others)` stands for."""
    counts: list[list[int]]
    """(reference, answer) over `labels`."""
    pairs: Sequence[Sequence[str | int | float]]
    """The most frequent mistakes: reference, answer, count, share of that reference."""
    more_pairs: int
    """Kinds that are left out."""


class Confusions(TypedDict):
    models: list[Confusion]
    """Empty if answers are not labels."""


def confusion(payload: Mapping[str, object]) -> Confusions:
    """The service. `payload`: `folder`, `metric`, `models`, `pairs` and `labels` of a StoredRequest."""
    request = StoredRequest.model_validate(payload)
    if not has_labels(request.metric):
        return {"models": []}
    references = {name: label_text(row["truth"]) for name, row in read_examples(request).items()}
    answers = read_answers(request.folder, request.models)
    return {"models": [_confusion_of(model, references, answers, request) for model in request.models]}


def _confusion_of(
    model: str, references: Mapping[str, str], answers: Sequence[Mapping[str, Any]], request: StoredRequest
) -> Confusion:
    counts = Counter(
        (references[answer["example"]], NO_ANSWER if answer["output"] is None else label_text(answer["output"]))
        for answer in answers
        if answer["model"] == model
    )
    wrong = {pair: count for pair, count in counts.items() if pair[0] != pair[1]}
    totals: Counter[str] = Counter()
    for (reference, _), count in counts.items():
        totals[reference] += count
    ordered = sorted(wrong, key=lambda pair: (-wrong[pair], pair))[: request.pairs]
    labels, merged = _table_labels(counts, wrong, request.labels)
    place = {name: i for i, name in enumerate(labels)}
    table = [[0] * len(labels) for _ in labels]
    for (reference, answer), count in counts.items():
        table[place[merged.get(reference, reference)]][place[merged.get(answer, answer)]] += count
    return {
        "model": model,
        "answers": sum(counts.values()),
        "wrong": sum(wrong.values()),
        "labels": labels,
        "others": len(merged),
        "counts": table,
        "pairs": [[*pair, wrong[pair], round(wrong[pair] / totals[pair[0]], 4)] for pair in ordered],
        "more_pairs": len(wrong) - len(ordered),
    }


def _table_labels(
    counts: Mapping[tuple[str, str], int], wrong: Mapping[tuple[str, str], int], most: int
) -> tuple[list[str], dict[str, str]]:
    """The labels of the table in their order, and those that `(others)` stands for."""
    every = {name for pair in counts for name in pair} - {NO_ANSWER}
    last = [NO_ANSWER] if any(answer == NO_ANSWER for _, answer in counts) else []
    if len(every) <= most:
        return [*rank_labels(every), *last], {}
    part: Counter[str] = Counter()
    for pair, count in wrong.items():
        part.update(dict.fromkeys(pair, count))
    kept = sorted(every, key=lambda name: (-part[name], name))[:most]
    return [*rank_labels(kept), OTHERS, *last], dict.fromkeys(every - set(kept), OTHERS)


BINS = 10


class Calibration(TypedDict):
    model: str
    n: int
    without: int
    """Answers that came with no confidence, which are in no bin."""
    error: float | None
    """The expected calibration error (Naeini et al. 2015): the mean of |accuracy - confidence| over the answers' bins.
    """
    bins: list[list[float]]
    """Low, high, count, confidence and accuracy. Ten of equal width, each open below, empty ones left out."""


class Calibrations(TypedDict):
    models: list[Calibration]
    """Empty if answers are not labels."""


def calibration(payload: Mapping[str, object]) -> Calibrations:
    """The service. `payload`: `folder`, `metric` and `models` of a StoredRequest."""
    request = StoredRequest.model_validate(payload)
    if not has_labels(request.metric):
        return {"models": []}
    references = {name: row["truth"] for name, row in read_examples(request).items()}
    answers = read_answers(request.folder, request.models)
    return {"models": [_calibration_of(model, references, answers) for model in request.models]}


def _calibration_of(model: str, references: Mapping[str, str], answers: Sequence[Mapping[str, Any]]) -> Calibration:
    mine = [answer for answer in answers if answer["model"] == model]
    sure = [answer for answer in mine if answer["confidence"] is not None and answer["output"] is not None]
    confidence = np.array([answer["confidence"] for answer in sure], float)
    right = np.array([answer["output"] == references[answer["example"]] for answer in sure], float)
    places = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    bins = []
    for place in np.unique(places).tolist():
        inside = places == place
        means = float(confidence[inside].mean()), float(right[inside].mean())
        bins.append([place / BINS, (place + 1) / BINS, int(inside.sum()), *(round(mean, 4) for mean in means)])
    error = sum(count * abs(accuracy - stated) for _, _, count, stated, accuracy in bins) / max(len(sure), 1)
    return {
        "model": model,
        "n": len(sure),
        "without": len(mine) - len(sure),
        "error": round(error, 4) if sure else None,
        "bins": bins,
    }


_MOST_REASONS = 3
"""Most reasons of a scorer's failures that are quoted."""


class ModelFailures(TypedDict):
    model: str
    errors: int
    commonest: str


class WorstExamples(TypedDict):
    examples: list[Mapping[str, object]]
    """`example_view` of each: errors first, then sure mistakes."""
    wrong: int
    failures: list[ModelFailures]


class UnscoredAnswers(TypedDict):
    answers: int
    failures: dict[str, int]
    models: dict[str, int]
    first: list[Mapping[str, object]]
    """For each quoted reason its first answer: `model`, `example`, `failure`, `detail`; and the reason's `count`."""


def worst_examples(payload: Mapping[str, object]) -> WorstExamples:
    """The service. `payload`: `folder`, `candidate`, `count`, `metric` and `inputs` of a StoredRequest.

    Numbers are sorted by absolute error; answers that are neither labels nor numbers by the main metric of the example
    alone. Of repeated answers the worst counts.
    """
    request = StoredRequest.model_validate(payload)
    metric, examples = find_metric(request.metric), read_examples(request)
    answers = [
        max(given, key=lambda answer: badness(answer, examples[answer["example"]], metric))
        for given in by_example(read_answers(request.folder, [request.candidate])).values()
    ]
    judged = [(badness(answer, examples[answer["example"]], metric), answer) for answer in answers]
    wrong = sorted((pair for pair in judged if pair[0] > 0), key=lambda pair: -pair[0])
    return {
        "examples": [example_view(answer, examples[answer["example"]]) for _, answer in wrong[: request.count]],
        "wrong": len(wrong),
        "failures": failures(read_answers(request.folder)),
    }


def unscored(payload: Mapping[str, object]) -> UnscoredAnswers:
    """The service: answers without a score. `payload`: `folder` of a StoredRequest."""
    request = StoredRequest.model_validate(payload)
    table = integrity.read_table(request.folder / "unscored.parquet", LOST, RECOVERY)
    rows = table.to_pylist()
    reasons = Counter((row["failure"], row["detail"]) for row in rows)
    first = {(row["failure"], row["detail"]): row for row in reversed(rows)}
    shown = ("model", "example", "failure", "detail")
    return {
        "answers": len(rows),
        "failures": dict(Counter(row["failure"] for row in rows)),
        "models": dict(Counter(row["model"] for row in rows)),
        "first": [
            {**{name: first[reason][name] for name in shown}, "count": count}
            for reason, count in list(reasons.items())[:_MOST_REASONS]
        ],
    }


def failures(answers: Sequence[Answer]) -> list[ModelFailures]:
    """Each model that failed on some example: how many errors it has, and the commonest."""
    found: dict[str, Counter[str]] = {}
    for answer in answers:
        if answer["error"] is not None:
            found.setdefault(answer["model"], Counter())[answer["error"]] += 1
    return [
        {"model": model, "errors": errors.total(), "commonest": errors.most_common(1)[0][0]}
        for model, errors in sorted(found.items())
    ]


def badness(answer: Answer, example: Example, metric: Metric) -> float:
    """0 for a right answer; an error is worst of all."""
    is_number = "regression" in metric.families
    if answer["error"] is not None or (is_number and answer["number"] is None):
        return math.inf
    if is_number:
        return abs(float(example["truth"]) - float(answer["number"]))
    if not has_labels(metric.name) and (score := answer.get("score")) is not None:
        best = metric.high if metric.better == "higher" else metric.low or 0.0
        if best is not None:
            return abs(float(score) - best)
    return 0.0 if answer["output"] == example["truth"] else 1.0 + (answer["confidence"] or 0.0)


def mean_badness(answers: Sequence[Answer], example: Example, metric: Metric) -> float:
    """Mean badness of one model's answers to an example."""
    return sum(badness(answer, example, metric) for answer in answers) / len(answers)


def example_view(answer: Answer, example: Example) -> Mapping[str, object]:
    """An example and its answer for a reader, without empty fields."""
    found = {
        "id": answer["example"],
        "truth": example["truth"],
        "output": output_of(answer),
        "confidence": answer["confidence"],
        "error": answer["error"],
        "preview": example["preview"],
    }
    return {key: value for key, value in found.items() if value is not None}


BOTH, NEITHER, ONLY_CANDIDATE, ONLY_BASELINE = "both_right", "both_wrong", "only_candidate", "only_baseline"
_KINDS = {(True, True): BOTH, (True, False): ONLY_CANDIDATE, (False, True): ONLY_BASELINE, (False, False): NEITHER}
"""(whether the candidate is right, whether the baseline is) -> kind."""


class _Pair(NamedTuple):
    """Both models' answers to one example. `gain`: by how much the baseline's is worse."""

    example: Example
    baseline: Sequence[Answer]
    candidate: Sequence[Answer]
    first: float
    second: float

    @property
    def gain(self) -> float:
        return 0.0 if self.first == self.second else self.first - self.second


class Disagreements(TypedDict):
    tally: dict[str, int]
    candidate_better: list[Mapping[str, object]]
    baseline_better: list[Mapping[str, object]]


class ContestedExamples(TypedDict):
    examples: list[Mapping[str, object]]
    """`id`, `truth`, `preview`, and `answers` by model."""


def disagreements(payload: Mapping[str, object]) -> Disagreements:
    """The service. `payload`: `folder`, `metric`, `baseline`, `candidate`, `count` and `inputs` of a StoredRequest.

    For labels, `tally` counts which model is right; the models disagree if exactly one is. A repeated answer is right
    if most of its repeats are. For other answers, `tally` counts which model is nearer to the reference by the main
    metric. The largest gains come first: of labels, those with the most confident wrong answer.
    """
    request = StoredRequest.model_validate(payload)
    metric, examples = find_metric(request.metric), read_examples(request)
    answers = read_answers(request.folder, [request.baseline, request.candidate])
    first = by_example([answer for answer in answers if answer["model"] == request.baseline])
    second = by_example([answer for answer in answers if answer["model"] == request.candidate])
    pairs = [
        _Pair(
            examples[name], first[name], given,
            mean_badness(first[name], examples[name], metric), mean_badness(given, examples[name], metric),
        )
        for name, given in second.items() if name in first
    ]  # fmt: skip
    tally, won, lost = (_by_right if has_labels(metric.name) else _by_gain)(pairs)
    count = request.count
    return {
        "tally": tally,
        "candidate_better": [_pair_view(pair) for pair in sorted(won, key=lambda pair: -pair.gain)[:count]],
        "baseline_better": [_pair_view(pair) for pair in sorted(lost, key=lambda pair: pair.gain)[:count]],
    }


def contested_examples(payload: Mapping[str, object]) -> ContestedExamples:
    """The service. `payload`: `folder`, `metric`, `count` and `inputs` of a StoredRequest.

    The examples on which all models differ most: for labels, by how close to half of them are right, then by how many
    different answers there are; else by the spread of the main metric. Examples with equal answers are left out.
    """
    request = StoredRequest.model_validate(payload)
    metric, examples = find_metric(request.metric), read_examples(request)
    by_model: dict[str, dict[str, list[Answer]]] = {}
    for answer in read_answers(request.folder):
        by_model.setdefault(answer["example"], {}).setdefault(answer["model"], []).append(answer)
    spread = {name: _spread(given, examples[name], metric) for name, given in by_model.items()}
    chosen = sorted((name for name in spread if spread[name] > 0), key=lambda name: -spread[name])[: request.count]
    return {
        "examples": [
            {
                **_example_view(examples[name]),
                "answers": {model: _answer_text(given) for model, given in by_model[name].items()},
            }
            for name in chosen
        ]
    }


def _by_right(pairs: Sequence[_Pair]) -> tuple[dict[str, int], list[_Pair], list[_Pair]]:
    groups: dict[str, list[_Pair]] = {BOTH: [], ONLY_CANDIDATE: [], ONLY_BASELINE: [], NEITHER: []}
    for pair in pairs:
        mine, theirs = (_is_right(given, pair.example) for given in (pair.candidate, pair.baseline))
        groups[_KINDS[mine, theirs]].append(pair)
    return {name: len(group) for name, group in groups.items()}, groups[ONLY_CANDIDATE], groups[ONLY_BASELINE]


def _by_gain(pairs: Sequence[_Pair]) -> tuple[dict[str, int], list[_Pair], list[_Pair]]:
    won = [pair for pair in pairs if pair.gain > 0]
    lost = [pair for pair in pairs if pair.gain < 0]
    alike = len(pairs) - len(won) - len(lost)
    return {"candidate_nearer": len(won), "baseline_nearer": len(lost), "alike": alike}, won, lost


def _is_right(given: Sequence[Answer], example: Example) -> bool:
    return bool(2 * sum(answer["output"] == example["truth"] for answer in given) > len(given))


def _spread(given: Mapping[str, Sequence[Answer]], example: Example, metric: Metric) -> float:
    if has_labels(metric.name):
        right = sum(_is_right(answers, example) for answers in given.values()) / len(given)
        kinds = len({_answer_text(answers) for answers in given.values()})
        return 0.0 if kinds < 2 else min(right, 1 - right) + kinds / (1000 * len(given))
    found = [mean_badness(answers, example, metric) for answers in given.values()]
    known = [value for value in found if math.isfinite(value)]
    return math.inf if 0 < len(known) < len(found) else max(known, default=0.0) - min(known, default=0.0)


def _pair_view(pair: _Pair) -> Mapping[str, object]:
    sure = pair.candidate[0]["confidence"], pair.baseline[0]["confidence"]
    more = {"candidate_confidence": sure[0], "baseline_confidence": sure[1]}
    both = {"candidate": _answer_text(pair.candidate), "baseline": _answer_text(pair.baseline)}
    return {**_example_view(pair.example), **both, **{key: value for key, value in more.items() if value is not None}}


def _example_view(example: Example) -> Mapping[str, object]:
    found = {"id": example["example"], "truth": example["truth"], "preview": example["preview"]}
    return {key: value for key, value in found.items() if value is not None}


def _answer_text(given: Sequence[Answer]) -> str | float:
    answer = output_of(given[0])
    return f"(error: {given[0]['error']})" if answer is None else answer
