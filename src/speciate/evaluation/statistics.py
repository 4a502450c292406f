"""Intervals and tests for comparisons: pure functions of arrays, every one aware of clusters.

Examples of one group (a patient, a sequence) are not independent; ignoring that turned a nominal 5 % of false alarms
into 27 % in simulation. So whole clusters are left out or drawn: a variance is the jackknife's over clusters, and its
quantile from t with as many degrees of freedom as clusters of these sizes are worth. Clusters of equal size give what
everybody computes, C / (C - 1) times the sandwich and C - 1; of unequal sizes that erred up to 8.4 % of times at 30
clusters, where this keeps 5 % (both are Bell & McCaffrey 2002; MacKinnon, Nielsen & Webb 2023 recommend the jackknife).
A 0/1 score gets a score-type interval, which also stands where all answers are right and a normal interval would shrink
to a point. Two models are always compared on the same examples.

Shapes: n examples, C clusters, B resamples. `clusters` holds one code in 0..C-1 per example.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from speciate.sample_size import LEVEL, POWER

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

RESAMPLES = 2000
_EXACT_BELOW = 200
_EXACT_DISCORDANT = 25
_JACKKNIFE_GROUPS = 200
_CHUNK_CELLS = 2_000_000
"""Most weights held at once, 8 bytes each: 16 MB."""
_KEPT_CELLS = 1 << 25
"""Most drawn counts, a byte each, that are kept for the next caller."""
_NEAR_AN_END = 5
_NO_SPREAD = 1e-9
_MOST_UNDEFINED = 0.05
UNDEFINED_ON = "undefined on"
"""Words in a method: the interval rests on the other resamples, and no verdict rests on it."""
LEAST_UNITS = 20
"""Independent examples below which no standard error is relied on to plan with."""
MOST_UNITS = 10_000_000
"""Most examples that anybody would collect: beyond it no number of examples settles a question."""
_STEPS = 50


class Estimate(NamedTuple):
    """A value and its interval. `low` and `high` are NaN where fewer than two clusters leave nothing to judge by."""

    value: float
    low: float
    high: float
    standard_error: float
    n: int
    clusters: int
    method: str


class Difference(NamedTuple):
    """Candidate minus baseline on the same examples. `minimum_detectable_effect` is for 80 % power at 5 %."""

    delta: float
    low: float
    high: float
    p_value: float
    standard_error: float
    minimum_detectable_effect: float
    n: int
    clusters: int
    method: str
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None


def _t_quantile(degrees: float, probability: float) -> float:
    return float(special.stdtrit(degrees, probability)) if degrees > 0 else math.nan


def _critical(degrees: float, level: float = LEVEL) -> float:
    return _t_quantile(degrees, (1 + level) / 2)


def minimum_detectable_effect(
    standard_error: float, degrees: float, level: float = LEVEL, power: float = POWER
) -> float:
    """The smallest true difference that a test of this precision finds with probability `power` (Bloom 1995)."""
    return (_critical(degrees, level) + _t_quantile(degrees, power)) * standard_error


def units_needed(
    units: int, standard_error: float, distance: float, level: float = LEVEL, power: float = POWER
) -> int | None:
    """Independent units with which an estimate that stays `distance` from a bound shows on which side the true value
    lies. `units` of them gave this standard error, which shrinks with the root of their number.

    The smallest C with (t(C - 1, level) + t(C - 1, power)) * standard_error * sqrt(units / C) <= distance, and never
    fewer than 20: a standard error of a few units says little of their spread. None where no number settles it.
    """
    if units < 1 or not math.isfinite(standard_error) or standard_error < 0 or not 0 < distance < math.inf:
        return None
    total = float(LEAST_UNITS)
    for _ in range(_STEPS):
        quantiles = _critical(total - 1, level) + _t_quantile(total - 1, power)
        following = max(float(LEAST_UNITS), units * (quantiles * standard_error / distance) ** 2)
        if abs(following - total) < 0.5:
            break
        total = following
    return math.ceil(following) if following <= MOST_UNITS else None


def _two_sided(statistic: float, degrees: float) -> float:
    return float(2 * special.stdtr(degrees, -abs(statistic))) if degrees > 0 else math.nan


def degrees_of_freedom(sizes: ArrayLike) -> float:
    """What a jackknife variance over clusters of these sizes (C,) is worth: C - 1 where all are equal, 1 where one
    cluster is nearly everything, 0 where there is but one.

    Satterthwaite's, 2 E(v)^2 / Var(v) of the variance v of a mean of independent examples, as Bell & McCaffrey (2002,
    eq. 9) have it for their estimators; for the jackknife's cluster totals T, v = sum T_g^2 / (1 - w_g)^2 with
    Cov(T_g, T_h) = w_g [g = h] - w_g w_h, where w are the clusters' shares.
    """
    counts = np.asarray(sizes, float)
    counts = counts[counts > 0]
    if counts.size < 2:
        return 0.0
    shares = counts / counts.sum()
    odds = shares / (1 - shares)
    spread = np.square(odds).sum() ** 2 + (np.square(odds) * (1 - 2 * shares) / np.square(1 - shares)).sum()
    return float(np.clip(odds.sum() ** 2 / spread, 1.0, counts.size - 1))


def cluster_variance(values: Floats, clusters: Codes) -> float:
    """Variance of the mean of `values` (n,): (C - 1) / C * sum of squared changes that leaving out a cluster makes.

    With clusters of one size it is the sandwich estimator of Liang & Zeger (1986) with its usual factor C / (C - 1);
    with one example per cluster the ordinary variance of a mean. NaN below two clusters.
    """
    sizes = np.bincount(clusters)
    count = int((sizes > 0).sum())
    if count < 2:
        return math.nan
    changes = np.bincount(clusters, weights=values - values.mean())[sizes > 0] / (values.size - sizes[sizes > 0])
    return float((count - 1) / count * np.square(changes).sum())


def clustered_mean(values: ArrayLike, clusters: Codes, level: float = LEVEL) -> Estimate:
    """Mean with a t interval. NaN values are examples that the metric does not count."""
    kept, codes = _counted(values, clusters)
    count = int(np.unique(codes).size)
    if kept.size == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0, "none")
    error = math.sqrt(cluster_variance(kept, codes)) if count > 1 else math.nan
    half, mean = _critical(degrees_of_freedom(np.bincount(codes)), level) * error, float(kept.mean())
    method = "too_few_clusters" if count < 2 else "clustered_t" if error > _NO_SPREAD * abs(mean) else "no_spread"
    return Estimate(mean, mean - half, mean + half, error, kept.size, count, method)


def mean(values: ArrayLike, clusters: Codes, level: float = LEVEL) -> Estimate:
    """The mean of scores with the interval that they call for: Wilson's where all are 0 or 1, else clustered t."""
    scores = np.asarray(values, float)
    zero_one = np.isin(scores[~np.isnan(scores)], (0.0, 1.0)).all()
    return (proportion if zero_one else clustered_mean)(scores, clusters, level)


