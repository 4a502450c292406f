"""Where runs happen: the contract of an executor, and the one for this machine.

The contract is four verbs that a cluster's job API has too (Ray Jobs, Slurm). Ids are chosen by the caller, so that a
launch may be repeated; `Unreachable` is not `Gone`: a lost network must never start a second attempt.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from speciate.environment import clean_environment, runtime_folder
from speciate.errors import SpeciateError
from speciate.jobs.folder import Outcome, RunDocument, RunFolder
from speciate.jobs.job import RunHandle
from speciate.jobs.process_identity import signal_group
from speciate.jobs.zygote import CONFINED, PROCESSES, SUPERVISORS, Program
from speciate.sandbox import process, warm
from speciate.workspace.workspace import Workspace

_ARGUMENT_BYTES = 1024
"""Length of the last argument of a zygote's command line, where its forks write their own."""
_PREPARED_SECONDS = 240.0
"""Seconds that imports which were asked for stay made, at least."""
_FOLLOWS = {"data": "classical"}
"""Imports of a run -> those of what usually follows it. They are made while it works: behind its own ones, as a zygote
makes them one after another."""
_log = logging.getLogger(__name__)


class Pending(NamedTuple):
    """Submitted, or not even that: nothing of it has been seen yet."""


class Alive(NamedTuple):
    """Something of it lives."""


class Ended(NamedTuple):
    outcome: Outcome


class Gone(NamedTuple):
    """It is dead without a word, or was called off before it lived; it will never live again."""


class Unreachable(NamedTuple):
    """It cannot be seen now. Nothing may be concluded from that."""

    why: str


class Abandoned(NamedTuple):
    """Its end was forced, and nobody was there to be told: a place that is not seen for longer than a run lives without
    it. Nothing that it leaves comes back."""

    why: str


Observation = Pending | Alive | Ended | Gone | Unreachable | Abandoned


class RunSpec(NamedTuple):
    """`id` is JOB.ATTEMPT: submitting it twice starts it once."""

    id: str
    spec: RunDocument
    preload: str = ""


class Executor(Protocol):
    def handle(self, run_id: str) -> RunHandle:
        """How the run will be found again; known, and stored, before the launch."""
        ...

    def submit(self, run: RunSpec) -> None:
        """Launch it. Idempotent by `run.id`; returns without waiting for the start."""
        ...

    def prepare(self, preload: str) -> None:
        """A run with these imports will be submitted soon."""
        ...

    def poll(self, handle: RunHandle) -> Observation:
        """What is true of it now. Never raises for a run that is gone or unknown."""
        ...

    def cancel(self, handle: RunHandle, force: bool) -> None:
        """Ask it to checkpoint and stop; with `force`, end it. A request only: `poll` tells the truth.

        A run that has not started yet must never start after this."""
        ...

    def logs(self, handle: RunHandle, offset: int) -> bytes:
        """The log from a byte offset on; empty at its end."""
        ...


