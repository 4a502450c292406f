"""The files of the log of one use case, in `logged/USE_CASE/` of the workspace, for its owner alone.

    lines/*.jsonl              segments: lines as they came; locked (flock) while somebody appends
    parts/*.answers.parquet    sealed, with the names of the segments that they hold in `segments` of their metadata
    parts/*.feedback.parquet
    media/ab/ab12...           files that were asked about, by the sha256 of their bytes
    roll                       touched: whoever appends begins another segment, so that this one may be rewritten
    dropped.json               up to when answers went for want of room
    watched/                   what monitoring made of them; it may go at any time
    tending                    locked while somebody seals, drops or rewrites

Readers need no lock: files are replaced whole, and a part names the segments that it holds.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict, ValidationError

from speciate.jobs.folder import write_whole
from speciate.workspace import integrity
from speciate.workspace.blobs import make_folder
from speciate.workspace.lock import is_held
from speciate.workspace.workspace import Folders

if TYPE_CHECKING:
    import pyarrow as pa


LOG = "log:"
"""Begins what names the log of a use case where datasets are named."""
ANSWERS, FEEDBACK = ".answers.parquet", ".feedback.parquet"
ANSWER_LINE, FEEDBACK_LINE, GAP_LINE = "a", "f", "g"
"""Kinds of lines. A gap: so many answers before this line could not be written, and why."""
_FOOTERS = 20_000
"""Footers in memory: a log of three months has thousands of parts."""
_LOST = "With it, logged answers or feedback on them are lost."
RECOVERY = (
    "Restore the file from a backup of the workspace, or run `speciate verify --all --quarantine`: it is moved away, "
    "and the rest of the log is read without it."
)
_IDS = ("id", "prediction")
"""The first columns of answers and of feedback."""


class DroppedAnswers(BaseModel):
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

    @property
    def workspace(self) -> Path:
        return self.path.parent.parent

    def create(self) -> None:
        for folder in (self.path, self.segments, self.parts, self.media):
            make_folder(folder, mode=0o700)

    def all_segments(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.segments.glob("*.jsonl"))

    def closed_segments(self) -> list[Path]:
        """Segments that nobody appends to any more."""
        return [path for path in self.all_segments() if not is_held(path)]

    def all_parts(self, kind: str = ANSWERS) -> list[Path]:
        """Oldest first."""
        return sorted(self.parts.glob(f"*{kind}"))

    @property
    def watched(self) -> Path:
        return self.path / "watched"

    def medium(self, sha256: str) -> Path:
        return self.media / sha256[:2] / sha256

    def size(self) -> Size:
        return Size(_folder_bytes(self.segments), _folder_bytes(self.parts), _folder_bytes(self.media))

    def ask_roll(self) -> None:
        (self.path / "roll").touch()

    def roll_stamp(self) -> int:
        """Differs after each `ask_roll`."""
        try:
            return (self.path / "roll").stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def dropped(self) -> DroppedAnswers:
        try:
            return DroppedAnswers.model_validate_json((self.path / "dropped.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return DroppedAnswers()

    def note_dropped(self, dropped: DroppedAnswers) -> None:
        write_whole(self.path / "dropped.json", dropped.model_dump_json(), 0o600)

    @contextmanager
    def maintained(self, *, wait: bool) -> Iterator[bool]:
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


def _folder_bytes(folder: Path) -> int:
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


LogRecord = dict[str, Any]
"""A line's JSON: `k` says what it tells of, and with it which keys there are. `reading` makes rows of it."""


class KeptFile(TypedDict):
    sha256: str
    bytes: int


class KeptInput(TypedDict, total=False):
    """What was kept of an input, in one of these forms."""

    text: str
    row: Mapping[str, Any]
    data: KeptFile
    parts: Mapping[str, Any]
    """NAME.MODALITY -> a `KeptInput`, `{"value"}`, or None where it was not kept."""


class DecodedLines(NamedTuple):
    records: list[LogRecord]
    torn: int
    """Lines that are not what was written."""