def wilson(successes: float, n: float, critical: float) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927); `n` may be an effective, non-integer size."""
    share, square = successes / n, critical**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = critical / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n**2))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return 0.0 if share <= 0 else low, 1.0 if share >= 1 else high  # exact, where rounding leaves 1e-17


def proportion(values: ArrayLike, clusters: Codes, level: float = LEVEL) -> Estimate:
    """Share of ones with Wilson's interval; clusters shrink n to the effective size n / design effect.

    After Korn & Graubard (1998), with Wilson's interval in place of Clopper-Pearson's and t in place of z.
    Where the clusters say nothing of the variance (all right, or all wrong), each counts as one example.
    """
    kept, codes = _counted(values, clusters)
    count = int(np.unique(codes).size)
    if count < 2:
        return clustered_mean(values, clusters, level)
    share = float(kept.mean())
    effective = _effective(kept.size, count, share * (1 - share), cluster_variance(kept, codes))
    critical = _critical(degrees_of_freedom(np.bincount(codes)), level)
    low, high = wilson(share * effective, effective, critical)
    # The plain standard error is 0 at 0 % and 100 %; the interval's own width is what planning can use.
    error = max(math.sqrt(share * (1 - share) / effective), (high - low) / (2 * critical))
    return Estimate(share, low, high, error, kept.size, count, "wilson")


def _effective(n: int, clusters: int, spread: float, variance: float) -> float:
    """The number of independent examples that would give this variance of the mean; never more than n.

    Where all values are equal the clusters tell nothing, and each counts as one.
    """
    if clusters == n:
        return float(n)
    if spread <= 0:
        return float(clusters)
    return float(min(n, spread / variance)) if variance > 0 else float(n)


def paired_difference(baseline: ArrayLike, candidate: ArrayLike, clusters: Codes, level: float = LEVEL) -> Difference:
    """Mean of candidate minus baseline over the examples that both count, with the method that the scores call for.

    Scores of 0 and 1: the interval of Bonett & Price (2012) with an effective size, and McNemar's exact p-value where
    every example is its own cluster and few of them differ. Other scores: clustered t.
    """
    first, second = np.asarray(baseline, float), np.asarray(candidate, float)
    differences, codes = _counted(second - first, clusters)
    count = int(np.unique(codes).size)
    if count < 2:
        nothing = math.nan
        delta = float(differences.mean()) if differences.size else nothing
        return Difference(
            delta, nothing, nothing, nothing, nothing, nothing, differences.size, count, "too_few_clusters"
        )
    if np.isin(differences, (-1.0, 0.0, 1.0)).all():
        return _binary_difference(differences, codes, count, level)
    return _t_difference(differences, codes, count, level)


def _t_difference(differences: Floats, codes: Codes, count: int, level: float) -> Difference:
    delta, error = float(differences.mean()), math.sqrt(cluster_variance(differences, codes))
    if error <= _NO_SPREAD * abs(delta):
        wins, ties, losses = _tally(differences)
        equal = _constant_difference(delta, differences.size, count, level)
        return equal._replace(wins=wins, ties=ties, losses=losses)
    degrees = degrees_of_freedom(np.bincount(codes))
    half, p_value = _critical(degrees, level) * error, _two_sided(delta / error, degrees)
    return Difference(
        delta, delta - half, delta + half, p_value, error, minimum_detectable_effect(error, degrees, level),
        differences.size, count, "clustered_t", *_tally(differences),
    )  # fmt: skip


def _constant_difference(delta: float, n: int, clusters: int, level: float) -> Difference:
    """All differ by the same: by chance, if either sign is as likely for every cluster, once in 2^(C - 1) times."""
    p_value = 0.5 ** (clusters - 1) if delta else 1.0
    half = abs(delta) if p_value > 1 - level else 0.0
    return Difference(delta, delta - half, delta + half, p_value, 0.0, half, n, clusters, "no_spread")


def _binary_difference(differences: Floats, codes: Codes, count: int, level: float) -> Difference:
    """Bonett & Price: one is added to either kind of discordant pair, two to n, before the usual formula."""
    n, (wins, ties, losses) = differences.size, _tally(differences)
    delta = float(differences.mean())
    spread = (wins + losses) / n - delta**2
    effective = _effective(n, count, spread, cluster_variance(differences, codes))
    won, lost = (wins * effective / n + 1) / (effective + 2), (losses * effective / n + 1) / (effective + 2)
    error = math.sqrt((won + lost - (won - lost) ** 2) / (effective + 2))
    degrees = degrees_of_freedom(np.bincount(codes))
    half = _critical(degrees, level) * error
    few = n < _EXACT_BELOW or wins + losses < _EXACT_DISCORDANT
    if count == n and few:
        p_value, method = mcnemar_exact(wins, losses), "bonett_price, mcnemar_exact"
    else:
        plain = math.sqrt(spread / effective) if spread > 0 else error
        p_value, method = _two_sided(delta / plain, degrees), "bonett_price, clustered_t"
    low, high = max(-1.0, won - lost - half), min(1.0, won - lost + half)
    mde = minimum_detectable_effect(error, degrees, level)
    return Difference(delta, low, high, p_value, error, mde, n, count, method, wins, ties, losses)


def _tally(differences: Floats) -> tuple[int, int, int]:
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return wins, differences.size - wins - losses, losses


def mcnemar_exact(wins: int, losses: int) -> float:
    """Two-sided exact p-value of McNemar's test: the discordant pairs fall either way with probability 1/2."""
    n = wins + losses
    return min(1.0, 2 * float(special.bdtr(min(wins, losses), n, 0.5))) if n else 1.0


