"""Every file of a workspace read again and compared with what was written: what `speciate verify --all` does.

Two halves. The daemon says what the catalog refers to, and reads every block of the catalog (`inventory`): it alone
may. Files are then hashed wherever the caller is: they are immutable, so nobody needs to stop meanwhile. Not
looked at: the cache (downloads, thumbnails, conversions), exports, logs of processes, checkpoints of runs that live.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
from pydantic import BaseModel, ConfigDict

from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.governance import audit, audit_heads
from speciate.jobs.folder import RunFolder, read_checked
from speciate.models import sealed
from speciate.models.model_card import ModelCard
from speciate.predictions.log_files import LogFolder, all_logs, decode
from speciate.workspace import filesystem, integrity
from speciate.workspace.backup import automatic_backups, damaged_file_in
from speciate.workspace.blobs import Blobs, check_digest
from speciate.workspace.packs import index_path, open_pack
from speciate.workspace.workspace import Folders, Workspace

MISSING = "it is missing"
_TABLES = "SELECT table_name FROM duckdb_tables() ORDER BY table_name"
_MANIFESTS = "SELECT manifest FROM dataset_versions ORDER BY name, version"
_CARDS = "SELECT card FROM model_versions ORDER BY name, version"
_EVALUATIONS = "SELECT id FROM evaluations WHERE report <> '' ORDER BY id"
_RESTORE = "restore it from a backup of the workspace"


class Inventory(BaseModel):
    """What the catalog refers to. Paths are relative to the workspace's root."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    files: dict[str, tuple[str, ...]] = {}
    """Sealed rows and packs -> versions that need them."""
    models: dict[str, str] = {}
    """`NAME/vN` of versions with files here -> id, the sha256 of its list of files."""
    evaluations: tuple[str, ...] = ()
    catalog: tuple[str, ...] = ()
    """Problems of the catalog and the audit, in sentences."""


class Finding(NamedTuple):
    path: str
    """Relative to the workspace's root."""
    why: str
    needed_by: tuple[str, ...]
    what_to_do: str
    may_go: bool = False
    """Whether it can be excluded: others continue without it."""


class WalkProgress(NamedTuple):
    """How far a walk is."""

    files: int
    bytes: int
    unsealed: int
    """Files of before there were seals, which nothing can be compared with."""


