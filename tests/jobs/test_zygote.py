"""Zygotes: what their forks are, how they begin and end, and what is left where one dies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from speciate.environment import clean_environment
from speciate.jobs import executors, forks, zygote
from speciate.jobs.executors import LocalExecutor
from speciate.jobs.zygote import PROCESSES, SUPERVISORS, Program
from tests.sandbox.test_warm import private_memory

pytestmark = [pytest.mark.durable, pytest.mark.skipif(sys.platform != "linux", reason="zygotes need Linux")]


@pytest.fixture
def zygotes(tmp_path: Path) -> Iterator[executors._Zygotes]:
    made = executors._Zygotes(tmp_path)
    yield made
    made.close()


def wanted(code: str, cwd: Path, **environment: str) -> Program:
    return Program(
        entry="builtins:exec", arguments=[code], environment=clean_environment() | environment, cwd=str(cwd), streams=3
    )


TELLS = """
import json, os, psutil, signal, sys
me = psutil.Process()
found = {
    "environment": dict(os.environ), "here": os.getcwd(), "leads": os.getsid(0) == os.getpid() == os.getpgid(0),
    "line": [part for part in me.cmdline() if part.strip()], "parent": me.parent().cmdline(),
    "descriptors": [os.readlink(path) for path in (f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd"))
                    if os.path.lexists(path)],
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "end": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "threads": me.num_threads(),
}
json.dump(found, open("told", "w"))
sys.exit(7)
"""
WAITS = "import os, sys, time\nwhile not os.path.exists('over'): time.sleep(0.01)\nsys.exit(5)"


def started(zygotes: executors._Zygotes, family: str, program: Program, *descriptors: int) -> forks.ForkedProgram:
    address = zygotes.address(family)
    assert address is not None
    fork = forks.start(address, program, descriptors)
    assert fork is not None
    return fork


def test_a_fork_has_what_was_asked_for_and_nothing_of_its_parent(
    zygotes: executors._Zygotes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    log, kept = tmp_path / "log", tmp_path / "claim"
    with log.open("w") as out, kept.open("w") as claim, open(os.devnull) as null:
        program = wanted(TELLS, tmp_path, SPECIAL="x")
        fork = started(zygotes, SUPERVISORS, program, null.fileno(), out.fileno(), out.fileno(), claim.fileno())
        assert fork.wait() == 7
    told = json.loads((tmp_path / "told").read_text())
    assert told["environment"] == clean_environment() | {"SPECIAL": "x"}
    assert (told["here"], told["leads"], told["threads"]) == (str(tmp_path), True, 1)
    assert told["line"][:3] == [sys.executable, "-m", "builtins"]
    assert "speciate.jobs.zygote" in told["parent"]
    assert (told["interrupt"], told["end"]) == (True, True)
    files = {path for path in told["descriptors"] if not path.startswith("/proc/")}
    assert files == {"/dev/null", str(log), str(kept)}


def test_it_lives_on_when_who_asked_and_its_zygote_die(zygotes: executors._Zygotes, tmp_path: Path) -> None:
    fork = started(zygotes, SUPERVISORS, wanted(WAITS, tmp_path))
    process = psutil.Process(fork.pid)
    parent = process.parent()
    assert parent is not None
    parent.kill()
    parent.wait(10)
    assert process.is_running()
    (tmp_path / "over").touch()
    assert fork.wait() is None  # nobody saw how
    again = started(zygotes, SUPERVISORS, wanted(WAITS, tmp_path))
    assert again.wait() == 5


def test_a_zygote_reads_nothing_of_what_is_asked(zygotes: executors._Zygotes, tmp_path: Path) -> None:
    folder = tmp_path / "folder-of-a-patient-0451"
    folder.mkdir()
    fork = started(zygotes, SUPERVISORS, wanted(WAITS, folder, A_KEY="sk-planted-0452"))
    parent = psutil.Process(fork.pid).parent()
    assert parent is not None
    memory = private_memory(parent.pid)
    (folder / "over").touch()
    assert fork.wait() == 5
    assert b"speciate.jobs.zygote" in memory
    assert b"patient-0451" not in memory
    assert b"planted-0452" not in memory


def test_one_that_is_let_go_stays_until_its_forks_have_ended(zygotes: executors._Zygotes, tmp_path: Path) -> None:
    fork = started(zygotes, SUPERVISORS, wanted(WAITS, tmp_path))
    parent = psutil.Process(fork.pid).parent()
    address = zygotes.address(SUPERVISORS)
    assert parent is not None
    assert address is not None
    zygotes.close()
    assert not Path(address).exists()
    assert forks.start(address, wanted(WAITS, tmp_path), []) is None
    (tmp_path / "over").touch()
    assert fork.wait() == 5
    until = time.monotonic() + 120
    while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_code_that_changed_on_the_disk_is_forked_from_a_new_zygote(zygotes: executors._Zygotes, tmp_path: Path) -> None:
    """What an update wrote is not mixed with what was imported before it."""

    def parent_now() -> int:
        (tmp_path / "over").unlink(missing_ok=True)
        fork = started(zygotes, SUPERVISORS, wanted(WAITS, tmp_path))
        parent = psutil.Process(fork.pid).ppid()
        (tmp_path / "over").touch()
        assert fork.wait() == 5
        return parent

    first = parent_now()
    assert parent_now() == first
    code = Path(zygote.__file__)
    os.utime(code, ns=(code.stat().st_atime_ns, code.stat().st_mtime_ns + 1))
    assert parent_now() != first


def test_a_supervisor_whose_zygote_cannot_start_is_started_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a fork that never comes: the connection says so."""
    executor, spawned = LocalExecutor(tmp_path), list[Path]()
    monkeypatch.setattr(executor, "_execute_supervisor", spawned.append)
    monkeypatch.setattr(executors._Zygotes, "_start", _fails)
    executor.submit(executors.RunSpec("job-a.1", {"job": "job-a", "workspace": str(tmp_path)}))
    until = time.monotonic() + 120
    while not spawned:
        assert executor.poll(executor.handle("job-a.1")) == executors.Pending()
        assert time.monotonic() < until
    executor.submit(executors.RunSpec("job-b.1", {"job": "job-b", "workspace": str(tmp_path)}))
    assert [path.name for path in spawned] == ["job-a.1", "job-b.1"]
    executor.close()


def _fails(*_: object) -> None:
    raise OSError("no process is left")


def test_a_supervisor_that_was_started_plainly_is_no_zombie_once_its_end_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, before = LocalExecutor(tmp_path), {*psutil.Process().children()}
    monkeypatch.setattr(executors._Zygotes, "ask_for_supervisor", lambda *_: None)
    executor.submit(executors.RunSpec("job-a.1", {"job": "job-a", "workspace": str(tmp_path)}))
    (supervisor,) = {*psutil.Process().children()} - before
    os.waitid(os.P_PID, supervisor.pid, os.WEXITED | os.WNOWAIT)
    assert isinstance(executor.poll(executor.handle("job-a.1")), executors.Ended)
    assert not psutil.pid_exists(supervisor.pid)
    executor.close()


def test_nothing_is_kept_of_a_run_that_was_called_off_before_it_began(tmp_path: Path) -> None:
    executor, run = executors.LocalExecutor(tmp_path), executors.RunSpec("job-a.1", {}, "data")
    executor.cancel(executor.handle(run.id), force=False)
    executor.submit(run)
    assert executor.poll(executor.handle(run.id)) == executors.Gone()
    assert (executor._followed, executor._unseen) == ({}, set())
    executor.close()


def test_one_whose_daemon_died_before_it_looked_does_not_begin(tmp_path: Path) -> None:
    address = str(tmp_path / "z")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listening = [f"{address}={listener.fileno()}"] * len(PROCESSES["plain"])
        program = [sys.executable, "-m", "speciate.jobs.zygote", str(tmp_path), "plain", "1", *listening]
        assert subprocess.run(program, check=False, timeout=60, pass_fds=[listener.fileno()]).returncode == 0


def tell(message: bytes, descriptors: list[int]) -> tuple[executors._ForkedSupervisors, socket.socket]:
    """One that a zygote was asked for, and what it was told of it."""
    asked = executors._ForkedSupervisors()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asked.add("job_a.1", ours)
    socket.send_fds(theirs, [message], descriptors)
    return asked, theirs


@pytest.mark.parametrize("with_pidfd", [True, False])
def test_a_supervisor_that_was_forked_has_not_ended_whether_or_not_its_pidfd_came(with_pidfd: bool) -> None:
    """The kernel leaves it out where no more files may be open."""
    asked, zygote = tell(b'{"pid": 7}', [0] if with_pidfd else [])
    assert not asked.ended("job_a.1")
    assert "job_a.1" in asked
    zygote.send(b'{"status": 0}')
    assert asked.ended("job_a.1")
    assert "job_a.1" not in asked
    zygote.close()


def test_a_supervisor_whose_zygote_is_gone_has_ended() -> None:
    asked, zygote = tell(b'{"pid": 7}', [])
    zygote.close()
    assert asked.ended("job_a.1")


@pytest.mark.parametrize("lacking", ["files", "threads"])
def test_an_engine_starts_where_there_is_no_room_to_listen_for_ends(
    monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def fail(*given: object) -> NoReturn:
        raise OSError(24, "Too many open files") if lacking == "files" else RuntimeError("can't start new thread")

    asked, before = executors._ForkedSupervisors(), len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "pipe2") if lacking == "files" else (threading.Thread, "start")), fail)
        asked.listen(lambda: None)
    assert len(os.listdir("/proc/self/fd")) == before
    asked.close()


def test_who_asks_for_many_at_once_is_never_refused_and_all_their_ends_are_heard() -> None:
    asked, heard, go_on = executors._ForkedSupervisors(), threading.Event(), threading.Event()
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]

    def hold() -> None:
        heard.set()
        assert go_on.wait(30)

    asked.listen(hold)
    asked.add("job_a.1", pairs[0][0])
    pairs[0][1].send(b'{"status": 0}')
    assert heard.wait(30)  # it looks at no pipe until it may go on
    for _ in range(70_000):
        asked.add("job_b.1", pairs[1][0])
    heard.clear()
    go_on.set()
    pairs[1][1].send(b'{"status": 0}')
    assert heard.wait(30)
    asked.close()
    for pair in pairs:
        pair[1].close()
