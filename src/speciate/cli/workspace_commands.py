"""`speciate init`, `rebuild` and `status`: the commands that look at a workspace itself, whether a daemon owns it or
not."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from datetime import timedelta
from pathlib import Path

from speciate import settings
from speciate.cli.daemon_commands import DaemonResult, ask_daemon, check_exists
from speciate.cli.output import say
from speciate.environment import workspace_path
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import write_whole
from speciate.jobs.recovery import recover_jobs
from speciate.server.dial import NoDaemon
from speciate.server.untrusted import clean_text
from speciate.workspace import catalog_identity
from speciate.workspace.filesystem import require_local
from speciate.workspace.lock import Lock, LockHeldError
from speciate.workspace.rebuild import rebuild_catalog
from speciate.workspace.workspace import Workspace


def init(arguments: argparse.Namespace) -> int:
    """Make a workspace. Its policy is free to choose here, and here only: there is nothing to protect yet."""
    root = workspace_path(arguments.workspace)
    if (root / "catalog.duckdb").exists() or (root / "settings.toml").exists():
        raise SpeciateError(
            Code.CONFLICT,
            f"{root} is a workspace already; it was not touched.",
            f"Its policy: speciate policy; another one: speciate policy {arguments.policy}",
        )
    lock = _lock_workspace(root)
    require_local(root)
    catalog_identity.refuse_missing(root)  # a workspace that lost its catalog is not made anew, not even its settings
    write_whole(root / "settings.toml", f'policy = "{arguments.policy}"\n')
    Workspace(root).close()
    lock.release()
    say(f"{root} is ready (policy: {arguments.policy}). Give it to an agent as a stdio MCP server:")
    say(f"  speciate serve --workspace {root}")
    return 0


def rebuild(arguments: argparse.Namespace) -> int:
    root = workspace_path(arguments.workspace)
    lock = _lock_workspace(root)
    report = rebuild_catalog(root)
    say(f"{sum(report.rows.values())} rows of {len(report.rows)} tables came from {report.source}.")
    workspace = Workspace(root)
    recovered = recover_jobs(workspace)
    workspace.close()
    lock.release()
    say(f"{len(recovered.jobs)} jobs came back from their run folders.")
    for line in (*report.lost, *recovered.lost):
        say(f"Not restored: {line}")
    say("Files that nothing names now and that were written since then stay: garbage collection leaves them alone.")
    if report.kept:
        say(f"The old catalog is kept in {report.kept}.")
    return 0


_ENDING_SECONDS = 3.0
"""A daemon that found no catalog, or was told to end, holds its lock a little longer."""


def _lock_workspace(root: Path) -> Lock:
    until = time.monotonic() + _ENDING_SECONDS
    while True:
        try:
            return Lock(root)
        except LockHeldError:
            if time.monotonic() > until:
                raise SpeciateError(
                    Code.UNAVAILABLE, f"A daemon owns {root}.", f"Run `speciate stop --workspace {root}` first."
                ) from None
            time.sleep(0.05)


def status_text(found: DaemonResult) -> str:
    """The daemon's status for a person."""
    jobs = ", ".join(f"{count} {state}" for state, count in found["jobs"].items()) or "none yet"
    clients = f"{found['clients']} client{'' if found['clients'] == 1 else 's'}"
    lines = [
        f"{found['workspace']}: the daemon {found['version']} (process {found['pid']}) has run for "
        f"{timedelta(seconds=round(found['running_seconds']))}, with {clients}.",
        f"Jobs: {jobs}.",
        f"Policy: {found['policy']}. Newest backup: {found['newest_backup'] or 'none yet'}.",
        *(f"Policy of {name}: {policy}." for name, policy in found["policies"].items()),
        found["approvals"],
        *(f"Not as a person decided it: {problem}" for problem in found["problems"]),
    ]
    if found["paused_as_copied"]:
        lines.append(f"A copy: {found['paused_as_copied']} jobs are paused until `speciate resume`.")
    return "\n".join(lines)


def status(arguments: argparse.Namespace) -> int:
    """What the daemon does: sentences on a terminal, else JSON; starts none. Raises, as a call would, REFUSED
    if the catalog is gone and INVALID if the settings cannot be used."""
    check_exists(arguments)
    try:
        found = ask_daemon(arguments, "status")
        plain = sys.stdout.isatty() and not arguments.json
        shown = clean_text(status_text(found)) if plain else json.dumps(found, indent=2)
    except NoDaemon as none:
        with contextlib.suppress(OSError):  # another user's folder, of which nothing can be told
            if refused := catalog_identity.missing_catalog_error(workspace_path(arguments.workspace)):
                raise refused from none
            settings.load(workspace_path(arguments.workspace))  # with broken ones no call would start it
        shown = str(none)
    say(shown)
    return 0
