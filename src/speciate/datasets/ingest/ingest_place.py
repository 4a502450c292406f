"""Ingests at a place of settings.toml: which go there, what such a run reads, and how the version that it made is
checked here.

No call names the place: a person writes `kinds = ["ingest"]` there. Files and folders go, read in place below a folder
that `shared` names, else moved; an ingest that reads anything else runs here as before, and its plan says why. On the
node a run has the files of the dataset's newest version alone. What it leaves is looked at in a sandboxed process.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate import secrets
from speciate.datasets import next_version
from speciate.datasets.columns import CONTENT, FIXED, HIDDEN
from speciate.datasets.consent import check_place
from speciate.datasets.content_hash import HASHING, LANES, Lanes, lanes, row_digests, unpack_lanes, version_id
from speciate.datasets.ingest.checkpoints import PACKS
from speciate.datasets.next_version import MOST_LABELS, NewVersion, unpack_version
from speciate.datasets.sources.listing import is_path, walk_folder
from speciate.datasets.version_files import as_inputs, version_files
from speciate.datasets.version_report import VersionReport
from speciate.datasets.versions import Manifest, Part
from speciate.errors import Code, SpeciateError
from speciate.jobs.egress import Departure, NotAllowed
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Resources
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run
from speciate.jobs.schedule import never_fits
from speciate.modalities import find
from speciate.sandbox import SandboxPolicy
from speciate.settings import Place, Settings
from speciate.workspace.blobs import make_folder, sync_folder
from speciate.workspace.packs import index_path, open_pack
from speciate.workspace.workspace import Folders, Workspace

MOST_FILES = 20_000
"""Files of a source that are moved: each is an object in the depot and a line of what is sent."""
LITTLE = 64 << 20
"""Bytes of a dataset that are moved however few are added to it."""
_CORES, _MEMORY_MB = 4, 1024
"""Cores that are asked for at a place, and memory for each."""
_CHECK_SECONDS = 3600.0
_BATCH = 1024
"""Rows at once: texts may be long."""
_CHECK = "speciate.datasets.ingest.ingest_place:find_fault"
_PART = re.compile(r"[0-9a-f]{32}\.parquet")
_PACK = re.compile(r"[0-9a-f]{32}\.pack")


class Where(NamedTuple):
    place: str | None
    """None: this machine."""
    resources: Resources
    why_here: str = ""
    """Why it runs here though a place takes ingests."""
    inputs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    departures: tuple[Departure, ...] = ()


class KnownParent(NamedTuple):
    """The version that rows were added to."""

    manifest: Manifest
    lanes: str
    """In hexadecimal."""
    onto: int | None


# The plan, in the daemon


def find_place(
    dataset: str,
    source: Path | str | None,
    labels: Path | None,
    stored: Manifest | None,
    before: Iterable[Part],
    resources: Resources,
    workspace: Workspace,
) -> Where:
    """The first place that takes ingests, where this one may go there. `dataset`: what it makes or adds to (`name` or
    `name@v3`), for whose rows a person must have allowed the place. `stored` and `before`: the version of the dataset
    that the run reads as well, and further files of its ancestors. `resources`: what it takes here."""
    taking = workspace.settings.place_taking("ingest")
    if taking is None:
        return Where(None, resources)
    try:
        if source is None or not is_path(source):
            raise _StaysHere("only files and folders are ingested elsewhere")
        paths = [Path(source), *([] if labels is None or labels.is_relative_to(source) else [labels])]
        read = [] if stored is None else list(_files_of_versions(stored, before, workspace.folders))
        there = _resources_there(taking, resources, workspace.settings.place(taking))
        moved = _moved(paths, sum(path.stat().st_size for path in read), taking, workspace)
        leaving = check_place(workspace, [dataset], taking)
    except _StaysHere as why:
        return Where(None, resources, str(why))
    except NotAllowed as why:
        return Where(None, resources, why.sentence)
    return Where(taking, there, "", as_inputs(read, workspace.folders), tuple(map(str, moved)), leaving)


class _StaysHere(Exception):
    """Why an ingest runs on this machine."""


def _resources_there(taking: str, here: Resources, place: Place) -> Resources:
    room = place.room()
    count = max(1, int(min(_CORES, room.cpu)))
    there = Resources(cpu=count, memory_mb=here.memory_mb + count * _MEMORY_MB, place=taking)
    if lacking := never_fits(there, room):
        raise _StaysHere(f"it does not fit at {taking}: {lacking}")
    return there


def _moved(paths: Sequence[Path], stored_bytes: int, taking: str, workspace: Workspace) -> list[Path]:
    """Those of `paths` that are not read in place."""
    shared, root = workspace.settings.place(taking).shared, workspace.folders.root
    moved = [path for path in paths if not _is_shared(path, shared, root)]
    brought: float = sum(_size(path, root, taking) for path in moved)
    if stored_bytes > max(brought, LITTLE):
        try:
            brought += sum(_size(path, root, taking) for path in paths if path not in moved)
        except _StaysHere:  # too many files to be counted
            brought = math.inf
    if stored_bytes > max(brought, LITTLE):
        raise _StaysHere("the dataset has more bytes than its source, and would be moved with it")
    return moved


def _is_shared(path: Path, shared: Iterable[Path], workspace: Path) -> bool:
    """Whether it is read in place. Not so on a disk where our own files or keys lie: a hard link to one of them is
    known on this machine alone."""
    if not any(path.is_relative_to(folder) for folder in shared):
        return False
    return path.stat().st_dev not in {device for device, _ in secrets.inodes(workspace)}


def _size(path: Path, workspace: Path, taking: str) -> int:
    """Bytes of a file, or of those below a folder."""
    if not path.is_dir():
        return path.stat().st_size
    try:
        found = walk_folder(path, workspace, most=MOST_FILES)
    except SpeciateError as error:
        if error.code is not Code.REFUSED:
            raise
        why = f"its source has more than {MOST_FILES:,} files and lies in no folder that {taking} shares"
        raise _StaysHere(why) from error
    if found.excluded:
        raise _StaysHere("its source holds files that are not read, such as links that lead out")
    return sum(file.stat().st_size for file in found.files)


def _files_of_versions(stored: Manifest, before: Iterable[Part], folders: Folders) -> Iterator[Path]:
    yield from version_files(stored, folders, media=True)
    for part in before:
        yield from (folders.root / name for name in (part.file, part.removed) if name is not None)


# The run, on the node


def begin(run: Run) -> None:
    """The packs that earlier attempts sealed lie in their checkpoints, as those of this one will."""
    (run.checkpoints / PACKS).mkdir(exist_ok=True)
    run.folders.packs.mkdir(exist_ok=True)
    for index in (path for earlier in run.resume_from for path in (earlier.checkpoints / PACKS).glob("*.parquet")):
        for path in (index.with_suffix(".pack"), index):
            if path.exists() and not (run.folders.packs / path.name).exists():
                shutil.copyfile(path, run.folders.packs / path.name)


def hand_over(run: Run, manifest: Mapping[str, object], stored: Manifest | None) -> None:
    """Lay the new files of a version into the run's outputs, named as below a workspace's root."""
    made, root = Manifest.model_validate(manifest), run.folders.root
    known = {*_names(stored)} if stored else set()
    for name in (name for name in _names(made) if name not in known):
        for path in (root / name, *([index_path(root / name)] if name.endswith(".pack") else [])):
            target = run.outputs / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            carried = run.checkpoints / PACKS / path.name
            if carried.exists():
                carried.replace(target)
            else:
                shutil.copyfile(path, target)


def _names(manifest: Manifest) -> Iterator[str]:
    for part in manifest.parts:
        yield from (name for name in (part.file, part.removed) if name is not None)
    yield from manifest.packs


# What came back, in the daemon


def adopt(
    folder: RunFolder,
    name: str,
    source: str,
    stored: Manifest | None,
    parent: KnownParent | None,
    policy: SandboxPolicy,
) -> None:
    """Check a version that a node made of `source` for the dataset `name`, and take its files into the workspace.

    Nothing of it is taken for granted, as of a stranger's. Raises INVALID for what is no such version, and UNAVAILABLE
    where the process that looks at it ended.
    """
    folders = Folders(Path(folder.spec()["workspace"]))
    try:
        made = unpack_version(folder.result() or {})
        fresh = _new_files(made, name, source, stored, parent)
    except SpeciateError as error:  # no such modality, say
        raise error if error.code is Code.INVALID else _not_as_made("its manifest") from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise _not_as_made("its manifest") from error
    if fresh is None:
        return
    outputs = folder.outputs
    if lacking := [path for path in fresh if not (outputs / path).is_file() and not (folders.root / path).is_file()]:
        raise _not_as_made(f"{lacking[0]} (it is missing)")
    with contextlib.closing(Pool(folders, Settings(cage=policy), size=1)) as pool:
        request = _request(made, fresh, outputs, folders, parent)
        answer = pool.ask(_CHECK, request, _CHECK_SECONDS, readable=frozenset({outputs}))
    if (fault := answer.get("fault")) is not None:
        raise _not_as_made(_FAULTS.get(str(fault), "its files"))
    for path in sorted(fresh, key=lambda path: path.endswith(".parquet")):  # a pack before its index
        _take_in(outputs / path, folders.root / path)


def _new_files(
    made: NewVersion, name: str, source: str, stored: Manifest | None, parent: KnownParent | None
) -> list[str] | None:
    """Names of the files that came with a version, packs with their indexes. None where nothing of the source was new,
    so that it is the parent. Raises INVALID, or ValueError and the like."""
    manifest = made.manifest
    operation = ("ingest" if parent is None else "add_examples", source)
    if (made.operation["op"], made.operation.get("source")) != operation or made.result != {"report": made.report}:
        raise _not_as_made("its report")
    if not made.report.keys() <= VersionReport.__annotations__.keys():
        raise _not_as_made("its report")
    parents = () if parent is None else (parent.manifest.ref,)
    if (made.parents, made.onto) != (parents, parent and parent.onto):
        raise _not_as_made("its origin")
    if version_id(made.lanes) != manifest.id:  # the id is that of the rows: `_check`
        raise _not_as_made("its hash")
    if parent is not None and manifest == parent.manifest:
        return None
    hashing = stored.hashing if stored else HASHING
    if (manifest.name, manifest.version, manifest.hashing) != (name, 0, hashing):
        raise _not_as_made("its name")
    if parent is not None and manifest.modality != parent.manifest.modality:
        raise _not_as_made("its modality")
    find(manifest.modality)
    known = {*_names(stored)} if stored else set()
    fresh = [each for each in _names(manifest) if each not in known]
    folder = f"datasets/{name}/"
    if any(part.removed is not None and part not in (stored.parts if stored else ()) for part in manifest.parts):
        raise _not_as_made("its parts")
    for each in fresh:
        pattern, inside = (_PACK, "packs/") if each in manifest.packs else (_PART, folder)
        if not each.startswith(inside) or not pattern.fullmatch(each.removeprefix(inside)):
            raise _not_as_made("the names of its files")
    return [*fresh, *(str(index_path(Path(each))) for each in fresh if each.endswith(".pack"))]


class _CheckRequest(TypedDict):
    manifest: Mapping[str, Any]
    files: Mapping[str, str]
    """Name -> path of each file of the version and, of packs, of their indexes."""
    fresh: Sequence[str]
    """Names of those that came."""
    parent: Mapping[str, Any] | None
    """The manifest that the version continues: all of its parts are in it."""
    lanes: str
    """The parent's."""


