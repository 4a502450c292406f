"""What may be deleted: a pure function from what is known of a file and of the catalog to whether it may go.

To a catalog that names nothing everything is garbage, so that nothing names a file is not enough. It goes only where
the catalog was there all the time, would know of whoever needs it, and a backup agrees. Every rule here errs on the
side of keeping; what a person asked to delete or forget does not pass through here (production/tidy.py, `doomed`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Hashable, Iterable, Sequence
from enum import StrEnum
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

Row = TypeVar("Row", bound=Hashable)

ACCOUNTED = frozenset({"runs", "checkpoints", "exports", "models", "leftovers", "cache"})
"""Kinds that go because a row of the catalog says so (a job that ended long ago, a version that was deleted) or because
everything of the kind may be made again. The others go because nothing names them."""
OF_JOBS = frozenset({"datasets", "packs", "evaluations"})
"""Kinds that nothing but a job writes."""
_FEW, _NAMED_SHARE = 10, 10
_SLACK_SECONDS = 2.0
"""Filesystems round the time of a file."""


class Spared(StrEnum):
    """Why something that nothing names stays."""

    DISTRUST = "the catalog is not known to be the one of these folders"
    IMPLAUSIBLE = "the catalog names almost nothing of what lies here: run `speciate rebuild`, or delete it by hand"
    YOUNG = "written within a day, or since a job began that may yet name it"
    UNSEEN = "no backup of the catalog was made since it was written"
    BEFORE = "it is older than the catalog"
    GAP = "written in a time of which a rebuilt or torn catalog knows nothing"
    NOBODY = "no job of this workspace was at work when it was written"


class Custody(BaseModel):
    """Since when, and how well, a catalog knows its folders; seconds since the epoch. Travels to the worker."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    trusted: bool = False
    cutoff: float = 0.0
    """What was written since may be named yet."""
    witnessed: float = 0.0
    """When the newest trusted backup was made."""
    since: float = 0.0
    """Its first event."""
    gaps: tuple[tuple[float, float], ...] = ()
    """Times of which it knows nothing, both ends included."""
    worked: tuple[tuple[float, float], ...] = ()
    """When jobs were at work: disjoint, in order."""


def spared(kind: str, written: float, custody: Custody) -> Spared | None:
    """Why something of this kind, last written then, which nothing names, stays all the same; None: it may go."""
    if not custody.trusted:
        return Spared.DISTRUST
    if written >= custody.cutoff:
        return Spared.YOUNG
    if kind in ACCOUNTED:
        return None
    if written > custody.witnessed:
        return Spared.UNSEEN
    if written < custody.since - _SLACK_SECONDS:
        return Spared.BEFORE
    if any(since <= written <= until for since, until in custody.gaps):
        return Spared.GAP
    if kind in OF_JOBS and not _at_work(written, custody.worked):
        return Spared.NOBODY
    return None


def implausible(named: int, going: int) -> bool:
    """Whether a catalog that names so many of the sealed files that lie there can be right in that so many may go."""
    return going >= _FEW and named * _NAMED_SHARE < named + going


def lacking(saved: Iterable[Row], known: Collection[Row], deleted: Collection[Row]) -> list[Row]:
    """Rows that a backup has and the catalog has lost: nobody deleted them. What they name stays."""
    gone = {*known, *deleted}
    return [row for row in dict.fromkeys(saved) if row not in gone]


def joined(spans: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The same moments as disjoint spans in order."""
    found: list[tuple[float, float]] = []
    for since, until in sorted(spans):
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], until))
        else:
            found.append((since, until))
    return tuple(found)


def _at_work(moment: float, spans: Sequence[tuple[float, float]]) -> bool:
    """`spans`: disjoint, in order."""
    place = bisect_right(spans, (moment + _SLACK_SECONDS, float("inf")))
    return place > 0 and moment <= spans[place - 1][1] + _SLACK_SECONDS
