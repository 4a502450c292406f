"""How long something takes where some of it is not over yet: the product-limit estimator. Pure.

Kaplan and Meier, "Nonparametric estimation from incomplete observations", JASA 53 (1958): at each time t at which d of
the n that are still open end, the share that takes longer is multiplied by 1 - d/n. What is unfinished counts among
the n until the moment up to which it is known, and never as an end; leaving it out would make everything look quicker
than it is. At equal times ends come before what is cut off there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    seconds: float
    finished: bool
    """Not finished: it takes longer than `seconds`, nobody knows how much."""


class Step(NamedTuple):
    seconds: float
    longer: float
    """Share that takes longer than `seconds`."""


def curve(spans: Iterable[Span]) -> list[Step]:
    """A step for each time at which something ended, in order."""
    known = list(spans)
    ends = Counter(span.seconds for span in known if span.finished)
    lasts = sorted(span.seconds for span in known)
    steps, longer, before = list[Step](), 1.0, 0
    for seconds in sorted(ends):
        while lasts[before] < seconds:
            before += 1
        longer *= 1 - ends[seconds] / (len(lasts) - before)
        steps.append(Step(seconds, longer))
    return steps


def quantile(steps: Sequence[Step], share: float) -> float | None:
    """The least time within which at least `share` of them end; None where it is not known that so many ever do."""
    return next((step.seconds for step in steps if step.longer <= 1 - share + 1e-12), None)
