"""What the footers of a log's parts say, each read once: a log of three months has thousands of parts.

A part is never changed, only replaced whole, so its inode, size and time of writing say whether it is still the one
whose footer is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.workspace import integrity

if TYPE_CHECKING:  # the daemon starts without it
    import pyarrow as pa

_KEPT = 20_000
_LOST = "With it, logged answers, or what was said of them, are lost."
RECOVERY = (
    "Restore the file from a backup of the workspace, or run `speciate verify --all --quarantine`: it is moved away, "
    "and the rest of the log is read without it."
)
_IDS = ("id", "prediction")
"""The first columns of answers and of feedback."""


class Footer(NamedTuple):
    segments: frozenset[str]
    """Names of those that it holds."""
    missed: int
    torn: int
    least: str
    most: str | None
    """Of its first column, an id; `least` "" and `most` None where the footer does not tell."""

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


def footer(path: Path) -> Footer:
    """Raises FileNotFoundError."""
    found = path.stat()
    return _read(path, (found.st_ino, found.st_size, found.st_mtime_ns))


def read_part(path: Path, **options: Any) -> pa.Table:
    """A part's rows. Raises DAMAGED where it is not what was written, FileNotFoundError."""
    return integrity.read_table(path, _LOST, RECOVERY, partitioning=None, **options)


def covered(parts: Iterable[Path]) -> set[str]:
    """Names of the segments that these parts hold."""
    return {name for path in parts for name in footer(path).segments}


@lru_cache(maxsize=_KEPT)
def _read(path: Path, stamp: tuple[int, int, int]) -> Footer:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        integrity.check_footer(path, _LOST, RECOVERY)
        metadata = pq.read_metadata(path)
    except pa.ArrowException as error:
        raise integrity.damaged(path, "it cannot be read as Parquet", _LOST, RECOVERY) from error
    told = metadata.metadata or {}
    groups = [metadata.row_group(group).column(0).statistics for group in range(metadata.num_row_groups)]
    known = [each for each in groups if each is not None and each.has_min_max]
    whole = len(known) == len(groups) > 0
    return Footer(
        frozenset(json.loads(told.get(b"segments", b"[]"))),
        int(told.get(b"missed", 0)),
        int(told.get(b"torn", 0)),
        min(each.min for each in known) if whole else "",
        max(each.max for each in known) if whole else None,
    )