def cluster_weights(clusters: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Floats]:
    """How often each cluster is drawn in each resample, (B, C) in chunks of rows: whole it would not fit at many.

    The same seed gives every model the same draws, whatever the size of the chunks.
    """
    kept = (
        _drawn(clusters, resamples, seed) if resamples * clusters <= _KEPT_CELLS else _draw(clusters, resamples, seed)
    )
    return (chunk.astype(float) for chunk in kept)


@lru_cache(maxsize=2)
def _drawn(clusters: int, resamples: int, seed: int) -> tuple[NDArray[np.integer[Any]], ...]:
    """Kept, at most 32 MiB each, for the next metric, model or slice: to draw costs ten times as much as to read."""
    return tuple(chunk.astype(np.min_scalar_type(int(chunk.max()))) for chunk in _draw(clusters, resamples, seed))


def _draw(clusters: int, resamples: int, seed: int) -> Iterator[NDArray[np.integer[Any]]]:
    random, probabilities = np.random.default_rng(seed), np.full(clusters, 1 / clusters)
    for rows in _chunks(resamples, clusters):
        yield random.multinomial(clusters, probabilities, len(rows))


def jackknife_weights(clusters: int) -> Iterator[Floats]:
    """Weights that leave out one cluster, or one of 200 groups of clusters, at a time: (groups, C) in chunks."""
    groups = min(clusters, _JACKKNIFE_GROUPS)
    member = np.arange(clusters) % groups
    for rows in _chunks(groups, clusters):
        yield np.asarray(member[None, :] != np.array(rows)[:, None], np.float64)


