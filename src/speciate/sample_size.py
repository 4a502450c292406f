"""How many test examples a statement needs: the planning formulas, by the standard library alone.

All are normal approximations for a two-sided 95 % interval and 80 % power: good to plan with, while the verdict
itself comes from the intervals of `evaluation.statistics`. Clusters are left out: what is counted is independent
examples, so grouped data need more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

from speciate.vocabulary import Metric

LEVEL, POWER = 0.95, 0.80
_Z_LEVEL = NormalDist().inv_cdf((1 + LEVEL) / 2)
_Z_POWER = NormalDist().inv_cdf(POWER)


def to_show_target(metric: Metric, target: float | None) -> int | None:
    """Examples with which a model that halves the gap between target and perfect shows that it reaches the target.

    One-sample test of a proportion, n = ((z_a sqrt(p0 q0) + z_b sqrt(p1 q1)) / (p1 - p0))^2 (Fleiss, Levin & Paik,
    Statistical Methods for Rates and Proportions, 2003), with p0 the target and p1 = (p0 + 1) / 2. A metric about one
    label counts only that label's examples (see `in_rows`). For other metrics between 0 and 1 a proportion stands in.
    None where the metric has no bounds, as its spread is then unknown before data are seen.
    """
    if target is None or metric.low != 0 or metric.high != 1 or not 0 < target < 1:
        return None
    return math.ceil(_to_show(target))


def highest_target(n: int) -> float | None:
    """The highest target, in whole percent, that `n` test examples can still show in the sense of `to_show_target`.

    None where not even 1 % could be shown.
    """
    shown = [percent / 100 for percent in range(1, 100) if _to_show(percent / 100) <= n]
    return max(shown, default=None)


def more_of(needed: int, there: int, noun: str) -> str:
    """How every sentence counts what is to be added: beside what that makes in all. `there`: 0 where nobody noted it.

    >>> more_of(1_200, 300, "test rows")
    '1,200 more test rows (1,500 in all)'
    """
    return f"{needed:,} more {noun}" + (f" ({there + needed:,} in all)" if there else "")


def shown_without_an_error(n: int) -> float:
    """The lower end of Wilson's interval where all of `n` are right: no model shows more on them."""
    return n / (n + _Z_LEVEL**2)


def rows_without_an_error(target: float) -> int:
    """The inverse of `shown_without_an_error`, for a target below 1."""
    return math.ceil(_Z_LEVEL**2 * target / (1 - target))


def smallest_difference(n: int, discordant: float = 0.1) -> float | None:
    """The smallest paired difference, in whole percent, that `n` test examples find in the sense of
    `to_show_difference`; None where not even all of the discordant ones would do."""
    found = (percent / 100 for percent in range(1, 100) if to_show_difference(percent / 100, discordant) <= n)
    return next(found, None)


def _to_show(target: float) -> float:
    assumed = (target + 1) / 2
    spread = _Z_LEVEL * math.sqrt(target * (1 - target)) + _Z_POWER * math.sqrt(assumed * (1 - assumed))
    return (spread / (assumed - target)) ** 2


def in_rows(counted: int, share: float | None) -> int:
    """Rows to collect for `counted` of those that a metric counts, at their share among all. None: share unknown."""
    return math.ceil(counted / share) if share else counted


def counted_share(metric: Metric, positive: str | None, labels: Mapping[str, int]) -> float | None:
    """The share of the rows that the metric counts; None where the rows by label do not tell.

    Of a metric about one label these are its rows (as many alarms are supposed), of specificity all others.
    """
    total = sum(labels.values())
    if not metric.positive:
        return 1.0
    if positive is None or positive not in labels:
        return None
    share = labels[positive] / total
    return (1 - share if metric.name == "specificity" else share) or None


def to_show_difference(effect: float, discordant: float = 0.1) -> int:
    """Examples with which a paired difference of `effect` in a 0/1 score is found, if `discordant` of them differ.

    n = ((z_a + z_b) / effect)^2 (discordant - effect^2): the variance of a paired difference (Miettinen 1968).
    """
    return math.ceil(((_Z_LEVEL + _Z_POWER) / effect) ** 2 * max(discordant - effect**2, effect - effect**2))


def detectable(effect: float, metric: Metric, baseline: float | None = None) -> float | None:
    """The smallest true difference that is found, as it was computed; None where the metric has no room for it, so that
    so few examples can show none.

    Room is what two values of the metric can differ by, or, of a gain, what `baseline` leaves to be gained.
    """
    if not math.isfinite(effect):
        return None
    if metric.low is not None and metric.high is not None and effect > metric.high - metric.low:
        return None
    best = metric.high if metric.sign > 0 else metric.low
    if baseline is not None and best is not None and effect > metric.sign * (best - baseline):
        return None
    return effect
