"""What an evaluation among the children of `relearn` says of each candidate: its gain, with an interval. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from speciate.jobs.kinds import Child
from speciate.vocabulary import find_metric


class Gain(NamedTuple):
    """Gain of a candidate over the baseline of an evaluation; better is more."""

    model: str
    gain: float
    low: float
    high: float
    seen: float | None
    """The smallest gain that could have been seen."""
    p_value: float | None = None


def gains_of(metric: str, evaluated: Child) -> list[Gain]:
    """Gain of each candidate over what it is compared with; the best first."""
    sign, found = find_metric(metric).sign, list[Gain]()
    for each in report_of(evaluated)["comparisons"]:
        if each["delta"] is None or each["interval"] is None:
            continue
        low, high = sorted(sign * bound for bound in each["interval"])
        found.append(Gain(each["candidate"], sign * each["delta"], low, high, each.get("minimum_detectable_effect"),
                          each.get("p_value")))  # fmt: skip
    return sorted(found, key=lambda one: one.gain, reverse=True)


def report_of(evaluated: Child) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (evaluated.result or {}).get("report", {"comparisons": (), "leaderboard": (), "n": 0})
    return found
