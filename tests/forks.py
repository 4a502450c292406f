"""Programs of ours that tests start, forked from a process that has made their imports: the command line, daemons, and
what those start: zygotes, warm parents, deployments. Supervisors and workers are forks of zygotes anyway.

`python -m speciate.server.daemon` spends three seconds of a core on its imports, `python -m speciate.cli` half of one,
a warm parent and a zygote one to four each, and hundreds of them start. A fork is a process of its own as an executed
program is: with its own arguments, also in `/proc`, environment, folder, descriptors, session and terminal. What a
start itself is like (what it imports, which interpreter, what of an environment is passed on) is tested by execution:
the fixture `executed` asks for it, and `subprocess` does it anyway.

Each family of programs has a process that forks it, with the libraries of that family; all but the first are forks of
the first, made when somebody asks for such a program. The first adopts what its programs leave behind, a daemon that
has detached itself, say, and reaps it at once: the init of a container may take seconds, in which it seems to live.
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
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType, SimpleNamespace, TracebackType
from typing import IO, Any, NoReturn

from speciate import faults
from speciate.cli import sealed_keys
from speciate.environment import LIBRARIES, preload
from speciate.jobs import executors, zygote
from speciate.jobs.kinds import KINDS, Kinds
from speciate.sandbox import warm
from speciate.server import dial
from speciate.serving import deployments
from speciate.training import provenance
from speciate.training.planning import estimates
from tests.brief_costs import measure_briefly

DEVNULL, PIPE, STDOUT = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
_PACKAGES = ("speciate.cli", "speciate.tools", "speciate.resources")
_MODULES = (
    "speciate.server.service", "rich.console", "rich.logging", "anyio._backends._asyncio",
    "speciate.predictions.maintenance",
)  # fmt: skip
_FAMILIES: dict[str, tuple[str, ...]] = {
    "programs": (), "classical": (*warm.MODULES, *zygote.modules("plain"), "speciate.serving.process"),
    "torch": zygote.modules("torch"), "networks": zygote.modules("networks"),
}  # fmt: skip
"""Family -> what the process that forks it imports beside what programs need."""
_CLASSICAL_PROGRAMS = {"speciate.sandbox.warm_parent", "speciate.serving.process"}
_PR_SET_CHILD_SUBREAPER = 36
KEY_COST = 1 << 10
"""Of scrypt, which takes half a second of a core to open a person's key."""
_ARGUMENT_BYTES = 4096
"""So much room has a fork for its arguments, which are written over its parent's."""
executes = sys.platform != "linux"
"""Whether programs are executed, as they are for users."""
_folder = ""
"""Of the sockets of the processes that fork, by family: our own, or of those that forked us."""


