"""Two small files in a run's folder on a shared disk, by which two machines agree on who lives. Standard library only.

claimed   made once, with link(2): who makes it decides. By a node: the attempt starts there, once, however often it
          was launched. By the daemon: it will never start.
lease     {"beat", "state"}, replaced whole every few seconds by the node. Who could not replace it for `hold`
          seconds kills its own run, so whoever saw no new beat for longer than that knows that it is dead. No two
          clocks are compared.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import NamedTuple

from speciate.jobs.folder import write_whole

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


def claim(folder: Path, who: str) -> bool:
    """Whether the attempt is ours: exclusive creation, with its content in one step, on NFS as well.

    A call that NFS repeats because the answer to the first was lost finds the name there: then the link count says
    that it is ours. Raises OSError.
    """
    mine = folder / f"{CLAIMED}.{socket.gethostname()}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    mine.write_text(json.dumps({"by": who, "host": socket.gethostname(), "pid": os.getpid()}))
    try:
        os.link(mine, folder / CLAIMED)
    except FileExistsError:
        return mine.stat().st_nlink == 2
    finally:
        mine.unlink(missing_ok=True)
    return True


def claimed_by(folder: Path) -> str | None:
    """None where nobody has claimed it. Raises OSError."""
    try:
        return str(json.loads((folder / CLAIMED).read_text())["by"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return "somebody"  # it is there, and that decides


def write_lease(folder: Path, lease: Lease) -> None:
    write_whole(folder / LEASE, json.dumps(lease._asdict()))


def read_lease(folder: Path) -> Lease | None:
    """None where there was none yet. Raises OSError."""
    try:
        document = json.loads((folder / LEASE).read_text())
        return Lease(int(document["beat"]), bool(document["held"]), str(document.get("node", "")))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"{folder / LEASE} cannot be read: {error}") from error
