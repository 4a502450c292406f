"""A deleted cell is in the catalog's file until the file is rewritten, and then it is not."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from speciate.workspace import compaction
from speciate.workspace.workspace import Workspace

pytestmark = pytest.mark.durable

_TOKEN = "Vrumpelstont"


def _delete_a_row(workspace: Workspace, *, ask: bool) -> None:
    insert = "INSERT INTO answers VALUES ('key', 'tool', 'f', ?, 0)"
    workspace.database.transact(lambda tx: tx.execute(insert, [f"{_TOKEN} said so"]))
    workspace.database.checkpoint()
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM answers"))
    if ask:
        workspace.database.transact(lambda tx: compaction.request_compaction(tx, "job-x.1"))


def _bytes(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.glob("catalog*"))


def test_without_it_a_deleted_cell_stays_readable(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    _delete_a_row(workspace, ask=False)
    workspace.close()
    assert _TOKEN.encode() in _bytes(tmp_path / "w")


def test_the_file_is_rewritten_when_it_is_let_go_and_the_last_run_folder_goes(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    (workspace.folders.runs / "job-x.1").mkdir()
    read, leave = threading.Event(), threading.Event()

    def other_reader() -> None:
        workspace.database.read("SELECT * FROM answers")
        read.set()
        leave.wait()

    reader = threading.Thread(target=other_reader)
    reader.start()
    read.wait()
    _delete_a_row(workspace, ask=True)
    workspace.close()
    leave.set()
    reader.join()
    assert _TOKEN.encode() not in _bytes(tmp_path / "w")
    assert not (workspace.folders.runs / "job-x.1").exists()


def test_what_was_killed_before_it_is_rewritten_when_it_is_opened(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    _delete_a_row(workspace, ask=True)
    workspace.database.close()  # as a kill leaves it: nothing more is done
    (tmp_path / "w" / "catalog.rewritten.partial").write_bytes(b"half of it")
    assert _TOKEN.encode() in _bytes(tmp_path / "w")
    again = Workspace(tmp_path / "w")
    assert _TOKEN.encode() not in _bytes(tmp_path / "w")
    assert compaction.requested_by(again.database) is None
    again.close()


def test_a_disk_that_is_full_keeps_the_catalog_and_the_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path / "w")
    _delete_a_row(workspace, ask=True)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        workspace.close()
    again = Workspace(tmp_path / "w")
    assert compaction.requested_by(again.database) is None
    assert _TOKEN.encode() not in _bytes(tmp_path / "w")
    again.close()
