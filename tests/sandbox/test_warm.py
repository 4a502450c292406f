"""Forks of a warm parent: as confined, as limited and as mortal as a program of its own, and they share no request."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from speciate.errors import SpeciateError
from speciate.sandbox import Limits, Sandbox, SandboxedProcess, is_complete, process, start, warm

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox")
ECHOES = "import sys\nprint(sys.stdin.readline(), end='', flush=True)"
SLEEPS = "import time\nprint('up', flush=True)\ntime.sleep(600)"


@pytest.fixture(autouse=True, scope="module")
def few_imports() -> Iterator[None]:
    """A parent of this file's own, which starts in a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "MODULES", ("speciate.sandbox.serve", "numpy"))
        patch.setattr(warm, "_owned", {})
        patch.setattr(warm, "_given", {})
        yield


def fork(code: str, folder: Path, limits: Limits = Limits(), *readable: Path) -> SandboxedProcess:  # noqa: B008
    made = start([sys.executable, "-I", "-c", code], Sandbox(readable, folder, limits, fork=True))
    assert made.forked
    return made


def said(code: str, folder: Path, limits: Limits = Limits()) -> Any:  # noqa: B008
    made = fork(f"import json\n{code}\nprint(json.dumps(found))", folder, limits)
    try:
        return json.loads(made.stdout.read())
    finally:
        made.kill()


def parent_of(made: SandboxedProcess) -> psutil.Process:
    parent = psutil.Process(made.pid).parent()
    assert parent is not None
    assert "speciate.sandbox.warm_parent" in parent.cmdline()
    return parent


def ends(pid: int, seconds: float = 120) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_it_talks_and_its_end_is_known(tmp_path: Path) -> None:
    made = fork(ECHOES, tmp_path)
    made.stdin.write(b"here\n")
    assert made.stdout.read() == b"here\n"
    assert made.ending().how == "it ended with code 0"
    made.kill()
    made.kill()


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("raise SystemExit(3)", "it ended with code 3"),
        ("raise ValueError('the last word')", "it ended with code 1"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV ended it"),
    ],
)
def test_every_end_is_told_as_of_a_program(
    code: str, how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = fork(code, tmp_path)
    made.stdout.read()
    ending = made.ending()
    made.kill()
    assert ending.how == how
    if "last word" in code:
        assert ending.last[-1] == "ValueError: the last word"
        assert "ValueError: the last word" in capfd.readouterr().err


def test_it_has_nothing_of_its_parents_or_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "of ours")
    code = """
        import os, sys
        found = {
            "environment": sorted(os.environ), "home": os.environ["HOME"], "here": os.getcwd(), "argv": sys.argv,
            "descriptors": [
                os.readlink(path)
                for path in (f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd") if int(n) > 2)
                if os.path.lexists(path)  # not that of the listing
            ],
            "session": os.getsid(0) == os.getpid(),
        }
    """
    found = said(textwrap.dedent(code), tmp_path)
    expected = {*process._ENVIRONMENT, "HOME", "TMPDIR"}
    assert set(found["environment"]) == expected
    assert (found["home"], found["here"]) == (str(tmp_path), str(tmp_path))
    assert found["argv"] == ["-c"]
    assert all(path.startswith("/proc/") for path in found["descriptors"]), found["descriptors"]
    assert found["session"]


def test_its_command_line_is_its_own(tmp_path: Path) -> None:
    made = fork(SLEEPS, tmp_path)
    made.stdout.readline()
    line = [part for part in psutil.Process(made.pid).cmdline() if part]
    parent = parent_of(made)
    made.kill()
    assert line[:3] == [sys.executable, "-I", "-c"]
    assert line[3] in SLEEPS
    assert "speciate.sandbox.warm_parent" in parent.cmdline()


def test_of_proc_it_sees_itself_and_the_machine(tmp_path: Path) -> None:
    """Nothing of other processes, mounts and the network; names that were asked for before stay known."""
    code = f"""
        import os
        found = dict()
        for name in ("self/status", "self/cgroup", "meminfo", "self/net/unix", "self/mountinfo", "self/task",
                     "self/pagemap", "net/tcp", "{os.getpid()}/cmdline", "{os.getpid()}/status", "sys/kernel/hostname"):
            try:
                open("/proc/" + name, "rb").read(1)
                found[name] = True
            except OSError:
                found[name] = False
        try:
            os.listdir("/proc")
            found["list"] = True
        except OSError:
            pass
    """
    found = said(textwrap.dedent(code), tmp_path)
    assert {name for name, seen in found.items() if seen} == {"self/status", "self/cgroup", "meminfo"}


