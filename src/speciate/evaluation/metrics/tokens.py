"""Metrics of a tag per unit: single tags, and spans of them.

Spans are those of IOB2 and its kin (prefixes B- I- E- S-), read as forgivingly as CoNLL-2000's conlleval does, which
seqeval follows: a span goes on at I- or E- of the same type after B- or I- of it, and else begins anew. Tags without
such a prefix, as of a protein's secondary structure, are spans as long as they stay the same; O is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from speciate.evaluation.metrics.answers import Answers, Statistic
from speciate.evaluation.statistics import Floats

_OUTSIDE = "O"


class Span(NamedTuple):
    tag: str
    start: int
    stop: int


def _token_accuracy(answers: Answers) -> Statistic:
    """Units without an answer are wrong, and so are all of an answer that has too many."""
    parts = np.zeros((len(answers.truth), 2))  # right, all
    for row, (truth, given) in enumerate(zip(answers.truth, answers.given, strict=True)):
        parts[row] = sum(a == b for a, b in zip(truth, _fitting(given, truth), strict=False)), len(truth)
    return Statistic(parts, lambda sums: sums[:, 0] / sums[:, 1])


def _f1_spans(answers: Answers) -> Statistic:
    """An error counts as as many wrong spans as there are true ones, and at least as one."""
    parts = np.zeros((len(answers.truth), 3))  # hit, given, true
    for row, (truth, given) in enumerate(zip(answers.truth, answers.given, strict=True)):
        true, found = set(spans(truth)), set(spans(_fitting(given, truth)))
        is_error = given is None or len(given) > len(truth)
        parts[row] = len(true & found), max(1, len(true)) if is_error else len(found), len(true)
    return Statistic(parts, lambda sums: 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2]))


def spans(tags: Sequence[str]) -> list[Span]:
    found: list[Span] = []
    before, kind_before, start = _OUTSIDE, "", 0
    for place, tag in enumerate([*tags, _OUTSIDE]):
        prefix, kind = _parts(tag)
        goes_on = kind == kind_before and ((prefix in ("I", "E") and before in ("B", "I")) or (prefix == before == ""))
        if goes_on:
            before = prefix
            continue
        if before != _OUTSIDE:
            found.append(Span(kind_before, start, place))
        before, kind_before, start = prefix, kind, place
    return found


def _parts(tag: str) -> tuple[str, str]:
    """Prefix and type; the prefix of a plain tag is empty."""
    if tag == _OUTSIDE:
        return _OUTSIDE, ""
    return (tag[0], tag[2:]) if tag[:2] in ("B-", "I-", "E-", "S-") else ("", tag)


def _fitting(given: Sequence[str] | None, truth: Sequence[str]) -> Sequence[str]:
    return () if given is None or len(given) > len(truth) else given


MEANS: dict[str, Callable[[Answers], Floats]] = {}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {"token_accuracy": _token_accuracy, "f1_spans": _f1_spans}
