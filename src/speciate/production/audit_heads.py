"""Heads of the audit, kept in a file beside the catalog: a chain that lost its end is whole in itself.

Each row's hash is appended once it is committed. What is compared with it (`audit.verify`) must still be in the chain:
an older catalog that was put back, or rows that were cut off, are found. A process that dies between commit and line
leaves a gap, which proves nothing either way. Where a person continued from another trail (`speciate audit accept`),
what does not fit it stays in the file as a comment. A copy elsewhere holds against whoever writes to this one, too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from speciate.jobs.folder import write_whole
from speciate.production import audit
from speciate.workspace.database import Event
from speciate.workspace.workspace import Workspace

NAME = "audit.heads"
_writing = threading.Lock()
"""Lines are appended by the listener's thread, and the file is written anew by who accepts."""
_log = logging.getLogger(__name__)


def read(path: Path) -> dict[int, str]:
    """Number of a row -> its hash; empty where there is no file. A torn last line is left out."""
    heads: dict[int, str] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().decode(errors="replace").splitlines():
            number, _, digest = line.partition(" ")
            if number.isdecimal() and len(digest) == 64:
                heads.setdefault(int(number), digest)
    return heads


def keep(workspace: Workspace) -> None:
    """From here on, and once for what there is."""
    path = workspace.folders.root / NAME

    def heard(events: Sequence[Event]) -> None:
        if any("audit" in event.data for event in events):
            _append(workspace, path)

    workspace.database.listen(heard)
    _append(workspace, path)


def problems(workspace: Workspace) -> list[str]:
    """What was kept and is not in the chain."""
    return audit.lost_heads(audit.every(workspace.database), read(workspace.folders.root / NAME))


def settle(workspace: Workspace, accepted: audit.Row) -> None:
    """A person continues from the trail as it is: lines that do not fit it are kept as comments, and it counts from
    here on. Until this is done the problems stay, and accepting again does it. Raises OSError."""
    path = workspace.folders.root / NAME
    with _writing:
        rows = {row.seq: row.hash for row in audit.every(workspace.database)}
        lines = path.read_bytes().decode(errors="replace").splitlines() if path.exists() else []
        told = [
            line if _fits(line, rows) else f"# before row {accepted.seq} was accepted: {line}" for line in lines if line
        ]
        head = f"{accepted.seq} {accepted.hash}"
        write_whole(path, "\n".join([*told, *([] if head in told else [head])]) + "\n", mode=0o600)


def _fits(line: str, rows: Mapping[int, str]) -> bool:
    number, _, digest = line.partition(" ")
    return line.startswith("#") or (number.isdecimal() and rows.get(int(number)) == digest)


def _append(workspace: Workspace, path: Path) -> None:
    with _writing:
        _append_newest(workspace, path)


def _append_newest(workspace: Workspace, path: Path) -> None:
    newest = audit.newest(workspace.database, most=1)
    if not newest or newest[0].seq in read(path):
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
