"""Heads of the audit, kept in two places so that a chain that lost its end is noticed.

One file lies beside the catalog. The other (`Head`) lies outside the workspace, in the config folder of whoever runs
the daemon and of each person who signs, with the keys that were in force. An older catalog that is put back, a key
that is replaced in it and rows that are rewritten with all their hashes are each consistent in themselves, but
contradict that head. It does not stop anybody who may write to both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.environment import config_folder
from speciate.governance import audit
from speciate.jobs.folder import write_whole
from speciate.workspace import catalog_identity
from speciate.workspace.database import Event
from speciate.workspace.workspace import Workspace

NAME = "audit.heads"
_writing = threading.Lock()
"""Lines are appended by the listener's thread, and the file is written anew by who accepts."""
_IDENTITY = re.compile(r"[0-9a-f]{32}")
_log = logging.getLogger(__name__)


def read_heads(path: Path) -> dict[int, str]:
    """Number of a row -> its hash; empty where there is no file. A torn last line is left out."""
    heads: dict[int, str] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().decode(errors="replace").splitlines():
            number, _, digest = line.partition(" ")
            if number.isdecimal() and len(digest) == 64:
                heads.setdefault(int(number), digest)
    return heads


def keep_heads(workspace: Workspace) -> None:
    """Keep the heads of the audit from here on, and once for what there is."""
    path = workspace.folders.root / NAME

    def heard(events: Sequence[Event]) -> None:
        if any("audit" in event.data for event in events):
            _append(workspace, path)

    workspace.database.listen(heard)
    _append(workspace, path)


def missing_heads(workspace: Workspace) -> list[str]:
    """What was kept and is not in the chain."""
    return audit.lost_heads(audit.all_rows(workspace.database), read_heads(workspace.folders.root / NAME))


def accept_heads(workspace: Workspace, accepted: audit.Row) -> None:
    """A person continues from the trail as it is: lines that do not fit it are kept as comments, and it counts from
    here on. Until this is done the problems stay, and accepting again does it. Raises OSError."""
    path = workspace.folders.root / NAME
    with _writing:
        rows = {row.seq: row.hash for row in audit.all_rows(workspace.database)}
        lines = path.read_bytes().decode(errors="replace").splitlines() if path.exists() else []
        told = [
            line if _is_in_chain(line, rows) else f"# before row {accepted.seq} was accepted: {line}"
            for line in lines
            if line
        ]
        head = f"{accepted.seq} {accepted.hash}"
        write_whole(path, "\n".join([*told, *([] if head in told else [head])]) + "\n", mode=0o600)


def _is_in_chain(line: str, rows: Mapping[int, str]) -> bool:
    number, _, digest = line.partition(" ")
    return line.startswith("#") or (number.isdecimal() and rows.get(int(number)) == digest)


def _append(workspace: Workspace, path: Path) -> None:
    with _writing:
        _append_newest(workspace, path)


def _append_newest(workspace: Workspace, path: Path) -> None:
    newest = audit.newest(workspace.database, most=1)
    if not newest or newest[0].seq in read_heads(path):
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            line = f"{newest[0].seq} {newest[0].hash}\n".encode()
            os.write(descriptor, b"\n" + line if torn else line)  # what a crash tore must not take the next one along
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        _log.exception("the head of the audit could not be kept")


class Head(NamedTuple):
    row: int
    hash: str
    keys: tuple[str, ...]
    """Fingerprints, sorted."""
    workspace: str
    """Where it lay: a copy has the same identity, and a trail of its own from then on."""


def outside_head_path(identity: str, workspace: Path) -> Path:
    """File that keeps the head of the audit of the workspace at that place. Raises ValueError for what is no
    identity."""
    if not _IDENTITY.fullmatch(identity):
        raise ValueError(f"{identity!r} is no identity of a workspace")
    where = hashlib.sha256(os.fsencode(workspace.resolve())).hexdigest()[:16]
    return _outside_folder() / f"{identity}-{where}.json"


def read_outside_head(identity: str, workspace: Path) -> Head | None:
    """What was kept of the workspace there; where nothing was and it may have been moved, the furthest of what was kept
    where no workspace of this identity lies any more. None for a copy beside its original, which begins anew.

    Raises ValueError for a file that is not as it was written.
    """
    own = outside_head_path(identity, workspace)
    if (head := _read_outside_file(own)) is not None:
        return head
    others = [_read_outside_file(file) for file in sorted(_outside_folder().glob(f"{identity}*.json"))]
    moved = [
        head
        for head in others
        if head is not None and not catalog_identity._other_workspace_at(Path(head.workspace), workspace, identity)
    ]
    return max(moved, key=lambda head: head.row, default=None)


def other_places(identity: str, workspace: Path) -> list[str]:
    """Places of other workspaces of this identity of which heads were kept: this one is a copy, or was copied."""
    heads = (_read_outside_file(file) for file in sorted(_outside_folder().glob(f"{identity}*.json")))
    return [
        each.workspace
        for each in heads
        if each and catalog_identity._other_workspace_at(Path(each.workspace), workspace, identity)
    ]


def _outside_folder() -> Path:
    return config_folder() / "heads"


def _read_outside_file(file: Path) -> Head | None:
    try:
        found = json.loads(file.read_text())
        keys = tuple(sorted(str(key) for key in found["keys"]))
        return Head(int(found["row"]), str(found["hash"]), keys, str(found["workspace"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def write_outside_head(identity: str, head: Head, before: Head | None = None) -> None:
    """Whole or not at all. `before`: what was read; of a place that was left it goes, so that a workspace that is moved
    back later is compared with the newest. Raises OSError."""
    file = outside_head_path(identity, Path(head.workspace))
    for folder in (file.parent.parent, file.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(file, json.dumps(head._asdict()), mode=0o600)
    descriptor = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if before is not None and before.workspace != head.workspace:
        left = outside_head_path(identity, Path(before.workspace))
        if left != file:
            left.unlink(missing_ok=True)


def outside_heads_at(workspace: Path) -> list[Head]:
    """Heads of the workspaces that lay at this place, for a caller without an identity."""
    found = []
    for file in sorted(_outside_folder().glob("*.json")):
        try:
            head = _read_outside_file(file)
        except ValueError:
            continue
        if head is not None and head.workspace == str(workspace.resolve()):
            found.append(head)
    return found


def contradictions(
    rows: Sequence[audit.Row], keys_after: Callable[[int], frozenset[str]], kept: Head
) -> tuple[str, ...]:
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
