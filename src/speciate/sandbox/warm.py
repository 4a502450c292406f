"""Sandboxed processes that are forked from a warm one, which has made the imports; asked for here.

A process that lives long (a daemon) owns a warm parent (warm_parent.py): its socket is there at once, the parent is
started when somebody first connects, again after it died, and ends by itself when nobody asks for five minutes. Runs
of a daemon use their daemon's (`use`). Where there is none, or it does not answer, `start_fork` gives None, and a
program is started in the ordinary way.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypedDict

from speciate.environment import runtime_folder
from speciate.errors import SpeciateError
from speciate.sandbox.warm_child import LONGEST, Request

MODULES = (
    "speciate.sandbox.serve", "numpy", "pyarrow.parquet", "pyarrow.csv", "pyarrow.json", "pyarrow.dataset",
    "PIL.Image", "PIL.ImageOps", "PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin", "PIL.PpmImagePlugin",  # Pillow loads these with the first image, each fork would pay for it
    "duckdb", "speciate.modalities.image", "speciate.modalities.text",
    "speciate.datasets.loading.decoding", "speciate.datasets.ingest.row_validation",
    "speciate.datasets.ingest.validation", "speciate.datasets.inspect.sql_sandbox",
    "speciate.datasets.inspect.contact_sheet", "speciate.datasets.inspect.describe",
    "speciate.datasets.readers.read_table", "speciate.datasets.similarity.embed",
    "speciate.datasets.similarity.nearest_neighbours", "speciate.datasets.operations.variants",
    "speciate.datasets.sources.archives", "speciate.datasets.sources.table_media",
)  # fmt: skip
"""What the processes of the pool import sooner or later; names alone, for they lie above this room. With a question
mark: only where it is installed."""
SKLEARN = (
    "sklearn.linear_model", "sklearn.svm", "sklearn.ensemble", "sklearn.neighbors", "sklearn.feature_extraction.text",
    "sklearn.model_selection", "sklearn.preprocessing", "sklearn.metrics",
)  # fmt: skip
FAMILIES: dict[str, tuple[str, ...]] = {"classical": (*SKLEARN, "speciate.serving.predict_worker")}
"""Family -> what is imported beyond MODULES before its first fork."""
_START_SECONDS, _FAMILY_SECONDS, _END_SECONDS = 20.0, 60.0, 10.0
_log = logging.getLogger(__name__)
_QUICK_SECONDS = 5.0
"""A parent that ends by itself so soon cannot make its imports: no other one is started."""
_LONGEST_PAUSE = 5.0
"""Seconds before another one is started where those before it were killed soon, as where memory runs out."""


class Message(TypedDict, total=False):
    """What a warm parent tells, or a fork that is being confined."""

    pid: int
    watch: int
    """A pidfd of the fork, which came with `pid`."""
    ready: bool
    failed: str
    status: int


class ForkedProcess:
    """A fork, by its pidfd and the connection over which its end is told. As of Popen: streams, `pid`, `wait`."""

    def __init__(self, pid: int, watch: int, asked: socket.socket, streams: Sequence[IO[bytes]]) -> None:
        self.pid, self._watch, self._asked = pid, watch, asked
        self.stdin, self.stdout, self.stderr = streams
        self.status: int | None = None
        """Exit status as of os.waitstatus_to_exitcode, once `wait` has learned it."""
        self._lock = threading.Lock()
        self._closed = False

    def kill(self) -> None:
        with self._lock, contextlib.suppress(ProcessLookupError):
            if not self._closed:
                signal.pidfd_send_signal(self._watch, signal.SIGKILL)

    def ended(self, seconds: float) -> bool:
        """Whether it ends within that time; then `status` is what its parent told of it."""
        deadline = time.monotonic() + seconds
        while self.status is None and not self._closed:
            message = receive(self._asked, deadline)
            if message is None:
                return False
            if not message:
                return True  # its parent was killed, and it with it
            self.status = message.get("status")
        return True

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the fork's status; None where nobody saw it. Killed where it takes longer."""
        if not self.ended(60.0 if timeout is None else timeout):
            self.kill()
            self.ended(_END_SECONDS)
        with self._lock:
            if not self._closed:
                self._closed = True
                self._asked.close()  # what is not dead yet dies of it
                os.close(self._watch)
        return self.status


