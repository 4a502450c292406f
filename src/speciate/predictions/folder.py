"""Where the log of one use case lies, below the workspace: `logged/USE_CASE/`, for its owner alone.

    lines/*.jsonl              segments: lines as they came; locked (flock) while somebody appends
    parts/*.answers.parquet    sealed, with the names of the segments that they hold in `segments` of their metadata
    parts/*.feedback.parquet
    media/ab/ab12...           files that were asked about, by the sha256 of their bytes
    roll                       touched: whoever appends begins another segment, so that this one may be rewritten
    dropped.json               up to when answers went for want of room
    tending                    locked while somebody seals, drops or rewrites

Whoever reads needs no lock: files are replaced whole, and a part names the segments that it holds.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from speciate.jobs.folder import write_whole
from speciate.workspace.lock import is_held
from speciate.workspace.workspace import Folders

LOG = "log:"
"""Begins what names the log of a use case where datasets are named."""
ANSWERS, FEEDBACK = ".answers.parquet", ".feedback.parquet"


class Dropped(BaseModel):
    """Answers that went before their time, for want of room."""

    model_config = ConfigDict(frozen=True)
    until: float = 0.0
    """When the newest of them was given."""
    answers: int = 0


class Size(NamedTuple):
    segments: int
    parts: int
    media: int

    @property
    def bytes(self) -> int:
        return sum(self)


class LogFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.segments, self.parts, self.media = path / "lines", path / "parts", path / "media"

    @property
    def use_case(self) -> str:
        return self.path.name

    def create(self) -> None:
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        for folder in (self.path, self.segments, self.parts, self.media):
            folder.mkdir(mode=0o700, exist_ok=True)

    def all_segments(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.segments.glob("*.jsonl"))

    def closed_segments(self) -> list[Path]:
        """Those that nobody appends to any more."""
        return [path for path in self.all_segments() if not is_held(path)]

    def all_parts(self, kind: str = ANSWERS) -> list[Path]:
        """Oldest first."""
        return sorted(self.parts.glob(f"*{kind}"))

    def medium(self, sha256: str) -> Path:
        return self.media / sha256[:2] / sha256

    def size(self) -> Size:
        return Size(_size(self.segments), _size(self.parts), _size(self.media))

    def ask_roll(self) -> None:
        (self.path / "roll").touch()

    def roll_stamp(self) -> int:
        """Differs after each `ask_roll`."""
        try:
            return (self.path / "roll").stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def dropped(self) -> Dropped:
        try:
            return Dropped.model_validate_json((self.path / "dropped.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return Dropped()

    def note_dropped(self, dropped: Dropped) -> None:
        write_whole(self.path / "dropped.json", dropped.model_dump_json(), 0o600)

    @contextmanager
    def tended(self, *, wait: bool) -> Iterator[bool]:
        """Be the only one who changes what is closed; False where another is and `wait` is not asked for."""
        descriptor = os.open(self.path / "tending", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def logs_root(folders: Folders) -> Path:
    return folders.logged


def log_folder(folders: Folders, use_case: str) -> LogFolder:
    return LogFolder(logs_root(folders) / use_case)


def all_logs(folders: Folders) -> list[LogFolder]:
    root = logs_root(folders)
    return [LogFolder(path) for path in sorted(root.iterdir()) if path.is_dir()] if root.is_dir() else []
