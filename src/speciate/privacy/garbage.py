"""Find and delete files that nothing refers to; runs in a worker, and knows names and times alone.

`Live` names what is still referred to. Mark and sweep, both from scratch each time, so that a kill costs nothing. If a
sealed file is damaged, nobody can tell what it needs, so everything that it might need stays. Only files with names
that we give are looked at: a person's own files stay.

For a catalog that names nothing, every file is garbage. So an unreferenced file goes only if the catalog was there all
the time, would know of anything that needs the file, and a backup agrees (`Custody`, `spared`). Every rule errs on
the side of keeping. Files that a person asked to delete or purge skip these rules (`GcSpec.doomed`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from speciate.errors import SpeciateError
from speciate.workspace import integrity
from speciate.workspace.packs import index_path
from speciate.workspace.scratch import in_use
from speciate.workspace.workspace import Folders

_LEFTOVER = re.compile(r"^\..*\.(partial|tmp|index|\d+\.[0-9a-f]{8})$|^\.v\d+\.\d+$")
"""Names of files that were being written: write_durably, packs, features, model versions."""
_SEALED = re.compile(r"[0-9a-f]{32}\.parquet")
_PACK = re.compile(r"[0-9a-f]{32}\.(pack|parquet)")
_FEATURES = re.compile(r"part-[0-9a-f]{32}\.parquet")
_ANSWERS = re.compile(r"job-[0-9a-z]+\.\d+(\.\d+)*\.parquet")
_BLOB = re.compile(r"[0-9a-f]{64}")
_EVALUATION = re.compile(r"evaluation-[0-9a-z]+")
_VERSION = re.compile(r"v\d+")
_VERSION_FILES = ("files.json", "model.json", "model.sig")
"""Files in a model version's folder, beside those that files.json lists: models/sealed.py and signature.py."""
_COUNTED = ("datasets", "packs", "evaluations")
_TABLE = re.compile(r"datasets/[^/.\0][^/\0]{0,99}/[^/.\0][^/\0]{0,99}\.parquet")
"""A sealed file of rows, relative to the root. Other files that a job names are not ours and are never opened here."""
_PROCESSES = Path("/proc")


