"""Whether a workspace is a copy of another one that may still live.

What a copy has queued is the original's to run: two of them would ask endpoints, pay and notify twice. So a catalog
notes where it lies (path and inode of its folder), and `speciate backup` marks what it makes. A folder that was moved
is no copy: it keeps its inode, or, on another disk, cannot be told from one and is treated as one. Nor is one that lies
where it lay, whatever its inode: it was restored there, or mounted anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from speciate.workspace import lost
from speciate.workspace.database import Database, Transaction

COPIED = "workspace.copied"
SUBJECT = "workspace:place"
_PLACE, _MARK, _OF = "place", "copied_from", "copy_of"
_GET = "SELECT value FROM meta WHERE key = ?"
_PUT = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_DROP = "DELETE FROM meta WHERE key = ?"


class Place(NamedTuple):
    path: str
    inode: int


def here(root: Path) -> Place:
    return Place(str(root.resolve()), root.stat().st_ino)


def is_copy(noted: Place | None, now: Place, *, original_there: bool) -> bool:
    """By where the catalog last lay and where it lies; `original_there`: another folder lies where it last lay and has
    the same identity. Pure."""
    if noted is None or noted.path == now.path:
        return False
    return original_there or noted.inode != now.inode


def copied_from(database: Database, root: Path, identity: str) -> str | None:
    """Path of the original, where this workspace is a copy whose jobs nobody has dealt with yet."""
    if marked := database.read_one(_GET, [_MARK]):
        return str(marked[0])
    noted = _noted(database.read_one(_GET, [_PLACE]))
    if noted is None or not is_copy(noted, here(root), original_there=another_at(Path(noted.path), root, identity)):
        return None
    return noted.path


def settle(tx: Transaction, root: Path, original: str | None = None) -> None:
    """From now on the catalog belongs where it lies. `original`: whose copy it is."""
    now = here(root)
    rows = tx.execute(_GET, [_PLACE])
    if _noted(rows[0] if rows else None) != now:
        tx.execute(_PUT, [_PLACE, json.dumps(now)])
    if original is not None:
        tx.execute(_DROP, [_MARK])
        tx.execute(_PUT, [_OF, original])


def original_of(database: Database) -> str | None:
    """Whose copy this workspace is, as it was found when it was first opened; None where it is none."""
    row = database.read_one(_GET, [_OF])
    return str(row[0]) if row else None


def mark_copy(original: Path) -> tuple[str, str]:
    """Key and value of the row of `meta` that marks a copy."""
    return _MARK, str(original)


def _noted(row: tuple[object, ...] | None) -> Place | None:
    if row is None:
        return None
    path, inode = json.loads(str(row[0]))
    return Place(str(path), int(inode))


def another_at(there: Path, root: Path, identity: str) -> bool:
    """Whether a workspace of this identity lies at `there` that is not the one at `root`."""
    try:
        same = there.samefile(root)
    except OSError:
        return False
    anchor = lost.read_anchor(there)
    return not same and anchor is not None and anchor.identity == identity