def start_fork(request: Request, environment: Mapping[str, str], family: str = "") -> ForkedProcess | None:
    """A fork that is confined already. None where there is no warm parent to be asked. `environment`: of the parent, if
    it is this process's own. `family`: one of FAMILIES, or as of `offer`; any parent does where there is none for it.
    """
    address = _offered.get((os.getpid(), family))
    if address is None:
        address = _given[os.getpid()] if os.getpid() in _given else own_address(environment, family)
    if address is None:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, theirs, watch = list[int](), list[int](), -1
    try:
        ours, theirs = _pipes()
        connection.connect(address)
        ask(connection, request, theirs)
        told: Message = {}
        deadline = time.monotonic() + (_FAMILY_SECONDS if family else _START_SECONDS)
        while not told.keys() >= {"pid", "ready"}:  # of parent and fork, in any order
            message = receive(connection, deadline)
            watch = message.get("watch", watch) if message else watch
            if not message or "failed" in message or "status" in message:
                raise ConnectionError((message or {}).get("failed", "no answer"))
            told |= message
    except BaseException as error:
        connection.close()
        for descriptor in (*ours, watch):
            if descriptor >= 0:
                os.close(descriptor)
        if isinstance(error, OSError):
            _log.info("no fork of the warm parent: %s", error)
            return None
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    streams = [os.fdopen(each, mode, buffering=0) for each, mode in zip(ours, ("wb", "rb", "rb"), strict=True)]
    return ForkedProcess(told["pid"], watch, connection, streams)


def ask(connection: socket.socket, request: Mapping[str, object], descriptors: Sequence[int]) -> None:
    """Ask whoever a warm parent forks for this connection: JSON of any length, and what it inherits."""
    with tempfile.TemporaryFile() as content:
        content.write(json.dumps(request).encode())
        content.flush()
        socket.send_fds(connection, [b"run"], [content.fileno(), *descriptors])


def _pipes() -> tuple[list[int], list[int]]:
    """Pipes for standard input, output and error: our ends and theirs."""
    made: list[int] = []
    try:
        for _ in range(3):
            made += os.pipe()
    except OSError:
        for descriptor in made:
            os.close(descriptor)
        raise
    theirs_in, ours_in, ours_out, theirs_out, ours_error, theirs_error = made
    return [ours_in, ours_out, ours_error], [theirs_in, theirs_out, theirs_error]


def receive(connection: socket.socket, deadline: float | None) -> Message | None:
    """A message of parent or fork, with its pidfd as `watch`; {} where the connection ended; None where none came until
    `deadline` (monotonic; None: however long it takes)."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
        return None
    try:
        told, descriptors, _, _ = socket.recv_fds(connection, LONGEST, 1)
    except OSError:
        return {}
    message: Message = json.loads(told) if told else {}
    if descriptors:
        os.set_inheritable(descriptors[0], False)
        message["watch"] = descriptors[0]
    return message


class Owner:
    """The sockets of a warm parent, and the thread that starts it whenever somebody waits at one of them."""

    def __init__(self, addresses: Sequence[str], start: Callable[[Sequence[int]], subprocess.Popen[bytes]]) -> None:
        """`start`: starts the parent with these descriptors of sockets; its standard output is a pipe."""
        self.addresses, self._start = addresses, start
        self._listeners = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in addresses]
        for address, listener in zip(addresses, self._listeners, strict=True):
            listener.bind(address)
            os.chmod(address, 0o600)
            listener.listen(64)
        self._parents: list[subprocess.Popen[bytes]] = []
        """Parents that retired and have forks that live; the last one may not have retired."""
        self._end, self._ending = os.pipe2(os.O_CLOEXEC)
        self._ends = threading.Event()
        atexit.register(self._unlink, os.getpid())
        self._thread = threading.Thread(target=self._keep, name="sandbox-warm", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The parent takes no more requests, and ends with its last fork."""
        self._ends.set()
        os.write(self._ending, b"x")
        for parent in self._parents:
            parent.terminate()
        self._thread.join()
        for descriptor in (self._end, self._ending):
            os.close(descriptor)
        self._unlink(os.getpid())
        atexit.unregister(self._unlink)
        for parent in self._parents:
            parent.returncode = parent.poll() or 0  # it outlives us on purpose; Popen would warn

    def _unlink(self, owner: int) -> None:
        if os.getpid() == owner:  # no fork that ends
            for address in self.addresses:
                Path(address).unlink(missing_ok=True)

    def _keep(self) -> None:
        """The parent is not told to end when this process ends: it sees that."""
        poll = select.poll()
        for descriptor in (self._end, *(each.fileno() for each in self._listeners)):
            poll.register(descriptor, select.POLLIN)
        well, pause = True, 0.0
        while well:
            poll.poll()
            if self._ends.wait(pause):
                break
            began = time.monotonic()
            self._parents = [parent for parent in self._parents if parent.poll() is None]
            try:
                well = self._run()
            except OSError:
                well = False
            quick = time.monotonic() - began < _QUICK_SECONDS
            well = well or not quick
            pause = min(2 * pause + 0.1, _LONGEST_PAUSE) if quick else 0.0
        for listener in self._listeners:
            listener.close()  # who waits there is told, and starts its process in the ordinary way
        if not well:
            self._unlink(os.getpid())

    def _run(self) -> bool:
        """Run a parent until it retires; whether it did so of its own accord."""
        parent = self._start([each.fileno() for each in self._listeners])
        self._parents.append(parent)
        if self._ends.is_set():
            parent.terminate()
        assert parent.stdout is not None
        with parent.stdout as said:
            said.read()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return parent.wait(0.2) <= 0  # killed, or ended in peace
        return True  # forks of it live on