def test_two_forks_draw_other_numbers(tmp_path: Path) -> None:
    code = "import random, numpy, uuid\nfound = [random.random(), numpy.random.rand(), str(uuid.uuid4())]"
    first, second = (said(code, tmp_path) for _ in range(2))
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_the_parent_holds_no_secret_and_nothing_that_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is in its memory, which every later fork has a copy of."""
    monkeypatch.setenv("A_SECRET", "secret-of-ours-0451")
    folder = tmp_path / "folder-of-a-patient-0451"
    folder.mkdir()
    made = fork(SLEEPS, folder, Limits(), folder)
    made.stdout.readline()
    parent = parent_of(made)
    try:
        memory = private_memory(parent.pid)
        assert b"speciate.sandbox.serve" in memory
        assert b"patient-0451" not in memory
        assert b"ours-0451" not in memory
        assert set(parent.environ()) == set(process.PARENT_ENVIRONMENT)
        sockets = [os.readlink(f"/proc/{parent.pid}/fd/{number}") for number in os.listdir(f"/proc/{parent.pid}/fd")]
        kinds = {name.partition(":")[0] for name in sockets}
        assert kinds <= {"socket", "anon_inode", "/dev/null", "pipe"}
        assert kinds & {"socket"}
    finally:
        made.kill()


def private_memory(pid: int) -> bytes:
    """What it may write to, as far as there is something: to read pages that nothing was written to takes seconds."""
    found, page = bytearray(), os.sysconf("SC_PAGE_SIZE")
    with (
        Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory,
        Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pages,
    ):
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if rights.startswith("rw"):
                low, high = (int(each, 16) for each in place.split("-"))
                pages.seek(low // page * 8)
                there = np.frombuffer(pages.read((high - low) // page * 8), np.uint64) >> np.uint64(62) > 0
                edges = np.flatnonzero(np.diff(there.astype(np.int8), prepend=0, append=0))
                for begin, end in edges.reshape(-1, 2).tolist():
                    memory.seek(low + begin * page)
                    found += memory.read((end - begin) * page) or b""
    return bytes(found)


def test_limits_are_those_that_were_given(tmp_path: Path) -> None:
    code = (
        "import resource as r\n"
        "found = [r.getrlimit(n) for n in (r.RLIMIT_FSIZE, r.RLIMIT_CPU, r.RLIMIT_CORE, r.RLIMIT_NOFILE)]"
    )
    found = said(code, tmp_path, Limits(file_mb=3, cpu_seconds=7, open_files=77))
    assert found == [[3 << 20] * 2, [7, 7], [0, 0], [77, 77]]


@pytest.mark.parametrize(
    "takes",
    [
        "bytearray(400 << 20)",
        "mmap.mmap(-1, 400 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
        "mmap.mmap(-1, 400 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)",
        "mmap.mmap(-1, 400 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100)",
        "os.memfd_create('x')",
    ],
)
def test_memory_that_is_not_there_cannot_be_had_in_any_way(takes: str, tmp_path: Path) -> None:
    code = f"""
import mmap, os
some = bytearray(100 << 20)
try:
    more = {takes}
    found = "has it"
except (MemoryError, OSError) as error:
    found = type(error).__name__
"""
    assert said(code, tmp_path, Limits(memory_mb=300)) != "has it"


def test_it_makes_threads_and_no_process(tmp_path: Path) -> None:
    code = """
import os, subprocess, threading
done = []
thread = threading.Thread(target=done.append, args=(1,))
thread.start()
thread.join()
found = [done]
for attempt in (os.fork, lambda: subprocess.run(["/bin/true"]), lambda: os.execv("/bin/true", ["true"])):
    try:
        attempt()
        found.append("done")
    except OSError as error:
        found.append(type(error).__name__)
