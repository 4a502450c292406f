"""Which labels a model takes for which others. Runs in a service process, over stored answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from speciate.evaluation.stored import has_labels, label, read_answers, read_examples
from speciate.tasks.ordinal import ranked

NO_ANSWER, OTHERS = "(no answer)", "(others)"


def confused(payload: dict[str, Any]) -> dict[str, Any]:
    """`{folder, metric, models, pairs, labels}` -> `{models: [{model, answers, wrong, labels, counts, pairs, ...}]}`.

    `counts` is (truth, answer) over `labels`; where there are more than asked for, those that take part in the most
    mistakes stay and the rest is one, `(others)`. `pairs` are the most frequent mistakes as `[truth, answer, count,
    share of that truth]`, `more_pairs` how many kinds are left out. Nothing where answers are no labels.
    """
    if not has_labels(payload["metric"]):
        return {"models": []}
    truths = {name: label(row["truth"]) for name, row in read_examples(payload).items()}
    answers = read_answers(payload, payload["models"])
    return {"models": [_of(model, truths, answers, payload) for model in payload["models"]]}


def _of(
    model: str, truths: Mapping[str, str], answers: Sequence[Mapping[str, Any]], payload: Mapping[str, Any]
) -> dict[str, Any]:
    counts = Counter(
        (truths[answer["example"]], NO_ANSWER if answer["output"] is None else label(answer["output"]))
        for answer in answers
        if answer["model"] == model
    )
    wrong = {pair: count for pair, count in counts.items() if pair[0] != pair[1]}
    totals: Counter[str] = Counter()
    for (truth, _), count in counts.items():
        totals[truth] += count
    ordered = sorted(wrong, key=lambda pair: (-wrong[pair], pair))[: payload["pairs"]]
    labels, merged = _labels(counts, wrong, payload["labels"])
    place = {name: i for i, name in enumerate(labels)}
    table = [[0] * len(labels) for _ in labels]
    for (truth, said), count in counts.items():
        table[place[merged.get(truth, truth)]][place[merged.get(said, said)]] += count
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


def _labels(
    counts: Mapping[tuple[str, str], int], wrong: Mapping[tuple[str, str], int], most: int
) -> tuple[list[str], dict[str, str]]:
    """The labels of the table in their order, and those that `(others)` stands for."""
    every = {name for pair in counts for name in pair} - {NO_ANSWER}
    last = [NO_ANSWER] if any(said == NO_ANSWER for _, said in counts) else []
    if len(every) <= most:
        return [*ranked(every), *last], {}
    part: Counter[str] = Counter()
    for pair, count in wrong.items():
        part.update(dict.fromkeys(pair, count))
    kept = sorted(every, key=lambda name: (-part[name], name))[:most]
    return [*ranked(kept), OTHERS, *last], dict.fromkeys(every - set(kept), OTHERS)
