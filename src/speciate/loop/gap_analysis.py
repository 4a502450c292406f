"""Where a model fails more often than elsewhere, and how many examples of which kind would help most. Pure.

A group is a class, a value of a column, a third of a number, or a cluster of embeddings. Each is compared with all
other examples, and Holm's adjustment is over all groups that were looked at. How much more data helps follows the power
law of learning curves, error ~ n^-a within a group (Hestness et al., Deep Learning Scaling is Predictable, 2017; spent
group by group as in Tae & Whang, Slice Tuner, SIGMOD 2021), with one exponent for all: it plans a campaign, it
promises nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from speciate.evaluation.multiple_comparisons import holm
from speciate.loop.drift.permutation import Rows, Values
from speciate.predictions.quality import wilson_interval

Kind = Literal["class", "value", "number", "cluster"]
Mask = npt.NDArray[np.bool_]

EXPONENT = 0.35
"""Exponent a of learning curves, error ~ n^-a; those measured lie between 0.2 and 0.5 for most tasks."""
CAMPAIGN = 100
"""Examples whose use is estimated."""
LEAST = 8
"""Examples of a group below which nothing is said of it."""
_MOST_VALUES, _LEAST_DISTINCT = 12, 30
_MOST_TIMES = 10.0
"""A group is never asked for more than so many times what it has."""
_LEVEL = 0.95
_CLUSTERS, _PER_CLUSTER, _ROUNDS = 12, 40, 30


class Group(NamedTuple):
    kind: Kind
    column: str
    """Column of a value or a number; '' for a class or a cluster."""
    value: str
    """The class, the value, `low`, `middle` or `high`, or the number of the cluster."""
    members: Mask
    """(N,)"""
    trained: int | None
    """Examples of it in the training data; None where nobody knows."""


class Gap(BaseModel):
    """A group with how often the model fails in it. `column` and `value` are text of others. `compare` fills it up to
    `gain`; what of it lies in the log, and examples, come from whoever reads these."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Kind
    column: str
    value: str
    n: int
    failed: float
    """Failures among the n examples; whole where each example is right or wrong."""
    rate: float
    interval: tuple[float, float]
    """Wilson's 95 % interval of the rate, for this group alone."""
    rest: float = Field(description="The rate of all other examples.")
    p: float
    p_holm: float = Field(description="Adjusted for all groups that were compared.")
    share: float
    """n as a share of all examples."""
    trained: int | None = Field(None, description="Training examples of the group; null: unknown.")
    needed: int | None = Field(None, description="More until it fails as seldom as the rest, by a learning curve.")
    """At most ten times what it has. None where it fails no more often, or nobody knows what it has."""
    gain: float = Field(description="Of 100 more, on the rate of all, by a learning curve.")
    mine: int | None = Field(None, description="Answers in the log's sample that look like it; null: cannot be told.")
    mine_share: float | None = None
    answers: tuple[str, ...] = Field((), description="Some of them, to ask about.")
    examples: tuple[str, ...] = Field((), description="Evaluated examples on which it failed.")

    @property
    def surely(self) -> bool:
        return self.p_holm < 1 - _LEVEL and self.rate > self.rest

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.column}/{self.value}"

    @property
    def title(self) -> str:
        if self.kind == "cluster":
            return f"cluster {self.value}"
        return self.value if self.kind == "class" else f"{self.column}: {self.value}"


def compare(failed: Values, groups: Sequence[Group], units: npt.NDArray[np.int64] | None = None) -> list[Gap]:
    """(N,) of 0 (right) to 1 (wrong); what most is to be gained from comes first, what may be chance after it.
    Groups with fewer than 8 examples, or without others to compare with, are left out. `units` (N,): codes of what is
    independent, such as patients; default: each example."""
    codes = np.arange(len(failed)) if units is None else units
    usable = [each for each in groups if LEAST <= int(each.members.sum()) <= len(failed) - LEAST]
    values = [_worse(failed, each.members, codes) for each in usable]
    found = [
        _gap(failed, each, p, adjusted, codes) for each, p, adjusted in zip(usable, values, holm(values), strict=True)
    ]
    return sorted(found, key=lambda gap: (
        gap.p_holm >= 1 - _LEVEL, gap.rate <= gap.rest, -gap.gain, gap.kind, gap.column, gap.value
    ))  # fmt: skip


