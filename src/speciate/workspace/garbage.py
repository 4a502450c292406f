"""Files that nothing refers to, found and deleted; runs in a worker, and knows names and times alone.

Nothing that is younger than the cutoff is touched, for a run seals files long before a manifest names them. What is
still referred to is given: `Live`. Mark and sweep, both from scratch each time, so that a kill costs nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from speciate.workspace.packs import index_path
from speciate.workspace.workspace import Folders

_LEFTOVER = re.compile(r"^\..*\.(partial|tmp|index|\d+\.[0-9a-f]{8})$|^\.v\d+\.\d+$|\.tmp$|\.partial$")
"""Names of files that were being written: write_durably, packs, features, model versions, run folders."""
_PROCESSES = Path("/proc")


class Live(BaseModel):
    """What must stay. Paths are relative to the workspace's root."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    files: frozenset[str]
    """Sealed files and packs that a version or a job names."""
    blobs: frozenset[str]
    """sha256 of what a job still needs."""
    runs: frozenset[str]
    """Run folders that may go: of jobs that ended long ago."""
    models: frozenset[str]
    """`NAME/vN` of versions that were deleted; no other model folder is touched."""
    evaluations: frozenset[str]


class Garbage(NamedTuple):
    kind: str
    path: Path
    bytes: int


def find(folders: Folders, live: Live, cutoff: float) -> list[Garbage]:
    """Everything that nothing refers to and that was last written before `cutoff` (seconds since the epoch)."""
    found = [*_sealed(folders, live), *_features(folders, live), *_blobs(folders, live), *_folders(folders, live)]
    found += [("leftovers", path) for path in _leftovers(folders)]
    found += [("cache", path) for path in _cache(folders)]
    old = [(kind, path) for kind, path in found if _written(path) < cutoff]
    return [Garbage(kind, path, size(path)) for kind, path in sorted(set(old))]


def delete(garbage: Iterable[Garbage]) -> dict[str, int]:
    """Bytes freed by kind. What vanished meanwhile frees nothing."""
    freed: dict[str, int] = {}
    for kind, path, count in garbage:
        if remove(path):
            freed[kind] = freed.get(kind, 0) + count
    return freed


def remove(path: Path) -> bool:
    """Whether something was there. A folder goes with all that it holds."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return True
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def leftovers(folders: Folders) -> list[Garbage]:
    """What was being written when its writer was killed, whatever its age: only where no run lives."""
    return [Garbage("leftovers", path, size(path)) for path in _leftovers(folders)]


def caches(folders: Folders) -> list[Garbage]:
    """All of the cache that no process works in."""
    return [Garbage("cache", path, size(path)) for path in _cache(folders)]


def _sealed(folders: Folders, live: Live) -> Iterator[tuple[str, Path]]:
    for path in folders.datasets.rglob("*.parquet"):
        if _name(folders, path) not in live.files:
            yield "datasets", path
    packs = {path for path in folders.packs.glob("*.pack") if _name(folders, path) in live.files}
    kept = {*packs, *map(index_path, packs)}
    for path in folders.packs.glob("[!.]*"):
        if path not in kept:
            yield "packs", path


def _features(folders: Folders, live: Live) -> Iterator[tuple[str, Path]]:
    """Parts of a cache whose items are in no version any more."""
    parts = sorted(folders.features.glob("*/*.parquet"))
    if not parts:
        return
    known = set[str]()
    for name in live.files:
        if name.endswith(".parquet") and (folders.root / name).exists():
            known |= _values(folders.root / name, ("id", "_content", "_fingerprint"))
    for part in parts:
        items = _values(part, pq.read_schema(part).names)
        if items and known.isdisjoint(items):
            yield "features", part


def _values(file: Path, names: Collection[str]) -> set[str]:
    schema = pq.read_schema(file)
    texts = [name for name in names if name in schema.names and pa.types.is_string(schema.field(name).type)]
    table = pq.read_table(file, columns=texts)
    return {value for name in texts for value in pc.unique(table[name]).to_pylist() if value}


def _blobs(folders: Folders, live: Live) -> Iterator[tuple[str, Path]]:
    media: set[str] | None = None
    for path in folders.blobs.glob("??/[!.]*"):
        if path.name in live.blobs:
            continue
        if media is None:
            sealed = [folders.root / name for name in live.files if name.endswith(".parquet")]
            media = set().union(*(_values(file, ("_content",)) for file in sealed if file.exists()))
        if path.name not in media:
            yield "blobs", path


def _folders(folders: Folders, live: Live) -> Iterator[tuple[str, Path]]:
    yield from (("runs", folders.runs / name) for name in live.runs if (folders.runs / name).is_dir())
    yield from (("models", folders.models / name) for name in live.models if (folders.models / name).is_dir())
    yield from (("evaluations", path) for path in folders.evaluations.glob("*") if path.name not in live.evaluations)


def _leftovers(folders: Folders) -> Iterator[Path]:
    for place in (folders.packs, folders.datasets, folders.features, folders.blobs, folders.evaluations):
        yield from (path for path in place.rglob("*") if _LEFTOVER.search(path.name))
    yield from (path for path in folders.models.glob("*/*") if _LEFTOVER.search(path.name))


def _cache(folders: Folders) -> Iterator[Path]:
    """Entries of the cache; of the service pool's only those in which no process stands."""
    yield from (path for path in folders.cache.glob("*") if path.name != "pool")
    if _PROCESSES.exists():  # elsewhere nobody can tell, so the pool's folders stay
        used = _working_folders()
        yield from (path for path in (folders.cache / "pool").glob("*") if path.resolve() not in used)


def _working_folders() -> set[Path]:
    """Of the processes that this one may ask."""
    found = set[Path]()
    for entry in _PROCESSES.glob("[0-9]*/cwd"):
        try:
            found.add(Path(os.readlink(entry)))
        except OSError:
            continue
    return found


def _name(folders: Folders, path: Path) -> str:
    return path.relative_to(folders.root).as_posix()


def _written(path: Path) -> float:
    """When the file, or anything in the folder, was last written."""
    try:
        inside = path.rglob("*") if path.is_dir() else iter(())
        return max(entry.lstat().st_mtime for entry in (path, *inside))
    except FileNotFoundError:
        return 0.0


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if not path.is_dir() else [entry for entry in path.rglob("*") if entry.is_file()]
    return sum(entry.stat().st_size for entry in files if entry.exists())
