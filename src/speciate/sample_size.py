"""How many test examples a statement needs: the planning formulas, by the standard library alone.

All are normal approximations for a two-sided 95 % interval and 80 % power: good to plan with, while the verdict
itself comes from the intervals of `evaluation.statistics`. Clusters are left out: what is counted is independent
examples, so grouped data need more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from types import MappingProxyType
from typing import TypeAlias

from speciate.vocabulary import Metric

LEVEL, POWER = 0.95, 0.80
_Z_LEVEL = NormalDist().inv_cdf((1 + LEVEL) / 2)
_Z_POWER = NormalDist().inv_cdf(POWER)
_UNKNOWN: Mapping[str, int] = MappingProxyType({})
_Variance: TypeAlias = Callable[[float], float]
"""The metric's value -> the variance of an estimate of it, times the number of examples."""


def to_show_target(
    metric: Metric, target: float | None, labels: Mapping[str, int] = _UNKNOWN, positive: str | None = None
) -> int | None:
    """Examples with which a model that halves the gap between target and perfect shows that it reaches the target.

    One-sample test of a proportion, n = ((z_a sqrt(p0 q0) + z_b sqrt(p1 q1)) / (p1 - p0))^2 (Fleiss, Levin & Paik,
    Statistical Methods for Rates and Proportions, 2003), with p0 the target and p1 = (p0 + 1) / 2. Other metrics have
    their own variance in the place of p q, where it is known from `labels`, the test rows by label (`is_rough`). A
    metric about one label counts only that label's examples (see `in_rows`). None where the metric has no bounds, as
    its spread is then unknown before data are seen.
    """
    if target is None or metric.low != 0 or metric.high != 1 or not 0 < target < 1:
        return None
    variance = _variance_of(metric, labels, positive) or _of_share
    if metric.sign < 0:
        return math.ceil(_to_show(1 - target))
    return math.ceil(_to_show(target, variance))


def is_rough(metric: Metric, labels: Mapping[str, int] = _UNKNOWN, positive: str | None = None) -> bool:
    """Whether `to_show_target` takes the metric as a share of right answers though it is none, and so may be far off.

    A mean over examples varies at most as much as such a share.
    """
    return metric.shape == "corpus" and _variance_of(metric, labels, positive) is None


def _variance_of(metric: Metric, labels: Mapping[str, int], positive: str | None) -> _Variance | None:
    """The variance of the metric's value times the number of examples that it counts; None where it is not known."""
    total = sum(labels.values())
    shares = [count / total for count in labels.values() if count]
    match metric.name:
        case "precision":  # as many alarms as there are examples of the label
            return _of_share
        case "f1":
            return lambda f1: f1 * (1 - f1) * (1 - f1 / 2)
        case "balanced_accuracy" if len(shares) > 1:
            return lambda mean: _of_recalls(_label_values(mean, shares), shares)
        case "f1_macro" if len(shares) > 1:
            return lambda mean: _of_f1_macro(_label_values(mean, shares), shares)
        case "auroc" if labels.get(positive or "") or len(shares) == 2:
            share = labels.get(positive or "", 0) / total or min(shares)
            return (lambda area: _of_auroc(area, share)) if share < 1 else None
    return None


def _of_share(value: float) -> float:
    return value * (1 - value)


def _label_values(mean: float, shares: Sequence[float]) -> list[float]:
    """Each label's recall and precision where they have this mean: what lacks to 1 grows with the root of 1 / share.

    Rare labels are harder. By the root the variance of macro F1 came within a factor of 1.5 of that of Bayes
    classifiers between normal distributions, for seven sets of shares (evals/LOG.md).
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        lacking = (low + high) / 2
        values = [max(0.0, 1 - lacking / math.sqrt(share)) for share in shares]
        low, high = (lacking, high) if sum(values) > mean * len(values) else (low, lacking)
    return values


def _of_recalls(values: Sequence[float], shares: Sequence[float]) -> float:
    return sum(_of_share(value) / share for value, share in zip(values, shares, strict=True)) / len(shares) ** 2


def _of_f1_macro(values: Sequence[float], shares: Sequence[float]) -> float:
    """By the delta method. A right answer of label k moves the sum of all F1 by (1 - F1_k) / share_k, a wrong one of k
    as j by -(F1_k / share_k + F1_j / share_j) / 2; labels are confused in proportion to their wrong answers."""
    both = list(zip(values, shares, strict=True))
    right = sum(value * (1 - value) ** 2 / share for value, share in both)
    wrong = [(share * (1 - value), value / (2 * share)) for value, share in both]
    errors = sum(share for share, _ in wrong)
    squares = sum(share * moved**2 for share, moved in wrong)
    return (right + 2 * squares + 2 * sum(share * moved for share, moved in wrong) ** 2 / errors) / len(shares) ** 2


def _of_auroc(area: float, share: float) -> float:
    """Hanley and McNeil, Radiology 143, 1982, for many examples. `share`: of the positive label."""
    positives, negatives = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    return positives / (1 - share) + negatives / share


def highest_target(n: int) -> float | None:
    """The highest target, in whole percent, that `n` test examples can still show in the sense of `to_show_target`.

    None where not even 1 % could be shown.
    """
    shown = [percent / 100 for percent in range(1, 100) if _to_show(percent / 100) <= n]
    return max(shown, default=None)


MOST_GROWTH = 20
"""Times the examples that there are, beyond which collecting more to settle a doubt is not advised. The estimate then
lies within (1.96 + 0.84) / sqrt(21) = 0.61 standard errors of the bound: so near that the difference, if there is one,
is not worth twenty times the labels, and may as well have the other sign."""


ALWAYS_WORTH = 1_000
"""Rows that can be collected, however few there are."""


def is_worth_collecting(needed: int | None, there: int) -> bool:
    """Whether so many further rows, beside those that there are, are advice. `there`: 0 where nobody noted it."""
    return needed is None or not there or needed <= max(ALWAYS_WORTH, MOST_GROWTH * there)


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


def _to_show(target: float, variance: _Variance = _of_share) -> float:
    assumed = (target + 1) / 2
    spread = _Z_LEVEL * math.sqrt(variance(target)) + _Z_POWER * math.sqrt(variance(assumed))
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
