"""Errors of transcripts, as jiwer counts them: the least insertions, deletions and substitutions per unit of the truth.

White space counts as one blank. Letters count as they are: who wants neither case nor punctuation to matter takes them
out of the truth before training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from speciate.evaluation.libraries import missing
from speciate.evaluation.metrics.answers import Answers, Statistic
from speciate.evaluation.statistics import Floats


def _error_rate(unit: Literal["words", "characters"], answers: Answers) -> Statistic:
    """An answer that failed counts as an empty one."""
    try:
        import jiwer
    except ImportError as error:
        raise missing("jiwer") from error

    count = jiwer.process_words if unit == "words" else jiwer.process_characters
    parts = np.zeros((len(answers.truth), 2))  # errors, units of the truth
    for row, (truth, given) in enumerate(zip(answers.truth, answers.given, strict=True)):
        found = count(_plain(truth), _plain(given or ""))
        errors = found.substitutions + found.deletions + found.insertions
        parts[row] = errors, found.hits + found.substitutions + found.deletions
    return Statistic(parts, lambda sums: sums[:, 0] / sums[:, 1])


def _plain(text: object) -> str:
    return " ".join(str(text).split())


MEANS: dict[str, Callable[[Answers], Floats]] = {}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {
    "wer": partial(_error_rate, "words"), "cer": partial(_error_rate, "characters"),
}  # fmt: skip
