"""The judged examples of an evaluation page by page, each with the answers of two models, or of all models to one.

Runs in a service process, on the stored rows. What it returns is foreign text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from speciate.evaluation.reports.error_analysis import NO_ANSWER
from speciate.evaluation.reports.stored_answers import (
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

SHOWN = ("differ", "both_wrong", "wrong", "all")
"""differ: exactly one of both is right, or, where answers are no labels, they answer otherwise; wrong: the candidate
is."""


class PageRequest(StoredRequest):
    show: str = "differ"
    label: str | None = None
    answered: str | None = None
    """Answer of the candidate."""
    after: str = ""
    """The last id of the page before; ids ascend."""


class GivenAnswer(TypedDict):
    text: str | float | None
    """None: an error."""
    confidence: float | None
    right: bool | None
    """None where answers are no labels: then nearness is a matter of degree."""


class JudgedExample(TypedDict):
    id: str
    label: str
    preview: str | None
    candidate: GivenAnswer | None
    baseline: GivenAnswer | None


class JudgedPage(TypedDict):
    examples: list[JudgedExample]
    more: bool
    totals: dict[str, int]
    """How many examples each of `SHOWN` has under the other conditions."""


class JudgedNeighbours(TypedDict):
    before: str | None
    after: str | None


class AnswersToOne(TypedDict):
    label: str | None
    """None: the example is not among the judged ones."""
    answers: dict[str, GivenAnswer]
    """By model."""


class _Pair(NamedTuple):
    example: Example
    candidate: Answer | None
    baseline: Answer | None


def judged_page(payload: Mapping[str, object]) -> JudgedPage:
    """The service. `payload`: a PageRequest with `folder`, `metric`, `candidate`, `baseline`, `inputs` and `count`."""
    request = PageRequest.model_validate(payload)
    labels, pairs = has_labels(request.metric), _wanted_pairs(request)
    kinds = {pair.example["example"]: _kinds(pair, labels) for pair in pairs}
    totals = Counter(kind for found in kinds.values() for kind in found)
    chosen = sorted(
        (pair for pair in pairs if request.show in kinds[pair.example["example"]]),
        key=lambda pair: str(pair.example["example"]),
    )
    chosen = [pair for pair in chosen if pair.example["example"] > request.after]
    return {
        "examples": [_view(pair, labels) for pair in chosen[: request.count]],
        "more": len(chosen) > request.count,
        "totals": {name: totals[name] for name in SHOWN},
    }


def judged_neighbours(payload: Mapping[str, object]) -> JudgedNeighbours:
    """The service: the ids before and after the example `after` on its page. `payload`: as of `judged_page`."""
    request = PageRequest.model_validate(payload)
    names = sorted(str(pair.example["example"]) for pair in _chosen(request))
    return {
        "before": max((name for name in names if name < request.after), default=None),
        "after": min((name for name in names if name > request.after), default=None),
    }


def _chosen(request: PageRequest) -> list[_Pair]:
    labels = has_labels(request.metric)
    return [pair for pair in _wanted_pairs(request) if request.show in _kinds(pair, labels)]


def answers_to_one(payload: Mapping[str, object]) -> AnswersToOne:
    """The service: every model's answer to the example `after`. `payload`: a PageRequest with `folder`, `metric`."""
    request = PageRequest.model_validate(payload)
    example = read_examples(request).get(request.after)
    if example is None:
        return {"label": None, "answers": {}}
    labels, answers = has_labels(request.metric), dict[str, GivenAnswer]()
    for answer in read_answers(request.folder):
        if answer["example"] == request.after and answer["model"] not in answers:
            answers[answer["model"]] = _given(answer, example, labels)
    return {"label": str(example["truth"]), "answers": answers}


def _wanted_pairs(request: PageRequest) -> list[_Pair]:
    examples = read_examples(request)
    first = by_example(read_answers(request.folder, [request.candidate]))
    second = by_example(read_answers(request.folder, [request.baseline]))
    pairs = [_Pair(each, _first(first.get(name)), _first(second.get(name))) for name, each in examples.items()]
    return [pair for pair in pairs if _is_wanted(pair, request)]


def _first(given: Sequence[Answer] | None) -> Answer | None:
    return given[0] if given else None


def _is_wanted(pair: _Pair, request: PageRequest) -> bool:
    """Whether a pair is in the cells of the confusion table that are asked for."""
    if request.label is not None and label_text(str(pair.example["truth"])) != request.label:
        return False
    if request.answered is None:
        return True
    answer = pair.candidate
    if answer is None:
        return False
    said = NO_ANSWER if answer["output"] is None else label_text(answer["output"])
    return said == request.answered


def _kinds(pair: _Pair, labels: bool) -> tuple[str, ...]:
    mine, theirs = (_is_right(answer, pair.example) for answer in (pair.candidate, pair.baseline))
    if not labels:
        both = pair.candidate is not None and pair.baseline is not None
        differ = both and output_of(pair.candidate or {}) != output_of(pair.baseline or {})
        return ("all", *(("differ",) if differ else ()))
    found = ["all"]
    found += ["differ"] if mine != theirs else []
    found += ["both_wrong"] if not mine and not theirs else []
    found += ["wrong"] if not mine else []
    return tuple(found)


def _is_right(answer: Answer | None, example: Example) -> bool:
    return answer is not None and bool(answer["output"] == example["truth"])


def _given(answer: Answer, example: Example, labels: bool) -> GivenAnswer:
    right: bool | None = _is_right(answer, example) if labels else None
    return {"text": output_of(answer), "confidence": answer["confidence"], "right": right}


def _view(pair: _Pair, labels: bool) -> JudgedExample:
    example: Mapping[str, Any] = pair.example
    return {
        "id": example["example"], "label": str(example["truth"]), "preview": example["preview"],
        "candidate": _given(pair.candidate, example, labels) if pair.candidate else None,
        "baseline": _given(pair.baseline, example, labels) if pair.baseline else None,
    }  # fmt: skip
