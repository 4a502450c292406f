"""Evidence that accumulates over repeated looks, and when it is enough: Shiryaev-Roberts e-detectors.

A look gives e-values: numbers whose expectation is at most 1 while nothing has changed, whatever was seen before. A
p-value becomes some by calibrators k p^(k-1) (Vovk & Wang, E-values, Annals of Statistics 2021, section 2); a count of
bad ones by likelihood ratios of a share that is allowed and a larger one. For each calibrator or alternative i

    S_i <- (S_i + 1) e_i

(Shiryaev 1963, Roberts 1966; as an e-detector Shin, Ramdas & Rinaldo, New England Journal of Statistics in Data
Science 2024), and M is the mean over i. While nothing has changed, M_t + (T - t) is a supermartingale up to look T that
is never negative and begins at T, so by Ville's inequality the probability that M reaches c within T looks is at most
T / c. With c = 20 * (looks in a year) **at most 5 % of quiet years have an alarm**; shares of it divide among signals
(`threshold`), so that holds for all of them together. The true rate is well below: see docs/drift.md. After an alarm S
begins anew at 0.

It forgets the quiet past, which a plain product of e-values never does: half a year of good weeks would be credit that
a later fall has to use up first. All is computed in logarithms; nothing overflows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LogFactors = npt.NDArray[np.float64]
"""(K,) logarithms of the e-values of one look, one per calibrator or alternative."""

QUIET_YEARS = 20.0
"""An alarm without a cause is to be expected once in so many years at most."""
_YEAR = 365.25 * 86_400.0
_KAPPAS = np.linspace(0.05, 0.95, 19)
_AS_LIKELY = math.log(20.0)
_ODDS = np.array([1.5, 2.0, 3.0, 5.0])
"""Odds under each alternative, as multiples of the allowed odds."""


def of_p(p: float) -> LogFactors:
    """(19,) of a p-value that is uniform on (0, 1] while nothing has changed. Raises ValueError for another."""
    if not 0.0 < p <= 1.0:
        raise ValueError(f"a p-value lies above 0 and is at most 1, and this is {p}")
    found: LogFactors = np.log(_KAPPAS) + (_KAPPAS - 1) * math.log(p)
    return found


def of_counts(bad: float, n: float, allowed: float) -> LogFactors:
    """(4,) of `bad` among n, while each is bad with probability `allowed` (0 < allowed < 1) at most.

    Likelihood ratios against 1.5, 2, 3 and 5 times the odds; each falls where fewer are bad, so a lower share than
    what is allowed makes their expectation smaller. `bad` may be a sum of values between 0 and 1 (the ratio is convex
    in each, so its chord lies above it).
    """
    if not 0.0 < allowed < 1.0:
        raise ValueError(f"what is allowed is a share between 0 and 1, and this is {allowed}")
    odds = allowed / (1 - allowed)
    other = _ODDS * odds / (1 + _ODDS * odds)
    found: LogFactors = bad * np.log(other / allowed) + (n - bad) * np.log((1 - other) / (1 - allowed))
    return found


def log_mean(factors: LogFactors) -> float:
    """Logarithm of the mean e-value, itself an e-value."""
    top = float(factors.max())
    return top + math.log(float(np.exp(factors - top).mean()))


def detector(looks: Sequence[LogFactors]) -> float:
    """log M after these looks, oldest first; -inf before the first."""
    state: LogFactors | None = None
    for factors in looks:
        state = factors if state is None else np.logaddexp(state, 0.0) + factors
    return -math.inf if state is None else log_mean(state)


def threshold(look_seconds: float, share: float = 1.0) -> float:
    """The logarithm that log M must reach. `share`: of all false alarms, how many this signal may make."""
    return math.log(QUIET_YEARS * max(1.0, _YEAR / look_seconds) / share)


def onset(looks: Sequence[LogFactors]) -> int | None:
    """The latest look since when it may well have been so: the last beginning than which none explains the end 20 times
    better, each by the calibrator or alternative that suits it (a CUSUM, Page, Biometrika 1954, of each; their largest
    is the generalised likelihood ratio). None where nothing explains the end better than no change.

    Too late costs some of the answers that are looked through for labels. Too early mixes them with what was usual: a
    loop that did so judged its candidates on the wrong source and lost ten weeks.
    """
    if not looks:
        return None
    ends = np.cumsum(np.asarray(looks)[::-1], axis=0)[::-1].max(1)  # of each beginning, to the newest look
    best = float(ends.max())
    return int(np.flatnonzero(ends >= max(best - _AS_LIKELY, 0.0)).max()) if best > 0 else None


class Verdict(NamedTuple):
    log_evidence: float
    threshold: float
    alarm: bool
    onset: int | None
    """Place of the look since when; told from half of the threshold on."""


def judge(looks: Sequence[LogFactors], limit: float) -> Verdict:
    """Verdict on one signal after its newest look. `limit`: the logarithm that the evidence must reach for an alarm."""
    found = detector(looks)
    return Verdict(found, limit, found >= limit, onset(looks) if found >= limit / 2 else None)
