from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.settings import Settings
from speciate.workspace.backup import AutomaticBackups, automatic_backups, back_up, save_catalog, superseded_backups
from speciate.workspace.blobs import Blobs
from speciate.workspace.database import Database, Transaction
from speciate.workspace.rebuild import rebuild_catalog
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock

pytestmark = pytest.mark.durable

_KEYS = "SELECT key FROM meta WHERE value = 'x' ORDER BY key"


def add(workspace: Workspace, *keys: str, event: str = "added") -> None:
    def insert(tx: object) -> None:
        for key in keys:
            tx.execute("INSERT INTO meta VALUES (?, 'x')", [key])  # type: ignore[attr-defined]
            tx.event(key, event)  # type: ignore[attr-defined]

    workspace.database.transact(insert)


def test_a_backup_is_a_workspace_itself(workspace: Workspace, tmp_path: Path) -> None:
    add(workspace, "a", "b")
    name = Blobs(workspace.folders.blobs).put(b"scan")
    (workspace.folders.cache / "huge").write_bytes(b"0" * 1000)
    made = back_up(workspace, tmp_path / "copy")
    add(workspace, "after")
    copy = Workspace(tmp_path / "copy")
    assert copy.database.read(_KEYS) == [("a",), ("b",)]
    assert copy.database.last_seq == 2
    assert Blobs(copy.folders.blobs).get(name) == b"scan"
    assert list(copy.folders.cache.iterdir()) == []
    assert made.bytes > 0
    copy.close()


def test_a_backup_leaves_the_owners_lock_alone(workspace: Workspace, tmp_path: Path) -> None:
    back_up(workspace, tmp_path / "copy")
    save_catalog(workspace.database, workspace.folders.backups, 0)
    other = "import sys, duckdb; duckdb.connect(sys.argv[1])"
    tried = subprocess.run(
        [sys.executable, "-c", other, str(workspace.folders.catalog)], capture_output=True, check=False
    )
    assert b"Could not set lock" in tried.stderr