def _request(
    made: NewVersion, fresh: Sequence[str], outputs: Path, folders: Folders, parent: KnownParent | None
) -> _CheckRequest:
    names = [*_names(made.manifest), *(str(index_path(Path(each))) for each in made.manifest.packs)]
    paths = {name: outputs / name if name in fresh and (outputs / name).is_file() else folders.root / name
             for name in names}  # fmt: skip
    goes_on = parent is not None and {*parent.manifest.parts} <= {*made.manifest.parts}
    return {
        "manifest": made.manifest.model_dump(mode="json"),
        "files": {name: str(path) for name, path in paths.items()},
        "fresh": fresh,
        "parent": parent.manifest.model_dump(mode="json") if parent and goes_on else None,
        "lanes": parent.lanes if parent and goes_on else "",
    }


def _take_in(path: Path, target: Path) -> None:
    """Idempotent: what the daemon did not come to the end of is done again."""
    if target.exists():
        os.utime(target)  # it may have been garbage until now: it is as young as what names it
        sync_folder(target.parent)  # who put it there may have been killed before that
        return
    make_folder(target.parent)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.chmod(0o444)
    path.replace(target)
    sync_folder(target.parent)


def _not_as_made(what: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"What came back is no version that an ingest makes: {what} cannot be so.",
        "Make the same call again. If it fails again, a person looks at the nodes, or takes `ingest` out of `kinds` in "
        "settings.toml: then it runs here.",
    )


