"""The examples on which models differ most. Runs in a service process, over stored answers.

What it returns is foreign text (labels, previews, messages of models): the caller shows it as untrusted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.evaluation.mistakes import mean_badness
from speciate.evaluation.stored import Answer, Example, by_example, has_labels, read_answers, read_examples, said
from speciate.vocabulary import Metric, find_metric

BOTH, NEITHER, ONLY_CANDIDATE, ONLY_BASELINE = "both_right", "both_wrong", "only_candidate", "only_baseline"
_KINDS = {(True, True): BOTH, (True, False): ONLY_CANDIDATE, (False, True): ONLY_BASELINE, (False, False): NEITHER}
"""By whether the candidate is right, and the baseline."""


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


def disagreed(payload: dict[str, Any]) -> dict[str, Any]:
    """`{folder, metric, baseline, candidate, count, inputs}` -> `{tally, candidate_better: [...], baseline_better}`.

    Where answers are labels, `tally` counts who is right, and only where exactly one is do they disagree; an answer
    that was repeated is right where most of its repeats are. Else it counts who is nearer to the truth by the main
    metric. The largest gains come first: of labels, those where the one that is wrong is surest.
    """
    metric, examples = find_metric(payload["metric"]), read_examples(payload)
    answers = read_answers(payload, [payload["baseline"], payload["candidate"]])
    first = by_example([answer for answer in answers if answer["model"] == payload["baseline"]])
    second = by_example([answer for answer in answers if answer["model"] == payload["candidate"]])
    pairs = [
        _Pair(
            examples[name], first[name], given,
            mean_badness(first[name], examples[name], metric), mean_badness(given, examples[name], metric),
        )
        for name, given in second.items() if name in first
    ]  # fmt: skip
    tally, won, lost = (_by_right if has_labels(metric.name) else _by_gain)(pairs)
    count = payload["count"]
    return {
        "tally": tally,
        "candidate_better": [_shown(pair) for pair in sorted(won, key=lambda pair: -pair.gain)[:count]],
        "baseline_better": [_shown(pair) for pair in sorted(lost, key=lambda pair: pair.gain)[:count]],
    }


def contested(payload: dict[str, Any]) -> dict[str, Any]:
    """`{folder, metric, count, inputs}` -> `{examples: [{id, truth, preview, answers: {model: answer}}]}`.

    Those on which all the models differ most: labels by how near half of them are right, then by how many answers there
    are; else by the spread of the main metric. None that all answer alike.
    """
    metric, examples = find_metric(payload["metric"]), read_examples(payload)
    by_model: dict[str, dict[str, list[Answer]]] = {}
    for answer in read_answers(payload):
        by_model.setdefault(answer["example"], {}).setdefault(answer["model"], []).append(answer)
    spread = {name: _spread(given, examples[name], metric) for name, given in by_model.items()}
    chosen = sorted((name for name in spread if spread[name] > 0), key=lambda name: -spread[name])[: payload["count"]]
    return {
        "examples": [
            _of(examples[name]) | {"answers": {model: _said(given) for model, given in by_model[name].items()}}
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
        kinds = len({_said(answers) for answers in given.values()})
        return 0.0 if kinds < 2 else min(right, 1 - right) + kinds / (1000 * len(given))
    found = [mean_badness(answers, example, metric) for answers in given.values()]
    known = [value for value in found if math.isfinite(value)]
    return math.inf if 0 < len(known) < len(found) else max(known, default=0.0) - min(known, default=0.0)


def _shown(pair: _Pair) -> dict[str, Any]:
    sure = pair.candidate[0]["confidence"], pair.baseline[0]["confidence"]
    more = {"candidate_confidence": sure[0], "baseline_confidence": sure[1]}
    both = {"candidate": _said(pair.candidate), "baseline": _said(pair.baseline)}
    return _of(pair.example) | both | {key: value for key, value in more.items() if value is not None}


def _of(example: Example) -> dict[str, Any]:
    found = {"id": example["example"], "truth": example["truth"], "preview": example["preview"]}
    return {key: value for key, value in found.items() if value is not None}


def _said(given: Sequence[Answer]) -> str | float:
    answer = said(given[0])
    return f"(error: {given[0]['error']})" if answer is None else answer