def _chunks(rows: int, columns: int) -> Iterator[range]:
    step = max(1, _CHUNK_CELLS // columns)
    return (range(start, min(start + step, rows)) for start in range(0, rows, step))


class Resampled(NamedTuple):
    """A corpus metric on all data, on B resamples and with groups of clusters left out; pairs with others by place."""

    value: float
    drawn: Floats
    left_out: Floats
    clusters: int
    degrees: float
    """Degrees of freedom."""

    def minus(self, other: Resampled) -> Resampled:
        drawn, left_out = self.drawn - other.drawn, self.left_out - other.left_out
        return self._replace(value=self.value - other.value, drawn=drawn, left_out=left_out)


def resample(statistic: Callable[[Floats], Floats], clusters: Codes, seed: int = 0) -> Resampled:
    """Evaluate a statistic of cluster weights, (B, C) -> (B,), wherever an interval needs it."""
    sizes = np.bincount(clusters)
    value = float(statistic(np.ones((1, sizes.size)))[0])
    drawn, left_out = (
        np.concatenate([statistic(chunk) for chunk in chunks])
        for chunks in (cluster_weights(sizes.size, seed=seed), jackknife_weights(sizes.size))
    )
    return Resampled(value, drawn, left_out, sizes.size, degrees_of_freedom(sizes))


_FEWEST_BEYOND = 10
"""Resamples beyond either end of an interval, for a quantile of them to say where it is."""


def bootstrap(resampled: Resampled, level: float = LEVEL, *, share: bool = False) -> Estimate:
    """BCa interval (Efron 1987), or the percentile interval where BCa is undefined, of levels wide enough for few
    clusters: in place of a normal quantile that of t, times sqrt(C / (C - 1)) (Hesterberg 2015, section 3.4).

    At levels whose ends hardly any resample lies beyond, where quantiles are cut off, it is at least as wide as t's.
    Resamples on which the statistic is undefined (NaN: a label was not drawn) are left out; with fewer than half of
    them left there is no interval, and where more than 5 % are left out the method says so. A `share` (between 0 and 1)
    within five clusters of either end, where resamples hardly vary, gets an interval at least as wide as Wilson's with
    a cluster for an example.
    """
    value, clusters = resampled.value, resampled.clusters
    drawn = resampled.drawn[np.isfinite(resampled.drawn)]
    if why := _no_interval(resampled):
        return Estimate(value, math.nan, math.nan, math.nan, clusters, clusters, why)
    left_out = resampled.left_out[np.isfinite(resampled.left_out)]
    low, high = (float(end) for end in np.quantile(drawn, _bca_levels(resampled, drawn, left_out, level)))
    error, method = float(drawn.std(ddof=1)), "bootstrap_bca"
    if (1 - level) / 2 * drawn.size < _FEWEST_BEYOND:
        reach = _critical(resampled.degrees, level) * error
        low, high = min(low, value - reach), max(high, value + reach)
        low, high = (max(0.0, low), min(1.0, high)) if share else (low, high)
    if share and min(value, 1 - value) * clusters < _NEAR_AN_END:
        critical = _critical(resampled.degrees, level)
        ends = wilson(min(1.0, max(0.0, value)) * clusters, clusters, critical)
        low, high, method = min(low, ends[0]), max(high, ends[1]), "bootstrap_bca, wilson"
        error = max(error, (high - low) / (2 * critical))
    return Estimate(value, low, high, error, clusters, clusters, _with_undefined(method, resampled))


def _no_interval(resampled: Resampled) -> str | None:
    """Why there is none: nothing to judge by, or the statistic is undefined on the data or on most resamples."""
    if resampled.clusters < 2:
        return "too_few_clusters"
    defined = np.isfinite(resampled.drawn).sum()
    return "undefined" if not math.isfinite(resampled.value) or 2 * defined < resampled.drawn.size else None


def _with_undefined(method: str, resampled: Resampled) -> str:
    """The method with the share of resamples that it leaves out, where that is more than an interval of 95 % bears."""
    share = 1 - float(np.isfinite(resampled.drawn).mean())
    return f"{method}, {UNDEFINED_ON} {share:.0%} of resamples" if share > _MOST_UNDEFINED else method


def _bca_levels(resampled: Resampled, drawn: Floats, left_out: Floats, level: float) -> tuple[float, float]:
    value, clusters = resampled.value, resampled.clusters
    wide = _critical(resampled.degrees, level) * math.sqrt(clusters / (clusters - 1))
    below = ((drawn < value).sum() + 0.5 * (drawn == value).sum()) / drawn.size
    if left_out.size < 2 or not 0 < below < 1:
        return float(special.ndtr(-wide)), float(special.ndtr(wide))
    pulls = left_out.mean() - left_out
    scale = np.square(pulls).sum()
    acceleration = np.power(pulls, 3).sum() / (6 * scale**1.5) if scale > 0 else 0.0
    bias = special.ndtri(below)
    low, high = (float(special.ndtr(bias + _accelerated(z, acceleration))) for z in (bias - wide, bias + wide))
    return low, high


def _accelerated(z: float, acceleration: float) -> float:
    """The accelerated quantile. Beyond the pole, where few degrees of freedom reach, there is no further quantile."""
    rest = 1 - acceleration * z
    return z / rest if rest > 0 else math.copysign(math.inf, z)


def bootstrap_difference(
    baseline: Resampled, candidate: Resampled, level: float = LEVEL, *, share: bool = False
) -> Difference:
    """Candidate minus baseline of a corpus metric, both on the same resampled clusters.

    A t interval with the standard error of the jackknife over clusters, or of the bootstrap where that is larger: of a
    metric that jumps (a quantile, a threshold) the jackknife's means little (Efron 1979). BCa, which is better for one
    model's value, erred 15 % of times on differences in F1 at 30 clusters, and the percentile interval 10 %, where this
    errs 5 %. Two shares (between 0 and 1) whose difference no resample changes get the doubt of as many examples
    without any discordant pair: few examples do not prove two models equal.
    """
    difference = candidate.minus(baseline)
    delta, clusters, degrees = difference.value, difference.clusters, difference.degrees
    drawn = difference.drawn[np.isfinite(difference.drawn)]
    if why := _no_interval(difference):
        nothing = math.nan
        return Difference(delta, nothing, nothing, nothing, nothing, nothing, clusters, clusters, why)
    if share and np.ptp(drawn) < _NO_SPREAD:
        return _without_spread(delta, clusters, level)
    by_drawing = float(drawn.std(ddof=1)) * math.sqrt(clusters / (clusters - 1))
    error = max(by_drawing, jackknife_error(difference))
    if error <= _NO_SPREAD * abs(delta):
        return _constant_difference(delta, clusters, clusters, level)
    half, bound = _critical(degrees, level) * error, 1.0 if share else math.inf
    p_value = _two_sided(delta / error, degrees)
    return Difference(
        delta, max(-bound, delta - half), min(bound, delta + half), p_value, error,
        minimum_detectable_effect(error, degrees, level), clusters, clusters,
        _with_undefined("jackknife_t", difference),
    )  # fmt: skip


def jackknife_error(resampled: Resampled) -> float:
    """Standard error by leaving out groups of clusters in turn; 0 where the statistic is undefined without one."""
    changes = resampled.left_out - resampled.value
    if not np.isfinite(changes).all():
        return 0.0
    return math.sqrt((changes.size - 1) / changes.size * float(np.square(changes).sum()))


def _without_spread(delta: float, clusters: int, level: float) -> Difference:
    equal = np.zeros(clusters)
    doubt = paired_difference(equal, equal, np.arange(clusters), level)
    return doubt._replace(
        delta=delta,
        low=max(-1.0, delta + doubt.low),
        high=min(1.0, delta + doubt.high),
        p_value=_two_sided(delta / doubt.standard_error, clusters - 1),
        method="bonett_price",
        wins=None,
        ties=None,
        losses=None,
    )


def quantile_interval(samples: ArrayLike, probability: float, level: float = LEVEL) -> Estimate:
    """A quantile and its distribution-free interval between order statistics (David & Nagaraja 2003, section 7.1).

    `high` is infinite where there are too few samples to bound it from above.
    """
    ordered = np.sort(np.asarray(samples, float))
    n = ordered.size
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0, "none")
    value, tail = float(np.quantile(ordered, probability)), (1 - level) / 2
    cumulative = special.bdtr(np.arange(n), n, probability)  # P(at most k samples lie below the quantile)
    below = int(np.searchsorted(cumulative, tail, side="right"))
    above = int(np.searchsorted(cumulative, 1 - tail))
    low = float(ordered[below - 1]) if below > 0 else -math.inf
    high = float(ordered[above]) if above < n else math.inf
    return Estimate(value, low, high, math.nan, n, n, "order_statistics")


def _counted(values: ArrayLike, clusters: Codes) -> tuple[Floats, Codes]:
    array = np.asarray(values, float)
    kept = ~np.isnan(array)
    return array[kept], np.asarray(clusters)[kept]
