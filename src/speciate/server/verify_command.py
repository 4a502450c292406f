"""`speciate verify`: one model version against its signature, or with `--all` every file that the workspace keeps.

The daemon goes on meanwhile: it says what the catalog refers to, the files are read here. Where it cannot start, as
with a damaged catalog, that is said and the files are compared with what they say themselves.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from speciate.environment import workspace_path
from speciate.errors import Code, SpeciateError
from speciate.production.verification import MISSING, Finding, Inventory, Seen, Walk, parsed, quarantine, shown
from speciate.server import signing
from speciate.server.online import control
from speciate.server.untrusted import clean_text
from speciate.workspace.room import amount
from speciate.workspace.workspace import Folders

_SHOW_SECONDS = 2.0


def verify(arguments: argparse.Namespace) -> int:
    """1 where something is damaged or missing."""
    if not arguments.all:
        if arguments.model is None:
            raise SpeciateError(
                Code.INVALID,
                "Neither a model nor --all was named.",
                "speciate verify NAME@v3, or speciate verify --all",
            )
        return signing.verify(arguments)
    if arguments.model is not None:
        raise SpeciateError(Code.INVALID, "--all takes no model.", "speciate verify --all")
    folders = Folders(workspace_path(arguments.workspace))
    if not folders.root.is_dir():
        raise SpeciateError(Code.NOT_FOUND, f"There is no workspace {folders.root}.", "Name one with --workspace.")
    known = inventory_of(arguments, quiet=arguments.json)
    progress = Progress(quiet=arguments.json)
    walk, found = Walk(folders, known, progress.tell), list[Finding]()
    for finding in walk:
        if finding.why == MISSING and not still_needed(arguments, known, finding):
            continue
        found.append(finding)
        if not arguments.json:
            progress.clear()
            say(finding_text(finding))
        if arguments.quarantine and finding.may_go:
            place = quarantine(folders, finding)
            if not arguments.json:
                say(f"  moved to {place.relative_to(folders.root)}")
    progress.clear()
    if arguments.json:
        document = {"catalog": known.catalog, "found": [shown(each) for each in found], **walk.seen._asdict()}
        say(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        say(_summary(walk.seen, found, known))
    return 1 if found or known.catalog else 0


def inventory_of(arguments: argparse.Namespace, *, quiet: bool) -> Inventory:
    """What the catalog refers to. Unless `quiet`, what is wrong with the catalog is said."""
    try:
        known = parsed(control(arguments, "inventory", start=True))
    except SpeciateError as error:
        known = Inventory(catalog=(str(error),))
    if not quiet:
        for problem in known.catalog:
            say(f"catalog.duckdb: {clean_text(problem)}")
    return known


def still_needed(arguments: argparse.Namespace, known: Inventory, finding: Finding) -> bool:
    """Somebody may have deleted what needed it since the catalog was asked."""
    if known.catalog and not known.files:
        return True
    now = parsed(control(arguments, "inventory", start=True))
    needed = {*now.files, *(f"models/{name}" for name in now.models)}
    return finding.path in needed or any(finding.path.startswith(f"evaluations/{each}/") for each in now.evaluations)


def finding_text(finding: Finding) -> str:
    needed = f"\n  needed by {', '.join(finding.needed_by)}" if finding.needed_by else ""
    return clean_text(f"{finding.path}: {finding.why}{needed}\n  next: {finding.what_to_do}")


def _summary(seen: Seen, found: list[Finding], known: Inventory) -> str:
    wrong = len(found) + len(known.catalog)
    said = f"{seen.files:,} files, {amount(seen.bytes)}: " + (f"{wrong} damaged or missing." if wrong else "all whole.")
    if seen.unsealed:
        said += f" {seen.unsealed:,} are from before files said what they hold: only that they can be read is known."
    return said


class Progress:
    """A line on a terminal, every other second."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet or not sys.stderr.isatty()
        self._next, self._shown = time.monotonic() + _SHOW_SECONDS, False

    def tell(self, files: int, count: int) -> None:
        if not self._quiet and time.monotonic() >= self._next:
            self._next, self._shown = time.monotonic() + _SHOW_SECONDS, True
            sys.stderr.write(f"\r{files:,} files, {amount(count)} read ...")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            self._shown = False


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