class Live(BaseModel):
    """What must stay. Paths are relative to the workspace's root; names of other things may be among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    files: frozenset[str]
    """Sealed files and packs that a version or a job names."""
    blobs: frozenset[str]
    """sha256 of what a job still needs."""
    runs: frozenset[str]
    """Run folders that may go: of jobs that ended long ago."""
    checkpoints: frozenset[str] = frozenset()
    """Run folders whose checkpoints may go."""
    exports_before: float = 0.0
    """What was last written into the exports before this moment (seconds since the epoch) may go."""
    models: frozenset[str]
    """`NAME/vN` of versions that were deleted; no other model folder is touched."""
    evaluations: frozenset[str]


class Garbage(NamedTuple):
    """What may go, unless it is written again after `written` (seconds since the epoch)."""

    kind: str
    path: Path
    bytes: int
    written: float


class Survey(NamedTuple):
    garbage: list[Garbage]
    spared: dict[str, dict[str, int]]
    """Why -> `{files, bytes}` of what nothing names and stays all the same."""


def find(folders: Folders, live: Live, custody: Custody) -> list[Garbage]:
    """Everything that nothing refers to and that may go."""
    return survey(folders, live, custody).garbage


def survey(folders: Folders, live: Live, custody: Custody) -> Survey:
    """What may go, and what nothing refers to either but stays."""
    found = [*_sealed(folders, live), *_features(folders, live), *_blobs(folders, live), *_folders(folders, live)]
    found += [("leftovers", path) for path in _leftovers(folders)]
    found += [("cache", path) for path in _cache(folders)]
    weighed = [(each, spared(each.kind, each.written, custody)) for each in _weighed(sorted(set(found)))]
    going = sum(why is None and _counts(each) for each, why in weighed)
    if implausible(_named(folders, live), going):
        weighed = [(each, why or (None if each.kind in ACCOUNTED else Spared.IMPLAUSIBLE)) for each, why in weighed]
    files, sizes = Counter[str](), Counter[str]()
    for each, why in weighed:
        if why is not None and why is not Spared.YOUNG:
            files[why] += 1
            sizes[why] += each.bytes
    kept = {why: {"files": files[why], "bytes": sizes[why]} for why in sorted(files)}
    return Survey([each for each, why in weighed if why is None], kept)


def _counts(each: Garbage) -> bool:
    return each.kind in _COUNTED and not (each.kind == "packs" and each.path.suffix == ".parquet")


def _named(folders: Folders, live: Live) -> int:
    """How many sealed files that lie there the catalog names."""
    files = (name for name in live.files if name.endswith(".pack") or _TABLE.fullmatch(name))
    there = sum((folders.root / name).is_file() for name in files)
    return there + sum((folders.evaluations / name).is_dir() for name in live.evaluations)


def delete(garbage: Iterable[Garbage]) -> dict[str, int]:
    """Bytes freed by kind. What vanished meanwhile frees nothing, and what was written again stays."""
    freed: dict[str, int] = {}
    for kind, path, count, before in garbage:
        if written(path) <= before and remove(path):
            freed[kind] = freed.get(kind, 0) + count
    return freed


def remove(path: Path) -> bool:
    """Whether something was there. A folder goes with all that it holds; that of a model version stays where it holds
    files that are not the version's."""
    if path.is_dir() and not path.is_symlink():
        if path.parent.parent.name == "models" and _VERSION.fullmatch(path.name):
            return _remove_version(path)
        shutil.rmtree(path, ignore_errors=True)
        return True
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _remove_version(folder: Path) -> bool:
    files = _version_files(folder)
    for path in files:
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
    return bool(files)


def _version_files(folder: Path) -> list[Path]:
    """The files that we wrote, the list of them last: a kill between two leaves a folder that says what is to go."""
    try:
        listed = json.loads((folder / _VERSION_FILES[0]).read_bytes())
        names = [name for name in listed if Path(name).name == name]
    except (OSError, ValueError, TypeError, RecursionError):
        names = []
    return [path for name in (*names, *reversed(_VERSION_FILES)) if (path := folder / name).is_file()]


def leftovers(folders: Folders) -> list[Garbage]:
    """What was being written when its writer was killed, whatever its age: only where no run lives."""
    return _weighed(("leftovers", path) for path in _leftovers(folders))


def caches(folders: Folders) -> list[Garbage]:
    """All of the cache that no process works in."""
    return _weighed(("cache", path) for path in _cache(folders))


def orphans(folders: Folders, live: Live, cutoff: float) -> list[Garbage]:
    """Blobs that nothing needs and that were last written before `cutoff`: what a call stored that was then refused."""
    return [each for each in _weighed(_blobs(folders, live)) if each.written < cutoff]


def _weighed(found: Iterable[tuple[str, Path]]) -> list[Garbage]:
    return [Garbage(kind, path, size(path), written(path)) for kind, path in found]


def _sealed(folders: Folders, live: Live) -> Iterator[tuple[str, Path]]:
    for path in folders.datasets.glob("*/*.parquet"):
        if _SEALED.fullmatch(path.name) and _name(folders, path) not in live.files:
            yield "datasets", path
    packs = {path for path in folders.packs.glob("*.pack") if _name(folders, path) in live.files}
    kept = {*packs, *map(index_path, packs)}
    for path in folders.packs.glob("*"):
        if _PACK.fullmatch(path.name) and path not in kept:
            yield "packs", path


