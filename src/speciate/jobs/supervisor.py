"""Holds the claim of one attempt, starts its worker, and says how it ended where the worker could not.

`python -m speciate.jobs.supervisor RUN_DIR`, detached from the daemon. The claim is a kernel lock whose descriptor the
worker inherits: it is held exactly as long as anything of the attempt lives, whoever else has died. Standard library
only, so that it starts in milliseconds.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from speciate import secrets
from speciate.errors import Code, SpeciateError
from speciate.faults import broken, fault
from speciate.jobs.folder import FULL_BYTES, NO_ROOM, SECOND, Outcome, RunFolder, write_whole
from speciate.jobs.process_identity import identity

_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_ZYGOTE_SECONDS = 3.0


class Ending(NamedTuple):
    """`status` as of os.waitstatus_to_exitcode; None where nobody could see it."""

    status: int | None


def supervise(path: Path) -> int:
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
    try:
        spec = folder.spec()
        keys = {name: secrets.get(name, host) for name, host in spec.get("secrets", ())}
        ending = _fork_from(spec["zygote"], folder, inherited, keys) if spec.get("zygote") else None
        ending = ending or _execute(folder, inherited, keys)
    except SpeciateError as error:  # its keys, or a spec that a disk changed: no worker was started
        kind = "transient" if error.code in (Code.UNAVAILABLE, Code.DAMAGED) else "user"
        folder.end(Outcome(1, kind, error.message, error.recovery))
        return 0
    fault("supervisor_before_exit")
    if ending.status != SECOND and folder.outcome() is None:
        folder.end(_outcome(ending, shutil.disk_usage(path).free))
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


def _fork_from(address: str, folder: RunFolder, claims: tuple[int, ...], keys: Mapping[str, str]) -> Ending | None:
    """A fork of a process that has made the imports. None where there is none: then a plain start is right."""
    connection = _connect(address)
    if connection is None:
        return None
    with connection:
        try:
            with folder.log.open("ab") as log, _input(keys) as given:
                descriptors = array.array("i", [log.fileno(), given, *claims])
                connection.sendmsg(
                    [json.dumps({"run": str(folder.path)}).encode() + b"\n"],
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)],
                )
            lines = connection.makefile("r")
            first = lines.readline()
        except OSError:
            return None
        if not first:
            return None  # it died over its imports, or between the fork and this line: the worker finds out which
        pid = int(json.loads(first)["pid"])
        watch = _pidfd(pid)
        last = lines.readline()
        if last:
            return Ending(int(json.loads(last)["status"]))
        if watch is not None:  # the zygote was killed, its child lives on
            select.select([watch], [], [])
        return Ending(None)


def _connect(address: str) -> socket.socket | None:
    end = time.monotonic() + _ZYGOTE_SECONDS
    while time.monotonic() < end:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            time.sleep(0.02)
        else:
            return connection
    return None


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return None


def _outcome(ending: Ending, free: int) -> Outcome:
    """How a worker ended that left no word itself. `free`: bytes that its disk has now."""
    if ending.status is None:
        return Outcome(-1, "killed", "its process was killed")
    if ending.status < 0:
        number = signal.Signals(-ending.status)
        kind = "transient" if number in _CRASHES else "killed"
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
