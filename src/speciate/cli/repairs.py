"""`speciate doctor --fix`: what can be mended without a choice that is a person's. It says all first.

Only what nothing rests on: the folders of the cache and of exports, a socket whose daemon is gone, a folder of sockets
that is open to others, a daemon of another version. A lock is none: the kernel frees it with its process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from speciate import __version__, environment
from speciate.cli.confirmation import ask_yes
from speciate.cli.daemon_commands import ask_daemon_of
from speciate.cli.output import say
from speciate.errors import SpeciateError
from speciate.server.dial import NoDaemon
from speciate.workspace.lock import is_held

_MADE_AGAIN = ("cache", "exports")
_DATA = ("blobs", "packs", "datasets", "models", "runs")


class Repair(NamedTuple):
    what: str
    """In words, as an order."""
    do: Callable[[], object]


def repairs(workspace: Path) -> list[Repair]:
    """What would be done, in this order. Starts no daemon."""
    return [*_folders(workspace), *_runtime(), *_socket(workspace), *_daemon(workspace)]


def lost(workspace: Path) -> list[str]:
    """What is gone and cannot be made again here."""
    if not (workspace / "catalog.duckdb").exists():
        return []
    gone = [name for name in _DATA if not (workspace / name).is_dir()]
    return [f"{name}/ is gone with what was in it: put it back from a copy (docs/recovery.md)." for name in gone]


def fix(workspace: Path, *, sure: bool, terminal: bool) -> int:
    """0: nothing is left to mend by this command. 1: something is."""
    found = repairs(workspace)
    for problem in lost(workspace):
        say(problem)
    if not found:
        say("There is nothing that this command could mend.")
        return 0
    planned = "\n".join(("This would be done:", *(f"  {each.what}" for each in found)))
    if sure:
        say(planned)
    elif not terminal:
        say(f"{planned}\nNothing was changed. To do it without a terminal: speciate doctor --fix --yes")
        return 1
    elif not ask_yes("Do it?", planned):
        return 1
    failed = 0
    for each in found:
        try:
            each.do()
            say(f"done: {each.what}")
        except (OSError, SpeciateError) as error:
            failed += 1
            say(f"not done: {each.what}: {error}")
    return min(failed, 1)


def _folders(workspace: Path) -> list[Repair]:
    if not (workspace / "catalog.duckdb").exists():
        return []
    missing = [workspace / name for name in _MADE_AGAIN if not (workspace / name).is_dir()]
    return [Repair(f"make {folder} again, empty: nothing rests on what was in it", folder.mkdir) for folder in missing]


def _runtime() -> list[Repair]:
    """The folder of sockets is ours, but open to others, so that every call refuses it."""
    try:
        environment.runtime_folder()
    except SpeciateError:
        folder = environment.fallback_runtime_folder()
        info = folder.lstat()
        if stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid():
            return [Repair(f"close {folder} to other users (mode 0700)", lambda: folder.chmod(0o700))]
    return []


def _socket(workspace: Path) -> list[Repair]:
    """A socket without a daemon: nobody holds the workspace's lock."""
    try:
        path = environment.socket_path(workspace)
    except SpeciateError:
        return []
    if not path.is_socket() or path.stat().st_uid != os.getuid() or is_held(workspace / "daemon.lock"):
        return []
    return [Repair(f"remove {path}, the socket of a daemon that is gone", path.unlink)]


def _daemon(workspace: Path) -> list[Repair]:
    """It ends by itself where a newer version calls; an older one that was installed over it stays."""
    try:
        version = ask_daemon_of(workspace, "status")["version"]
    except NoDaemon:
        return []
    except SpeciateError as error:
        version = f"unknown ({error.message})"
    if version == __version__:
        return []
    what = f"end the daemon of version {version}: runs continue, and the next call starts {__version__}"
    return [Repair(what, lambda: ask_daemon_of(workspace, "stop"))]
