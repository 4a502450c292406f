"""What `speciate doctor --fix` mends, and that it says so before."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate import environment
from speciate.cli import repairs
from speciate.workspace.lock import Lock
from speciate.workspace.workspace import Folders


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workspace without a daemon, and a folder of sockets of its own, whose paths may not be long."""
    root = tmp_path / "ws"
    Folders(root).make()
    (root / "catalog.duckdb").touch()
    with tempfile.TemporaryDirectory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        yield root


def said(root: Path) -> list[str]:
    return [each.what for each in repairs.repairs(root)]


def test_a_folder_that_fills_again_is_made_and_one_that_held_data_is_told(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "cache").rmdir()
    (root / "blobs").rmdir()
    assert repairs.fix(root, sure=False, terminal=False) == 1
    assert not (root / "cache").exists()
    told = capsys.readouterr().out
    assert "blobs/ is gone" in told
    assert f"make {root}/cache" in told
    assert "--fix --yes" in told
    assert repairs.fix(root, sure=True, terminal=False) == 0
    assert (root / "cache").is_dir()
    assert not (root / "blobs").exists()
    assert said(root) == []


def test_a_socket_is_removed_only_where_no_daemon_holds_the_workspace(root: Path) -> None:
    path = environment.socket_path(root)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(path))
    lock = Lock(root)
    assert [each for each in said(root) if "socket" in each] == []
    lock.release()
    assert said(root) == [f"remove {path}, the socket of a daemon that is gone"]
    assert repairs.fix(root, sure=True, terminal=False) == 0
    assert not path.exists()


def test_a_daemon_of_another_version_is_ended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(workspace: Path, action: str) -> dict[str, str]:
        asked.append(action)
        return {"version": "0.0.1"}

    monkeypatch.setattr(repairs, "ask_daemon_of", answer)
    (only,) = repairs.repairs(root)
    assert "end the daemon of version 0.0.1" in only.what
    assert asked == ["status"]
    only.do()
    assert asked == ["status", "stop"]


def test_a_folder_of_sockets_that_is_open_to_others_is_closed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    monkeypatch.setattr(environment, "fallback_runtime_folder", lambda: folder)
    (only,) = [each for each in repairs.repairs(root) if "close" in each.what]
    only.do()
    assert folder.stat().st_mode & 0o777 == 0o700
