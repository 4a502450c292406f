"""What a sandboxed process can and cannot do. Each attempt is a real process of the interpreter that runs the tests."""

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

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox")


@contextlib.contextmanager
def sandboxed(code: str, sandbox: Sandbox) -> Iterator[SandboxedProcess]:
    process = start([sys.executable, "-I", "-c", code], sandbox)
    try:
        yield process
    finally:
        process.kill()


def outcome(code: str, sandbox: Sandbox) -> str:
    """What the code printed, or the name of what it died of."""
    wrapped = f"try:\n    {code}\n    print('done')\nexcept BaseException as error:\n    print(type(error).__name__)"
    with sandboxed(wrapped, sandbox) as process:
        return process.stdout.read().decode().strip()


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "file").write_text("content")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "own").mkdir()
    return Sandbox((tmp_path / "read",), tmp_path / "own", Limits(memory_mb=500, open_files=32, file_mb=1))


def test_a_listed_folder_can_be_read_and_not_written(sandbox: Sandbox) -> None:
    file = sandbox.readable[0] / "file"
    assert outcome(f"print(open({str(file)!r}).read())", sandbox) == "content\ndone"
    assert outcome(f"open({str(file)!r}, 'a')", sandbox) == "PermissionError"
    assert outcome(f"__import__('os').truncate({str(file)!r}, 0)", sandbox) == "PermissionError"
    assert outcome(f"__import__('os').remove({str(file)!r})", sandbox) == "PermissionError"


def test_nothing_else_can_be_read(sandbox: Sandbox) -> None:
    secret = sandbox.writable.parent / "secret"
    assert outcome(f"open({str(secret)!r})", sandbox) == "PermissionError"
    assert (
        outcome(f"__import__('os').symlink({str(secret)!r}, 'link'); open('link').read()", sandbox) == "PermissionError"
    )
    assert outcome("open('/etc/shadow')", sandbox) == "PermissionError"
    assert outcome(f"open('/proc/{os.getpid()}/environ', 'rb').read()", sandbox) != "done"


def test_its_own_folder_is_writable_and_where_it_works(sandbox: Sandbox) -> None:
    assert outcome("open('made', 'w').write('x')", sandbox) == "done"
    assert (sandbox.writable / "made").read_text() == "x"


def test_a_file_cannot_grow_beyond_its_limit(sandbox: Sandbox) -> None:
    assert outcome("open('big', 'wb').write(bytes(3_000_000))", sandbox) != "done"
    assert (sandbox.writable / "big").stat().st_size <= 1_048_576


@pytest.mark.parametrize(
    "attempt",
    [
        "__import__('socket').create_connection(('127.0.0.1', 22), 1)",
        "__import__('socket').socket(2, 2).sendto(b'x', ('127.0.0.1', 9))",
        "__import__('socket').socket(2, 3, 1)",
    ],
)
def test_there_is_no_network(sandbox: Sandbox, attempt: str) -> None:
    assert outcome(attempt, sandbox) in ("PermissionError", "ConnectionRefusedError", "OSError")


def test_there_are_no_other_processes(sandbox: Sandbox) -> None:
    assert outcome("__import__('os').fork()", sandbox) == "BlockingIOError"
    assert outcome(f"__import__('os').kill({os.getpid()}, 0)", sandbox) == "PermissionError"


def test_memory_beyond_the_limit_ends_the_process(sandbox: Sandbox) -> None:
    assert outcome("bytearray(900_000_000)", sandbox) in ("", "MemoryError")


def test_open_files_are_limited(sandbox: Sandbox) -> None:
    assert outcome("[open('f%d' % i, 'w') for i in range(100)]", sandbox) == "OSError"


def test_cpu_time_is_limited(sandbox: Sandbox) -> None:
    busy = Sandbox(sandbox.readable, sandbox.writable, Limits(cpu_seconds=1))
    assert outcome("while True: pass", busy) == ""


def test_it_sees_a_clean_environment_and_only_its_pipes(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    read, write = os.pipe()
    os.set_inheritable(read, True)
    try:
        assert "SOME_TOKEN" not in outcome("print(dict(__import__('os').environ))", sandbox)
        assert outcome("print(sorted(map(int, __import__('os').listdir('/proc/self/fd')))[:-1])", sandbox).startswith(
            "[0, 1, 2]"
        )
    finally:
        os.close(read)
        os.close(write)


def test_it_lives_on_when_the_thread_that_asked_for_it_ends(sandbox: Sandbox) -> None:
    started: list[SandboxedProcess] = []
    echo = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"
    thread = threading.Thread(target=lambda: started.append(start([sys.executable, "-I", "-c", echo], sandbox)))
    thread.start()
    thread.join()
    process = started[0]
    try:
        process.stdin.write(b"still here\n")
        assert process.stdout.read(100) == b"STILL HERE\n"
    finally:
        process.kill()


def test_killing_reaps_and_can_be_repeated(sandbox: Sandbox) -> None:
    with sandboxed("while True: pass", sandbox) as process:
        process.kill()
        process.kill()
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


def test_a_kernel_without_the_sandbox_is_refused_unless_the_settings_allow_it(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_landlock_abi", lambda: 1)
    with pytest.raises(SpeciateError, match="cannot sandbox") as refused:
        start([sys.executable, "-c", "pass"], sandbox)
    assert refused.value.code is Code.UNAVAILABLE
    assert missing_layers() == ["truncation", "network"]
    process = start([sys.executable, "-I", "-c", "print('free')"], sandbox, "where_possible")
    assert process.stdout.read() == b"free\n"
    process.kill()