def test_a_backup_overwrites_nothing_and_does_not_copy_itself(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for target, code in ((tmp_path / "taken", Code.REFUSED), (workspace.folders.exports / "copy", Code.REFUSED)):
        with pytest.raises(SpeciateError) as caught:
            back_up(workspace, target)
        assert caught.value.code is code
    assert list((tmp_path / "taken").iterdir()) == []


def test_a_backup_is_a_snapshot_while_others_write(workspace: Workspace, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            add(workspace, f"k{number:06}")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            back_up(workspace, tmp_path / f"copy-{number}")
            save_catalog(workspace.database, workspace.folders.backups, float(number))
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        copy = Workspace(tmp_path / f"copy-{number}")
        (events,) = copy.database.read_one("SELECT count(*) FROM events") or (None,)
        assert len(copy.database.read(_KEYS)) == events == copy.database.last_seq
        copy.close()


def test_automatic_backups_are_made_only_when_something_changed(workspace: Workspace, clock: ManualClock) -> None:
    backups = AutomaticBackups(workspace)
    assert backups.save() is None
    add(workspace, "a")
    first = backups.save()
    assert first
    assert backups.save() is None
    clock.advance(3600)
    add(workspace, "b")
    second = backups.save()
    assert automatic_backups(workspace.folders.backups) == [first, second]


def saved_soon(workspace: Workspace, count: int = 1) -> bool:
    deadline = threading.Event()
    return any(len(automatic_backups(workspace.folders.backups)) >= count or deadline.wait(0.02) for _ in range(500))


def test_an_alias_move_is_backed_up_at_once_also_while_rows_that_were_sent_wait(workspace: Workspace) -> None:
    backups = AutomaticBackups(workspace)
    backups.start()
    for place, event in enumerate(("data.sent", "data.sent", "alias.moved")):
        add(workspace, str(place), event=event)
    assert saved_soon(workspace)
    backups.stop()
    assert len(automatic_backups(workspace.folders.backups)) == 1


def test_an_alias_move_is_backed_up_at_once_also_before_rows_that_are_sent(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, free = threading.Event(), threading.Event()

    def save_slowly(database: Database, folder: Path, now: float) -> Path:
        made = save_catalog(database, folder, now)
        busy.set()
        assert free.wait(60)
        return made

    monkeypatch.setattr("speciate.workspace.backup.save_catalog", save_slowly)
    backups = AutomaticBackups(workspace)
    backups.start()
    add(workspace, "first", event="alias.moved")
    assert busy.wait(60)
    for event in ("alias.moved", "data.sent"):  # both are heard before the thread looks again
        add(workspace, event, event=event)
    free.set()
    assert saved_soon(workspace, 2)
    backups.stop()


def test_rows_that_were_sent_are_backed_up_soon_and_together(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speciate.workspace.backup._SOON_SECONDS", 0.1)
    backups = AutomaticBackups(workspace)
    backups.start()
    for place in range(3):
        add(workspace, str(place), event="data.sent")
    assert saved_soon(workspace)
    backups.stop()
    assert len(automatic_backups(workspace.folders.backups)) < 3


def test_old_backups_go_but_for_the_last_of_each_day() -> None:
    names = [f"auto-202611{day:02}T{hour:02}0000Z-{day * 100 + hour}" for day in range(1, 31) for hour in range(24)]
    gone = superseded_backups(names)
    kept = [name for name in names if name not in gone]
    assert kept[-12:] == names[-12:]
    assert [name[5:13] for name in kept[:-12]] == [f"202611{day:02}" for day in range(17, 30)]
    assert superseded_backups(kept) == []


# Rebuild


def damaged(workspace: Workspace) -> Path:
    """Close the workspace and spoil its catalog; its root."""
    workspace.close()
    workspace.folders.catalog.write_bytes(b"garbage" * 10_000)
    return workspace.folders.root


def test_the_newest_backup_becomes_the_catalog_and_the_old_one_is_kept(tmp_path: Path, clock: ManualClock) -> None:
    workspace = Workspace(tmp_path / "workspace", clock, Settings())
    add(workspace, "a")
    save_catalog(workspace.database, workspace.folders.backups, clock.now())
    add(workspace, "b")
    clock.advance(60)
    newest = save_catalog(workspace.database, workspace.folders.backups, clock.now())
    add(workspace, "lost")
    report = rebuild_catalog(damaged(workspace))
    assert report.source == newest.name
    assert report.rows["events"] == 3, "the two of the backup, and that it was rebuilt"
    assert any("what changed after it" in line for line in report.lost)
    assert report.kept
    assert (report.kept / "catalog.duckdb").read_bytes().startswith(b"garbage")
    again = Workspace(tmp_path / "workspace")
    assert again.database.read(_KEYS) == [("a",), ("b",)]
    add(again, "c")
    assert again.database.last_seq == 4
    again.close()


def test_a_backup_that_cannot_be_read_is_named_and_the_one_before_it_used(tmp_path: Path, clock: ManualClock) -> None:
    workspace = Workspace(tmp_path / "workspace", clock, Settings())
    add(workspace, "a")
    older = save_catalog(workspace.database, workspace.folders.backups, clock.now())
    clock.advance(60)
    add(workspace, "b")
    newest = save_catalog(workspace.database, workspace.folders.backups, clock.now())
    (newest / "events.parquet").write_bytes(b"garbage")
    report = rebuild_catalog(damaged(workspace))
    assert report.source == older.name
    assert f"backup {newest.name}: it cannot be read" in report.lost


def test_without_any_backup_an_empty_catalog_says_so(tmp_path: Path) -> None:
    report = rebuild_catalog(damaged(Workspace(tmp_path / "workspace")))
    assert report.source == "nothing"
    assert "there is no backup" in report.lost[0]
    Workspace(tmp_path / "workspace").close()


def test_a_catalog_that_opens_is_the_newest_truth(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    add(workspace, "a")
    workspace.close()
    report = rebuild_catalog(tmp_path / "workspace")
    assert report.kept is None
    assert report.lost == ()
    assert report.rows["events"] == 1


# What a repair kept, and a purge


def forget(workspace: Workspace) -> None:
    """As the last step of a purge does (privacy/gc.py)."""

    def note(tx: Transaction) -> None:
        tx.execute("INSERT OR REPLACE INTO meta SELECT 'forgotten', max(seq)::VARCHAR FROM events")
        tx.event("job-1", "data.forgotten")

    workspace.database.transact(note)


def test_a_purge_deletes_what_repairs_kept_before_it_and_not_what_they_keep_later(
    tmp_path: Path, clock: ManualClock
) -> None:
    """By events: the clock may be set back between."""
    workspace = Workspace(tmp_path / "workspace", clock, Settings())
    add(workspace, "a", "b")
    save_catalog(workspace.database, workspace.folders.backups, clock.now())
    first = rebuild_catalog(damaged(workspace), clock).kept
    assert first
    workspace = Workspace(tmp_path / "workspace", clock, Settings())
    forget(workspace)
    AutomaticBackups(workspace).save()
    assert not first.exists()
    clock.jump(-1e6)
    add(workspace, "c")
    clock.advance(3600)
    fuller = AutomaticBackups(workspace).save()
    assert fuller
    (fuller / "events.parquet").write_bytes(b"garbage")
    second = rebuild_catalog(damaged(workspace), clock).kept
    for key in ("d", "e"):
        workspace = Workspace(tmp_path / "workspace", clock, Settings())
        add(workspace, key)
        AutomaticBackups(workspace).save()
        workspace.close()
    assert second
    assert {path.name for path in second.iterdir()} >= {"catalog.duckdb", fuller.name}
    workspace = Workspace(tmp_path / "workspace", clock, Settings())
    forget(workspace)
    AutomaticBackups(workspace).save()
    assert not second.exists()
    workspace.close()


def test_numbers_that_are_given_anew_hide_nothing_from_a_purge(tmp_path: Path, clock: ManualClock) -> None:
    """What was kept when the catalog had 9 events is from before a purge that is event 4 of the catalog after it."""
    workspace = Workspace(tmp_path / "workspace", clock, Settings())
    add(workspace, "a")
    first = save_catalog(workspace.database, workspace.folders.backups, clock.now())
    add(workspace, *"bcdefgh")
    clock.advance(60)
    save_catalog(workspace.database, workspace.folders.backups, clock.now())
    kept = [rebuild_catalog(damaged(workspace), clock).kept]
    for path in automatic_backups(tmp_path / "workspace" / "backups"):
        if path != first:
            shutil.rmtree(path)
    kept.append(rebuild_catalog(damaged(workspace), clock).kept)
    workspace = Workspace(tmp_path / "workspace", clock, Settings())
    add(workspace, "x")
    forget(workspace)
    AutomaticBackups(workspace).save()
    assert [path for path in kept if path is None or path.exists()] == []
    workspace.close()