def _owned_parent(environment: Mapping[str, str]) -> Owner:
    """The warm parent of this process, for sandboxed ones without torch."""
    folder = runtime_folder()
    sweep(folder)
    name = f"{os.getpid()}-{os.urandom(4).hex()}"
    addresses = [str(folder / f"{name}{family and '-'}{family}.warm") for family in ("", *FAMILIES)]

    def start(listeners: Sequence[int]) -> subprocess.Popen[bytes]:
        listening = [f"{address}={listener}" for address, listener in zip(addresses, listeners, strict=True)]
        groups = [MODULES, *FAMILIES.values()]
        program = [sys.executable, "-I", "-m", "speciate.sandbox.warm_parent", str(os.getpid())]
        for one, modules in zip(listening, groups, strict=True):
            program += [one, *modules]
        return subprocess.Popen(
            program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=dict(environment), cwd="/", pass_fds=listeners, start_new_session=True,
        )  # fmt: skip

    return Owner(addresses, start)


def sweep(folder: Path) -> None:
    """Remove sockets of processes that were killed."""
    for left in (*folder.glob("*.warm"), *folder.glob("*.zygote")):
        with contextlib.suppress(OSError, ValueError):
            if not Path(f"/proc/{int(left.name.partition('-')[0])}").exists():
                left.unlink()


_lock = threading.Lock()
_owned: dict[int, Owner] = {}
_given: dict[int, str | None] = {}
_offered: dict[tuple[int, str], str] = {}


def offer(family: str, address: str | None) -> None:
    """From now on sandboxed processes of this one that want the imports of `family` are forked there; None: no more."""
    with _lock:
        if address is None:
            _offered.pop((os.getpid(), family), None)
        else:
            _offered[os.getpid(), family] = address


def use(address: str | None) -> None:
    """From now on this process asks another one's warm parent, or none."""
    with _lock:
        _given[os.getpid()] = address


def own_address(environment: Mapping[str, str], family: str = "") -> str | None:
    """Where the warm parent of this process listens, for `use` in another one. None where this system has none."""
    if sys.platform != "linux":
        return None
    with _lock:
        if (found := _owned.get(os.getpid())) is None:  # a fork needs its own
            _owned.clear()
            try:
                found = _owned[os.getpid()] = _owned_parent(environment)
            except (OSError, RuntimeError, SpeciateError) as error:  # no folder for sockets, or no more threads
                _log.info("no warm parent: %s", error)
                return None
        return found.addresses[["", *FAMILIES].index(family) if family in FAMILIES else 0]


def offered(family: str) -> bool:
    """Whether processes of this family have a parent of their own, for this process."""
    return (os.getpid(), family) in _offered or (family in FAMILIES and os.getpid() not in _given)


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
