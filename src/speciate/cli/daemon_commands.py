"""The commands that talk to the daemon."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciate.cli import system_service
from speciate.cli.output import say
from speciate.cli.user_service import install, uninstall
from speciate.environment import check_there, workspace_path
from speciate.errors import Code, SpeciateError
from speciate.server.dial import dial
from speciate.server.protocol import CONTROL, HTTP
from speciate.server.shim import Shim
from speciate.server.untrusted import clean_text
from speciate.workspace.lock import is_held

if TYPE_CHECKING:
    from speciate.server.control.messages import AuditRowDocument

_END_SECONDS = 30.0
_PAUSE_SECONDS = 0.05


def serve(arguments: argparse.Namespace) -> int:
    if arguments.system and not (arguments.install or arguments.uninstall):
        raise SpeciateError(Code.INVALID, "--system goes with --install or --uninstall.", "Leave it out, or add one.")
    if arguments.install:
        return system_service.install(arguments) if arguments.system else install(arguments)
    if arguments.uninstall:
        return system_service.uninstall(arguments) if arguments.system else uninstall(arguments)
    if arguments.http is not None:
        return _serve_http(arguments)
    fixtures = [os.path.abspath(path) for path in arguments.fixture]
    try:
        return Shim(workspace_path(arguments.workspace), fixtures=fixtures, tools=arguments.tools).run()
    except BrokenPipeError:
        return 0  # the client is gone


def _serve_http(arguments: argparse.Namespace) -> int:
    """Serves HTTP until interrupted. The port is the daemon's; our connection keeps it open, also over the daemon's
    death."""
    workspace, port, shown = workspace_path(arguments.workspace), arguments.http, False
    fixtures = [os.path.abspath(path) for path in arguments.fixture]
    while True:
        dialled = dial(workspace, HTTP, fixtures=fixtures, port=port)
        port = dialled.answer["port"]
        if not shown:
            say(f"{dialled.answer['url']}\nAuthorization: Bearer {dialled.answer['token']}")
            shown = True
        dialled.line.receive()
        dialled.line.close()


def stop(arguments: argparse.Namespace) -> int:
    """Stops the daemon. Returns once it has let go of the workspace, whose files are then whole; 1 where that takes too
    long."""
    check_exists(arguments)
    workspace, pid = workspace_path(arguments.workspace), ask_daemon(arguments, "stop")["pid"]
    try:
        ended = _has_ended(workspace, pid, time.monotonic() + _END_SECONDS)
    except OSError:  # a daemon of the system, whose lock others cannot open
        say(f"Process {pid} ends; runs continue and are adopted by the next daemon.")
        return 0
    if not ended:
        say(f"Process {pid} is still ending, after {_END_SECONDS:.0f} s: see {workspace / 'daemon.log'}.")
        return 1
    say(f"Process {pid} has ended; runs continue and are adopted by the next daemon.")
    return 0


def _has_ended(workspace: Path, pid: int, deadline: float) -> bool:
    """Whether it frees the lock by then, or another daemon has it already, whose card replaces its own."""
    while is_held(workspace / "daemon.lock") and _pid_in_card(workspace) in (pid, None):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def _pid_in_card(workspace: Path) -> int | None:
    """The process that daemon.json names."""
    try:
        return int(json.loads((workspace / "daemon.json").read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def resume(arguments: argparse.Namespace) -> int:
    """Jobs of a copied workspace."""
    check_exists(arguments)
    resumed = ask_daemon(arguments, "resume", start=True)["jobs"]
    say("\n".join([*resumed, f"{len(resumed)} jobs are resumed that were paused because this workspace is a copy."]))
    return 0


def refresh(arguments: argparse.Namespace) -> int:
    started = ask_daemon(arguments, "refresh", start=True, sources=arguments.sources, vectors=arguments.vectors)
    say(f"{started['job']} asks them; until it has ended, search_models knows what it knew.")
    return 0


def fingerprint(arguments: argparse.Namespace) -> int:
    request = {"model": arguments.model, "dataset": arguments.dataset, "usd": arguments.usd}
    started = ask_daemon(arguments, "fingerprint", start=True, **request)
    for each in started["asked"]:
        say(f"{each['job']} asks {each['model']}; describe_model shows what came of it.")
    for each in started["refused"]:
        say(f"{each['model']} is not asked. {each['why']}")
    if not started["asked"] and not started["refused"]:
        say("No endpoint is registered: register_model(endpoint=...) does so.")
    return 1 if started["refused"] else 0


def format_audit_row(row: AuditRowDocument) -> str:
    """One line: number, time, who, what, and on what grounds."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row["stamp"]))
    moved = f"{row['before'] or 'nothing'} -> {row['after'] or 'nothing'}"
    grounds = {name: row["evidence"].get(name) for name in ("override", "decision", "reason", "percent")}
    if isinstance(signed := row["evidence"].get("signed"), dict):
        grounds["signed by"] = signed.get("name")
    evidence = ", ".join(f"{name}: {value}" for name, value in grounds.items() if value is not None)
    return clean_text(
        f"{row['seq']}  {stamp}Z  {row['actor']}  {row['action']}  {row['use_case']}  {moved}  {evidence}".rstrip()
    )


def check_exists(arguments: argparse.Namespace) -> None:
    """Raises NOT_FOUND for a workspace that was named and is not there."""
    if arguments.workspace:
        check_there(workspace_path(arguments.workspace))


def ask_daemon(arguments: argparse.Namespace, action: str, *, start: bool = False, **more: Any) -> DaemonResult:
    """The daemon's answer to one control request. Raises what it refused with, NOT_FOUND where there is no workspace,
    UNAVAILABLE where no daemon runs, or where an older one does that does not know the action; also for a field that an
    older one leaves out, where that is read."""
    workspace = workspace_path(arguments.workspace)
    check_there(workspace)
    return ask_daemon_of(workspace, action, start=start, **more)


def ask_daemon_of(workspace: Path, action: str, *, start: bool = False, **more: Any) -> DaemonResult:
    """`ask_daemon`, for the workspace in this folder."""
    try:
        dialled = dial(workspace, CONTROL, start=start, action=action, **more)
    except SpeciateError as error:
        if error.code is Code.NOT_FOUND and error.message.startswith("There is no action "):
            raise _older_daemon_error(error.message) from error
        raise
    dialled.line.close()
    return _DaemonAnswer(dialled.answer["result"])


DaemonResult = dict[str, Any]
"""What an action answers (`control.Answer`): whoever asked for the action knows its keys."""


class _DaemonAnswer(DaemonResult):
    """Its fields are those of this version's daemon."""

    def __missing__(self, field: str) -> Any:
        raise _older_daemon_error(f"Its answer has no {field!r}.")


def _older_daemon_error(why: str) -> SpeciateError:
    return SpeciateError(
        Code.UNAVAILABLE,
        f"The daemon of this workspace is an older version. {why}",
        "Run `speciate stop`, then repeat.",
    )