class VerificationWalk:
    """One pass over the files; iterate it once, then read `seen`. `told(files, bytes)` after each file."""

    def __init__(
        self, folders: Folders, inventory: Inventory, told: Callable[[int, int], None] = lambda files, size: None
    ) -> None:
        self._folders, self._inventory, self._told = folders, inventory, told
        self._files = self._bytes = self._unsealed = 0

    @property
    def seen(self) -> WalkProgress:
        return WalkProgress(self._files, self._bytes, self._unsealed)

    def __iter__(self) -> Iterator[Finding]:
        for part in (
            self._settings, self._rows, self._packs, self._blobs, self._models, self._evaluations, self._caches,
            self._logs, self._runs, self._backups,
        ):  # fmt: skip
            yield from part()

    # By kind

    def _settings(self) -> Iterator[Finding]:
        path = self._folders.root / "settings.toml"
        if path.exists():
            self._count(path)
            try:
                tomllib.loads(path.read_text())
            except ValueError as error:
                yield self._finding(path, f"it is no TOML: {error}", (), "correct it by hand; the daemon needs it")

    def _rows(self) -> Iterator[Finding]:
        there = sorted(self._folders.datasets.rglob("*.parquet"))
        yield from self._wrong(there, f"{_RESTORE}, or make the dataset again from its source (create_dataset)")
        yield from self._missing(".parquet", "datasets/")

    def _packs(self) -> Iterator[Finding]:
        what = f"{_RESTORE}, or make the datasets that need it again from their source (create_dataset)"
        for path in sorted(self._folders.packs.glob("[!.]*.pack")):
            index = index_path(path)
            if not index.exists():
                continue  # a leftover of a run that was killed; of one that is needed the index is missing below
            self._count(index)
            self._count(path)
            try:
                pack = open_pack(path)
            except SpeciateError as error:
                yield self._finding(index, error.message, self._needed(path), what)
                continue
            with pack:
                bad = [sha256 for sha256, data in pack if not _has_hash(data, sha256, path)]
            if bad:
                why = f"{len(bad)} of its {pack.count} files have another content, the first: {bad[0]}"
                yield self._finding(path, why, self._needed(path), what)
        yield from self._missing("", "packs/")

    def _blobs(self) -> Iterator[Finding]:
        blobs = Blobs(self._folders.blobs)
        paths = [blobs.path(name) for name in blobs]
        yield from self._wrong(paths, f"{_RESTORE}; a job or a dataset version named it")

    def _models(self) -> Iterator[Finding]:
        what = f"{_RESTORE}, or train the model again (train_model(like=...))"
        for name, known in self._inventory.models.items():
            folder = self._folders.models / name
            ref = (name.replace("/v", "@v"),)
            if not folder.is_dir():
                yield self._finding(folder, MISSING, ref, what)
                continue
            for path in folder.iterdir():
                self._count(path)
            try:
                found = sealed.check(folder)
            except SpeciateError as error:
                yield self._finding(folder, error.message, ref, what)
                continue
            if known and found != known:
                yield self._finding(folder / sealed.MANIFEST, "it is not the list that was registered", ref, what)

    def _evaluations(self) -> Iterator[Finding]:
        what = f"{_RESTORE}, or call evaluate_models again; the report and the decision stand in the catalog"
        for path in sorted(self._folders.evaluations.glob("*/*.parquet")):
            yield from self._wrong([path], what, (path.parent.name,))
        for name in self._inventory.evaluations:
            for file in ("examples.parquet", "predictions.parquet", "scores.parquet"):
                if not (path := self._folders.evaluations / name / file).exists():
                    yield self._finding(path, MISSING, (name,), what)

    def _caches(self) -> Iterator[Finding]:
        again = "nothing: it is dropped at the next use, and its vectors are computed again"
        yield from self._wrong(sorted(self._folders.features.glob("*/*.parquet")), again, may_go=True)
        asked = (
            f"{_RESTORE}, or quarantine it (--quarantine): what was in it is asked again, at a cost where models cost"
        )
        yield from self._wrong(sorted(self._folders.predictions.glob("*/*.parquet")), asked, may_go=True)

    def _logs(self) -> Iterator[Finding]:
        for log in all_logs(self._folders):
            what = f"{_RESTORE}, or quarantine it (--quarantine): the rest of the log is read without it"
            yield from self._wrong(sorted(log.parts.glob("*.parquet")), what, (f"log:{log.use_case}",), may_go=True)
            yield from self._wrong(sorted(log.media.glob("??/*")), what, (f"log:{log.use_case}",), may_go=True)
            yield from self._lines(log)

    def _lines(self, log: LogFolder) -> Iterator[Finding]:
        for path in log.all_segments():
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # sealed meanwhile
                continue
            self._count(path)
            whole = data[: data.rfind(b"\n") + 1]  # what follows is being written
            if torn := decode(whole).torn:
                what = "nothing: such lines are left out and counted when the log is read"
                yield self._finding(
                    path, f"{torn} of its lines are not what was written", (f"log:{log.use_case}",), what
                )

    def _runs(self) -> Iterator[Finding]:
        for folder in sorted(self._folders.runs.iterdir()) if self._folders.runs.is_dir() else ():
            run = RunFolder(folder)
            for path in (folder / "spec.json", folder / "exit", run.outputs / "result.json"):
                try:
                    read_checked(path, "")
                    self._count(path)
                except FileNotFoundError:
                    continue
                except SpeciateError:
                    what = "nothing where the job has ended; else it is run again. `rebuild` cannot use it"
                    yield self._finding(path, "it is not what was written", (folder.name.partition(".")[0],), what)
            if not run.alive():
                yield from self._checkpoints(run)

    def _checkpoints(self, run: RunFolder) -> Iterator[Finding]:
        for folder in sorted(run.checkpoints.glob("checkpoint-*")):
            if not (folder / sealed.MANIFEST).exists():
                continue
            for path in folder.iterdir():
                self._count(path)
            try:
                sealed.check(folder)
            except SpeciateError as error:
                what = "nothing: the job resumes from the checkpoint before it"
                yield self._finding(folder, error.message, (run.path.name.partition(".")[0],), what)

    def _backups(self) -> Iterator[Finding]:
        for folder in automatic_backups(self._folders.backups):
            for path in folder.iterdir():
                self._count(path)
            if (name := damaged_file_in(folder)) is not None:
                what = "nothing: `speciate rebuild` passes over it; delete the folder, the next backup comes by itself"
                yield self._finding(folder / name, "it is not what was written, or missing", (), what)

    # What they share

    def _wrong(
        self, paths: list[Path], what: str, needed_by: tuple[str, ...] = (), *, may_go: bool = False
    ) -> Iterator[Finding]:
        for path in paths:
            try:
                why = integrity.examine(path)
                if why is None and path.suffix == ".parquet" and not integrity.has_own_checksum(path):
                    self._unsealed += 1
                self._count(path)
            except FileNotFoundError:  # merged, sealed or collected meanwhile
                continue
            except OSError as error:
                why = f"it cannot be read: {error.strerror}"
            if why is not None:
                yield self._finding(path, why, needed_by or self._needed(path), what, may_go=may_go)

    def _missing(self, suffix: str, below: str) -> Iterator[Finding]:
        for name, refs in sorted(self._inventory.files.items()):
            if name.startswith(below) and name.endswith(suffix) and not (self._folders.root / name).exists():
                what = f"{_RESTORE}, or make the dataset again from its source (create_dataset)"
                yield Finding(name, MISSING, refs, what)

    def _needed(self, path: Path) -> tuple[str, ...]:
        return self._inventory.files.get(path.relative_to(self._folders.root).as_posix(), ())

    def _count(self, path: Path) -> None:
        self._files += 1
        self._bytes += path.stat().st_size
        self._told(self._files, self._bytes)

    def _finding(self, path: Path, why: str, needed_by: tuple[str, ...], what: str, *, may_go: bool = False) -> Finding:
        return Finding(path.relative_to(self._folders.root).as_posix(), why, needed_by, what, may_go)


def inventory(workspace: Workspace) -> Inventory:
    """What the catalog refers to. In the daemon; reads all of the catalog."""
    database = workspace.database
    wrong = _unreadable(workspace)
    try:
        files: dict[str, list[str]] = {}
        for (text,) in database.read(_MANIFESTS):
            manifest = Manifest.model_validate_json(text)
            parts = [name for part in manifest.parts for name in (part.file, part.removed) if name]
            packs = [name for pack in manifest.packs for name in (pack, index_path(Path(pack)).as_posix())]
            for name in (*parts, *packs):
                files.setdefault(name, []).append(manifest.ref)
        cards = [ModelCard.model_validate_json(text) for (text,) in database.read(_CARDS)]
        verdict = audit.verify(database, audit_heads.read_heads(workspace.folders.root / audit_heads.NAME))
        return Inventory(
            files={name: tuple(refs) for name, refs in files.items()},
            models={f"{card.name}/v{card.version}": card.id for card in cards if not card.endpoint},
            evaluations=tuple(id for (id,) in database.read(_EVALUATIONS)),  # noqa: A001 - the column
            catalog=(*wrong, *(f"audit: {problem}" for problem in verdict.problems)),
        )
    except duckdb.Error as error:
        return Inventory(catalog=wrong or (str(filesystem.explain(error, workspace.folders.root) or error),))


def quarantine(folders: Folders, finding: Finding) -> Path:
    """Move a damaged part of a log or a cache away, for whom it stands in the way of. Where it lies now."""
    target = folders.root / integrity.DAMAGED_FOLDER / finding.path
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folders.root / finding.path).rename(target)
    return target


def _unreadable(workspace: Workspace) -> tuple[str, ...]:
    """DuckDB compares a block with its checksum when it reads it, so all are read."""
    found = []
    for (name,) in workspace.database.read(_TABLES):
        try:
            workspace.database.read(f'SELECT count(hash(row)) FROM "{name}" AS row')
        except duckdb.Error as error:
            said = filesystem.explain(error, workspace.folders.root)
            found.append(f"table {name}: {said.message if said else str(error).splitlines()[0]}")
    return tuple(found)


def _has_hash(data: bytes, sha256: str, path: Path) -> bool:
    try:
        check_digest(data, sha256, path)
    except SpeciateError:
        return False
    return True


def finding_document(finding: Finding) -> Mapping[str, object]:
    """A finding as programs read it."""
    return dict(finding._asdict())


def parse_inventory(document: Mapping[str, Any]) -> Inventory:
    return Inventory.model_validate(document)
