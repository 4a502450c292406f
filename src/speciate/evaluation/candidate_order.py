"""The order in which candidates may go forward where the best is wanted (`objective.aim`). Pure.

Validation examples make the order before the test rows are looked at, and the first that passes its gates goes forward.
So what the test rows say of one candidate beside another has no part in it.

False promotions. Each of k candidates is judged at 1 - 0.05 / k (`holdout_reuse.level_for`), so that some candidate
passes falsely in at most 2.5 % of evaluations, whatever they have in common (Bonferroni). A rule that takes one of
those that pass adds nothing to that. A fixed sequence (Maurer, Hothorn & Lehmacher 1995, "Multiple comparisons in drug
clinical trials and preclinical assays: a-priori ordered hypotheses") tests each at the full level, and ends at the
first that does not pass. This one goes on after it, so each needs its own share of the error: the fallback procedure
(Wiens 2003, "A fixed sequence Bonferroni procedure for testing multiple endpoints") with equal shares. Departure: there
the share of a hypothesis that was rejected goes to the next one. Here the first that passes ends the sequence. A search
asks for the first alone, at the full level; where that does not pass, the others share what later looks may spend.

What the order adds is an honest figure. The best by the test rows is partly lucky on them; the first by other rows is
not. `python evals/fixed_order.py` shows both.

A value that is in doubt counts for one standard error less (`doubt_of`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from speciate.evaluation.reports.report import Doubt, ValidationEvidence
from speciate.sample_size import LEVEL
from speciate.vocabulary import Metric

_DOUBTS: Mapping[Doubt, str] = {
    "judged_apart": "it was judged on other rows, or its base model may know some of them",
    "not_nested": "the rows that judge it also chose or stopped it, and values of others are nested",
    "beside_thorough": "a thorough search has most of its learners",
}


def fixed_order(evidence: Sequence[ValidationEvidence], metric: Metric) -> tuple[ValidationEvidence, ...]:
    """The evidence in the order of its candidates. Equal ones stay as they are given: from cheap to dear."""
    most = max((one.n for one in evidence), default=0)
    return tuple(sorted(evidence, key=lambda one: -_standing(one, most, metric.sign)))


def evidence_of(row: Mapping[str, Any], n: int, how: str) -> ValidationEvidence:
    """A row has a value and its interval, of which half is so many standard errors."""
    interval = row["interval"]
    error = (interval[1] - interval[0]) / 2 / NormalDist().inv_cdf((1 + LEVEL) / 2) if interval else None
    return ValidationEvidence(model=row["model"], value=row["value"], standard_error=error, n=n, how=how)


def doubt_of(one: ValidationEvidence, most: int) -> str | None:
    """Why the value counts for one standard error less beside one on `most` rows, in words; None where it counts whole.

    The less is known of each, the more optimistic is the best of several (Smith & Winkler 2006, "The optimizer's
    curse"), so that fewer rows are a doubt by themselves.
    """
    if one.optimistic:
        return _DOUBTS[one.doubt] if one.doubt else "it is optimistic"
    return "fewer rows than others" if one.n < most else None


def _standing(one: ValidationEvidence, most: int, sign: int) -> float:
    """The value, greater being better, less its doubt."""
    if one.value is None:
        return -math.inf
    if doubt_of(one, most) is None:
        return sign * one.value
    return -math.inf if one.standard_error is None else sign * one.value - one.standard_error
