"""`speciate open`: a link to the pages, for whoever is at this terminal."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Mapping
from typing import Any

from speciate.cli import sealed_keys
from speciate.cli.confirmation import ActionRequest, DaemonQuestion, account_name, confirm_and_run, require_terminal
from speciate.cli.daemon_commands import ask_daemon
from speciate.cli.output import say
from speciate.governance.approval_signatures import PASSKEY


def open_pages(arguments: argparse.Namespace) -> int:
    """Print a link that begins one session, and open it where there is a browser. With `--decide` a person at a
    terminal says yes first, or where a key is enrolled signs."""
    if arguments.decide and _only_a_passkey_signs(arguments):
        require_terminal()
        made = ask_daemon(arguments, "open", start=True, level="decide")
        say("The browser asks for your passkey, and decides from then on.")
    elif arguments.decide:
        wanted = ActionRequest("open decide", {"keys": _own_keys()}, "Open it for deciding?")
        if (confirmed := confirm_and_run(arguments, wanted, _show)) is None:
            return 1
        made = confirmed
    else:
        made = ask_daemon(arguments, "open", start=True)
    url = made["url"]
    say(f"{url}\nIt is good for one browser, within a minute.")
    if not arguments.no_browser and _has_browser():
        webbrowser.open(url)
    return 0


def _only_a_passkey_signs(arguments: argparse.Namespace) -> bool:
    """Whether none of the enrolled keys is one of this person's that signs on a terminal, and one is a passkey."""
    enrolled = ask_daemon(arguments, "keys", start=True)["keys"]
    mine = {stored.key.fingerprint for stored in sealed_keys.all_keys()}
    return any(key["kind"] == PASSKEY for key in enrolled) and not any(key["fingerprint"] in mine for key in enrolled)


def _show(question: DaemonQuestion) -> None:
    hours = question.shown["seconds"] / 3600
    say(
        f"The browser may then decide in your name ({account_name()}): answer approvals, roll back, stop runs, label. "
        f"Whoever drives that browser can do so, a program too. It ends half an hour after its last use, and after "
        f"{hours:.0f} hours."
    )


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
