"""What is true of a run at a place, from its folder first and from the cluster's word last: one pure function.

A cluster says FAILED of a run that lives, and NODE_FAIL of one that ends well. So its word never ends an attempt: it
tells only whether one that nobody has claimed still waits, and even then the daemon's own claim makes it true.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from speciate.jobs.places.lease import Lease


class Status(StrEnum):
    """What a cluster says of a launch."""

    PENDING = "waits"
    RUNNING = "runs"
    DEAD = "ended"
    UNKNOWN = "is not known"
    """It answers, and has no such launch (any more)."""
    SILENT = "does not answer"


class Verdict(StrEnum):
    ENDED = "ended"
    """`exit` says how, and nothing of it lives."""
    ALIVE = "alive"
    PENDING = "pending"
    """It waits in the cluster's queue."""
    LAUNCH = "launch"
    """Nobody has it: launching it, perhaps again, does no harm."""
    BURY = "bury"
    """The cluster gave it up before it began: claim it, and it never will."""
    GONE = "gone"
    """It is dead without a word, or can never begin."""
    UNREACHABLE = "unreachable"
    """Nothing may be concluded."""


class RunFolderState(NamedTuple):
    """A run's folder at one look."""

    exit: bool
    """Whether it said how it ended."""
    claimed: bool
    never: bool
    """Whether the claim is the daemon's."""
    lease: Lease | None


def judge(seen: RunFolderState, status: Status, silence: float, lost: float) -> Verdict:
    """`silence`: seconds of the daemon's own clock since it saw the claim, or since then the lease, change."""
    if seen.never:
        return Verdict.GONE
    if seen.lease is None and not seen.claimed:
        return _unclaimed(seen, status)
    if seen.lease is not None and not seen.lease.held and seen.exit:
        return Verdict.ENDED
    if silence < lost:
        # Claimed and no beat yet: it begins, or died in between. Released without an exit: a shared disk may show the
        # two in either order.
        return Verdict.ALIVE if seen.lease is not None and seen.lease.held else Verdict.UNREACHABLE
    return Verdict.ENDED if seen.exit else Verdict.GONE


def _unclaimed(seen: RunFolderState, status: Status) -> Verdict:
    if seen.exit:
        return Verdict.ENDED
    match status:
        case Status.SILENT:
            return Verdict.UNREACHABLE
        case Status.PENDING | Status.RUNNING:
            return Verdict.PENDING
        case Status.DEAD:
            return Verdict.BURY
        case Status.UNKNOWN:
            return Verdict.LAUNCH
