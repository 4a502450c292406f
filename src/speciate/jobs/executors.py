"""Where runs happen: the contract of an executor, and the one for this machine.

The contract is four verbs that a cluster's job API has too (Ray Jobs, Slurm). Ids are chosen by the caller, so that a
launch may be repeated; `Unreachable` is not `Gone`: a lost network must never start a second attempt.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from speciate.environment import clean_environment, runtime_folder
from speciate.jobs.folder import Outcome, RunDocument, RunFolder
from speciate.jobs.job import RunHandle
from speciate.jobs.process_identity import signal_group


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


Observation = Pending | Alive | Ended | Gone | Unreachable


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

    def handle(self, run_id: str) -> RunHandle:
        return {"run": run_id}

    def submit(self, run: RunSpec) -> None:
        folder = RunFolder(self._runs / run.id)
        address = self._zygote(run.preload) if run.preload and sys.platform == "linux" else None
        spec = {**run.spec, "zygote": address} if address else run.spec
        warm = self._warm()
        folder.create({**spec, "warm_parent": warm} if warm else spec)
        self._spawn([sys.executable, "-m", "speciate.jobs.supervisor", str(folder.path)])

    def poll(self, handle: RunHandle) -> Observation:
        folder = RunFolder(self._runs / handle["run"])
        if not folder.started():
            # Its claim is probed only after it was called off: a probe could be in the way of a supervisor that starts.
            return Gone() if folder.stop_asked() and not folder.alive() else Pending()
        if folder.alive():
            return Alive()
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
        """Let zygotes go, those too that an executor before this one started; runs live on, and theirs until then."""
        mine = Path(self._address("*"))
        for address in mine.parent.glob(mine.name):
            with socket.socket(socket.AF_UNIX) as connection:
                try:
                    connection.connect(str(address))
                    connection.sendall(json.dumps({"end": True}).encode() + b"\n")
                except OSError:
                    continue
        for child in self._children:
            child.returncode = child.poll() or 0  # it outlives us on purpose; Popen would warn

    def _address(self, profile: str) -> str:
        name = hashlib.sha256(os.fsencode(self._workspace.resolve())).hexdigest()[:16]
        return str(runtime_folder() / f"{name}-{profile}.zygote")

    def _zygote(self, profile: str) -> str:
        """The address of a running zygote; where there is none, one is started and will answer in time."""
        address = self._address(profile)
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(address)
            except OSError:
                program = [sys.executable, "-m", "speciate.jobs.zygote", str(self._workspace), profile, address]
                self._spawn([*program, str(os.getpid())])
        return address

    def _spawn(self, argv: list[str]) -> None:
        self.reap()
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=clean_environment(), cwd=self._workspace, start_new_session=True,
        )  # fmt: skip
        self._children.append(child)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
