"""Where the trail of a workspace ended and which keys were in force, kept outside the workspace: in the config folder
of whoever runs the daemon, and of each person who signs.

An older catalog that is put back, a key that is replaced in it and rows that are written anew with all their hashes are
each whole in themselves; they do not fit this head. Who may write to both is not held back by it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.jobs.folder import write_whole
from speciate.production import audit
from speciate.settings import config_folder
from speciate.workspace import place

_IDENTITY = re.compile(r"[0-9a-f]{32}")


class Head(NamedTuple):
    row: int
    hash: str
    keys: tuple[str, ...]
    """Fingerprints, sorted."""
    workspace: str
    """Where it lay: a copy has the same identity, and a trail of its own from then on."""


def path(identity: str, workspace: Path) -> Path:
    """Of the head of the workspace at that place. Raises ValueError for what is no identity."""
    if not _IDENTITY.fullmatch(identity):
        raise ValueError(f"{identity!r} is no identity of a workspace")
    where = hashlib.sha256(os.fsencode(workspace.resolve())).hexdigest()[:16]
    return _folder() / f"{identity}-{where}.json"


def read(identity: str, workspace: Path) -> Head | None:
    """What was kept of the workspace there; where nothing was and it may have been moved, the furthest of what was kept
    where no workspace of this identity lies any more. None for a copy beside its original, which begins anew.

    Raises ValueError for a file that is not as it was written.
    """
    own = path(identity, workspace)
    if (head := _read(own)) is not None:
        return head
    others = [_read(file) for file in sorted(_folder().glob(f"{identity}*.json"))]
    moved = [
        head for head in others if head is not None and not place.another_at(Path(head.workspace), workspace, identity)
    ]
    return max(moved, key=lambda head: head.row, default=None)


def beside(identity: str, workspace: Path) -> list[str]:
    """Places of other workspaces of this identity of which heads were kept: this one is a copy, or was copied."""
    heads = (_read(file) for file in sorted(_folder().glob(f"{identity}*.json")))
    return [each.workspace for each in heads if each and place.another_at(Path(each.workspace), workspace, identity)]


def _folder() -> Path:
    return config_folder() / "heads"


def _read(file: Path) -> Head | None:
    try:
        found = json.loads(file.read_text())
        keys = tuple(sorted(str(key) for key in found["keys"]))
        return Head(int(found["row"]), str(found["hash"]), keys, str(found["workspace"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def write(identity: str, head: Head, before: Head | None = None) -> None:
    """Whole or not at all. `before`: what was read; of a place that was left it goes, so that a workspace that is moved
    back later is compared with the newest. Raises OSError."""
    file = path(identity, Path(head.workspace))
    for folder in (file.parent.parent, file.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(file, json.dumps(head._asdict()), mode=0o600)
    descriptor = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if before is not None and before.workspace != head.workspace:
        left = path(identity, Path(before.workspace))
        if left != file:
            left.unlink(missing_ok=True)


def at(workspace: Path) -> list[Head]:
    """Heads of workspaces that lay there: for whoever knows no identity."""
    found = []
    for file in sorted(_folder().glob("*.json")):
        try:
            head = _read(file)
        except ValueError:
            continue
        if head is not None and head.workspace == str(workspace.resolve()):
            found.append(head)
    return found


def misfits(rows: Sequence[audit.Row], keys_after: Callable[[int], frozenset[str]], kept: Head) -> tuple[str, ...]:
    """What of a trail does not fit a head that was kept."""
    if kept.row > len(rows):
        missing = kept.row - len(rows)
        return (
            f"the trail ends at row {len(rows)}, and {missing} more were known outside the workspace: "
            f"the catalog is an older one; {audit.NEXT_STEP}",
        )
    hash_ = rows[kept.row - 1].hash if kept.row else audit.GENESIS
    if hash_ != kept.hash:
        return (f"row {kept.row} is not the one that was known outside the workspace ({kept.hash[:16]})",)
    if (there := keys_after(kept.row)) != set(kept.keys):
        gone, new = sorted(set(kept.keys) - there), sorted(there - set(kept.keys))
        what = [f"{key} is gone" for key in gone] + [f"{key} was not known" for key in new]
        return (f"the enrolled keys are not those that were known outside the workspace: {', '.join(what)}",)
    return ()