class LocalExecutor:
    """Detached supervisors on this machine. What lives is told by the claim's lock, never by a pid or a heartbeat."""

    def __init__(self, workspace: Path, warm: Callable[[], str | None] = lambda: None) -> None:
        """`warm`: gives the address of this process's warm parent, which forks the sandboxed processes of runs, too."""
        self._workspace, self._warm = workspace, warm
        self._runs = workspace / "runs"
        self._children: list[subprocess.Popen[bytes]] = []
        self._zygotes = _Zygotes(workspace)
        self._asked = _ForkedSupervisors()
        self._unseen: set[str] = set()
        """Runs whose supervisor was asked for and has not been seen."""
        self._followed: dict[str, str] = {}
        """Run whose worker has not been seen -> what follows it."""

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard`, in a thread of its own, as soon as a run that was launched here has ended."""
        self._asked.listen(heard)

    def handle(self, run_id: str) -> RunHandle:
        return {"run": run_id}

    def submit(self, run: RunSpec) -> None:
        folder = RunFolder(self._runs / run.id)
        address = self._zygotes.address(run.preload) if run.preload else None
        spec = {**run.spec, "zygote": address} if address else run.spec
        warm = self._warm()
        folder.create({**spec, "warm_parent": warm} if warm else spec)
        if address and run.preload in _FOLLOWS:
            self._followed[run.id] = _FOLLOWS[run.preload]
        if run.id in self._asked:
            return  # it is in line, behind the imports of a zygote that has just begun
        connection = self._zygotes.ask_for_supervisor(folder.path)
        if connection is None:
            self._execute_supervisor(folder.path)
        else:
            self._unseen.add(run.id)
            self._asked.add(run.id, connection)

    def prepare(self, preload: str) -> None:
        for family in (SUPERVISORS, preload):
            if family:
                self._zygotes.prepare(family)

    def prepare_answers(self, family: str) -> None:
        """A sandboxed process of this family will be asked for soon."""
        if family in CONFINED:
            self._zygotes.prepare(CONFINED[family])

    def offer(self) -> None:
        """Sandboxed processes of this process that want torch are forked here, from now on."""
        for family, listener in CONFINED.items():
            warm.offer(family, self._zygotes.address(listener))

    def poll(self, handle: RunHandle) -> Observation:
        folder = RunFolder(self._runs / handle["run"])
        if not folder.started():
            self._look_after(folder)
            # Its claim is probed only after it was called off: a probe could be in the way of a supervisor that starts.
            if not folder.stop_asked() or folder.alive():
                return Pending()
            self._forget(folder.run_id)
            return Gone()
        self._unseen.discard(folder.run_id)
        if folder.run_id in self._followed and (folder.path / "worker").exists():
            self._zygotes.prepare(self._followed.pop(folder.run_id))
        if folder.alive():
            return Alive()
        self.reap()
        self._forget(folder.run_id)
        outcome = folder.outcome()  # looked for after the lock: it is written before the lock is freed
        return Ended(outcome) if outcome else Gone()

    def cancel(self, handle: RunHandle, force: bool) -> None:
        folder = RunFolder(self._runs / handle["run"])
        folder.path.mkdir(parents=True, exist_ok=True)
        (folder.path / "cancel").touch()
        if force:
            signal_group(_read(folder.path / "worker"), signal.SIGKILL)
            signal_group(_read(folder.path / "supervisor"), signal.SIGKILL)
        else:
            signal_group(_read(folder.path / "worker"), signal.SIGTERM)

    def logs(self, handle: RunHandle, offset: int) -> bytes:
        try:
            with RunFolder(self._runs / handle["run"]).log.open("rb") as file:
                file.seek(offset)
                return file.read(1 << 20)
        except FileNotFoundError:
            return b""

    def reap(self) -> None:
        """Forget supervisors that have ended, so that none stays a zombie."""
        self._children = [child for child in self._children if child.poll() is None]

    def close(self) -> None:
        """Let zygotes go; runs live on, and theirs until then."""
        for family in CONFINED:
            warm.offer(family, None)
        self._zygotes.close()
        self._asked.close()
        for child in self._children:
            child.returncode = child.poll() or 0  # it outlives us on purpose; Popen would warn

    def _forget(self, run: str) -> None:
        self._unseen.discard(run)
        self._followed.pop(run, None)

    def _look_after(self, folder: RunFolder) -> None:
        """A supervisor that was asked for, and whose zygote died over it, is started plainly."""
        if folder.run_id in self._unseen and self._asked.ended(folder.run_id) and not folder.started():
            self._unseen.discard(folder.run_id)
            self._execute_supervisor(folder.path)

    def _execute_supervisor(self, path: Path) -> None:
        self.reap()
        child = subprocess.Popen(
            [sys.executable, "-m", "speciate.jobs.supervisor", str(path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=clean_environment(), cwd=self._workspace, start_new_session=True,
        )  # fmt: skip
        self._children.append(child)


def executor_here(workspace: Workspace) -> LocalExecutor:
    """Whose runs ask the warm parent of this process for their sandboxed ones, unless settings forbid it."""
    return LocalExecutor(
        workspace.folders.root, lambda: process.warm_address() if workspace.settings.fork_sandboxes else None
    )


class _ForkedSupervisors:
    """Supervisors that zygotes were asked for, each with the connection on which its end is told. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: dict[str, socket.socket] = {}
        self._wake: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None

    def __contains__(self, run: str) -> bool:
        with self._lock:
            return run in self._connections

    def add(self, run: str, connection: socket.socket) -> None:
        with self._lock:
            self._connections[run] = connection
            if self._wake:
                with contextlib.suppress(BlockingIOError):  # it is full, so it wakes anyhow
                    os.write(self._wake[1], b"x")

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard`, in a thread of its own, as soon as one of them has ended. Who does not, or has no room for
        that, is a little later."""
        if sys.platform != "linux":
            return
        try:
            wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            _log.warning("ends are not listened for: %s", error)
            return
        thread = threading.Thread(target=self._listen, args=(heard, wake[0]), name="ends", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            _log.warning("ends are not listened for: %s", error)
            for number in wake:
                os.close(number)
        else:
            with self._lock:
                self._wake, self._thread = wake, thread
                os.write(wake[1], b"x")  # some may have been added since

    def _listen(self, heard: Callable[[], None], woken: int) -> None:
        while True:
            poll, watched = select.poll(), dict[int, str]()
            poll.register(woken, select.POLLIN)
            with self._lock:
                for run, connection in self._connections.items():
                    watched[connection.fileno()] = run
                    poll.register(connection, select.POLLIN)
            for number, _ in poll.poll():
                if number != woken:
                    if self.ended(watched[number]):
                        heard()
                elif not os.read(woken, 4096):
                    return

    def ended(self, run: str) -> bool:
        """Whether it has ended, or its zygote died over it; it is forgotten then."""
        with self._lock:
            while (connection := self._connections.get(run)) is not None:
                if (message := warm.receive(connection, 0.0)) is None:
                    return False
                if "watch" in message:
                    os.close(message["watch"])
                if message and "status" not in message:  # it has been forked; its pidfd lacks where we had no room
                    continue
                del self._connections[run]
                connection.close()
        return True

    def close(self) -> None:
        with self._lock:
            wake, self._wake = self._wake, None
        if wake and self._thread:
            os.close(wake[1])  # its reader ends then
            self._thread.join()
            os.close(wake[0])
        with self._lock:
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()


class _Zygotes:
    """The zygotes of one executor: their sockets are there at once, they start when somebody first asks.
    Thread-safe."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._owners: dict[str, warm.Owner | None] = {}
        self._prepared: dict[str, float] = {}  # family -> when, by the uptime

    def address(self, family: str) -> str | None:
        """Where one of PROCESSES listens that forks `family`. None where this system, or the machine now, has none."""
        if (name := next((name for name, families in PROCESSES.items() if family in families), None)) is None:
            return None
        with self._lock:
            if name not in self._owners:
                self._owners[name] = self._own(name)
            owner = self._owners[name]
        return owner.addresses[PROCESSES[name].index(family)] if owner else None

    def _own(self, name: str) -> warm.Owner | None:
        if sys.platform != "linux":
            return None
        try:
            folder = runtime_folder()
            warm.sweep(folder)
            made = f"{os.getpid()}-{os.urandom(4).hex()}"  # another one's, that died, may yet remove its own
            addresses = [str(folder / f"{made}-{family}.zygote") for family in PROCESSES[name]]
            return warm.Owner(addresses, lambda numbers: self._start(name, addresses, numbers))
        except (OSError, RuntimeError, SpeciateError) as error:  # no folder for sockets, or no more threads
            _log.info("no zygote: %s", error)
            return None

    def _start(self, name: str, addresses: Sequence[str], numbers: Sequence[int]) -> subprocess.Popen[bytes]:
        listening = [f"{address}={number}" for address, number in zip(addresses, numbers, strict=True)]
        program = ["-m", "speciate.jobs.zygote", str(self._workspace), name, str(os.getpid()), *listening]
        # where it forks sandboxed processes, it holds nothing that one may not know
        sandboxed = not {*CONFINED.values()}.isdisjoint(PROCESSES[name])
        return subprocess.Popen(
            [sys.executable, "-I" if sandboxed else "-P", *program, " " * _ARGUMENT_BYTES],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=numbers,
            env=dict(process.PARENT_ENVIRONMENT) if sandboxed else clean_environment(),
            cwd="/", start_new_session=True,
        )  # fmt: skip

    def ask_for_supervisor(self, path: Path) -> socket.socket | None:
        """The connection on which it is asked for; None where it is not. Returns at once."""
        if (connection := self._connect(SUPERVISORS)) is None:
            return None
        program = Program(
            entry="speciate.jobs.supervisor:main", arguments=[str(path)], environment=clean_environment(),
            cwd=str(self._workspace), streams=0,
        )  # fmt: skip
        try:
            warm.ask(connection, program, [])
        except OSError:
            connection.close()
            return None
        return connection

    def prepare(self, family: str) -> None:
        """See to it that its imports are made soon. Returns at once."""
        now = time.monotonic()
        if now - self._prepared.get(family, -math.inf) < _PREPARED_SECONDS:
            return
        self._prepared[family] = now
        if connection := self._connect(family):
            connection.close()

    def _connect(self, family: str) -> socket.socket | None:
        if (address := self.address(family)) is None:
            return None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)  # a line that is full is no reason to wait
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            return None
        return connection

    def close(self) -> None:
        with self._lock:
            owners, self._owners = self._owners, {}
        for owner in owners.values():
            if owner:
                owner.close()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
