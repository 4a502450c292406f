"""What an ingest has judged so far, made durable part by part, so that whoever comes after a kill reads only the rest.

A part is a sealed pack with the bytes of its files and, in the run's checkpoints, a Parquet file with a row for each:
`item.*` says which file it was and what was found out, the other columns are the fields of its medium. A part is used
again where all its files are still wanted and have the same size and time of change.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.intake.judging import Verdict
from speciate.datasets.intake.raw_files import Facts, Raw
from speciate.datasets.sources.listing import SourceFile
from speciate.datasets.sources.readers.rows import from_rows
from speciate.jobs.folder import RunFolder
from speciate.workspace.blobs import write_durably
from speciate.workspace.packs import PackWriter, index_path
from speciate.workspace.workspace import Folders

FORM = "1"
"""Raise it where what is kept in a part comes to mean something else."""
PREFIX = "item."
_PATTERN = "part-*.parquet"

Digests = npt.NDArray[np.bytes_]  # (N,) S64, ascending


class Part(NamedTuple):
    table: pa.Table
    pack: Path | None
    """None where no bytes of it had to be kept."""


class Item(NamedTuple):
    """One file with what was found out about it."""

    file: SourceFile
    raw: Raw
    verdict: Verdict


class PartWriter:
    """Collects judged files into one part. Not thread-safe.

    `known`: digests of bytes that lie in packs of an earlier version and need no second copy.
    """

    def __init__(self, folders: Folders, known: Digests) -> None:
        self._pack, self._known, self._kept = PackWriter(folders.packs), known, False
        self._items: list[Item] = []

    def add(self, item: Item) -> None:
        """Its bytes are packed where it decoded wholly or in part."""
        raw = item.raw
        if item.verdict.quality in ("ok", "partial") and raw.data is not None and not _is_in(raw.sha256, self._known):
            self._pack.add(raw.data, raw.sha256)
            self._kept = True
        self._items.append(item._replace(raw=raw._replace(data=None)))

    def seal(self, checkpoints: Path, modality: str) -> Part:
        """The part is on disk when this returns. Nothing can be added afterwards."""
        with self._pack as writer:
            pack = writer.seal() if self._kept else None
        said = {"form": FORM, "modality": modality, "pack": pack.name if pack else ""}
        table = _table(self._items).replace_schema_metadata(said)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        files = json.dumps([modality, *((item.file.name, *item.raw.facts) for item in self._items)])
        name = hashlib.sha256(files.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        write_durably(checkpoints / f"part-{name}.parquet", sink.getvalue().to_pybytes())
        return Part(table, pack)

    def abandon(self) -> None:
        """Leaves nothing."""
        with self._pack:
            pass


def adopted(attempts: Iterable[RunFolder], folders: Folders, modality: str, wanted: Mapping[str, Facts]) -> list[Part]:
    """The parts that these attempts finished and whose files are all `wanted` as they were; no file is in two."""
    found: list[Part] = []
    left = dict(wanted)
    for folder in attempts:
        for file in sorted(folder.checkpoints.glob(_PATTERN)):
            part = _read(file, folders, modality)
            if part is None:
                continue
            names = part.table[f"{PREFIX}source"].to_pylist()
            facts = zip(
                part.table[f"{PREFIX}size"].to_pylist(), part.table[f"{PREFIX}mtime_ns"].to_pylist(), strict=True
            )
            if all(left.get(name) == fact for name, fact in zip(names, facts, strict=True)):
                found.append(part)
                for name in names:
                    del left[name]
    return found


def digests_in(packs: Sequence[Path]) -> Digests:
    """All that lie in any of these packs."""
    found = [_index(pack) for pack in packs]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, "S64")


def with_any(packs: Sequence[Path], contents: pa.ChunkedArray) -> list[Path]:
    """Those of the packs that hold at least one of these digests."""
    wanted = np.array(contents.drop_null().to_pylist(), "S64")
    return [pack for pack in packs if len(np.intersect1d(_index(pack), wanted))]


def _index(pack: Path) -> Digests:
    return np.array(pq.read_table(index_path(pack), columns=["sha256"])["sha256"].to_pylist(), "S64")


def _read(file: Path, folders: Folders, modality: str) -> Part | None:
    """None where it is of another kind, or its pack is not whole."""
    table = pq.read_table(file)
    facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if (facts.get("form"), facts.get("modality")) != (FORM, modality):
        return None
    pack = folders.packs / facts["pack"] if facts["pack"] else None
    try:
        for path in (pack, index_path(pack)) if pack is not None else ():
            os.utime(path)  # to whoever collects garbage it is as young as this run
    except FileNotFoundError:
        return None
    return Part(table, pack)


def _is_in(sha256: str | None, digests: Digests) -> bool:
    key = str(sha256).encode()
    place = int(np.searchsorted(digests, key)) if len(digests) else 0
    return place < len(digests) and digests[place] == key


def _table(items: Sequence[Item]) -> pa.Table:
    sketches = [None if item.verdict.sketch is None else bytes.fromhex(item.verdict.sketch) for item in items]
    known = {
        "source": pa.array([item.file.name for item in items], pa.string()),
        "size": pa.array([item.raw.facts.size for item in items], pa.int64()),
        "mtime_ns": pa.array([item.raw.facts.mtime_ns for item in items], pa.int64()),
        "content": pa.array([item.raw.sha256 for item in items], pa.string()),
        "quality": pa.array([item.verdict.quality for item in items], pa.string()),
        "reason": pa.array([item.verdict.reason for item in items], pa.string()),
        "fingerprint": pa.array([item.verdict.fingerprint for item in items], pa.string()),
        "sketch": pa.array(sketches, pa.binary()),
    }
    fields = from_rows([item.verdict.fields | _bytes(item.raw.facts) for item in items])
    return pa.table(
        {
            **{PREFIX + name: column for name, column in known.items()},
            **dict(zip(fields.column_names, fields.columns, strict=True)),
        }
    )


def _bytes(facts: Facts) -> dict[str, int]:
    return {"bytes": facts.size} if facts.size >= 0 else {}
