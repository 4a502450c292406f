"""`speciate audit`: read the trail, check it, and continue from one that is not the known one."""

from __future__ import annotations

import argparse
import sys

from speciate.server import person
from speciate.server.online import audited, control
from speciate.server.person import Asked, Wanted
from speciate.server.untrusted import clean_text


def audit(arguments: argparse.Namespace) -> int:
    return {"verify": _verify, "list": _list, "accept": _accept}[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    for row in control(arguments, "trail", start=True, use_case=arguments.use_case, most=arguments.last)["rows"]:
        _say(audited(row))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    """1 where something is wrong with the trail, which the first line after the head names."""
    verdict = control(arguments, "audit", start=True, head=arguments.head, kept=person.kept(arguments))
    signed = f", {verdict['signed']} signed" if verdict["signed"] else ""
    _say("\n".join([f"{verdict['rows']} rows{signed}, head {verdict['head']}", *verdict["problems"]]))
    return 1 if verdict["problems"] else 0


def _accept(arguments: argparse.Namespace) -> int:
    """After a backup was restored, say: what is missing stays missing, and the trail continues."""
    made = person.decide(arguments, Wanted("accept", {}, "Continue from this trail?"), _show)
    if made is None:
        return 1
    _say(f"Accepted, with row {made['audit'][:16]}.")
    return 0


def _show(asked: Asked) -> None:
    for problem in asked.shown["problems"] or ["Nothing is wrong with the trail."]:
        _say(problem)


def _say(text: str) -> None:
    sys.stdout.write(clean_text(text) + "\n")
    sys.stdout.flush()