# The check, in a sandboxed process

_FAULTS = {
    "name": "the name of a file",
    "columns": "its columns",
    "rows": "its rows",
    "ids": "the ids of its rows",
    "id": "its id",
    "counts": "its counts",
    "pack": "a pack",
    "media": "its media",
    "unreadable": "a file",
}


class _Fault(Exception):
    """A key of `_FAULTS`."""


def find_fault(payload: _CheckRequest) -> dict[str, str | None]:
    """The service: what of a version is not as it must be."""
    try:
        _check(payload)
    except _Fault as fault:
        return {"fault": str(fault)}
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, SpeciateError):
        return {"fault": "unreadable"}
    return {"fault": None}


def _check(payload: _CheckRequest) -> None:
    manifest, files, fresh = Manifest.model_validate(payload["manifest"]), payload["files"], {*payload["fresh"]}
    for name in fresh:
        if name.startswith("datasets/"):
            with open(files[name], "rb") as file:
                _require("name", hashlib.file_digest(file, "sha256").hexdigest()[:32] == Path(name).stem)
    parent = Manifest.model_validate(payload["parent"]) if payload["parent"] else None
    _check_columns(manifest, [pq.read_schema(files[part.file]) for part in manifest.parts])
    counted = _Counted(manifest)
    ids: list[pa.Array] = []
    stored = _digests(manifest.packs, files, fresh) if manifest.packs else np.zeros(0, "S64")
    known = {*parent.parts} if parent else set()
    for part in manifest.parts:
        _require("counts", pq.read_metadata(files[part.file]).num_rows == part.rows)
        for rows in _live_rows(part, files, ["id"] if part in known else None):
            ids.append(rows["id"].combine_chunks())
            if part in known:
                continue
            counted.add(rows)
            if not manifest.inputs:
                used = rows[CONTENT].filter(pc.is_in(rows["quality"], pa.array(["ok", "partial"]))).to_pylist()
                _require("media", bool(np.isin(np.array(used, "S64"), stored).all()))
    everyone = pa.chunked_array(ids, pa.string())
    _require("ids", not everyone.null_count and len(pc.unique(everyone)) == len(everyone) == manifest.rows)
    counted.compare(parent, unpack_lanes(bytes.fromhex(payload["lanes"])))