class Fork:
    """A fork that runs `[python, (-P), -m, MODULE, *arguments]`. As subprocess.Popen, as far as tests ask for it;
    `terminal`: standard input is a pseudo-terminal, which becomes the one of the process's own session."""

    stdin: IO[bytes] | None = None
    stdout: IO[bytes] | None = None
    stderr: IO[bytes] | None = None

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
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.args, self.returncode = command, None
        request = {
            "command": [*command], "environment": dict(os.environ if env is None else env), "parent": os.getpid(),
            "cwd": os.fspath(cwd or os.getcwd()), "session": start_new_session, "terminal": terminal,
            "numbers": [0, 1, 2, *pass_fds],
        }  # fmt: skip
        theirs: list[int] = []
        with contextlib.ExitStack() as failed:
            failed.callback(self._close_streams)
            with contextlib.ExitStack() as stack:
                self.stdin = self._end(stack, theirs, stdin, 0)
                self.stdout = self._end(stack, theirs, stdout, 1)
                self.stderr = self._end(stack, theirs, stderr, 2)
                self._asked = _connected(_family(command))
                message = json.dumps({"run": json.dumps(request)}).encode()
                socket.send_fds(self._asked, [message], [*theirs, *pass_fds])
            self._lines = self._asked.makefile("r")
            if not (told := self._lines.readline()):
                raise ConnectionError("the process that forks ended")
            self.pid = int(json.loads(told)["pid"])
            failed.pop_all()

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

    def __del__(self) -> None:
        """Whoever does not wait for it lets it go, as a program that is never waited for."""
        for each in (getattr(self, "_lines", None), getattr(self, "_asked", None)):
            if each is not None:
                each.close()

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._close_streams()
        self.wait()

    def _close_streams(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()

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
    """The program of `command`, by fork, or by execution where a test asks for it."""
    if not executes:
        with contextlib.suppress(OSError):  # as for a daemon that outlives the process that tests
            return Fork(command, **how)
    return subprocess.Popen(command, **how)


def run(
    command: Sequence[str], *, given: str = "", timeout: float = 180.0, **how: Any
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


def _family(command: Sequence[str]) -> str:
    module, *arguments = command[command.index("-m") + 1 :]
    if module == "speciate.jobs.zygote":
        return "classical" if arguments[1] == "plain" else arguments[1]
    return "classical" if module in _CLASSICAL_PROGRAMS else "programs"


def _connected(family: str) -> socket.socket:
    """To the process that forks this family, which is started where there is none; it waits in line for the imports."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(f"{_folder}/{family}")
            return connection
        connection.close()
        if not _serves:
            _start()
    raise ConnectionError("the process that forks did not start")


_serves = False
"""Whether this process was forked by one of those: then it starts none."""


def _start() -> None:
    """The processes that fork: our own, or one set of them for all workers of one run of pytest-xdist, which lives as
    long as the process that started the workers."""
    global _folder  # noqa: PLW0603 - one for the whole process
    if run := os.environ.get("PYTEST_XDIST_TESTRUNUID"):
        _share(run, os.getppid())
        return
    folder = tempfile.TemporaryDirectory(prefix="forks-")
    atexit.register(folder.cleanup)
    _folder = folder.name
    server = _listen(_FAMILIES, os.getpid(), shared=False)
    atexit.register(_end, server)


def _share(run: str, starter: int) -> None:
    """`starter`: the process that starts the workers of this run."""
    global _folder  # noqa: PLW0603 - one for the whole process
    shared = Path(tempfile.gettempdir(), f"forks-{run}")
    shared.mkdir(mode=0o700, exist_ok=True)
    _folder = str(shared)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "programs").exists():
            _listen(_FAMILIES, starter, shared=True).wait()


def _listen(families: Iterable[str], watched: int, *, shared: bool) -> subprocess.Popen[bytes]:
    """`shared`: what is started goes on as nobody's child, for it is no more this process's than another worker's."""
    with contextlib.ExitStack() as stack:
        listeners = {name: stack.enter_context(socket.socket(socket.AF_UNIX)) for name in families}
        for name, listener in listeners.items():
            listener.bind(f"{_folder}/{name}")
            listener.listen(64)
        numbers = {name: listener.fileno() for name, listener in listeners.items()}
        leave = "import os; os.fork() and os._exit(0); os.setsid(); " if shared else ""
        code = f"{leave}from tests.forks import serve; serve({numbers!r}, {_folder!r}, {watched}, {shared})"
        return subprocess.Popen(
            [sys.executable, "-c", code.ljust(_ARGUMENT_BYTES)], pass_fds=list(numbers.values()),
            stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[1], env=os.environ | LIBRARIES,
        )  # fmt: skip


def _end(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.wait()


class Forks:
    """Forks that become programs, or one that forks those of another family."""

    def __init__(self, listeners: Mapping[str, socket.socket], folder: str, watch: int) -> None:
        """The first of `listeners` is our own family's. `watch`: a pidfd of the process that tests."""
        (own, self._listener), *others = listeners.items()
        self._own = Path(folder, own)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(watch, selectors.EVENT_READ)
        self._children: dict[int, tuple[int, socket.socket]] = {}  # pidfd -> pid and who asked
        self._folder, self._watch = folder, watch
        self._adopted: int | None = None
        """Readable when a child has ended, where we adopt."""
        self._others: dict[int, tuple[str, socket.socket]] = {}
        for name, each in others:
            self._others[each.fileno()] = name, each
            self._selector.register(each.fileno(), selectors.EVENT_READ)

    def adopt(self) -> None:
        """Become the parent of what is left behind below us, by other families' programs, too."""
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            return
        self._adopted, ended = os.pipe()
        os.set_blocking(self._adopted, False)
        os.set_blocking(ended, False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(ended, warn_on_full_buffer=False)
        self._selector.register(self._adopted, selectors.EVENT_READ)

    def _bury(self) -> None:
        """Reap what ended and nobody asked for."""
        assert self._adopted is not None
        with contextlib.suppress(BlockingIOError):
            while os.read(self._adopted, 4096):
                pass
        known = {pid for pid, _ in self._children.values()}
        for pid in map(int, Path("/proc/thread-self/children").read_text().split()):
            if pid not in known:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def serve(self) -> None:
        """Until the process that tests is gone, and with it whoever waits for a program's end."""
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._watch:
                    self._own.unlink(missing_ok=True)
                    return
                if key.fd == self._adopted:
                    self._bury()
                elif key.fd in self._others:
                    self._fork_family(key.fd)
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    self._reap(key.fd)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        message, descriptors, _, _ = socket.recv_fds(connection, 65536, 16)
        if message:
            pid = os.fork()
            if pid == 0:
                self._be_child(json.loads(message)["run"], descriptors)
            with contextlib.suppress(OSError):  # who asked may be dead; the program goes on all the same
                connection.sendall(json.dumps({"pid": pid}).encode() + b"\n")
            watch = os.pidfd_open(pid)
            self._children[watch] = (pid, connection)
            self._selector.register(watch, selectors.EVENT_READ)
        for descriptor in descriptors:
            os.close(descriptor)

    def _reap(self, watch: int) -> None:
        pid, connection = self._children.pop(watch)
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(watch)
        os.close(watch)
        with connection, contextlib.suppress(OSError):
            connection.sendall(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode() + b"\n")

    def _fork_family(self, number: int) -> None:
        name, listener = self._others.pop(number)
        self._selector.unregister(number)
        if os.fork() == 0:
            self._be_family(name, listener)
        listener.close()

    def _be_family(self, name: str, listener: socket.socket) -> NoReturn:
        """Without its libraries it ends, and its programs are executed."""
        try:
            self._forget_children()
            self._selector.close()
            for each in (self._listener, *(asked for _, asked in self._children.values())):
                each.close()
            if name == "classical":
                runs = (kind.run.partition(":")[0] for kind in map(Kinds().__getitem__, KINDS))
                preload(filter(None, runs))
            preload(_FAMILIES[name])
            Forks({name: listener}, self._folder, self._watch).serve()
        finally:
            os._exit(0)

    def _forget_children(self) -> None:
        """A fork has none, and adopts nobody."""
        if self._adopted is not None:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _be_child(self, run: str, descriptors: list[int]) -> NoReturn:
        self._forget_children()
        request = json.loads(run)
        numbers = request["numbers"]
        kept = [fcntl.fcntl(each, fcntl.F_DUPFD, max(*numbers, 63) + 1) for each in descriptors]
        for number, descriptor in zip(numbers, kept, strict=True):
            os.dup2(descriptor, number)
        first = 3
        for number in sorted(numbers[3:]):
            os.closerange(first, number)
            first = number + 1
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))
        _show_parent(request["parent"])
        if request["session"] or request["terminal"]:
            os.setsid()
        if request["terminal"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["environment"])
        faults.reread()
        os.chdir(request["cwd"])
        tempfile.tempdir = None  # as that environment says
        sys.stdin, sys.stdout, sys.stderr = _opened(0), _opened(1), _opened(2)
        _show_as(request["command"])
        module, *arguments = request["command"][request["command"].index("-m") + 1 :]
        sys.argv = [module, *arguments]
        os._exit(_status_of(module))


def _show_parent(pid: int, asked: Callable[[], int] = os.getppid) -> None:
    """From now on, os.getppid gives this process what it would give one that was executed, and its forks their own."""
    me = os.getpid()
    os.getppid = lambda: pid if os.getpid() == me else asked()  # type: ignore[assignment]


def _status_of(module: str) -> int:
    """Run it as a program to its end, but for the interpreter's: to take apart what was imported would copy it all."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'(speciate|tests).* found in sys.modules", RuntimeWarning)
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


def serve(numbers: Mapping[str, int], folder: str, watched: int, shared: bool) -> None:
    """Fork until the process that tests, or where that is `shared` the one that started all that test, is gone."""
    global _folder, _serves
    _folder, _serves = folder, True
    watch = os.pidfd_open(watched)
    if not shared and os.getppid() != watched:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    preload([*_MODULES, *(name for package in _PACKAGES for name in _modules(package))])
    importlib.import_module("speciate.server.mcp.app").offered_tools()  # keeps their schemas
    estimates.shipped_runs()  # keeps how fast this processor is
    provenance.code()
    sealed_keys._COST["n"] = KEY_COST  # a key that is made here costs milliseconds to open
    measure_briefly(setattr)
    start_programs_here()
    warm.subprocess = executors.subprocess  # type: ignore[attr-defined]
    forks = Forks({name: socket.socket(fileno=number) for name, number in numbers.items()}, folder, watch)
    forks.adopt()
    forks.serve()
    if shared:
        shutil.rmtree(folder, ignore_errors=True)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A signal without a handler wakes nobody."""


def _modules(package: str) -> list[str]:
    path = importlib.import_module(package).__path__
    return [module.name for module in pkgutil.iter_modules(path, f"{package}.") if not module.name.endswith("__main__")]


def start_programs_here() -> None:
    """From now on, programs of ours that this process starts are forks, too: daemons, zygotes and deployments. Its own
    warm parent, of which it has one for all tests, is executed."""
    forked = SimpleNamespace(**{name: getattr(subprocess, name) for name in dir(subprocess)} | {"Popen": start})
    for module in (dial, executors, deployments):
        module.subprocess = forked  # type: ignore[attr-defined]
