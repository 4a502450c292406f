"""What a caged process can and cannot do. Each attempt is a real process of the interpreter that runs the tests."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.sandbox import Limits, Sandbox, SandboxedProcess, is_complete, kernel, start
from speciate.sandbox.kernel import missing_layers

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the cage")


@contextlib.contextmanager
def caged(code: str, cage: Sandbox) -> Iterator[SandboxedProcess]:
    process = start([sys.executable, "-I", "-c", code], cage)
    try:
        yield process
    finally:
        process.kill()


def outcome(code: str, cage: Sandbox) -> str:
    """What the code printed, or the name of what it died of."""
    wrapped = f"try:\n    {code}\n    print('done')\nexcept BaseException as error:\n    print(type(error).__name__)"
    with caged(wrapped, cage) as process:
        return process.stdout.read().decode().strip()


@pytest.fixture
def cage(tmp_path: Path) -> Sandbox:
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "file").write_text("content")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "own").mkdir()
    return Sandbox((tmp_path / "read",), tmp_path / "own", Limits(memory_mb=500, open_files=32, file_mb=1))


def test_a_listed_folder_can_be_read_and_not_written(cage: Sandbox) -> None:
    file = cage.readable[0] / "file"
    assert outcome(f"print(open({str(file)!r}).read())", cage) == "content\ndone"
    assert outcome(f"open({str(file)!r}, 'a')", cage) == "PermissionError"
    assert outcome(f"__import__('os').truncate({str(file)!r}, 0)", cage) == "PermissionError"
    assert outcome(f"__import__('os').remove({str(file)!r})", cage) == "PermissionError"


def test_nothing_else_can_be_read(cage: Sandbox) -> None:
    secret = cage.writable.parent / "secret"
    assert outcome(f"open({str(secret)!r})", cage) == "PermissionError"
    assert outcome(f"__import__('os').symlink({str(secret)!r}, 'link'); open('link').read()", cage) == "PermissionError"
    assert outcome("open('/etc/shadow')", cage) == "PermissionError"
    assert outcome(f"open('/proc/{os.getpid()}/environ', 'rb').read()", cage) != "done"


def test_its_own_folder_is_writable_and_where_it_works(cage: Sandbox) -> None:
    assert outcome("open('made', 'w').write('x')", cage) == "done"
    assert (cage.writable / "made").read_text() == "x"


def test_a_file_cannot_grow_beyond_its_limit(cage: Sandbox) -> None:
    assert outcome("open('big', 'wb').write(bytes(3_000_000))", cage) != "done"
    assert (cage.writable / "big").stat().st_size <= 1_048_576


@pytest.mark.parametrize(
    "attempt",
    [
        "__import__('socket').create_connection(('127.0.0.1', 22), 1)",
        "__import__('socket').socket(2, 2).sendto(b'x', ('127.0.0.1', 9))",
        "__import__('socket').socket(2, 3, 1)",
    ],
)
def test_there_is_no_network(cage: Sandbox, attempt: str) -> None:
    assert outcome(attempt, cage) in ("PermissionError", "ConnectionRefusedError", "OSError")


def test_there_are_no_other_processes(cage: Sandbox) -> None:
    assert outcome("__import__('os').fork()", cage) == "BlockingIOError"
    assert outcome(f"__import__('os').kill({os.getpid()}, 0)", cage) == "PermissionError"


def test_memory_beyond_the_limit_ends_the_process(cage: Sandbox) -> None:
    assert outcome("bytearray(900_000_000)", cage) in ("", "MemoryError")


def test_open_files_are_limited(cage: Sandbox) -> None:
    assert outcome("[open('f%d' % i, 'w') for i in range(100)]", cage) == "OSError"


def test_cpu_time_is_limited(cage: Sandbox) -> None:
    busy = Sandbox(cage.readable, cage.writable, Limits(cpu_seconds=1))
    assert outcome("while True: pass", busy) == ""


def test_it_sees_a_clean_environment_and_only_its_pipes(cage: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    read, write = os.pipe()
    os.set_inheritable(read, True)
    try:
        assert "SOME_TOKEN" not in outcome("print(dict(__import__('os').environ))", cage)
        assert outcome("print(sorted(map(int, __import__('os').listdir('/proc/self/fd')))[:-1])", cage).startswith(
            "[0, 1, 2]"
        )
    finally:
        os.close(read)
        os.close(write)


def test_it_lives_on_when_the_thread_that_asked_for_it_ends(cage: Sandbox) -> None:
    started: list[SandboxedProcess] = []
    echo = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"
    thread = threading.Thread(target=lambda: started.append(start([sys.executable, "-I", "-c", echo], cage)))
    thread.start()
    thread.join()
    process = started[0]
    try:
        process.stdin.write(b"still here\n")
        assert process.stdout.read(100) == b"STILL HERE\n"
    finally:
        process.kill()


def test_killing_reaps_and_can_be_repeated(cage: Sandbox) -> None:
    with caged("while True: pass", cage) as process:
        process.kill()
        process.kill()
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


def test_a_kernel_without_the_cage_is_refused_unless_the_settings_allow_it(
    cage: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_landlock_abi", lambda: 1)
    with pytest.raises(SpeciateError, match="cannot sandbox") as refused:
        start([sys.executable, "-c", "pass"], cage)
    assert refused.value.code is Code.UNAVAILABLE
    assert missing_layers() == ["truncation", "network"]
    process = start([sys.executable, "-I", "-c", "print('free')"], cage, "where_possible")
    assert process.stdout.read() == b"free\n"
    process.kill()