def _features(folders: Folders, live: Live) -> Iterator[tuple[str, Path]]:
    """Parts of caches whose items are in no version any more: vectors, and answers of models."""
    vectors = (path for path in folders.features.glob("*/*.parquet") if _FEATURES.fullmatch(path.name))
    answers = (path for path in folders.predictions.glob("*/*.parquet") if _ANSWERS.fullmatch(path.name))
    parts = sorted([*vectors, *answers])
    if not parts:
        return
    known = _named_by(folders, live, ("id", "_content", "_fingerprint"))
    for part in parts:
        items = _values(part, ("content",) if part.is_relative_to(folders.predictions) else None)
        if items is None or (items and known is not None and known.isdisjoint(items)):
            yield part.parent.parent.name, part  # one that cannot be read serves nobody, and is made again


def _named_by(folders: Folders, live: Live, names: Collection[str]) -> set[str] | None:
    """Values of these columns in all rows that stay; None where a file of them cannot be read."""
    known = set[str]()
    for name in live.files:
        if _TABLE.fullmatch(name) and (folders.root / name).exists():
            values = _values(folders.root / name, names)
            if values is None:
                return None
            known |= values
    return known


def _values(file: Path, names: Collection[str] | None = None) -> set[str] | None:
    """Texts in these columns (default: all) of a Parquet file; None where it cannot be read."""
    try:
        schema = pq.read_schema(file)
        texts = [
            name
            for name in (schema.names if names is None else names)
            if name in schema.names and pa.types.is_string(schema.field(name).type)
        ]
        table = pq.read_table(file, columns=texts)
    except (pa.ArrowException, OSError):
        return None
    return {value for name in texts for value in pc.unique(table[name]).to_pylist() if value}


def _blobs(folders: Folders, live: Live) -> Iterator[tuple[str, Path]]:
    there = (path for path in folders.blobs.glob("??/*") if _BLOB.fullmatch(path.name))
    unnamed = [path for path in there if path.name not in live.blobs and path.parent.name == path.name[:2]]
    media = _named_by(folders, live, ("_content",)) if unnamed else None
    gone = [path for path in unnamed if path.name not in media] if media is not None else []
    if gone and _all_whole(folders, live):
        yield from (("blobs", path) for path in gone)


def _all_whole(folders: Folders, live: Live) -> bool:
    """Whether every table of rows is what was written: one flipped byte in it, and a blob seems to be needed by nobody.
    Reads all of them, so it is asked only where something is to go."""
    try:
        for name in live.files:
            if _TABLE.fullmatch(name) and (folders.root / name).exists():
                integrity.check(folders.root / name, "")
    except (OSError, SpeciateError):
        return False
    return True


def _folders(folders: Folders, live: Live) -> Iterator[tuple[str, Path]]:
    yield from (("runs", folders.runs / name) for name in live.runs if (folders.runs / name).is_dir())
    checkpoints = (folders.runs / name / "checkpoints" for name in live.checkpoints)
    yield from (("checkpoints", path) for path in checkpoints if path.is_dir() and any(path.iterdir()))
    for path in folders.exports.glob("*") if live.exports_before else ():
        if written(path) < live.exports_before and not live.files & {str(path), _name(folders, path)}:
            yield "exports", path
    yield from (("models", folders.models / name) for name in live.models if _version_files(folders.models / name))
    evaluations = (path for path in folders.evaluations.glob("*") if _EVALUATION.fullmatch(path.name))
    yield from (("evaluations", path) for path in evaluations if path.name not in live.evaluations)


def _leftovers(folders: Folders) -> Iterator[Path]:
    for place in (folders.packs, folders.datasets, folders.features, folders.blobs, folders.evaluations):
        yield from (path for path in place.rglob("*") if _LEFTOVER.search(path.name))
    yield from (path for path in folders.models.glob("*/*") if _LEFTOVER.search(path.name))


def _cache(folders: Folders) -> Iterator[Path]:
    """Entries of the cache; of the service pool's only those in which no process stands, and no scratch in use."""
    yield from (path for path in folders.cache.glob("*") if path.name != "pool" and not in_use(path))
    if _PROCESSES.exists():  # elsewhere nobody can tell, so the pool's folders stay
        used = _working_folders()
        yield from (path for path in (folders.cache / "pool").glob("*") if path.resolve() not in used)