def _gap(failed: Values, group: Group, p: float, adjusted: float, codes: npt.NDArray[np.int64]) -> Gap:
    own, rest = failed[group.members], failed[~group.members]
    rate, other, share = float(own.mean()), float(rest.mean()), len(own) / len(failed)
    low, high = wilson_interval(min(1.0, rate), _effective(own, codes[group.members]), _LEVEL)
    return Gap(
        kind=group.kind, column=group.column, value=group.value, n=len(own), failed=float(own.sum()), rate=rate,
        interval=(low, high), rest=other, p=p, p_holm=adjusted, share=share, trained=group.trained,
        needed=needed(rate, other, group.trained), gain=gain(rate, share, group.trained),
    )  # fmt: skip


def _effective(values: Values, codes: npt.NDArray[np.int64]) -> int:
    """As many independent examples as these are worth; each unit counts once where all are equal."""
    units = len(np.unique(codes))
    if units == len(values):
        return units
    spread, variance = float(values.mean() * (1 - values.mean())), _variance(values, codes)
    return min(len(values), max(1, round(spread / variance))) if variance > 0 else units


def _variance(values: Values, codes: npt.NDArray[np.int64]) -> float:
    """Variance of the mean: C / (C - 1) times the sandwich over units (Liang & Zeger 1986); NaN for one unit."""
    names, own = np.unique(codes, return_inverse=True)
    if len(names) < 2:
        return math.nan
    sums = np.bincount(own, values - values.mean())
    return float(np.square(sums).sum() / len(values) ** 2 * len(names) / (len(names) - 1))


def needed(rate: float, other: float, trained: int | None) -> int | None:
    """n (rate / other)^(1/a) - n, rounded up."""
    if trained is None or trained < 1 or rate <= other:
        return None
    most = math.log(_MOST_TIMES)
    times = math.exp(min(most, (math.log(rate) - math.log(other)) / EXPONENT) if other > 0 else most)
    return math.ceil(trained * (times - 1)) or None


def gain(rate: float, share: float, trained: int | None) -> float:
    """share * rate * (1 - ((n + 100) / n)^-a): 0 where nobody knows n."""
    if trained is None:
        return 0.0
    n = max(1, trained)
    return share * rate * (1 - math.pow((n + CAMPAIGN) / n, -EXPONENT))


def _worse(failed: Values, members: Mask, codes: npt.NDArray[np.int64]) -> float:
    """One-sided p-value that a group fails no more often than the rest. Where all are right or wrong: Fisher's exact
    test, of counts that are divided by the design effect where units have several examples (Rao & Scott 1992). Else by
    the normal distribution, with variances over units."""
    own, rest = failed[members], failed[~members]
    if np.isin(failed, (0, 1)).all():
        effect = _design_effect(failed, codes)
        bad, n, others, m = (int(each / effect) for each in (own.sum(), len(own), rest.sum(), len(rest)))
        return _fisher(bad, n, others, m)
    error = math.sqrt(_variance(own, codes[members]) + _variance(rest, codes[~members]))
    difference = float(own.mean() - rest.mean())
    if math.isnan(error) or difference <= 0:
        return 1.0
    return (
        0.5 * math.erfc(difference / error / math.sqrt(2))
        if error > 0
        else math.ldexp(1.0, -len(np.unique(codes[members])))
    )


def _design_effect(failed: Values, codes: npt.NDArray[np.int64]) -> float:
    """How many examples are worth one: 1 where all are independent."""
    return len(failed) / max(1, _effective(failed, codes))


