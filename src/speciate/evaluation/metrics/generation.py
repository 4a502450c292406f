"""Metrics of texts that are written freely. An answer that failed counts as an empty text.

White space counts as one blank, and none at the ends; all else counts as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from speciate.evaluation.metrics.answers import Answers, Statistic
from speciate.evaluation.statistics import Floats

_NUMBER = re.compile(r"(?:(?<![\w.)])[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
"""A sign after a word or a number is a dash: `10-20` ends in 20. Commas divide thousands."""
_CLOSE = 1e-6
"""Relative: answers repeat numbers in other notations."""


def _exact_match(answers: Answers) -> Floats:
    pairs = zip(answers.truth, answers.given, strict=True)
    return np.array([given is not None and plain(truth) == plain(given) for truth, given in pairs], np.float64)


def _numeric_match(answers: Answers) -> Floats:
    """NaN where the truth has no number."""
    return np.array([_same(truth, given) for truth, given in zip(answers.truth, answers.given, strict=True)])


def _same(truth: Any, given: Any) -> float:
    wanted, said = last_number(truth), last_number(given)
    if wanted is None:
        return math.nan
    return float(said is not None and math.isclose(wanted, said, rel_tol=_CLOSE, abs_tol=1e-12))


def last_number(text: Any) -> float | None:
    """The last one in a text, which in an answer with its reasoning is the result (Cobbe et al. 2021 write it so)."""
    found = _NUMBER.findall(plain(text))
    return float(found[-1].replace(",", "")) if found else None


def plain(text: Any) -> str:
    return " ".join(str("" if text is None else text).split())


MEANS: dict[str, Callable[[Answers], Floats]] = {"exact_match": _exact_match, "numeric_match": _numeric_match}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {}
