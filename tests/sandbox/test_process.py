"""What becomes of sandboxed processes when their starter dies, forks, or starts hundreds."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from speciate.sandbox import Limits, Sandbox, SandboxedProcess, is_complete, start
from speciate.sandbox import process as sandbox_process

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox")
SLEEPS = [sys.executable, "-I", "-c", "import time\ntime.sleep(600)"]
ECHOES = [sys.executable, "-I", "-c", "import sys\nprint(sys.stdin.readline(), end='', flush=True)"]


def echo(process: SandboxedProcess) -> bytes:
    process.stdin.write(b"here\n")
    try:
        return process.stdout.read(100)
    finally:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_it_dies_with_the_process_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    starts = f"""
        import sys, time
        from pathlib import Path
        from speciate.sandbox import Sandbox, start
        process = start({SLEEPS!r}, Sandbox((), Path({str(tmp_path)!r})))
        print(process.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(starts)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.send_signal(number)
    parent.wait(10)
    parent.stdout.close()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_fork_starts_its_own(tmp_path: Path) -> None:
    """As the children of a zygote do, whose parent may have started some before: its threads are not theirs."""
    forks = f"""
        import os, sys
        from pathlib import Path
        from speciate.sandbox import Sandbox, start
        sandbox = Sandbox((), Path({str(tmp_path)!r}))
        def echo():
            process = start({ECHOES!r}, sandbox)
            process.stdin.write(b"here\\n")
            said = process.stdout.read(100)
            process.kill()
            return said
        assert echo() == b"here\\n"
        for _ in range(2):
            if (child := os.fork()) == 0:
                os._exit(0 if echo() == b"here\\n" else 1)
            assert os.waitpid(child, 0)[1] == 0
        assert echo() == b"here\\n"
        print("ok")
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(forks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ok\n", done.stderr


def test_first_starts_from_many_threads_share_one_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one would end with the call that made it, and what it started with it."""
    monkeypatch.setattr(sandbox_process, "_starters", {})
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(echo(start(ECHOES, Sandbox((), tmp_path))))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"here\n"] * 8
    assert len(sandbox_process._starters) == 1


def test_what_cannot_be_listened_to_does_not_run_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(descriptor: int, name: str) -> None:
        os.close(descriptor)
        raise OSError(24, "Too many open files")

    before = psutil.Process().children(recursive=True)
    monkeypatch.setattr(sandbox_process, "relay", none_left)
    with pytest.raises(OSError, match="Too many"):
        start(SLEEPS, Sandbox((), tmp_path))
    assert psutil.Process().children(recursive=True) == before


def test_our_own_memory_is_not_counted_as_that_of_what_we_start(tmp_path: Path) -> None:
    """Until it runs its program, a sandboxed process is a fork of this one, and has all that this one holds."""
    held = mmap.mmap(-1, 3 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    environment = {f"VARIABLE_{number}": "x" * 3000 for number in range(300)}
    try:
        for _ in range(12):
            process = start(ECHOES, Sandbox((), tmp_path, Limits(memory_mb=512)), environment=environment)
            assert echo(process) == b"here\n"
    finally:
        held.close()


@pytest.mark.parametrize(
    ("code", "how", "last"),
    [
        ("raise ValueError('the last word')", "it ended with code 1", "ValueError: the last word"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV ended it", None),
        ("import os, time; os.close(1); time.sleep(60)", "it still lived", None),
    ],
)
def test_how_it_ended_is_known(code: str, how: str, last: str | None, tmp_path: Path) -> None:
    process = start([sys.executable, "-I", "-c", code], Sandbox((), tmp_path))
    process.stdout.read()
    ending = process.ending()
    process.kill()
    assert ending.how == how
    assert last is None or ending.last[-1] == last


@pytest.mark.slow
def test_after_hundreds_of_starts_nothing_is_left(tmp_path: Path) -> None:
    me, sandbox = psutil.Process(), Sandbox((), tmp_path)
    start(["/bin/true"], sandbox).kill()
    before = (me.num_threads(), me.num_fds(), len(me.children(recursive=True)))
    for number in range(200):
        process = start(["/bin/true"] if number % 2 else SLEEPS, sandbox)
        if number % 2:
            process.stdout.read()
        process.kill()
    assert (me.num_threads(), me.num_fds(), len(me.children(recursive=True))) == before


def test_limits_are_those_that_were_given(tmp_path: Path) -> None:
    shows = "import resource as r\nprint([r.getrlimit(n) for n in (r.RLIMIT_FSIZE, r.RLIMIT_CPU, r.RLIMIT_CORE)])"
    limits = Limits(file_mb=3, cpu_seconds=7)
    process = start([sys.executable, "-I", "-c", "input()\n" + shows], Sandbox((), tmp_path, limits))
    process.stdin.write(b"\n")
    assert process.stdout.read().decode().strip() == str([(3 << 20, 3 << 20), (7, 7), (0, 0)])
    process.kill()


def test_what_it_last_wrote_is_there_when_it_was_killed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    process = start([sys.executable, "-I", "-c", "raise ValueError('the last word')"], Sandbox((), tmp_path))
    process.stdout.read()
    process.kill()
    assert "ValueError: the last word" in capfd.readouterr().err


def test_killing_waits_for_nobody_who_keeps_standard_error_open(tmp_path: Path) -> None:
    forks = "import os, time\nif os.fork():\n    print('x', flush=True)\ntime.sleep(600)"
    process = start([sys.executable, "-I", "-c", forks], Sandbox((), tmp_path, Limits(processes=2)))
    process.stdout.read(1)
    began = time.monotonic()
    process.kill()
    assert time.monotonic() - began < 8
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_sandlocks_own_socket_answers_nobody_of_another_account(tmp_path: Path) -> None:
    """It tells which folders a sandbox may read. Its name is seen by every account of this machine."""
    readable = tmp_path / "patients"
    readable.mkdir()
    before = _abstract_names()
    process = start(SLEEPS, Sandbox((readable,), tmp_path))
    try:
        deadline = time.monotonic() + 120
        mine = ""
        while str(readable) not in mine:  # the sandboxes of other tests have names here, too
            assert time.monotonic() < deadline
            time.sleep(0.02)
            for name in sorted(_abstract_names() - before):
                if name.startswith("@sandlock/0/") and str(readable) not in mine:
                    own, mine = name, _asked_as(0, name[1:])
        others = _asked_as(65534, own[1:])
    finally:
        process.kill()
    assert others in ("", "closed")


def _abstract_names() -> set[str]:
    return {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "@" in line}


def _asked_as(uid: int, name: str) -> str:
    asks = f"""
        import json, os, socket, struct
        os.setgroups([]), os.setgid({uid}), os.setuid({uid})
        question = json.dumps({{"v": 1, "verb": "config", "args": {{}}}}).encode()
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            try:
                line.connect(chr(0) + {name!r})
                line.sendall(struct.pack(">I", len(question)) + question)
                print(line.makefile("rb").read().decode(errors="replace"), end="")
            except (ConnectionError, BrokenPipeError):
                print("closed", end="")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(asks)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout
