"""Heads of the audit, kept in a file beside the catalog: a chain that lost its end is whole in itself.

Each row's hash is appended once it is committed. What is compared with it (`audit.verify`) must still be in the chain:
an older catalog that was put back, or rows that were cut off, are found. A process that dies between commit and line
leaves a gap, which proves nothing either way. A copy elsewhere holds against whoever writes to this one, too.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from speciate.production import audit
from speciate.workspace.database import Event
from speciate.workspace.workspace import Workspace

NAME = "audit.heads"
_log = logging.getLogger(__name__)


def read(path: Path) -> dict[int, str]:
    """Number of a row -> its hash; empty where there is no file. A torn last line is left out."""
    heads: dict[int, str] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().decode(errors="replace").splitlines():
            number, _, digest = line.partition(" ")
            if number.isdigit() and len(digest) == 64:
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


def _append(workspace: Workspace, path: Path) -> None:
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
