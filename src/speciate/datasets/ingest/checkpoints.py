"""Validated files of an ingest, made durable part by part, so that the next attempt after a kill reads only the rest.

A part is a sealed pack with the bytes of its files and, in the run's checkpoints, a Parquet file with a row for each
file: `item.*` says which file it was and what was found, the other columns are the fields of its medium. A part is used
again if all its files are still wanted and have the same size and time of change.
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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.datasets.ingest.raw_files import FileState, RawFile
from speciate.datasets.ingest.validation import Verdict
from speciate.datasets.readers.rows import from_rows
from speciate.datasets.sources.listing import SourceFile
from speciate.jobs.folder import RunFolder
from speciate.workspace.blobs import write_durably
from speciate.workspace.packs import PackWriter, index_path
from speciate.workspace.workspace import Folders

FORM = "2"
"""Raise it if the content of a part comes to mean something else."""
PREFIX = "item."
_PATTERN = "part-*.parquet"
PACKS = "packs"
"""Folder in the checkpoints of a run at a place, with copies of the packs that it has sealed."""


class IngestedPart(NamedTuple):
    table: pa.Table
    pack: Path | None
    """None if no bytes had to be kept."""


class IngestedFile(NamedTuple):
    """One file with its verdict."""

    file: SourceFile
    raw: RawFile
    verdict: Verdict


class PartWriter:
    """Collects validated files into one part. Not thread-safe.

    `known`: bytes that lie in packs of an earlier version and need no second copy. At a place the packs of `folders`
    end with the attempt, so the run's checkpoints get copies.
    """

    def __init__(self, folders: Folders, known: StoredMedia) -> None:
        self._pack, self._known, self._kept = PackWriter(folders.packs), known, False
        self._items: list[IngestedFile] = []

    def add(self, item: IngestedFile) -> None:
        """Adds a file; its bytes are packed if it decoded wholly or in part."""
        raw = item.raw
        used = item.verdict.quality in ("ok", "partial")
        if used and raw.data is not None and raw.sha256 is not None and not self._known.holds(raw.sha256, raw.data):
            self._pack.add(raw.data, raw.sha256)
            self._kept = True
        self._items.append(IngestedFile(item.file, RawFile(raw.state, None, raw.sha256), item.verdict))

    def seal(self, checkpoints: Path, modality: str) -> IngestedPart:
        """The part is on disk when this returns. Nothing can be added afterwards."""
        with self._pack as writer:
            pack = writer.seal() if self._kept else None
        if pack is not None and (checkpoints / PACKS).is_dir():
            copy_pack(pack, checkpoints / PACKS)
        metadata = {"form": FORM, "modality": modality, "pack": pack.name if pack else ""}
        table = _part_table(self._items).replace_schema_metadata(metadata)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        files = json.dumps([modality, *((item.file.name, *item.raw.state) for item in self._items)])
        name = hashlib.sha256(files.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        write_durably(checkpoints / f"part-{name}.parquet", sink.getvalue().to_pybytes())
        return IngestedPart(table, pack)

    def abandon(self) -> None:
        """Leaves nothing on disk."""
        with self._pack:
            pass


def recover_parts(
    attempts: Iterable[RunFolder], folders: Folders, modality: str, wanted: Mapping[str, FileState]
) -> list[IngestedPart]:
    """The parts that these attempts finished and whose files are all `wanted` and unchanged; no file is in two."""
    found: list[IngestedPart] = []
    left = dict(wanted)
    for folder in attempts:
        for file in sorted(folder.checkpoints.glob(_PATTERN)):
            part = _read_part(file, folders, modality)
            if part is None:
                continue
            names = part.table[f"{PREFIX}source"].to_pylist()
            states = zip(
                part.table[f"{PREFIX}size"].to_pylist(), part.table[f"{PREFIX}mtime_ns"].to_pylist(), strict=True
            )
            if all(left.get(name) == state for name, state in zip(names, states, strict=True)):
                found.append(part)
                for name in names:
                    del left[name]
    return found


def copy_pack(pack: Path, target: Path) -> None:
    """Durable; the index last, without which there is no pack."""
    for path in (pack, index_path(pack)):
        write_durably(target / path.name, path.read_bytes())


def packs_with_any(packs: Iterable[Path], contents: pa.ChunkedArray) -> list[Path]:
    """The intact packs that hold at least one of these digests."""
    wanted = np.array(contents.drop_null().to_pylist(), "S64")
    found = [(pack, index) for pack in packs if (index := _index(pack)) is not None]
    return [pack for pack, index in found if len(np.intersect1d(_digests(index), wanted))]


class StoredMedia:
    """Media that lie unchanged in packs of an earlier version and need no second copy. Thread-safe."""

    def __init__(self, packs: Iterable[Path]) -> None:
        found = [(pack, index) for pack in packs if (index := _index(pack)) is not None]
        self._packs = [pack for pack, _ in found]
        digests = np.concatenate([np.zeros(0, "S64"), *(_digests(index) for _, index in found)])
        numbers = np.repeat(np.arange(len(found)), [index.num_rows for _, index in found])
        self._digests, first = np.unique(digests, return_index=True)
        self._numbers = numbers[first]
        self._offsets, self._lengths = (
            np.concatenate([np.zeros(0, np.int64), *(index[name].to_numpy() for _, index in found)])[first]
            for name in ("offset", "length")
        )

    def holds(self, sha256: str, data: bytes) -> bool:
        """Whether exactly these bytes are stored: a disk may have changed them since."""
        key = sha256.encode()
        place = int(np.searchsorted(self._digests, key)) if len(self._digests) else 0
        if place >= len(self._digests) or self._digests[place] != key or self._lengths[place] != len(data):
            return False
        try:
            with self._packs[self._numbers[place]].open("rb", buffering=0) as pack:
                return os.pread(pack.fileno(), len(data), int(self._offsets[place])) == data
        except OSError:
            return False


def _index(pack: Path) -> pa.Table | None:
    """None if the pack is not intact."""
    try:
        index = pq.read_table(index_path(pack), columns=["sha256", "offset", "length"])
        end = pc.max(pc.add(index["offset"], index["length"])).as_py() or 0
        return index if pack.stat().st_size == end else None
    except (OSError, pa.ArrowException):
        return None


def _digests(index: pa.Table) -> npt.NDArray[np.bytes_]:
    return np.array(index["sha256"].to_pylist(), "S64")


def _read_part(file: Path, folders: Folders, modality: str) -> IngestedPart | None:
    """None if the part is of another kind or its pack is not intact."""
    table = pq.read_table(file)
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if (metadata.get("form"), metadata.get("modality")) != (FORM, modality):
        return None
    pack = folders.packs / metadata["pack"] if metadata["pack"] else None
    try:
        for path in (pack, index_path(pack)) if pack is not None else ():
            os.utime(path)  # garbage collection must see it as young as this run
    except FileNotFoundError:
        return None
    return IngestedPart(table, pack) if pack is None or _index(pack) is not None else None


def _part_table(items: Sequence[IngestedFile]) -> pa.Table:
    sketches = [None if item.verdict.sketch is None else bytes.fromhex(item.verdict.sketch) for item in items]
    known = {
        "source": pa.array([item.file.name for item in items], pa.string()),
        "size": pa.array([item.raw.state.size for item in items], pa.int64()),
        "mtime_ns": pa.array([item.raw.state.mtime_ns for item in items], pa.int64()),
        "content": pa.array([item.raw.sha256 for item in items], pa.string()),
        "quality": pa.array([item.verdict.quality for item in items], pa.string()),
        "reason": pa.array([item.verdict.reason for item in items], pa.string()),
        "fingerprint": pa.array([item.verdict.fingerprint for item in items], pa.string()),
        "sketch": pa.array(sketches, pa.binary()),
    }
    fields = from_rows([{**item.verdict.fields, **_bytes(item)} for item in items])
    return pa.table(
        {
            **{PREFIX + name: column for name, column in known.items()},
            **dict(zip(fields.column_names, fields.columns, strict=True)),
        }
    )


def _bytes(item: IngestedFile) -> dict[str, str | int | float | None]:
    """The size of a file; of a bundle that of its members, which the verdict says."""
    size = item.raw.state.size
    return {"bytes": item.verdict.fields.get("bytes", size)} if size >= 0 else {}
