"""How zygotes end: whoever closes the executor asks those of every profile, and none leaves its children alone."""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate import worker
from speciate.jobs.executors import LocalExecutor
from speciate.jobs.zygote import PRELOADS, Zygote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="zygotes need Linux")


@pytest.mark.parametrize("profile", PRELOADS)
def test_closing_asks_the_zygotes_of_every_profile_to_end_whoever_started_them(tmp_path: Path, profile: str) -> None:
    executor = LocalExecutor(tmp_path)
    address = executor._address(profile)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        listener.settimeout(5)
        try:
            executor.close()
            connection, _ = listener.accept()
            with connection:
                assert json.loads(connection.recv(1000)) == {"end": True}
        finally:
            Path(address).unlink()


@pytest.fixture
def zygote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A process that listens at `z`, and leaves by unlinking it; its children last until there is a file `over`."""

    def work(run: str) -> int:
        while not (tmp_path / "over").exists():
            time.sleep(0.01)
        return 7

    monkeypatch.setattr(worker, "main", work)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "z"))
    listener.listen()
    with subprocess.Popen(["sleep", "60"]) as daemon:
        watch = os.pidfd_open(daemon.pid)
        pid = os.fork()
        if pid == 0:
            try:
                Zygote(listener, (tmp_path / "z").unlink, watch).serve()
            finally:
                os._exit(0)
        listener.close()
        os.close(watch)
        (tmp_path / "daemon").write_text(str(daemon.pid))
        yield pid
        daemon.kill()
    (tmp_path / "over").touch()
    if os.waitpid(pid, os.WNOHANG)[0] == 0:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _asked(address: Path, question: dict[str, object], *descriptors: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(address))
    told = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([json.dumps(question).encode() + b"\n"], told)
    return connection


def _until(found: object) -> None:
    end = time.monotonic() + 10
    while not found():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_one_that_is_asked_to_end_takes_no_more_runs_and_stays_until_its_children_have_ended(
    zygote: int, tmp_path: Path
) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    with _asked(tmp_path / "z", {"run": str(tmp_path)}, null, null) as run, run.makefile("r") as lines:
        assert json.loads(lines.readline())["pid"]
        _asked(tmp_path / "z", {"end": True}).close()
        _until(lambda: not (tmp_path / "z").exists())
        assert not _ended(zygote)
        (tmp_path / "over").touch()
        assert json.loads(lines.readline()) == {"status": 7}
    os.close(null)
    _until(lambda: _ended(zygote))


def test_one_without_children_ends_at_once(zygote: int, tmp_path: Path) -> None:
    _asked(tmp_path / "z", {"end": True}).close()
    _until(lambda: _ended(zygote))
    assert not (tmp_path / "z").exists()


def test_one_whose_daemon_died_takes_no_more_runs_and_ends_with_those_that_it_has(zygote: int, tmp_path: Path) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    with _asked(tmp_path / "z", {"run": str(tmp_path)}, null, null) as run, run.makefile("r") as lines:
        assert json.loads(lines.readline())["pid"]
        os.kill(int((tmp_path / "daemon").read_text()), signal.SIGKILL)
        _until(lambda: not (tmp_path / "z").exists())
        assert not _ended(zygote)
        (tmp_path / "over").touch()
        assert json.loads(lines.readline()) == {"status": 7}
    os.close(null)
    _until(lambda: _ended(zygote))


def test_one_whose_daemon_died_before_it_looked_does_not_begin(tmp_path: Path) -> None:
    address = tmp_path / "z"
    program = [sys.executable, "-m", "speciate.jobs.zygote", str(tmp_path), "classical", str(address), "1"]
    assert subprocess.run(program, check=False, timeout=60).returncode == 0
    assert not address.exists()
