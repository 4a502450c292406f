"""Where the trail of a workspace ended and which keys were in force, kept outside the workspace: in the config folder
of whoever runs the daemon, and of each person who signs.

An older catalog that is put back, a key that is replaced in it and rows that are written anew with all their hashes are
each whole in themselves; they do not fit this head. Who may write to both is not held back by it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.jobs.folder import write_whole
from speciate.production import audit
from speciate.settings import config_folder

_IDENTITY = re.compile(r"[0-9a-f]{32}")


class Head(NamedTuple):
    row: int
    hash: str
    keys: tuple[str, ...]
    """Fingerprints, sorted."""
    workspace: str
    """Where it lay, for people; a workspace that was moved keeps its identity."""


def path(identity: str) -> Path:
    """Raises ValueError for what is no identity."""
    if not _IDENTITY.fullmatch(identity):
        raise ValueError(f"{identity!r} is no identity of a workspace")
    return config_folder() / "heads" / f"{identity}.json"


def read(identity: str) -> Head | None:
    """None where none was kept. Raises ValueError for a file that is not as it was written."""
    file = path(identity)
    try:
        found = json.loads(file.read_text())
        keys = tuple(sorted(str(key) for key in found["keys"]))
        return Head(int(found["row"]), str(found["hash"]), keys, str(found["workspace"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def write(identity: str, head: Head) -> None:
    """Whole or not at all. Raises OSError."""
    file = path(identity)
    for folder in (file.parent.parent, file.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(file, json.dumps(head._asdict()), mode=0o600)
    descriptor = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def at(workspace: Path) -> list[Head]:
    """Heads of workspaces that lay there: for whoever knows no identity."""
    found = []
    for file in sorted((config_folder() / "heads").glob("*.json")):
        try:
            head = read(file.stem)
        except ValueError:
            continue
        if head is not None and head.workspace == str(workspace):
            found.append(head)
    return found


def misfits(rows: Sequence[audit.Row], keys_after: Callable[[int], frozenset[str]], kept: Head) -> tuple[str, ...]:
    """What of a trail does not fit a head that was kept."""
    if kept.row > len(rows):
        missing = kept.row - len(rows)
        return (
            f"the trail ends at row {len(rows)}, and {missing} more were known outside the workspace: "
            "the catalog is an older one",
        )
    hash_ = rows[kept.row - 1].hash if kept.row else audit.GENESIS
    if hash_ != kept.hash:
        return (f"row {kept.row} is not the one that was known outside the workspace ({kept.hash[:16]})",)
    if (there := keys_after(kept.row)) != set(kept.keys):
        gone, new = sorted(set(kept.keys) - there), sorted(there - set(kept.keys))
        what = [f"{key} is gone" for key in gone] + [f"{key} was not known" for key in new]
        return (f"the enrolled keys are not those that were known outside the workspace: {', '.join(what)}",)
    return ()
