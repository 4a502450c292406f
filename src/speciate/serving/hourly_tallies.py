"""What the requests of each version came to in each hour of the last 90 days, in a deployment's folder.

    hours/2026-11-28.json    a list of HourTally: one day, by UTC

The bake's counters (request_metrics.py) are totals since a move and its worst minute; these have a history, so that a
limit which breaks months after the bake is seen. The file of the day is written whole, once a minute if something
changed and at the end: a kill loses a minute of counts. Older days never change, and the ninety-first is deleted.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from speciate.jobs.folder import write_whole
from speciate.promotion.request_counters import BadCount

HOUR, DAYS = 3600, 90
_DAY = 24 * HOUR
_WRITE_SECONDS = 60.0

Key = tuple[str, int, str]
"""Alias, generation, model."""


class HourTally(BaseModel):
    """Counts of one version under one alias in one hour. `hour` counts from the epoch. All but the keys are sums."""

    model_config = ConfigDict(extra="ignore")
    hour: int
    alias: str
    generation: int
    model: str
    requests: int = 0
    seconds: float = 0.0
    failed: int = 0
    not_finite: int = 0
    unusable: int = 0
    overloaded: int = 0
    """Requests that found no room in the queue; `requests` leaves them out."""
    timed: int = 0
    """Inputs whose time was held against the use case's p95 limit."""
    slow: int = 0
    durations: dict[int, int] = {}
    """Requests by how long they took, as `duration_class` has it."""

    @property
    def key(self) -> Key:
        return self.alias, self.generation, self.model


def duration_class(seconds: float) -> int:
    """Four classes for each doubling of a time: what is said of one is right to 9 %."""
    return math.floor(4 * math.log2(max(seconds, 1e-6)))


def quantile_seconds(tallies: Iterable[HourTally], share: float) -> float | None:
    """The time that this share of requests took at most; None where no request was timed so."""
    counts = Counter[int]()
    for each in tallies:
        counts.update(each.durations)
    left = share * counts.total()
    for place in sorted(counts):
        left -= counts[place]
        if left <= 0:
            return float(2 ** ((place + 0.5) / 4))
    return None


_SUMS = ("requests", "seconds", "failed", "not_finite", "unusable", "overloaded", "timed", "slow")
_TALLIES = TypeAdapter(list[HourTally])


class RequestRecord(NamedTuple):
    """One request, as `request_metrics.Outcome` has it."""

    seconds: float
    failed: bool
    not_finite: bool
    unusable: bool
    overloaded: bool = False


class HourlyTallies:
    """One writer: the deployment that holds its folder. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._day: int | None = None
        self._tallies: dict[tuple[int, Key], HourTally] = {}
        self._changed, self._written_at = False, 0.0

    def add(self, key: Key, at: float, seen: RequestRecord) -> None:
        """Count one request."""
        with self._lock:
            tally = self._of(key, at)
            if seen.overloaded:
                tally.overloaded += 1
                return
            tally.requests += 1
            tally.seconds += seen.seconds
            place = duration_class(seen.seconds)
            tally.durations[place] = tally.durations.get(place, 0) + 1
            tally.failed += seen.failed
            tally.not_finite += seen.not_finite
            tally.unusable += seen.unusable

    def time(self, key: Key, at: float, slow: bool) -> None:
        """Count one timed input."""
        with self._lock:
            tally = self._of(key, at)
            tally.timed += 1
            tally.slow += slow

    def write(self, *, now: bool = False) -> None:
        """Writes the tallies, where it is time or `now`. Raises OSError, as a full disk does."""
        with self._lock:
            if self._changed and (now or time.monotonic() - self._written_at >= _WRITE_SECONDS):
                self._write()

    def _of(self, key: Key, at: float) -> HourTally:
        day = int(at // _DAY)
        if day != self._day:
            self._begin(day)
        self._changed = True
        place = int(at // HOUR), key
        if place not in self._tallies:
            alias, generation, model = key
            self._tallies[place] = HourTally(hour=place[0], alias=alias, generation=generation, model=model)
        return self._tallies[place]

    def _begin(self, day: int) -> None:
        """Another day: the one before is written, what was counted of this one before a restart is read, and what is
        too old goes. On a full disk the last minute of the day is lost, and the answer that is counted leaves all the
        same."""
        if self._changed:
            with contextlib.suppress(OSError):
                self._write()
        self._day = day
        self._tallies = {(each.hour, each.key): each for each in _read(_file(self._folder, day))}
        for path in self._folder.glob("*.json"):
            if (found := _day_of(path)) is not None and found <= day - DAYS:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _write(self) -> None:
        assert self._day is not None
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps([each.model_dump() for each in self._tallies.values()])
        self._changed, self._written_at = False, time.monotonic()
        write_whole(_file(self._folder, self._day), text, 0o600)


def read_hours(folder: Path, begin: float, end: float) -> list[HourTally]:
    """Tallies of hours that begin in [begin, end), oldest first, of all replicas of the deployment. What is not there,
    or is no such file, is left out."""
    days = range(int(begin // _DAY), int(end // _DAY) + 1)
    found: dict[tuple[int, Key], HourTally] = {}
    for replica in (folder, *folder.parent.glob(f"replicas/*/{folder.name}")):
        for each in (one for day in days for one in _read(_file(replica, day))):
            if begin <= each.hour * HOUR < end:
                place = each.hour, each.key
                found[place] = _sum(found[place], each) if place in found else each
    return [found[place] for place in sorted(found)]


def _sum(one: HourTally, other: HourTally) -> HourTally:
    counts = {name: getattr(one, name) + getattr(other, name) for name in _SUMS}
    durations = Counter(one.durations) + Counter(other.durations)
    return one.model_copy(update={**counts, "durations": dict(durations)})


def without_worst(tallies: list[HourTally], name: str, of: str = "requests") -> BadCount:
    """The sum of a field, among `of`, without the hour that has most of it: one stall is an incident, and no limit that
    is broken."""
    by_hour: dict[int, BadCount] = {}
    for each in tallies:
        before = by_hour.get(each.hour, BadCount(0, 0))
        by_hour[each.hour] = BadCount(before.n + getattr(each, of), before.bad + getattr(each, name))
    counts = sorted(by_hour.values(), key=lambda one: (one.bad, -one.n))[:-1]
    return BadCount(sum(one.n for one in counts), sum(one.bad for one in counts))


def _file(folder: Path, day: int) -> Path:
    return folder / f"{datetime.datetime.fromtimestamp(day * _DAY, datetime.UTC):%Y-%m-%d}.json"


def _day_of(path: Path) -> int | None:
    try:
        moment = datetime.datetime.strptime(path.stem, "%Y-%m-%d").replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
    return int(moment.timestamp() // _DAY)


def _read(path: Path) -> Iterator[HourTally]:
    try:
        yield from _TALLIES.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return
