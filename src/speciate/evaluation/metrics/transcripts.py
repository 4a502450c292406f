"""Errors of transcripts: the least insertions, deletions and substitutions (Levenshtein 1966) per unit of the truth.

White space counts as one blank. Letters count as they are: who wants neither case nor punctuation to matter takes them
out of the truth before training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from speciate.evaluation.metrics.answers import Answers, Statistic
from speciate.evaluation.statistics import Floats


def _error_rate(cut: Callable[[str], Sequence[str]], answers: Answers) -> Statistic:
    """An answer that failed counts as an empty one."""
    parts = np.zeros((len(answers.truth), 2))  # errors, units of the truth
    for row, (truth, given) in enumerate(zip(answers.truth, answers.given, strict=True)):
        true = cut(str(truth))
        parts[row] = edits(true, cut(str(given or ""))), len(true)
    return Statistic(parts, lambda sums: sums[:, 0] / sums[:, 1])


def edits(first: Sequence[str], second: Sequence[str]) -> int:
    """The least single changes that make one of the other. A row of the table at a time: O(n m), in NumPy."""
    code = {unit: place for place, unit in enumerate(dict.fromkeys([*first, *second]))}
    wanted = np.array([code[unit] for unit in second], np.int64)
    steps = np.arange(len(wanted) + 1)
    row = steps
    for unit in first:
        taken = np.concatenate([[row[0] + 1], np.minimum(row[1:] + 1, row[:-1] + (wanted != code[unit]))])
        row = np.minimum.accumulate(taken - steps) + steps  # insertions, one after the other
    return int(row[-1])


def _words(text: str) -> list[str]:
    return text.split()


def _characters(text: str) -> str:
    return " ".join(text.split())


MEANS: dict[str, Callable[[Answers], Floats]] = {}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {
    "wer": partial(_error_rate, _words), "cer": partial(_error_rate, _characters),
}  # fmt: skip
