"""Which new base models are worth an episode: a probe on each, beside what serves, on the validation split.

That costs minutes and no label, and the rows that judge are not touched. A base model goes on where the interval of its
probe's gain reaches beyond the margin: it may be better, which the episode then shows or not. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from speciate.jobs.job import ENDED
from speciate.jobs.kinds import Child
from speciate.loop.watch.gains import Gain, gains_of, report_of
from speciate.loop.watch.ways import Way

SCREEN, PROBE = "screen", "screen/"
SECONDS = 300.0
"""Of one probe, at most."""
FEWEST = 50
"""Validation rows: with fewer next to nothing could be left out."""
_NONE = "no new base model could be compared with what serves on the validation split"


class Screened(NamedTuple):
    ways: tuple[Way, ...]
    """Those that may be better than what serves, the most promising first."""
    models: tuple[str, ...]
    """Their probes, in the same order."""
    because: str
    smallest_gain: float | None
    """That could have been seen."""
    compared: bool = True
    """False: nothing is known of any."""


def probe_of(ways: Sequence[Way], steps: Mapping[str, Child], left: float) -> tuple[Way, float] | None:
    """The next base model to make a probe of, with its seconds; None: each has one, or failed."""
    missing = [way for way in ways if PROBE + way.name not in steps]
    if SCREEN in steps or not missing or (left < 1.0 and len(missing) < len(ways)):
        return None
    return missing[0], max(1.0, min(SECONDS, left / (len(missing) + 1)))


def comparison(ways: Sequence[Way], steps: Mapping[str, Child], dataset: str, serving: str | None, use_case: str,
               ) -> dict[str, object] | None:  # fmt: skip
    """Spec of `evaluate`; None where no probe could be made."""
    models = list(dict.fromkeys(model for way in ways if (model := _model(way, steps))))
    if not models:
        return None
    return {
        "models": models, "dataset": f"{dataset}:validation", "use_case": use_case, "baseline": serving,
        "latency": False,
    }  # fmt: skip


def screened(ways: Sequence[Way], steps: Mapping[str, Child], metric: str, margin: float) -> Screened:
    """Once all probes are made and compared. What could not be compared is not promising: nothing is known of it."""
    compared = steps.get(SCREEN)
    if compared is None or compared.state not in ENDED or not compared.result:
        return Screened((), (), _NONE, None, False)
    gains = {each.model: each for each in gains_of(metric, compared)}
    by_way = [(way, gains[model]) for way in ways if (model := _model(way, steps)) in gains]
    by_way.sort(key=lambda pair: pair[1].gain, reverse=True)
    if not by_way:
        return Screened((), (), _NONE, None, False)
    best, n = by_way[0], int(report_of(compared)["n"])
    kept = [(way, gain) for way, gain in by_way if gain.high > margin]
    said = f"{len(kept)} of {len(ways)} new base models may be better on {n} validation rows; {_said(*best)}"
    return Screened(
        tuple(way for way, _ in kept), tuple(gain.model for _, gain in kept), said, best[1].seen
    )  # fmt: skip


def _said(way: Way, gain: Gain) -> str:
    return f"the best, {way.base_model}, gains {gain.gain:+.4g} (95 %: {gain.low:+.4g} to {gain.high:+.4g})"


def _model(way: Way, steps: Mapping[str, Child]) -> str | None:
    made = steps.get(PROBE + way.name)
    return str(made.result["model"]) if made is not None and made.result and "model" in made.result else None
