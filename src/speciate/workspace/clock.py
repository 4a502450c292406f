"""Clocks as an argument, so that tests set the time, and `Elapsed`: how much time has passed, whatever the clock says.

A wall clock may jump (a dead battery, a wrong time server, a person), stand still, or go back. The machine's uptime
does not, so the two are compared again and again. Where they differ by more than a minute, the clock was set: another
segment begins, in which a stamp of the wall clock means another moment. The segments are kept in `clock.json`, for the
next daemon and for other processes. Nobody needs to trust a single stamp:

- `least` is the least age that a stamp can have: jobs are stopped, and things deleted, by it;
- `most` is the greatest age: approvals expire by it;
- `cutoff` is a moment of the wall clock: every stamp before it is at least so old.

While the machine was off, nobody counted. Up to a week of that time is believed; what the clock says beyond it makes
nothing old. So things stay longer than the settings say, never shorter.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple, Protocol

from speciate.workspace.blobs import write_durably


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow; on Linux they stand still while the machine sleeps."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


NAME = "clock.json"
TOLERANCE_SECONDS = 60.0
"""Seconds by which the clock may part from the uptime: it is slewed, and suspended machines round."""
MOST_UNSEEN_SECONDS = 7 * 86_400.0
_SAVE_SECONDS = 600.0
_MOST_SEGMENTS = 64
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger(__name__)


class Segment(NamedTuple):
    """From `start` on, a stamp of the wall clock minus the offset is the time that has passed. In seconds. The offset
    is between two numbers where segments were joined: a clock that stands still makes many."""

    start: float
    low: float
    high: float


class Timeline(NamedTuple):
    """Passed time that is known of, with the wall clock beside it. It begins with what the clock said first."""

    segments: tuple[Segment, ...]
    passed: float
    """Seconds on the timeline, now."""
    wall: float
    """What the clock said then."""


def begin(wall: float) -> Timeline:
    return Timeline((Segment(-math.inf, 0.0, 0.0),), wall, wall)


def observe(timeline: Timeline, wall: float, counted: float | None) -> Timeline:
    """The timeline after another look at the clock. `counted`: seconds by the uptime since the look before; None where
    nobody counted."""
    if counted is None:
        counted = min(max(0.0, wall - timeline.wall), MOST_UNSEEN_SECONDS)
    passed = timeline.passed + max(0.0, counted)
    offset, segments = wall - passed, timeline.segments
    last = segments[-1]
    if not last.low - TOLERANCE_SECONDS <= offset <= last.high + TOLERANCE_SECONDS:
        segments = (*segments, Segment(timeline.passed, offset, offset))
    while len(segments) > _MOST_SEGMENTS:
        first, second, *rest = segments
        joined = Segment(first.start, min(first.low, second.low), max(first.high, second.high))
        segments = (joined, *rest)
    return Timeline(segments, passed, wall)


def least_age(timeline: Timeline, stamp: float) -> float:
    """Seconds, at least 0: the youngest that what got this stamp can be."""
    return timeline.passed - max(_moments(timeline, stamp, [segment.low for segment in timeline.segments]))


def greatest_age(timeline: Timeline, stamp: float) -> float:
    """Seconds, at least 0: the oldest."""
    return timeline.passed - min(_moments(timeline, stamp, [segment.high for segment in timeline.segments]))


def cutoff(timeline: Timeline, age: float) -> float:
    """A stamp before which everything is at least so old (seconds), whichever way the clock was set since."""
    young = timeline.passed - age
    ends = [*(segment.start for segment in timeline.segments[1:]), math.inf]
    return min(
        max(segment.start, young) + segment.low
        for segment, end in zip(timeline.segments, ends, strict=True)
        if end > young
    )


def _moments(timeline: Timeline, stamp: float, offsets: list[float]) -> list[float]:
    """When the clock can have said that; where it never did, the nearest moment."""
    ends = [*(segment.start for segment in timeline.segments[1:]), timeline.passed]
    reached = [
        (min(max(stamp - offset, segment.start), end), stamp - offset)
        for segment, offset, end in zip(timeline.segments, offsets, ends, strict=True)
    ]
    distance = min(abs(wanted - found) for found, wanted in reached)
    slack = max(distance, TOLERANCE_SECONDS)
    return [found for found, wanted in reached if abs(wanted - found) <= slack]


class Elapsed:
    """The timeline of a workspace, as one process sees it. Thread-safe; `save` as the daemon alone."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._path, self._clock = root / NAME, clock
        self._lock = threading.Lock()
        self._timeline, self._up = _load(self._path, clock)
        self._saved_at = -math.inf
        self._saved = -1

    def look(self) -> Timeline:
        """The timeline as of now."""
        with self._lock:
            up = uptime(self._clock)
            before = len(self._timeline.segments)
            self._timeline = observe(self._timeline, self._clock.now(), up - self._up)
            self._up = up
            if len(self._timeline.segments) > before:
                last, previous = self._timeline.segments[-1], self._timeline.segments[-2]
                _log.warning("the clock was set by %+.0f s; ages go by the uptime", last.low - previous.high)
            return self._timeline

    def least(self, stamp: float) -> float:
        return least_age(self.look(), stamp)

    def most(self, stamp: float) -> float:
        return greatest_age(self.look(), stamp)

    def cutoff(self, age: float) -> float:
        return cutoff(self.look(), age)

    def save(self, *, now: bool = False) -> None:
        """For the next process: at each jump, and every few minutes. What cannot be written is tried again."""
        timeline = self.look()
        if not now and len(timeline.segments) == self._saved and self._up - self._saved_at < _SAVE_SECONDS:
            return
        segments = [[None if math.isinf(each.start) else each.start, each.low, each.high] for each in timeline.segments]
        document = {
            "segments": segments, "passed": timeline.passed, "wall": timeline.wall, "boot": boot(), "up": self._up,
        }  # fmt: skip
        try:
            write_durably(self._path, json.dumps({**document, "check": _checksum(document)}).encode())
        except OSError:
            _log.warning("%s cannot be written", self._path.name)
        self._saved_at, self._saved = self._up, len(timeline.segments)


def uptime(clock: Clock) -> float:
    """Seconds that count on while the machine sleeps, where the system has such."""
    return _boottime() if isinstance(clock, SystemClock) else clock.monotonic()


def boot() -> str:
    """Another one after each start of the machine; empty where the system has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _boottime() -> float:
    """macOS: CLOCK_MONOTONIC counts sleep there, while `time.monotonic` (mach_absolute_time) stops."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.clock_gettime(time.CLOCK_MONOTONIC) if sys.platform == "darwin" else time.monotonic()


def _checksum(document: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:32]


def _load(path: Path, clock: Clock) -> tuple[Timeline, float]:
    """What the process before saved, seen with today's clock; a new timeline where there is none that can be read."""
    up, wall = uptime(clock), clock.now()
    try:
        saved = json.loads(path.read_bytes())
        if saved.pop("check") != _checksum(saved):
            raise ValueError("it is not what was written")
        segments = tuple(
            Segment(-math.inf if start is None else float(start), float(low), float(high))
            for start, low, high in saved["segments"]
        )
        before = Timeline(segments, float(saved["passed"]), float(saved["wall"]))
        same = bool(saved["boot"]) and saved["boot"] == boot() and up >= float(saved["up"])
        counted = up - float(saved["up"]) if same else None
    except FileNotFoundError:
        return begin(wall), up
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        _log.warning("%s cannot be read (%s): ages count from what the clock says now", path.name, type(error).__name__)
        return begin(wall), up
    if not before.segments:
        return begin(wall), up
    return observe(before, wall, counted), up