def _require(fault: str, holds: bool) -> None:
    if not holds:
        raise _Fault(fault)


def _check_columns(manifest: Manifest, schemas: Sequence[pa.Schema]) -> None:
    for schema in schemas:
        _require("columns", {*FIXED, *HIDDEN[:3]} <= {*schema.names})
    whole = pa.unify_schemas([each.remove_metadata() for each in schemas], promote_options="permissive")
    found = next_version.user_columns(whole.empty_table())
    _require("columns", found == manifest.columns and {*manifest.inputs} <= found.keys())


class _Counted:
    """What a manifest says of its rows, counted."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest, self._lanes = manifest, np.zeros(LANES, np.uint16)
        self._rows, self._splits, self._labels = 0, Counter[str](), Counter[str]()

    def add(self, rows: pa.Table) -> None:
        self._lanes += lanes(row_digests(rows), self._manifest.hashing)
        self._rows += rows.num_rows
        self._splits.update(next_version.count_values(rows, "split"))
        if not self._manifest.numeric:
            self._labels.update(next_version.count_values(rows, "label"))

    def compare(self, parent: Manifest | None, before: Lanes) -> None:
        """`before`: lanes of the parent, whose rows were not added here."""
        manifest = self._manifest
        if parent is not None:
            self._lanes += before
            self._rows += parent.rows
            self._splits.update(parent.splits)
            self._labels.update(parent.labels)
        _require("id", version_id(self._lanes) == manifest.id)
        _require("counts", (self._rows, dict(self._splits)) == (manifest.rows, manifest.splits))
        if len(self._labels) <= MOST_LABELS:
            _require("counts", dict(self._labels) == manifest.labels)
        else:
            _require("counts", manifest.labels.items() <= self._labels.items())


def _live_rows(part: Part, files: Mapping[str, str], columns: list[str] | None) -> Iterator[pa.Table]:
    gone = np.zeros(0, np.int64) if part.removed is None else pq.read_table(files[part.removed])["position"].to_numpy()
    start = 0
    with pq.ParquetFile(files[part.file]) as file:
        for batch in file.iter_batches(_BATCH, columns=columns, use_threads=False):
            rows, here = pa.Table.from_batches([batch]), np.arange(start, start + len(batch))
            start += len(batch)
            yield rows.filter(pa.array(~np.isin(here, gone))) if len(gone) else rows


def _digests(packs: Iterable[str], files: Mapping[str, str], fresh: set[str]) -> np.ndarray[Any, np.dtype[np.bytes_]]:
    """Digests of all that lies in the packs. Of those that came, whether index and bytes belong together, too: what
    each one holds is compared with its digest whenever it is read."""
    found = [np.zeros(0, "S64")]
    for name in packs:
        with open_pack(Path(files[name])) as pack:
            order = np.argsort(pack.offsets, kind="stable")
            if name in fresh:
                ends = np.cumsum(pack.lengths[order])
                whole = "".join(each.decode() for each in pack.digests[order])
                _require("pack", bool((pack.lengths >= 0).all()) and bool((np.diff(np.sort(pack.offsets)) >= 0).all()))
                _require("pack", bool((pack.offsets[order] == ends - pack.lengths[order]).all()))
                _require("pack", os.stat(files[name]).st_size == (int(ends[-1]) if len(ends) else 0))
                _require("pack", hashlib.sha256(whole.encode()).hexdigest()[:32] == Path(name).stem)
                _require("pack", bool((pack.digests[1:] > pack.digests[:-1]).all()))
            found.append(pack.digests)
    return np.unique(np.concatenate(found))