"""
    found = said(code, tmp_path)
    assert found[0] == [1]
    assert "done" not in found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_the_process_that_asked_and_so_does_the_parent(number: signal.Signals, tmp_path: Path) -> None:
    asks = f"""
        import sys, time, psutil
        from pathlib import Path
        from speciate.sandbox import Sandbox, start, warm
        warm.MODULES = ("speciate.sandbox.serve",)
        made = start([sys.executable, "-I", "-c", {SLEEPS!r}], Sandbox((), Path({str(tmp_path)!r}), fork=True))
        print(made.pid, psutil.Process(made.pid).ppid(), made.forked, flush=True)
        time.sleep(600)
    """
    asking = subprocess.Popen([sys.executable, "-c", textwrap.dedent(asks)], stdout=subprocess.PIPE)
    assert asking.stdout is not None
    pid, parent, forked = asking.stdout.readline().split()
    assert forked == b"True"
    assert int(parent) != asking.pid
    asking.send_signal(number)
    asking.wait(10)
    asking.stdout.close()
    assert ends(int(pid))
    assert ends(int(parent))


def test_it_dies_with_its_parent_and_the_next_one_has_another(tmp_path: Path) -> None:
    made = fork(SLEEPS, tmp_path)
    made.stdout.readline()
    parent = parent_of(made)
    parent.kill()
    assert ends(made.pid)
    assert made.stdout.read() == b""
    assert made.ending().how == "its parent ended, and it with it"
    made.kill()
    again = fork(ECHOES, tmp_path)
    assert parent_of(again).pid != parent.pid
    again.kill()


def test_after_a_crash_the_next_fork_has_another_layout_of_addresses(tmp_path: Path) -> None:
    """Whoever tries addresses learns nothing from fork to fork; those that live go on."""
    code = "import ctypes\nfound = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, 'Py_Version'))"
    lives = fork(ECHOES, tmp_path)
    before = [said(code, tmp_path) for _ in range(2)]
    crashes = fork("import ctypes, sys; sys.stdin.readline(); ctypes.string_at(0)", tmp_path)
    assert parent_of(lives).pid == parent_of(crashes).pid
    crashes.stdin.write(b"now\n")
    crashes.stdout.read()
    assert crashes.ending().how == "SIGSEGV ended it"
    crashes.kill()
    after = said(code, tmp_path)
    assert before == [before[0]] * 2
    assert after != before[0]
    lives.stdin.write(b"here\n")
    assert lives.stdout.read() == b"here\n"
    lives.kill()


@pytest.mark.parametrize("room", [0, 1])
def test_a_parent_that_may_open_no_more_files_is_replaced_and_its_forks_live(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for a connection, or for it alone."""
    monkeypatch.setattr(warm, "_owned", {})
    lives = fork(ECHOES, tmp_path)
    parent = parent_of(lives)
    numbers = {int(name) for name in os.listdir(f"/proc/{parent.pid}/fd")}
    free = [number for number in range(len(numbers) + 2) if number not in numbers]
    resource.prlimit(parent.pid, resource.RLIMIT_NOFILE, (free[room], resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    asked = [start([sys.executable, "-I", "-c", ECHOES], Sandbox((), tmp_path, fork=True)) for _ in range(2)]
    assert parent_of(asked[1]) != parent
    for each in (*asked, lives):
        each.stdin.write(b"here\n")
        assert each.stdout.read() == b"here\n"
        each.kill()
    assert ends(parent.pid)


@pytest.mark.parametrize("room", range(8))
def test_who_may_open_no_more_files_loses_none_over_the_question(room: int, tmp_path: Path) -> None:
    """Or a process that was once at its limit would never come below it again."""
    fork(ECHOES, tmp_path).kill()
    before, limits = psutil.Process().num_fds(), resource.getrlimit(resource.RLIMIT_NOFILE)
    numbers = {int(name) for name in os.listdir("/proc/self/fd")}
    free = [number for number in range(len(numbers) + 8) if number not in numbers]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[room], limits[1]))
    try:
        with contextlib.suppress(OSError, SpeciateError):
            start([sys.executable, "-I", "-c", ECHOES], Sandbox((), tmp_path, fork=True)).kill()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert psutil.Process().num_fds() == before


def test_a_module_that_fails_as_it_is_imported_does_not_end_forks_that_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "_owned", {})
    monkeypatch.setattr(warm, "FAMILIES", {"broken": ("sys:intern",)})  # TypeError: it wants an argument
    lives = fork(ECHOES, tmp_path)
    made = start([sys.executable, "-I", "-c", ECHOES], Sandbox((), tmp_path, fork=True, family="broken"))
    assert parent_of(made) == parent_of(lives)
    for each in (made, lives):
        each.stdin.write(b"here\n")
        assert each.stdout.read() == b"here\n"
        each.kill()


def test_a_stopped_one_is_killed_from_another_thread(tmp_path: Path) -> None:
    made = fork(SLEEPS, tmp_path)
    made.stdout.readline()
    os.kill(made.pid, signal.SIGSTOP)
    thread = threading.Thread(target=made.interrupt)
    thread.start()
    assert made.stdout.read() == b""
    thread.join()
    made.kill()
    assert ends(made.pid)


