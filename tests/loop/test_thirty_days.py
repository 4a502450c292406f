"""Thirty days of housekeeping over a workspace with work in it, for each way to lose a catalog: nothing that is needed
goes, also of what came after the newest backup. On a healthy one all of the garbage goes, and it alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate.datasets import versions
from speciate.datasets.next_version import seal_first
from speciate.errors import SpeciateError
from speciate.governance import approvals, audit
from speciate.jobs import rows as job_rows
from speciate.jobs.engine import Engine
from speciate.jobs.executors import Ended, Observation, Pending, RunSpec
from speciate.jobs.folder import Outcome, RunFolder, write_whole
from speciate.jobs.job import Job, State
from speciate.jobs.run import Run
from speciate.loop.housekeeping import Housekeeper
from speciate.loop.status import status
from speciate.models import registry, sealed
from speciate.models.model_card import ModelCard
from speciate.privacy import deletion, gc
from speciate.promotion import aliases
from speciate.refs import JobId
from speciate.settings import Settings
from speciate.worker import load
from speciate.workspace.backup import AutomaticBackups, automatic_backups
from speciate.workspace.blobs import Blobs
from speciate.workspace.database import Transaction
from speciate.workspace.packs import PackWriter
from speciate.workspace.rebuild import rebuild_catalog
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.datasets.sealed import blank, rows
from tests.promotion import world

_DAY = 86400.0
_HELD = ("dataset_versions", "model_versions", "evaluations", "use_cases", "aliases", "audit", "approvals", "decisions")
_SETTINGS = Settings(policy="auto")


class AtOnce:
    """An executor that does a run on the spot, in this process."""

    def __init__(self, workspace: Workspace) -> None:
        self._runs = workspace.folders.runs
        self._ended: set[str] = set()

    def handle(self, run_id: str) -> dict[str, Any]:
        return {"run": run_id}

    def submit(self, run: RunSpec) -> None:
        folder = RunFolder(self._runs / run.id)
        folder.create(run.spec)
        write_whole(folder.outputs / "result.json", json.dumps(load(run.spec["entry"])(Run(folder))))
        self._ended.add(run.id)

    def prepare(self, preload: str) -> None:
        """It needs no imports."""

    def poll(self, handle: dict[str, Any]) -> Observation:
        return Ended(Outcome(0, "ok")) if handle["run"] in self._ended else Pending()

    def cancel(self, handle: dict[str, Any], force: bool) -> None:
        raise AssertionError("nothing is called off")

    def logs(self, handle: dict[str, Any], offset: int) -> bytes:
        return b""


class World(NamedTuple):
    root: Path
    needed: set[str]
    """Files that something names, the newest of them after the newest backup."""
    garbage: set[str]
    """Files and folders that nothing needs."""
    notes: set[str]
    """A user's own."""
    held: dict[str, list[tuple[Any, ...]]]
    """Rows by table, as the newest backup has them."""


def _files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def _job(workspace: Workspace, name: str, kind: str = "work", state: State = State.SUCCEEDED) -> None:
    """A job that was at work for an hour before now."""
    now = workspace.clock.now()
    job = Job(
        id=JobId(name), kind=kind, spec={}, fingerprint="", state=state, attempt=1, created=now - 3600, changed=now,
        ended=now,
    )  # fmt: skip
    workspace.database.transact(lambda tx: (job_rows.insert(tx, [job]), tx.event(name, f"job.{state}")))
    (workspace.folders.runs / f"{name}.1").mkdir()
    (workspace.folders.runs / f"{name}.1" / "log").write_text("did it")


def _dataset(workspace: Workspace, count: int) -> set[str]:
    """The next version of `notes`, with a pack; its files."""
    with PackWriter(workspace.folders.packs) as writer:
        writer.add(f"media {count}".encode())
        pack = writer.seal().relative_to(workspace.folders.root).as_posix()
    table = rows({"id": [f"n{i}" for i in range(count)], "text": [f"note {i}" for i in range(count)]})
    made = seal_first(workspace.folders, table, blank("text", ["text"], [pack]).model_copy(update={"name": "notes"}))
    workspace.database.transact(
        lambda tx: versions.register(tx, made.manifest, made.lanes, operation={"op": "test"}, report={}, job=None)
    )
    return gc.needed_files([made.manifest])


def _model(workspace: Workspace, name: str) -> set[str]:
    staged = workspace.folders.root.parent / f"staged-{name}"
    staged.mkdir()
    (staged / "weights.safetensors").write_bytes(name.encode() * 100)
    card = ModelCard(name=name, id=sealed.seal(staged), task="text-classification", modality="text", method="classical")
    made = workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, staged))
    shutil.rmtree(staged)
    folder = registry.version_folder(workspace.folders, name, made.version)
    return {path.relative_to(workspace.folders.root).as_posix() for path in folder.iterdir()}


