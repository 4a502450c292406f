"""Two small files in a run's room of a depot, by which two machines agree on who lives. Standard library only.

claimed   made once: who makes it decides. By a node: the attempt starts there, once, however often it
          was launched. By the daemon: it will never start.
lease     {"beat", "state"}, replaced whole every few seconds by the node. Who could not replace it for `hold`
          seconds kills its own run, so whoever saw no new beat for longer than that knows that it is dead. No two
          clocks are compared.
"""

from __future__ import annotations

import json
import os
import socket
from typing import NamedTuple

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


def claim(room: Room, who: str) -> bool:
    """Whether the attempt is ours: exclusive creation, with its content in one step. Raises OSError."""
    mine = {"by": who, "host": socket.gethostname(), "pid": os.getpid(), "nonce": os.urandom(8).hex()}
    return room.create(CLAIMED, json.dumps(mine))


def claimed_by(room: Room) -> str | None:
    """None where nobody has claimed it. Raises OSError."""
    data = room.read(CLAIMED)
    try:
        return None if data is None else str(json.loads(data)["by"])
    except (ValueError, KeyError, TypeError):
        return "somebody"  # it is there, and that decides


def write_lease(room: Room, lease: Lease) -> None:
    room.write(LEASE, json.dumps(lease._asdict()))


def read_lease(room: Room) -> Lease | None:
    """None where there was none yet. Raises OSError."""
    data = room.read(LEASE)
    try:
        document = None if data is None else json.loads(data)
        return document and Lease(int(document["beat"]), bool(document["held"]), str(document.get("node", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(f"{room.where}/{LEASE} cannot be read: {error}") from error
