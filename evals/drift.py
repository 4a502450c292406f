"""Whether the detectors of `monitor` keep their promise, and how quickly they see a change: simulated years.

    python evals/drift.py shift [SEEDS [FEWER]]      embeddings and scalars, 52 weekly windows of 100 answers
    python evals/drift.py quality [SEEDS [FEWER]]    30 labels a week of answers that were drawn at random
    python evals/drift.py all [SEEDS [PROCESSES]]    all signals of quiet years together

Rows are independent here, and nobody says who asks; traffic whose rows hang together: drift_traffic.py.
The detectors and thresholds are the product's (speciate.loop.drift, monitor_run.SHARES); only the data are made.
Data: 64-d 'embeddings' of rank 16 (x = z A + 0.3 noise, z normal), a mean shift of `s` sd in one latent; a confidence
(beta), a share of answers of 5 labels, two measures; labels as coin flips. SEEDS for quiet years, FEWER for a change.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from speciate.loop.drift import evidence, kernel_features, permutation, shift_tests
from speciate.loop.drift.dependence import Codes, Units, units_of
from speciate.loop.drift.limits import NOT_FINITE_RATE, SLOW_RATE
from speciate.loop.monitor_run import REFERENCE, SCALAR_SHARE, SHARES
from speciate.loop.watch.triggers import surely_disagree
from speciate.predictions.quality import alpha as agreement

WEEK, WEEKS, CHANGE = 7 * 86_400.0, 52, 26
_D, _RANK, _BEFORE, _A_WEEK, _LABELS = 64, 16, 300, 100, 30
_MIX = np.random.default_rng(0).normal(size=(_RANK, _D)) / np.sqrt(_RANK)
Shift = Callable[[int], float]


def embeddings(rng: np.random.Generator, n: int, shift: float) -> permutation.Rows:
    """(n, 64)"""
    latent = rng.normal(size=(n, _RANK))
    latent[:, 0] += shift
    return np.asarray(latent @ _MIX + 0.3 * rng.normal(size=(n, _D)), np.float32)


def hours(reference: Codes, week: int, n: int, rng: np.random.Generator) -> Units:
    """Units of answers that name no entity: of rows of before in these weeks, and `n` of this week, each at any time
    of its week."""
    period = np.append(reference, np.full(n, week)) + 4  # weeks before the first are below 0
    return units_of([""] * len(period), (period + rng.random(len(period))) * WEEK, period)


def weeks_before(rows: int) -> Codes:
    """Weeks of so many rows before the first window: three, and then 100 a week."""
    return (np.arange(rows) // _A_WEEK) - _BEFORE // _A_WEEK


class Detector:
    """One signal over a year: the week of its first alarm."""

    def __init__(self, name: str) -> None:
        self.limit = evidence.threshold(WEEK, SHARES.get(name, SCALAR_SHARE))
        self.looks: list[evidence.LogFactors] = []
        self.first: int | None = None

    def look(self, week: int, factors: evidence.LogFactors) -> None:
        self.looks.append(factors)
        if self.first is None and evidence.detector(self.looks) >= self.limit:
            self.first = week


def shift_year(seed: int, at: Shift, weeks: int = WEEKS) -> Detector:
    """Embeddings alone; the reference is 300 before the first window, and grows."""
    rng, found = np.random.default_rng([seed, 77]), Detector("inputs")
    past = embeddings(rng, _BEFORE, at(-1))
    for week in range(weeks):
        window = embeddings(rng, _A_WEEK, at(week))
        drawn = rng.permutation(len(past))[:REFERENCE]
        units = hours(weeks_before(len(past))[drawn], week, len(window), rng)
        test, _ = kernel_features.compare(past[drawn], window, units, rng)
        found.look(week, evidence.of_p(test.p))
        past = np.vstack([past, window])
    return found


def scalar_years(seed: int, weeks: int = WEEKS) -> list[Detector]:
    """A quiet year of a confidence, of labels, and of two measures with ties."""
    rng = np.random.default_rng([seed, 78])
    makers: dict[str, Callable[[int], permutation.Values]] = {
        "confidence": lambda n: rng.beta(8, 2, n),
        "measure_words": lambda n: rng.poisson(12, n).astype(np.float64),
        "measure_brightness": lambda n: rng.normal(0.4, 0.1, n),
        "measure_loudness": lambda n: rng.gamma(2.0, 0.1, n),
        "answers": lambda n: rng.choice(5, n, p=[0.4, 0.3, 0.2, 0.08, 0.02]).astype(np.float64),
    }
    found = []
    for name, make in makers.items():
        detector, past = Detector(name), make(_BEFORE)
        for week in range(weeks):
            window = make(_A_WEEK)
            drawn = rng.permutation(len(past))[:REFERENCE]
            units = hours(weeks_before(len(past))[drawn], week, len(window), rng)
            both = np.concatenate([past[drawn], window])
            if name == "answers":
                test = shift_tests.share_distance(both.astype(np.int64), units, rng)
            else:
                test = shift_tests.largest_gap(both, units, rng)
            detector.look(week, evidence.of_p(test.p))
            past = np.concatenate([past, window])
        found.append(detector)
    return found


def count_year(seed: int, name: str, n: int, allowed: float, rate: Shift, weeks: int = WEEKS) -> Detector:
    """Bad ones among n a week: wrong answers among random labels, or requests that failed."""
    rng, found = np.random.default_rng([seed, 5, n]), Detector(name)
    for week in range(weeks):
        found.look(week, evidence.of_counts(int(rng.binomial(n, rate(week))), n, allowed))
    return found


class Found(NamedTuple):
    """Of years with a change in week 26."""

    before: float
    """Share with an alarm before."""
    delays: list[int]
    """Of the others, windows until the alarm; 99 where there was none."""

    def within(self, windows: int) -> float:
        return float(np.mean([delay <= windows for delay in self.delays]))

    @property
    def median(self) -> float:
        return float(np.median(self.delays))

    def __str__(self) -> str:
        shares = ", ".join(f"{windows} {self.within(windows):.2f}" for windows in (4, 12, 26))
        return f"alarm before in {self.before:.3f}; found within windows: {shares}; median {self.median:.0f}"


def after_change(years: list[Detector]) -> Found:
    firsts = [99 + CHANGE if each.first is None else each.first for each in years]
    return Found(float(np.mean([f < CHANGE for f in firsts])), [min(99, f - CHANGE + 1) for f in firsts if f >= CHANGE])


def stepped(size: float, low: float = 0.0) -> Shift:
    return lambda week: size if week >= CHANGE else low


def shift(seeds: int = 200, fewer: int = 60) -> None:
    began = time.process_time()
    quiet = [shift_year(seed, stepped(0.0)) for seed in range(seeds)]
    seconds = (time.process_time() - began) / seeds
    print(f"embeddings, quiet: alarm in {np.mean([each.first is not None for each in quiet]):.3f} of {seeds} years; "
          f"{seconds:.2f} CPU s a year", flush=True)  # fmt: skip
    changes: dict[str, Shift] = {
        "0.5 sd": stepped(0.5), "1 sd": stepped(1.0),
        "slow, 0 to 1 sd in 26 weeks": lambda week: max(0.0, (week - CHANGE) / CHANGE),
    }  # fmt: skip
    for name, at in changes.items():
        found = after_change([shift_year(seed, at) for seed in range(fewer)])
        print(f"embeddings, {name}: {found}", flush=True)


def quality(seeds: int = 200, fewer: int = 100) -> None:
    for rate in (0.10, 0.07):
        years = [count_year(seed, "quality", _LABELS, 0.10, stepped(rate, rate)) for seed in range(seeds)]
        print(f"quality, {100 * rate:g} % wrong of 10 % allowed: alarm in "
              f"{np.mean([each.first is not None for each in years]):.3f} of {seeds} years", flush=True)  # fmt: skip
    for rate in (0.15, 0.25):
        found = after_change([count_year(seed, "quality", _LABELS, 0.10, stepped(rate, 0.07)) for seed in range(fewer)])
        print(f"quality, 7 -> {100 * rate:g} %: {found}", flush=True)


def disagreement_year(seed: int, weeks: int = WEEKS) -> int | None:
    """Two people label ten answers a week, of five classes, each right on 85 of 100: the week in which the watch says
    that they do not agree. It looks at all that they labelled."""
    rng, shares, found = np.random.default_rng([seed, 9]), [0.4, 0.3, 0.2, 0.08, 0.02], list[tuple[int, int]]()
    for week in range(weeks):
        right = rng.choice(5, 10, p=shares)
        first, second = (np.where(rng.random(10) < 0.85, right, rng.integers(0, 5, 10)) for _ in range(2))
        found += zip(first.tolist(), second.tolist(), strict=True)
        alpha = agreement(found)
        if alpha is not None and surely_disagree(alpha, len(found)):
            return week
    return None


def quiet_year(seed: int, weeks: int = WEEKS) -> dict[str, int | None]:
    """Every signal that can begin an episode by chance, of one quiet year at its limit: nothing changes, as much is
    wrong as is allowed, and people agree as people do. Other triggers (a requirement, an endpoint, a base model, a
    licence, a schedule, labels that came) are facts of the catalog and have no false alarms."""
    listed = {"inputs": shift_year(seed, stepped(0.0), weeks)}
    named = ("confidence", "measure_words", "measure_brightness", "measure_loudness", "answers")
    listed |= dict(zip(named, scalar_years(seed, weeks), strict=True))
    listed["quality"] = count_year(seed, "quality", _LABELS, 0.10, stepped(0.10, 0.10), weeks)
    listed["failed"] = count_year(seed, "failed", 700, 0.02, stepped(0.02, 0.02), weeks)
    listed["failed_not_finite"] = count_year(
        seed, "failed_not_finite", 700, NOT_FINITE_RATE, stepped(NOT_FINITE_RATE, NOT_FINITE_RATE), weeks
    )
    listed["slow"] = count_year(seed, "slow", 700, SLOW_RATE, stepped(SLOW_RATE, SLOW_RATE), weeks)
    return {name: each.first for name, each in listed.items()} | {"label_disagreement": disagreement_year(seed, weeks)}


def together(seeds: int = 200, processes: int = 0) -> None:
    """`processes`: at once; 0: as many as there are cores."""
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        years = list(pool.map(quiet_year, range(seeds), chunksize=5))
    each = {name: float(np.mean([year[name] is not None for year in years])) for name in years[0]}
    anyone = np.mean([any(first is not None for first in year.values()) for year in years])
    print(f"all signals, quiet: an alarm of any in {anyone:.3f} of {seeds} years "
          f"({', '.join(f'{name} {share:.3f}' for name, share in each.items())})", flush=True)  # fmt: skip


if __name__ == "__main__":
    {"shift": shift, "quality": quality, "all": together}[sys.argv[1]](*map(int, sys.argv[2:]))