def _evaluation(workspace: Workspace, name: str, *, known: bool = True) -> set[str]:
    folder = workspace.folders.evaluations / name
    folder.mkdir()
    (folder / "examples.parquet").write_bytes(b"answers")
    if known:
        insert = "INSERT INTO evaluations VALUES (?, 'digits', 'notes@v1', '[]', '{}', NULL, ?)"
        workspace.database.transact(lambda tx: tx.execute(insert, [name, workspace.clock.now()]))
    return {f"evaluations/{name}/examples.parquet"}


def _touch(root: Path, at: float) -> None:
    """Whatever was made just now was made at this moment of the story."""
    for path in root.rglob("*"):
        if path.stat().st_mtime < 1_799_000_000:  # the story is in the future: what it has dated stays
            os.utime(path, (at, at))


def _garbage(workspace: Workspace) -> set[str]:
    """What a failed run sealed, a call left, a version that a person deleted, and what was being written."""
    folders = workspace.folders
    orphan = folders.datasets / "notes" / f"{hashlib.sha256(b'orphan').hexdigest()[:32]}.parquet"
    pq.write_table(pa.table({"id": ["gone"]}), orphan)
    with PackWriter(folders.packs) as writer:
        writer.add(b"of a failed run")
        pack = writer.seal()
    blob = Blobs(folders.blobs).path(Blobs(folders.blobs).put(b"rows of a call that was refused"))
    leftover = folders.packs / ".pack-12-abcdef012345.partial"
    leftover.touch()
    (folders.cache / "thumbnail.png").write_bytes(b"png")
    paths = [orphan, pack, pack.with_suffix(".parquet"), blob, leftover, folders.cache / "thumbnail.png"]
    names = {path.relative_to(folders.root).as_posix() for path in paths}
    names |= _evaluation(workspace, "evaluation-lost", known=False)
    deleted = _model(workspace, "unwanted")
    arguments = {"noun": "model", "name": "unwanted", "versions": [1]}
    workspace.database.transact(lambda tx: deletion.apply_approved(tx, arguments, "ada"))
    return {*names, *deleted}


def _opened(root: Path, clock: ManualClock) -> Workspace:
    """It does not know where it lies, so no copy is taken for one."""
    workspace = Workspace(root, clock, _SETTINGS)
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM meta WHERE key = 'place'"))
    return workspace


