"""The commands for keys: `speciate secret`. They concern a person, not a workspace, and no tool reaches them.

Standard library only.
"""

from __future__ import annotations

import argparse
import getpass
import sys
import time

from speciate import secrets
from speciate.secrets import LONGEST


def secret(arguments: argparse.Namespace) -> int:
    return {"set": _set, "list": _list, "remove": _remove}[arguments.action](arguments)


def _set(arguments: argparse.Namespace) -> int:
    """The key comes from the terminal, without echo, or else from a pipe: an argument would be seen in the list of
    processes and stay in the shell's history."""
    if sys.stdin.isatty():
        value = getpass.getpass(f"Key {arguments.name} (not shown): ")
    else:
        value = sys.stdin.read(LONGEST + 2)
    made = secrets.put(arguments.name, arguments.host, value.strip())
    _say(f"{made.name} is stored in {secrets.file()}, for {', '.join(made.hosts)} alone.")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    for key in secrets.stored():
        _say(f"{key.name:20}  {', '.join(key.hosts):40}  {time.strftime('%Y-%m-%d %H:%M', time.localtime(key.stamp))}")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    secrets.remove(arguments.name)
    _say(f"{arguments.name} is gone from {secrets.file()}. At its service it is still valid.")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