def _fisher(bad: int, n: int, others: int, m: int) -> float:
    """P(at least `bad` of n), given bad + others of n + m."""
    total = bad + others
    logs = [_log_choose(n, k) + _log_choose(m, total - k) for k in range(max(bad, total - m), min(n, total) + 1)]
    whole = _log_choose(n + m, total)
    return min(1.0, math.fsum(math.exp(each - whole) for each in logs))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


# Groups


def of_classes(labels: Sequence[str], trained: Mapping[str, int]) -> list[Group]:
    names = np.array(labels)
    return [Group("class", "", str(each), names == each, trained.get(str(each), 0)) for each in np.unique(names)]


def of_column(name: str, cells: Sequence[str | None], trained: Sequence[str | None] | None) -> list[Group]:
    """By value, where there are few; by thirds, where it holds numbers. `cells`: as text; `trained`: those of the
    training data, None where it has no such column."""
    values = np.array(["" if cell is None else str(cell) for cell in cells])
    distinct, counts = np.unique(values, return_counts=True)
    if 2 <= len(distinct) <= _MOST_VALUES and float(np.median(counts)) >= LEAST:
        known = None if trained is None else np.array(["" if cell is None else str(cell) for cell in trained])
        return [
            Group("value", name, str(each), values == each, None if known is None else int((known == each).sum()))
            for each in distinct
        ]
    numbers = _numbers(values.tolist())
    if numbers is None or len(distinct) < _LEAST_DISTINCT:
        return []
    low, high = np.nanquantile(numbers, (1 / 3, 2 / 3))
    before = None if trained is None else _numbers(["" if cell is None else str(cell) for cell in trained])
    cuts = {"low": (-math.inf, low), "middle": (low, high), "high": (high, math.inf)}
    return [
        Group("number", name, word, (numbers > begin) & (numbers <= end),
              None if before is None else int(((before > begin) & (before <= end)).sum()))
        for word, (begin, end) in cuts.items()
    ]  # fmt: skip


def _numbers(cells: Sequence[str]) -> Values | None:
    """NaN where missing; None where one is no number."""
    try:
        return np.array([math.nan if cell == "" else float(cell) for cell in cells], np.float64)
    except ValueError:
        return None


class Clusters(NamedTuple):
    centres: Rows
    """(K, D)"""
    own: npt.NDArray[np.int64]
    """(N,) the cluster of each row."""


def cluster(rows: Rows, seed: int = 0) -> Clusters:
    """k-means (Lloyd 1982) from seeds by k-means++ (Arthur & Vassilvitskii 2007); one cluster for 40 rows, 2 to 12.
    (N, D), N >= 16."""
    rng = np.random.default_rng(seed)
    count = int(np.clip(len(rows) // _PER_CLUSTER, 2, _CLUSTERS))
    centres = [rows[rng.integers(len(rows))]]
    while len(centres) < count:
        nearest = np.min([np.square(rows - centre).sum(1) for centre in centres], axis=0).astype(np.float64)
        total = float(nearest.sum())
        centres.append(rows[rng.choice(len(rows), p=nearest / total if total > 0 else None)])
    middle = np.array(centres, np.float32)
    own = nearest_centre(middle, rows)
    for _ in range(_ROUNDS):
        middle = np.array([rows[own == k].mean(0) if (own == k).any() else middle[k] for k in range(count)], np.float32)
        again = nearest_centre(middle, rows)
        if (again == own).all():
            break
        own = again
    return Clusters(middle, own)


def nearest_centre(centres: Rows, rows: Rows) -> npt.NDArray[np.int64]:
    """(K, D), (N, D) -> (N,)"""
    squares = np.square(centres).sum(1)[None] - 2 * rows @ centres.T
    return np.asarray(squares.argmin(1), np.int64)


def of_clusters(found: Clusters, trained: npt.NDArray[np.int64] | None) -> list[Group]:
    """`trained`: the clusters of the training examples."""
    return [
        Group("cluster", "", str(k), found.own == k, None if trained is None else int((trained == k).sum()))
        for k in range(len(found.centres))
    ]