def encode(record: Mapping[str, Any]) -> bytes:
    """A line: a checksum and a JSON object, `1f6ab2c0 {"k":"a","id":"pred-...", ...}`, so that a line that a crash tore
    is told from a whole one. Raises ValueError for NaN and infinity: JSON has no such numbers."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = text.encode("utf-8", "surrogatepass")
    return b"%08x %s\n" % (zlib.crc32(data), data)


def lines_with(data: bytes, needle: bytes) -> bytes:
    """The lines with `needle` in them. It is looked for in all bytes at once, so the others cost next to nothing."""
    found, at = [], data.find(needle)
    while at >= 0:
        end = data.find(b"\n", at) + 1 or len(data)
        found.append(data[data.rfind(b"\n", 0, at) + 1 : end])
        at = data.find(needle, end)
    return b"".join(found)


def decode(data: bytes) -> DecodedLines:
    """Whole lines in order. What follows the last newline was torn, or is being written: it is counted, too."""
    records, torn = list[LogRecord](), 0
    for line in data.split(b"\n"):
        if line:
            record = _parse_line(line)
            if record is None:
                torn += 1
            else:
                records.append(record)
    return DecodedLines(records, torn)


def _parse_line(line: bytes) -> LogRecord | None:
    checksum, _, data = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(data):
            return None
        found = json.loads(data.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class Footer(NamedTuple):
    """What the footer of a part says."""

    segments: frozenset[str]
    """Names of the segments in this part."""
    missed: int
    torn: int
    least: str
    most: str | None
    """`least` and `most` bound the first column, an id. They are "" and None where the footer does not tell."""
    columns: frozenset[str] = frozenset()

    def may_hold(self, filters: Sequence[tuple[str, str, Any]]) -> bool:
        """Whether a row may pass them all. Each: column, one of `=`, `in`, `>=`, value or values; only those on an id
        are looked at."""
        return all(self._may_hold(how, value) for name, how, value in filters if name in _IDS)

    def holds_only(self, filters: Sequence[tuple[str, str, Any]]) -> bool:
        """Whether every row surely passes them all."""
        return all(name in _IDS and how == ">=" and self.least >= value for name, how, value in filters)

    def _may_hold(self, how: str, value: Any) -> bool:
        if how == ">=":
            return self.most is None or bool(self.most >= value)
        values = value if how == "in" else [value]
        return any(self.least <= each and (self.most is None or each <= self.most) for each in values)


def read_footer(path: Path) -> Footer:
    """Raises FileNotFoundError. A part is never changed, only replaced whole: inode, size and time of writing say
    whether it is still the one whose footer is in memory."""
    found = path.stat()
    return _read_footer_file(path, (found.st_ino, found.st_size, found.st_mtime_ns))


def read_part(path: Path, **options: Any) -> pa.Table:
    """A part's rows. Raises DAMAGED where it is not what was written, FileNotFoundError."""
    return integrity.read_table(path, _LOST, RECOVERY, partitioning=None, **options)


def sealed_segments(parts: Iterable[Path]) -> set[str]:
    """Names of the segments that these parts hold."""
    return {name for path in parts for name in read_footer(path).segments}


@lru_cache(maxsize=_FOOTERS)
def _read_footer_file(path: Path, stamp: tuple[int, int, int]) -> Footer:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        integrity.check_footer(path, _LOST, RECOVERY)
        metadata = pq.read_metadata(path)
    except pa.ArrowException as error:
        raise integrity.damaged_error(path, "it cannot be read as Parquet", _LOST, RECOVERY) from error
    stored = metadata.metadata or {}
    groups = [metadata.row_group(group).column(0).statistics for group in range(metadata.num_row_groups)]
    known = [each for each in groups if each is not None and each.has_min_max]
    whole = len(known) == len(groups) > 0
    return Footer(
        frozenset(json.loads(stored.get(b"segments", b"[]"))),
        int(stored.get(b"missed", 0)),
        int(stored.get(b"torn", 0)),
        min(each.min for each in known) if whole else "",
        max(each.max for each in known) if whole else None,
        frozenset(metadata.schema.to_arrow_schema().names),
    )
