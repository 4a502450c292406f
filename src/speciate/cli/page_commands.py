"""`speciate open`: a link to the pages, for whoever is at this terminal."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Mapping
from typing import Any

from speciate.cli import sealed_keys
from speciate.cli.confirmation import account_name, ask_yes, require_terminal
from speciate.cli.daemon_commands import ask_daemon
from speciate.cli.output import say


def open_pages(arguments: argparse.Namespace) -> int:
    """Print a link that begins one session, and open it where there is a browser. With `--decide` a person at a
    terminal says yes first."""
    level = "look"
    if arguments.decide:
        require_terminal()
        shown = (
            f"For half an hour the browser may then decide in your name ({account_name()}): answer approvals, roll "
            "back, stop runs, label. Whoever drives that browser can do so, a program too."
        )
        if not ask_yes("Open it for deciding?", shown):
            return 1
        level = "decide"
    keys = _own_keys() if arguments.decide else []
    url = ask_daemon(arguments, "open", start=True, level=level, keys=keys)["url"]
    say(f"{url}\nIt is good for one browser, within a minute.")
    if not arguments.no_browser and _has_browser():
        webbrowser.open(url)
    return 0


def _own_keys() -> list[Mapping[str, Any]]:
    """This person's keys that a passphrase opens, still sealed: the browser's tab opens them."""
    return [
        {"name": stored.key.name, "public": stored.key.public, **stored.sealed}
        for stored in sealed_keys.all_keys()
        if stored.sealed
    ]


def _has_browser() -> bool:
    """Whether there is a screen: without one, a browser of the terminal would start."""
    screen = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return screen and sys.stdout.isatty()
