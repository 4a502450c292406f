"""Which new base models are worth an episode: a probe on each, beside what serves, by what each was chosen by.

A training tells how right its model is on examples that it did not learn from at that moment: the validation split, or
folds where that is small. Once chosen, a model may learn from those, too, so two versions cannot be compared there
afterwards; their figures of before can. That costs minutes and no label, and the rows that judge are not touched. A
base model goes on where the interval of its probe reaches beyond what serves by the margin: it may be better, which the
episode then shows or not. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.jobs.kinds import Child
from speciate.loop.watch.ways import Way

PROBE = "screen/"
SECONDS = 300.0
"""Seconds of one probe, at most."""


class Screened(NamedTuple):
    ways: tuple[Way, ...]
    """Those that may be better than what serves, the most promising first."""
    models: tuple[str, ...]
    """Their probes, in the same order."""
    because: str
    smallest_gain: float | None = None
    """By which one would have to be better to be surely promising: the half of the best one's interval."""
    compared: bool = True
    """False: nothing is known of any."""


class _Probe(NamedTuple):
    way: Way
    model: str
    value: float
    """With the sign that makes more better."""
    high: float
    n: int


def next_probe(ways: Sequence[Way], steps: Mapping[str, Child], left: float) -> tuple[Way, float] | None:
    """The next base model to make a probe of, with its seconds; None: each has one, or failed, or time is over."""
    missing = [way for way in ways if PROBE + way.name not in steps]
    if not missing or (left < 1.0 and len(missing) < len(ways)):
        return None
    return missing[0], max(1.0, min(SECONDS, left / (len(missing) + 1)))


def screened(ways: Sequence[Way], steps: Mapping[str, Child], sign: int, serving: float, margin: float) -> Screened:
    """`serving`: the value by which what serves was chosen; `sign`: 1 where more is better, else -1."""
    probes = sorted(_probes(ways, steps, sign), key=lambda probe: probe.value, reverse=True)
    if not probes:
        return Screened((), (), "no new base model could be compared with what serves", compared=False)
    best = probes[0]
    kept = [each for each in probes if each.high > sign * serving + margin]
    said = (
        f"{len(kept)} of {len(ways)} new base models may be better than what serves, chosen by {serving:.4g}: "
        f"{best.way.base_model}, the best, has {sign * best.value:.4g} (at best {sign * best.high:.4g}) on {best.n} "
        "held-out examples"
    )
    return Screened(
        tuple(each.way for each in kept), tuple(each.model for each in kept), said, round(best.high - best.value, 4)
    )


def _probes(ways: Sequence[Way], steps: Mapping[str, Child], sign: int) -> list[_Probe]:
    found = list[_Probe]()
    for way in ways:
        made = steps.get(PROBE + way.name)
        result: Mapping[str, Any] = (made.result if made else None) or {}
        said = result.get("report", {}).get("validation", {})
        if "model" in result and said.get("value") is not None and said.get("interval"):
            high = max(sign * bound for bound in said["interval"])
            found.append(_Probe(way, str(result["model"]), sign * said["value"], high, int(said["n"])))
    return found