def _working_folders() -> set[Path]:
    """Working folders of the processes that this one may ask."""
    found = set[Path]()
    for entry in _PROCESSES.glob("[0-9]*/cwd"):
        try:
            found.add(Path(os.readlink(entry)))
        except OSError:
            continue
    return found


def _name(folders: Folders, path: Path) -> str:
    return path.relative_to(folders.root).as_posix()


def written(path: Path) -> float:
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


Row = TypeVar("Row", bound=Hashable)

ACCOUNTED = frozenset({"runs", "checkpoints", "exports", "models", "leftovers", "cache"})
"""Kinds that go because a row of the catalog says so (a job that ended long ago, a version that was deleted) or because
everything of the kind may be made again. The others go because nothing names them."""
OF_JOBS = frozenset({"datasets", "packs", "evaluations"})
"""Kinds that nothing but a job writes."""
_FEW, _NAMED_SHARE = 10, 10
_SLACK_SECONDS = 2.0
"""Filesystems round the time of a file."""


class Spared(StrEnum):
    """Why something that nothing names stays."""

    DISTRUST = "the catalog is not known to be the one of these folders"
    IMPLAUSIBLE = "the catalog names almost nothing of what lies here: run `speciate rebuild`, or delete it by hand"
    YOUNG = "written within a day, or since a job began that may yet name it"
    UNSEEN = "no backup of the catalog was made since it was written"
    BEFORE = "it is older than the catalog"
    GAP = "written in a time of which a rebuilt or torn catalog knows nothing"
    NOBODY = "no job of this workspace was at work when it was written"


class Custody(BaseModel):
    """Since when, and how well, a catalog knows its folders; seconds since the epoch. Travels to the worker."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    trusted: bool = False
    cutoff: float = 0.0
    """What was written since may be named yet."""
    witnessed: float = 0.0
    """When the newest trusted backup was made."""
    since: float = 0.0
    """When the catalog's first event was."""
    gaps: tuple[tuple[float, float], ...] = ()
    """Times of which it knows nothing, both ends included."""
    worked: tuple[tuple[float, float], ...] = ()
    """When jobs were at work: disjoint, in order."""


def spared(kind: str, written: float, custody: Custody) -> Spared | None:
    """Why something of this kind, last written then, which nothing names, stays all the same; None: it may go."""
    if not custody.trusted:
        return Spared.DISTRUST
    if written >= custody.cutoff:
        return Spared.YOUNG
    if kind in ACCOUNTED:
        return None
    if written > custody.witnessed:
        return Spared.UNSEEN
    if written < custody.since - _SLACK_SECONDS:
        return Spared.BEFORE
    if any(since <= written <= until for since, until in custody.gaps):
        return Spared.GAP
    if kind in OF_JOBS and not _at_work(written, custody.worked):
        return Spared.NOBODY
    return None


def implausible(named: int, going: int) -> bool:
    """Whether a catalog that names so many of the sealed files that lie there can be right in that so many may go."""
    return going >= _FEW and named * _NAMED_SHARE < named + going


def lacking(saved: Iterable[Row], known: Collection[Row], deleted: Collection[Row]) -> list[Row]:
    """Rows that a backup has and the catalog has lost: nobody deleted them. What they name stays."""
    gone = {*known, *deleted}
    return [row for row in dict.fromkeys(saved) if row not in gone]


def joined(spans: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The moments of `spans` as disjoint spans in order."""
    found: list[tuple[float, float]] = []
    for since, until in sorted(spans):
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], until))
        else:
            found.append((since, until))
    return tuple(found)


def _at_work(moment: float, spans: Sequence[tuple[float, float]]) -> bool:
    """`spans`: disjoint, in order."""
    place = bisect_right(spans, (moment + _SLACK_SECONDS, float("inf")))
    return place > 0 and moment <= spans[place - 1][1] + _SLACK_SECONDS
