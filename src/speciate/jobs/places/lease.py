"""Two small files in a run's room of a depot, by which two machines agree on who lives. Standard library only.

claimed   made once: who makes it decides. By a node: the attempt starts there, once, however often it
          was launched. By the daemon: it will never start.
lease     {"beat", "state"}, replaced whole every few seconds by the node. Who could not replace it for `hold`
          seconds kills its own run, so whoever saw no new beat for longer than that knows that it is dead. No two
          clocks are compared.

Several nodes that have one run together each have both, all but the first with their number (team.py).
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.jobs.places.depot import Room

CLAIMED, LEASE, FENCED, CANCEL = "claimed", "lease", "fenced", "cancel"
DAEMON = "daemon"
"""Name under which the daemon claims a launch, which then never starts."""
_LOST = 1.5
"""Times the node's `hold`, until the daemon calls a silent run lost: it has killed itself long before."""
_BEATS = 6
"""Beats in a `hold`."""


class Terms(NamedTuple):
    """Seconds that a node and a daemon agree on."""

    hold: float

    @property
    def beat(self) -> float:
        return self.hold / _BEATS

    @property
    def lost(self) -> float:
        return self.hold * _LOST


class Lease(NamedTuple):
    beat: int
    held: bool
    node: str = ""


def uptime() -> float:
    """Seconds that go on while the machine sleeps: a lease runs out meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def name_of(what: str, node: int) -> str:
    """Name of a file that each of several nodes has; of the first, 0, it is that of the run.

    >>> name_of("lease", 0), name_of("lease", 3)
    ('lease', 'lease.3')
    """
    return f"{what}.{node}" if node else what


def claim(room: Room, who: str, node: int = 0) -> bool:
    """Whether the attempt is ours: exclusive creation, with its content in one step. Raises OSError."""
    mine = {"by": who, "host": socket.gethostname(), "pid": os.getpid(), "nonce": os.urandom(8).hex()}
    return room.create(name_of(CLAIMED, node), json.dumps(mine))


def claimed_by(room: Room) -> str | None:
    """None where nobody has claimed it. Raises OSError."""
    data = room.read(CLAIMED)
    try:
        return None if data is None else str(json.loads(data)["by"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "somebody"  # it is there, and that decides


def write_lease(room: Room, lease: Lease, node: int = 0) -> None:
    room.write(name_of(LEASE, node), json.dumps(lease._asdict()))


def read_lease(room: Room, node: int = 0) -> Lease | None:
    """None where there was none yet. Raises OSError, and DAMAGED where it is none: then nothing may be concluded."""
    data = room.read(name_of(LEASE, node))
    if data is None:
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        beat, held = document.get("beat"), document.get("held")
        if type(beat) is int and isinstance(held, bool):
            return Lease(beat, held, str(document.get("node", "")))
    raise SpeciateError(
        Code.DAMAGED, f"{room.where}/{name_of(LEASE, node)} cannot be read.", "A node that lives writes it anew."
    )
