"""Holds the claim of one attempt, starts its worker, and says how it ended where the worker could not.

A fork of a zygote, or `python -m speciate.jobs.supervisor RUN_DIR` where there is none, detached from the daemon. The
claim is a kernel lock whose descriptor the worker inherits: it is held exactly as long as anything of the attempt
lives, whoever else has died. Standard library only, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from speciate import secrets
from speciate.environment import memory_kills
from speciate.errors import Code, SpeciateError
from speciate.faults import broken, fault
from speciate.jobs import forks, zygote
from speciate.jobs.folder import CRASHES, FULL_BYTES, NO_ROOM, SECOND, Outcome, RunFolder, write_whole
from speciate.jobs.process_identity import identity

_WORKER = "speciate.worker"


class Ending(NamedTuple):
    """`status` as of os.waitstatus_to_exitcode; None where nobody could see it."""

    status: int | None


def main(path: str) -> int:
    """In a fork of a zygote: of it the worker is a fork, too, unless its imports wait elsewhere."""
    return supervise(Path(path), forked=True)


def supervise(path: Path, forked: bool = False) -> int:
    folder = RunFolder(path)
    claim = os.open(path / "claim", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0  # another supervisor has this attempt
    if folder.outcome() or folder.started() or folder.stop_asked():
        return 0  # it has had its supervisor, or was called off before it had one
    fault("supervisor_claimed")
    write_whole(path / "supervisor", identity(os.getpid()))
    fault("supervisor_started")
    inherited = () if broken("claim_inherited") else (claim,)
    kills = memory_kills()
    try:
        spec = folder.spec()
        keys = {name: secrets.get(name, host) for name, host in spec.get("secrets", ())}
        ending = _fork_from(spec["zygote"], folder, inherited, keys) if spec.get("zygote") else None
        ending = ending or (_fork if forked else _execute)(folder, inherited, keys)
    except SpeciateError as error:  # its keys, or a spec that a disk changed: no worker was started
        kind = "transient" if error.code in (Code.UNAVAILABLE, Code.DAMAGED) else "user"
        folder.end(Outcome(1, kind, error.message, error.recovery))
        return 0
    fault("supervisor_before_exit")
    if ending.status != SECOND and folder.outcome() is None:
        folder.end(_outcome(ending, shutil.disk_usage(path).free, starved=memory_kills() > kills))
    return 0


@contextlib.contextmanager
def _input(keys: Mapping[str, str]) -> Iterator[int]:
    """What a worker reads as its standard input: its keys from a pipe, which are in it before the worker is; without
    keys nothing. Nobody who looks at processes or files sees them there."""
    reader, writer = os.pipe() if keys else (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1)
    try:
        if keys:
            _fill(writer, json.dumps(dict(keys)).encode())
        yield reader
    finally:
        os.close(reader)


def _fill(writer: int, told: bytes) -> None:
    """Write all of it into a pipe that nobody reads yet, and close it. UNAVAILABLE where it has no room: 64 KiB, or
    less for a user with very many pipes."""
    os.set_blocking(writer, False)
    try:
        written = os.write(writer, told)
    except BlockingIOError:
        written = 0
    finally:
        os.close(writer)
    if written < len(told):
        raise SpeciateError(Code.UNAVAILABLE, "The keys of this run do not fit into a pipe.", "Name fewer of them.")


def _execute(folder: RunFolder, claims: tuple[int, ...], keys: Mapping[str, str]) -> Ending:
    """A plain start: a new interpreter, in a session of its own so that its whole group can be signalled."""
    with folder.log.open("ab") as log, _input(keys) as given:
        worker = subprocess.Popen(
            [sys.executable, "-m", "speciate.worker", str(folder.path)],
            stdin=given, stdout=log, stderr=subprocess.STDOUT, cwd=folder.path, pass_fds=claims,
            start_new_session=True,
        )  # fmt: skip
    return Ending(worker.wait())


def _fork(folder: RunFolder, claims: tuple[int, ...], keys: Mapping[str, str]) -> Ending:
    """A fork of this process, which has imported what a worker is."""
    with folder.log.open("ab") as log, _input(keys) as given:
        gc.freeze()  # a collection would copy what both share
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                path = str(folder.path)
                zygote.settle([given, log.fileno(), log.fileno()], claims, path)
                zygote.show(_WORKER, path)
                code = zygote.run(lambda: int(importlib.import_module(_WORKER).main(path)))
            finally:
                os._exit(code)
    return Ending(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _fork_from(address: str, folder: RunFolder, claims: tuple[int, ...], keys: Mapping[str, str]) -> Ending | None:
    """A fork of a process that has made the imports. None where there is none, or it died over its imports or between
    the fork and its word: the worker that is started then finds out which."""
    path = str(folder.path)
    with folder.log.open("ab") as log, _input(keys) as given:
        worker = forks.start(
            address,
            zygote.Program(
                entry=f"{_WORKER}:main", arguments=[path], environment=dict(os.environ), cwd=path, streams=3
            ),
            [given, log.fileno(), log.fileno(), *claims],
        )
    return Ending(worker.wait()) if worker else None


def _outcome(ending: Ending, free: int, *, starved: bool = False) -> Outcome:
    """How a worker ended that left no word itself. `free`: bytes that its disk has now. `starved`: whether the system
    ended a process for want of memory meanwhile."""
    if ending.status is None:
        return Outcome(-1, "killed", "its process was killed")
    if ending.status == -signal.SIGKILL and starved:
        return Outcome(ending.status, "starved", "the system ended its process for want of memory")
    if ending.status < 0:
        number = signal.Signals(-ending.status)
        kind = "transient" if number in CRASHES else "killed"
        return Outcome(ending.status, kind, f"its process ended by {number.name}")
    if ending.status == NO_ROOM or free < FULL_BYTES:
        return Outcome(
            ending.status, "full", "the workspace's disk is full: its process could not even say why it ended",
            "Free some space (manage_data(action='gc', dry_run=true) shows what could go); it resumes by itself.",
        )  # fmt: skip
    return Outcome(
        ending.status, "user", f"its process ended with code {ending.status} before it could say why",
        "Call get_job(job=..., log_lines=100) for its log.",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1])))
