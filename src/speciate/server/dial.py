"""Reach the daemon of a workspace; where there is none, start it.

Any number of clients may do this at once: each may start a candidate, one candidate wins the lock, the others end
with status 75 before they import anything heavy. Standard library only.

Where a daemon listens depends on the environment in which it was started (XDG_RUNTIME_DIR, TMPDIR), and a client may
have another: one started by cron, ssh or sudo, or by an SDK that passes few variables on. So where nobody answers at
the place that our own environment names, daemon.json in the workspace is asked. It names a socket, which is used where
it and who listens there belong to us.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate import __version__, unix_sockets
from speciate.environment import clean_environment, socket_path, system_unit
from speciate.errors import Code, SpeciateError
from speciate.server.protocol import ASKED_ONCE, DRAINING, DaemonAnswer, Hello, Line, as_error, encode
from speciate.unix_sockets import ForeignSocket

_PATIENCE_SECONDS = 60.0
_SYSTEM_SECONDS = 15.0
_PAUSE_SECONDS = 0.02, 0.2
_CARD_BYTES = 1 << 16


class NoDaemon(SpeciateError):
    """Nobody serves the workspace, and the caller did not want to start anybody."""


class DaemonConnection(NamedTuple):
    line: Line
    answer: DaemonAnswer


def dial(
    workspace: Path,
    protocol: str,
    *,
    client: str = "cli",
    start: bool = True,
    fixtures: Sequence[str] = (),
    **more: Any,
) -> DaemonConnection:
    """Connect, say hello, and return the connection with the daemon's answer.

    `fixtures` are Python files that a daemon which has to be started loads into its server, for conformance tests.
    Raises SpeciateError UNAVAILABLE where no daemon runs and `start` is false, or where none can be started; otherwise
    what the daemon refused with.
    """
    hello = {"protocol": protocol, "version": __version__, "folder": os.getcwd(), "client": client, **more}
    unit = system_unit(workspace)
    by_system = unit.exists()
    deadline = time.monotonic() + (_SYSTEM_SECONDS if by_system else _PATIENCE_SECONDS)
    pause, longest = _PAUSE_SECONDS
    while True:
        dialled, foreign = _try_each_place(workspace, hello)
        if dialled:
            return dialled
        if not start:
            raise NoDaemon(
                Code.UNAVAILABLE, f"No daemon serves {workspace}.", "Any `speciate call` or `speciate serve` starts it."
            )
        if by_system or not _start(workspace, fixtures, deadline):
            if foreign and not by_system:
                raise _foreign_daemon_error(workspace, foreign)
            time.sleep(pause)  # another one holds the lock: it is about to listen, or about to end
            pause = min(2 * pause, longest)
        if by_system and time.monotonic() > deadline:
            raise SpeciateError(
                Code.UNAVAILABLE,
                f"The daemon of {workspace} is started by the system alone, and it does not answer you.",
                f"Is it running: systemctl status {unit.name}; and are you in its group: id",
            )
        if time.monotonic() > deadline:
            raise SpeciateError(
                Code.UNAVAILABLE,
                f"The daemon of {workspace} did not answer within {_PATIENCE_SECONDS:.0f} s.",
                f"See {workspace / 'daemon.log'}; `speciate doctor` checks the machine and how fast its disk is.",
            )


def _try_each_place(workspace: Path, hello: Hello) -> tuple[DaemonConnection | None, ForeignSocket | None]:
    """One attempt at each place; beside it whose socket was found in place of ours."""
    usual: Path | None = None
    with contextlib.suppress(SpeciateError):  # no place for sockets in this environment; a candidate would say so
        usual = socket_path(workspace)
    if usual and (connection := _connected(usual)) and (dialled := _say_hello(connection, hello)):
        return dialled, None
    named = _named_socket(workspace)
    if named is None or named == usual:
        return None, None
    try:
        connection = unix_sockets.connect(named, _owners(workspace))
    except ForeignSocket as foreign:
        return None, foreign
    except OSError:
        return None, None
    return _say_hello(connection, hello), None


def _connected(path: Path) -> socket.socket | None:
    """At a place that our own environment names: what lies there is ours, or the system's."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.fspath(path))
    except OSError:
        connection.close()
        return None
    return connection


def _named_socket(workspace: Path) -> Path | None:
    """Where the newest daemon of the workspace listens, or listened, as it wrote itself."""
    try:
        with open(workspace / "daemon.json", "rb") as file:
            if os.fstat(file.fileno()).st_uid not in _owners(workspace):
                return None
            card = json.loads(file.read(_CARD_BYTES))
        path = card["socket"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(path) if isinstance(path, str) and os.path.isabs(path) and "\0" not in path else None


def _owners(workspace: Path) -> set[int]:
    """Uids whose daemon is as good as ours: our own, and for root that of whoever owns the workspace."""
    owners = {os.getuid()}
    if os.getuid() == 0:
        with contextlib.suppress(OSError):
            owners.add(os.stat(workspace).st_uid)
    return owners


def _foreign_daemon_error(workspace: Path, foreign: ForeignSocket) -> SpeciateError:
    return SpeciateError(
        Code.UNAVAILABLE,
        f"The daemon that serves {workspace} belongs to another user (uid {foreign.owner}), and answers nobody else.",
        "Call as that user, or stop it as that user: speciate stop.",
    )


def _say_hello(connection: socket.socket, hello: Hello) -> DaemonConnection | None:
    """Say hello; None where who listens ends, or is leaving. Raises UNAVAILABLE where it has read what may be asked
    only once, and ends without an answer: nobody knows then whether it was done."""
    line = Line(connection)
    try:
        line.send(encode(hello))
        answer = line.receive()
        taken = not line.was_reset
    except OSError:
        answer, taken = b"", False
    if not answer:
        line.close()
        if taken and hello.get("action") in ASKED_ONCE:
            raise _unanswered_error(hello)
        return None
    message = json.loads(answer)
    if message.get("ok"):
        return DaemonConnection(line, message)
    line.close()
    if message.get("code") != DRAINING:
        raise as_error(message)
    return None


def _unanswered_error(hello: Hello) -> SpeciateError:
    return SpeciateError(
        Code.UNAVAILABLE,
        f"The daemon ended before it answered: `{hello['action']}` is done, or it is not.",
        "It costs money. See whether its job is there before you repeat it: speciate call list_jobs"
        if hello["action"] == "fingerprint"
        else "Repeat the command: it shows what holds now before it asks you again.",
    )


def _start(workspace: Path, fixtures: Sequence[str], deadline: float) -> bool:
    """Start a candidate and wait until it listens (true) or lost the election (false)."""
    command = [sys.executable, "-P", "-m", "speciate.server.daemon", "--workspace", os.fspath(workspace), "--detach"]
    with subprocess.Popen(
        [*command, *(f"--fixture={path}" for path in fixtures)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=clean_environment(),
        cwd="/",
        start_new_session=True,
    ) as process:
        assert process.stdout
        text = _read_to_end(process.stdout.fileno(), deadline)
    if not text.strip():
        return False  # killed over its start: as good as a lost election, and the deadline bounds how often
    try:
        report = json.loads(text.splitlines()[-1])
    except ValueError:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"The daemon of {workspace} ended before it was ready: {text.strip()[-500:]}",
            "Run `speciate doctor`; the whole story is in daemon.log of the workspace.",
        ) from None
    if "message" in report:
        raise as_error(report)
    return bool(report["won"])


def _read_to_end(descriptor: int, deadline: float) -> str:
    """What the candidate says before it closes its end, which it does once it listens."""
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                break
            data += chunk
    return data.decode(errors="replace")
