"""Programs of ours that tests start, forked from a process that has made their imports: the command line and daemons.

`python -m speciate.server.daemon` spends three seconds of a core on its imports, `python -m speciate.cli` half of one,
and hundreds of them start. A fork is a process of its own as an executed program is: with its own arguments, also in
`/proc`, environment, folder, descriptors, session and terminal. Its daemons are forks in turn. What a start itself is
like (what it imports, which interpreter, what of an environment is passed on) is tested by execution: the fixture
`executed` asks for it, and `subprocess` does it anyway.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import IO, Any, NoReturn

from speciate.environment import preload
from speciate.jobs.zygote import Zygote
from speciate.server import dial

DEVNULL, PIPE, STDOUT = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
_PACKAGES = ("speciate.cli", "speciate.tools", "speciate.resources")
_MODULES = ("speciate.server.service", "rich.console", "rich.logging", "anyio._backends._asyncio")
_ARGUMENT_BYTES = 4096
"""So much room has a fork for its arguments, which are written over its parent's."""
executes = sys.platform != "linux"
"""Whether programs are executed, as they are for users."""
_address = ""
"""Of the process that forks: our own, or the one that forked us."""


class Fork:
    """A fork that runs `[python, (-P), -m, MODULE, *arguments]`. As subprocess.Popen, as far as tests ask for it;
    `terminal`: standard input is a pseudo-terminal, which becomes the one of the process's own session."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        start_new_session: bool = False,
        terminal: bool = False,
    ) -> None:
        self.args, self.returncode = command, None
        request = {
            "command": [*command], "environment": dict(os.environ if env is None else env),
            "cwd": os.fspath(cwd or os.getcwd()), "session": start_new_session, "terminal": terminal,
        }  # fmt: skip
        theirs: list[int] = []
        with contextlib.ExitStack() as stack:
            self.stdin = self._end(stack, theirs, stdin, 0)
            self.stdout = self._end(stack, theirs, stdout, 1)
            self.stderr = self._end(stack, theirs, stderr, 2)
            self._asked = _connected()
            socket.send_fds(self._asked, [json.dumps({"run": json.dumps(request)}).encode()], theirs)
        self._lines = self._asked.makefile("r")
        self.pid = int(json.loads(self._lines.readline())["pid"])

    @staticmethod
    def _end(stack: contextlib.ExitStack, theirs: list[int], asked: Any, number: int) -> IO[bytes] | None:
        """Our end of one of its streams, where that is a pipe; its own end goes to `theirs`."""
        if asked == PIPE:
            reader, writer = os.pipe()
            ours, other = (writer, reader) if number == 0 else (reader, writer)
            stack.callback(os.close, other)
            theirs.append(other)
            return os.fdopen(ours, "wb" if number == 0 else "rb")
        if asked == DEVNULL:
            asked = os.open(os.devnull, os.O_RDWR)
            stack.callback(os.close, asked)
        theirs.append(theirs[1] if asked == STDOUT else number if asked is None else _number(asked))
        return None

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._asked], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            told = self._lines.readline()
            self.returncode = int(json.loads(told)["status"]) if told else -signal.SIGKILL
            self._lines.close()
            self._asked.close()
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(command: Sequence[str], **how: Any) -> Fork | subprocess.Popen[bytes]:
    """The program of `command`, by fork or execution."""
    return subprocess.Popen(command, **how) if executes else Fork(command, **how)


def run(
    command: Sequence[str], *, given: str = "", timeout: float = 60.0, **how: Any
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run with captured text. It reads `given`, less than 64 KiB, from a pipe."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as pipe:
        pipe.write(given)
    with os.fdopen(reader) as stdin, tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        process = start(command, stdin=stdin, stdout=said, stderr=complained, **how)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        shown = [(file.seek(0), file.read())[1] for file in (said, complained)]
    return subprocess.CompletedProcess(command, status, *shown)


def _number(stream: int | IO[Any]) -> int:
    return stream if isinstance(stream, int) else stream.fileno()


def _connected() -> socket.socket:
    """To the process that forks, which is started where there is none; it waits in line for the imports."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(_address)
            return connection
        connection.close()
        _start()
    raise AssertionError("the process that forks did not start")


def _start() -> None:
    global _address  # noqa: PLW0603 - one for the whole process
    folder = tempfile.TemporaryDirectory(prefix="forks-")
    atexit.register(folder.cleanup)
    _address = f"{folder.name}/socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(_address)
        listener.listen(64)
        code = f"from tests.forks import serve; serve({listener.fileno()}, {_address!r}, {os.getpid()})"
        server = subprocess.Popen(
            [sys.executable, "-c", code.ljust(_ARGUMENT_BYTES)], pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[1],
        )  # fmt: skip
    atexit.register(_end, server)


def _end(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.wait()


class Forks(Zygote):
    """Forks that become programs."""

    def _be_child(self, run: str, descriptors: list[int]) -> NoReturn:
        request = json.loads(run)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        if request["session"] or request["terminal"]:
            os.setsid()
        if request["terminal"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        tempfile.tempdir = None  # as that environment says
        sys.stdin, sys.stdout, sys.stderr = _opened(0), _opened(1), _opened(2)
        _show_as(request["command"])
        module, *arguments = request["command"][request["command"].index("-m") + 1 :]
        sys.argv = [module, *arguments]
        os._exit(_status_of(module))


def _status_of(module: str) -> int:
    """Run it as a program to its end, but for the interpreter's: to take apart what was imported would copy it all."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as the interpreter shows it
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # whoever read it is gone
            stream.flush()
    return status


def _opened(number: int) -> Any:
    reads = number == 0
    at_once = "PYTHONUNBUFFERED" in os.environ or number == 2
    return open(
        number, "r" if reads else "w", closefd=False, encoding="utf-8",
        errors="backslashreplace" if number == 2 else "strict", buffering=1 if at_once or os.isatty(number) else -1,
    )  # fmt: skip


def _show_as(command: Sequence[str]) -> None:
    """Write the command over the arguments with which this process's parent was started, where `/proc` shows them."""
    begin, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    line = "\0".join(command).encode()[: end - begin - 1]
    ctypes.memmove(begin, line.ljust(end - begin, b"\0"), end - begin)


def serve(listener: int, address: str, parent: int) -> None:
    """Fork until the process that tests is gone."""
    global _address  # noqa: PLW0603 - forks start their daemons here
    _address = address
    watch = os.pidfd_open(parent)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    preload([*_MODULES, *(name for package in _PACKAGES for name in _modules(package))])
    importlib.import_module("speciate.server.mcp.app").offered_tools()  # keeps their schemas
    start_daemons_here()
    Forks(socket.socket(fileno=listener), lambda: Path(address).unlink(missing_ok=True), watch).serve()


def _modules(package: str) -> list[str]:
    path = importlib.import_module(package).__path__
    return [module.name for module in pkgutil.iter_modules(path, f"{package}.") if not module.name.endswith("__main__")]


def start_daemons_here() -> None:
    """From now on, daemons that this process's calls start are forks, too."""
    dial.subprocess = SimpleNamespace(Popen=start, DEVNULL=DEVNULL, PIPE=PIPE, STDOUT=STDOUT)  # type: ignore[assignment]