def test_many_threads_share_one_parent(tmp_path: Path) -> None:
    made: list[SandboxedProcess] = []
    threads = [threading.Thread(target=lambda: made.append(fork(SLEEPS, tmp_path))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({parent_of(each).pid for each in made}) == 1
    for each in made:
        each.kill()
    assert all(ends(each.pid) for each in made)


def test_nothing_is_left_of_those_that_ended(tmp_path: Path) -> None:
    fork(ECHOES, tmp_path).kill()
    keeps = fork(SLEEPS, tmp_path)
    me, parent = psutil.Process(), parent_of(keeps)

    def held() -> tuple[int, ...]:
        return me.num_fds(), me.num_threads(), parent.num_fds(), len(parent.children())

    before = held()
    for _ in range(20):
        fork(ECHOES, tmp_path).kill()
    until = time.monotonic() + 120
    while held() != before and time.monotonic() < until:  # the parent closes its end after it has told
        time.sleep(0.02)
    assert held() == before
    keeps.kill()


def test_others_code_and_what_is_no_python_of_ours_is_never_a_fork(tmp_path: Path) -> None:
    for argv, sandbox in (
        ([sys.executable, "-I", "-c", ECHOES], Sandbox((), tmp_path, code=True, fork=True)),
        ([sys.executable, "-I", "-c", ECHOES], Sandbox((), tmp_path)),
        ([sys.executable, "-I", "-c", ECHOES], Sandbox((), tmp_path, Limits(processes=2), fork=True)),
        (["/bin/true"], Sandbox((), tmp_path, fork=True)),
    ):
        made = start(argv, sandbox)
        assert not made.forked
        made.kill()


def test_without_a_parent_it_is_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot make its imports is not tried again and again; and a run whose daemon has none uses none."""
    started = []

    class Counting(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *given: Any, **more: Any) -> None:
            started.append(given)
            super().__init__(*given, **more)

    for told in (False, True):
        monkeypatch.setattr(warm, "_owned", {})
        monkeypatch.setattr(warm, "MODULES", ("speciate.no_such_module",))
        monkeypatch.setattr(subprocess, "Popen", Counting)
        if told:
            warm.use(None)
        for _ in range(2):
            made = start([sys.executable, "-I", "-c", ECHOES], Sandbox((), tmp_path, fork=True))
            made.stdin.write(b"here\n")
            assert made.stdout.read() == b"here\n"
            assert not made.forked
            made.kill()
    assert len(started) == 1


def test_another_process_uses_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run does its daemon's."""
    monkeypatch.setattr(warm, "_given", {})
    asks = f"""
        import sys, psutil
        from pathlib import Path
        from speciate.sandbox import Sandbox, start, warm
        warm.use(sys.argv[1])
        made = start([sys.executable, "-I", "-c", {SLEEPS!r}], Sandbox((), Path({str(tmp_path)!r}), fork=True))
        made.stdout.readline()
        print(psutil.Process(made.pid).parent().ppid(), flush=True)
        made.kill()
    """
    address = process.warm_address()
    assert address is not None
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(asks), address], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == f"{os.getpid()}\n", done.stderr


_EAGER = """
import os, signal, socket, sys
from speciate.sandbox import warm_parent
settle = signal.signal
def settle_and_ask(number, handler):
    settle(number, handler)
    if number == signal.SIGTERM:
        signal.raise_signal(number)
signal.signal = settle_and_ask
bound = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
bound.bind(sys.argv[1])
bound.listen()
listener = warm_parent.Listener(bound, lambda connection, parent: os._exit(1))
warm_parent.WarmParent([listener], os.pidfd_open(os.getppid()), [sys.argv[1]]).serve()
"""


def test_a_parent_that_is_asked_to_end_while_it_starts_ends(tmp_path: Path) -> None:
    """Whoever stops waits for it: for five minutes, were the request lost."""
    command = [sys.executable, "-c", _EAGER, str(tmp_path / "s")]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


_LATE = """
import json, os, signal, socket, sys, threading, time
from speciate.sandbox import warm_parent
asked = threading.Event()
os.register_at_fork(after_in_child=lambda: time.sleep(0.3))  # as where the processor is another's

def become(connection, parent):
    time.sleep(10)

def ask():
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(sys.argv[1])
    told = json.loads(socket.recv_fds(connection, 4096, 1)[0])
    os.kill(told["pid"], signal.SIGTERM)
    print(json.loads(connection.recv(4096))["status"], parent._listens, flush=True)
    os._exit(0)

bound = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
bound.bind(sys.argv[1])
bound.listen()
parent = warm_parent.WarmParent([warm_parent.Listener(bound, become)], os.pidfd_open(os.getppid()), [sys.argv[1]])
threading.Thread(target=ask).start()
parent.serve()
"""


def test_a_fork_that_is_asked_to_end_before_it_runs_ends_and_its_parent_does_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LATE, str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == f"{-signal.SIGTERM} True\n", done.stderr