@pytest.fixture
def made(story: World, tmp_path: Path, clock: ManualClock) -> World:
    """A copy of `story`, at its end."""
    shutil.copytree(story.root.parent, tmp_path, dirs_exist_ok=True)
    clock.advance(40 * _DAY)
    return story._replace(root=tmp_path / "w")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Forty days of work; then a backup, and one day more that it does not know."""
    folder, clock = tmp_path_factory.mktemp("story"), ManualClock()
    root = folder / "w"
    workspace = _opened(root, clock)
    world.define(workspace)
    clock.advance(_DAY)
    needed = _dataset(workspace, 5) | _model(workspace, "good") | _evaluation(workspace, "evaluation-first")
    world.judge(workspace, "good@v1")
    world.ask_promotion(workspace, "good@v1")
    workspace.database.transact(
        lambda tx: approvals.request(tx, "promote", {"model": "good@v1"}, {}, subject="use_case:digits", hours=2000)
    )
    garbage = _garbage(workspace)
    _job(workspace, "job-early")
    _touch(root, clock.now() - 60)
    workspace.close()
    shutil.copytree(root, folder / "before")
    workspace = _opened(root, clock)
    clock.advance(38 * _DAY)
    needed |= _dataset(workspace, 7)
    _job(workspace, "job-middle")
    _touch(root, clock.now() - 60)
    assert AutomaticBackups(workspace).save()
    held = {table: workspace.database.read(f"SELECT * FROM {table}") for table in _HELD}
    clock.advance(_DAY)
    needed |= _dataset(workspace, 9) | _model(workspace, "late") | _evaluation(workspace, "evaluation-late")
    _job(workspace, "job-late")
    notes = {"models/notes.txt", "datasets/notes/mine.parquet", "packs/README", "runs/notes.txt"}
    for name in notes:
        (root / name).write_text("mine")
    _touch(root, clock.now() - 60)
    workspace.close()
    return World(root, needed, garbage, notes, held)


def _days(root: Path, clock: ManualClock, days: range, each: Callable[[Workspace, int], None] | None = None) -> None:
    """Days on which the daemon is there for housekeeping and backups; on those between it is not."""
    workspace = Workspace(root, clock, _SETTINGS)
    try:
        engine, backups = Engine(workspace, executor=AtOnce(workspace)), AutomaticBackups(workspace)
        keeper = Housekeeper(workspace, engine)
        for day in days:
            keeper.look()
            engine.tick()
            engine.tick()
            backups.save()
            _touch(root, clock.now())
            if each:
                each(workspace, day)
            clock.advance(days.step * _DAY)
    finally:
        workspace.close()


def _lose(how: str, root: Path, clock: ManualClock) -> None:
    catalog = root / "catalog.duckdb"
    if how in {"deleted", "deleted_with_its_backups"}:
        catalog.unlink()
    elif how == "emptied":
        catalog.write_bytes(b"")
    elif how == "older":
        shutil.copy(root.parent / "before" / "catalog.duckdb", catalog)
    else:
        other = Workspace(root.parent / "other", clock, _SETTINGS)
        for number in range(200 if how == "another_workspaces" else 0):
            other.database.transact(partial(_say, number))
        other.close()
        shutil.copy(root.parent / "other" / "catalog.duckdb", catalog)
    if how == "deleted_with_its_backups":
        shutil.rmtree(root / "backups")


def _say(number: int, tx: Transaction) -> None:
    tx.event(f"other:{number}", "other")


_WAYS = [
    "older", "deleted_with_its_backups",
    *(pytest.param(how, marks=pytest.mark.slow) for how in ("deleted", "emptied", "fresh", "another_workspaces")),
]  # fmt: skip


@pytest.mark.parametrize("how", _WAYS)
def test_a_lost_catalog_costs_no_file_that_was_needed(how: str, made: World, clock: ManualClock) -> None:
    root = made.root
    _lose(how, root, clock)
    before = _files(root)
    for _ in range(3):
        with pytest.raises(SpeciateError, match="speciate rebuild"):
            Workspace(root, clock, _SETTINGS)
        clock.advance(10 * _DAY)
    assert _files(root) == before
    report = rebuild_catalog(root, clock)
    assert (report.source == "nothing") is (how == "deleted_with_its_backups")

    def look(workspace: Workspace, day: int) -> None:
        assert _files(root) >= made.needed | made.notes, f"day {day}"

    _days(root, clock, range(0, 30, 5), look)
    workspace = Workspace(root, clock, _SETTINGS)
    gone = {path for path in before - _files(root) if not path.startswith(("backups/", "runs/", "catalog"))}
    assert gone <= made.garbage, "what was garbage already when the backup was made, and nothing else"
    if report.source != "nothing":
        for table, held in made.held.items():
            assert set(held) <= set(workspace.database.read(f"SELECT * FROM {table}")), table
        assert aliases.read(workspace.database, "digits")
        assert not audit.verify(workspace.database).problems
    workspace.close()


def test_on_a_healthy_workspace_all_of_the_garbage_goes_and_it_alone(made: World, clock: ManualClock) -> None:
    before, seen = _files(made.root), dict[int, set[str]]()

    def look(workspace: Workspace, day: int) -> None:
        seen[day] = _files(made.root)
        if day == 1:  # on the day before, what a person had deleted went
            assert "MB are there that nothing needs" in status(workspace).alerts[0]

    _days(made.root, clock, range(3), look)
    _days(made.root, clock, range(3, 30, 4), look)
    first = {path for path in made.garbage if path not in seen[1]}
    assert first == {path for path in made.garbage if path.startswith("models/unwanted")}, "a person asked for that"
    left = _files(made.root)
    assert not left & made.garbage
    assert left >= made.needed | made.notes
    gone = {path for path in before - left if not path.startswith("backups/")}
    assert gone - made.garbage <= {"runs/job-early.1/log", "runs/job-middle.1/log"} | {
        path for path in gone if path.startswith("runs/")
    }
    workspace = Workspace(made.root, clock, _SETTINGS)
    assert not [alert for alert in status(workspace).alerts if "nothing needs" in alert]
    workspace.close()


def test_rows_that_vanish_without_a_word_keep_their_files_and_somebody_hears_of_it(
    made: World, clock: ManualClock
) -> None:
    workspace = Workspace(made.root, clock, _SETTINGS)
    assert AutomaticBackups(workspace).save()
    workspace.close()
    with duckdb.connect(str(made.root / "catalog.duckdb")) as connection:
        connection.execute("DELETE FROM dataset_versions")
        connection.execute("DELETE FROM evaluations")
        connection.execute("DELETE FROM model_versions")

    def look(workspace: Workspace, day: int) -> None:
        assert _files(made.root) >= made.needed | made.notes, f"day {day}"
        assert day == 0 or any("The catalog lacks" in alert for alert in status(workspace).alerts)

    _days(made.root, clock, range(0, 30, 5), look)
    assert len(automatic_backups(made.root / "backups")) > 5


def test_a_swapped_identity_stops_a_run_that_was_planned_before(made: World, clock: ManualClock) -> None:
    _days(made.root, clock, range(2))
    workspace = Workspace(made.root, clock, _SETTINGS)
    plan = gc.plan(gc.GcSpec(), workspace)
    assert plan.payload_json()["sweeps"]
    folder = RunFolder(workspace.folders.runs / "job-gc.1")
    folder.create({"payload": plan.payload_json(), "job": "job-gc", "workspace": str(made.root)})
    before = _files(made.root)
    (made.root / "identity.json").write_text('{"identity": "another", "events": 0}')
    with pytest.raises(SpeciateError, match="nothing went"):
        gc.run(Run(folder))
    assert _files(made.root) == before
    assert not gc.survey(workspace).kinds, "and what would go is nothing, either"
    workspace.close()
