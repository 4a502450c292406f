"""A version is tried before it gets traffic: loaded, then asked real examples, one at a time, as clients will ask.

It is refused where it cannot be loaded, answers none of them, gives numbers that are none, or is slower than its use
case allows. The old version may be under load beside it, and the machine busy with other things; noise only adds to
what is measured. So an answer counts as its time by the clock or by the processor, whichever is less; of each example
the quickest of its answers counts, and of these the median is held to the limit. Finer judgements are evaluation's.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from speciate.errors import SpeciateError
from speciate.finite import NOT_FINITE, finite
from speciate.serving.folder import Target
from speciate.serving.runner import Died, Slow

_PASSES = 3
_TRIAL_SECONDS, _FEWEST = 10.0, 3
"""After so long no further example is asked, once so many were."""
_MOST_SHOWN = 300  # characters


class Unfit(Exception):
    """The version gets no traffic; the text says why."""


class Tried(NamedTuple):
    load_seconds: float
    examples: int
    median_ms: float | None
    """None where there were no examples."""


def examples_of(folder: Path, target: Target) -> list[dict[str, Any]]:
    """What it is tried on; none where they are gone."""
    if target.warmup is None:
        return []
    try:
        items: list[dict[str, Any]] = json.loads((folder / target.warmup).read_bytes())
    except (OSError, ValueError):
        return []
    return items


class Asked(Protocol):
    """As Runner."""

    target: Target

    def load(self, seconds: float) -> None: ...

    def answer(self, items: Sequence[dict[str, Any]], seconds: float) -> list[dict[str, Any]]: ...

    def cpu_seconds(self) -> float | None:
        """That its process has used; None where nobody can tell."""
        ...


def attempt(runner: Asked, items: Sequence[dict[str, Any]], seconds: float) -> Tried:
    """Load the version and try it on `items`, all within so many seconds. Raises Unfit."""
    began = time.monotonic()
    try:
        runner.load(seconds)
        loaded = time.monotonic() - began
        quickest = _quickest(runner, items, began + seconds)
    except SpeciateError as error:
        raise Unfit(_clip(f"it could not be loaded: {error}")) from error
    except Died:
        raise Unfit("its process ended while it was loaded or tried: it crashed, or needed too much memory") from None
    except Slow:
        raise Unfit(f"it was not loaded and tried within {seconds:g} s") from None
    median = statistics.median(quickest.values()) if quickest else None
    limit = runner.target.slowest_ms
    if median is not None and limit is not None and median > limit:
        raise Unfit(f"it is too slow: half of its answers take {median:.3g} ms or more, and the limit is {limit:g} ms")
    return Tried(loaded, len(quickest), median)


def _quickest(runner: Asked, items: Sequence[dict[str, Any]], deadline: float) -> dict[int, float]:
    """Place of an example -> milliseconds of its quickest answer; not all of them where that takes too long."""
    quickest: dict[int, float] = {}
    enough = time.monotonic() + _TRIAL_SECONDS
    for _ in range(_PASSES):
        for place, item in enumerate(items):
            at, used = time.monotonic(), runner.cpu_seconds()
            if at > enough and len(quickest) >= min(_FEWEST, len(items)):
                return quickest
            [answer] = runner.answer([item], max(0.0, deadline - at))
            took = 1000 * min(time.monotonic() - at, _since(used, runner.cpu_seconds()))
            quickest[place] = min(took, quickest.get(place, took))
            _check_answer(answer)
    return quickest


def _since(before: float | None, after: float | None) -> float:
    """Infinite where it is not known: what a thread used that has ended is in no sum any more."""
    return after - before if before is not None and after is not None and after >= before else math.inf


def _check_answer(answer: dict[str, Any]) -> None:
    numbers = finite(answer.get("output")) and finite(answer.get("confidence"))
    if answer.get("error") == NOT_FINITE or not numbers:
        raise Unfit("it answers with numbers that are none (NaN or infinite)")
    if answer.get("error"):
        raise Unfit(_clip(f"it cannot answer an example that it was trained on: {answer['error']}"))


def _clip(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
