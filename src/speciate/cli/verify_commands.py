"""`speciate verify` and `speciate backup`: compare every file of the workspace with what the catalog says of it.

The daemon keeps serving: it lists what the catalog refers to, and the files are read here. If it cannot start, as with
a damaged catalog, that is reported and the files are compared with the hashes that they hold themselves.
"""

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from pathlib import Path

from speciate.cli import signing_commands
from speciate.cli.daemon_commands import ask_daemon
from speciate.cli.output import Progress, say
from speciate.environment import workspace_path
from speciate.errors import Code, SpeciateError
from speciate.loop.verification import (
    MISSING,
    Finding,
    Inventory,
    VerificationWalk,
    WalkProgress,
    finding_document,
    parse_inventory,
    quarantine,
)
from speciate.server.untrusted import clean_text
from speciate.workspace.disk_space import format_bytes
from speciate.workspace.workspace import Folders


def verify(arguments: argparse.Namespace) -> int:
    """1 where something is damaged or missing."""
    if not arguments.all:
        if arguments.model is None:
            raise SpeciateError(
                Code.INVALID,
                "Neither a model nor --all was named.",
                "speciate verify NAME@v3, or speciate verify --all",
            )
        return signing_commands.verify_signature(arguments)
    if arguments.model is not None:
        raise SpeciateError(Code.INVALID, "--all takes no model.", "speciate verify --all")
    folders = Folders(workspace_path(arguments.workspace))
    if not folders.root.is_dir():
        raise SpeciateError(Code.NOT_FOUND, f"There is no workspace {folders.root}.", "Name one with --workspace.")
    known = inventory_of(arguments, quiet=arguments.json)
    progress = Progress(quiet=arguments.json)
    walk, found = VerificationWalk(folders, known, partial(_show_read, progress)), list[Finding]()
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
        document = {
            "catalog": known.catalog,
            "found": [finding_document(each) for each in found],
            **walk.seen._asdict(),
        }
        say(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        say(_summary(walk.seen, found, known))
    return 1 if found or known.catalog else 0


def inventory_of(arguments: argparse.Namespace, *, quiet: bool) -> Inventory:
    """What the catalog refers to. Unless `quiet`, what is wrong with the catalog is said."""
    try:
        known = parse_inventory(ask_daemon(arguments, "inventory", start=True))
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
    now = parse_inventory(ask_daemon(arguments, "inventory", start=True))
    needed = {*now.files, *(f"models/{name}" for name in now.models)}
    return finding.path in needed or any(finding.path.startswith(f"evaluations/{each}/") for each in now.evaluations)


def finding_text(finding: Finding) -> str:
    needed = f"\n  needed by {', '.join(finding.needed_by)}" if finding.needed_by else ""
    return clean_text(f"{finding.path}: {finding.why}{needed}\n  next: {finding.what_to_do}")


def _summary(seen: WalkProgress, found: list[Finding], known: Inventory) -> str:
    wrong = len(found) + len(known.catalog)
    summary = f"{seen.files:,} files, {format_bytes(seen.bytes)}: " + (
        f"{wrong} damaged or missing." if wrong else "all whole."
    )
    if seen.unsealed:
        summary += f" {seen.unsealed:,} are from before files said what they hold: only that they can be read is known."
    return summary


def _show_read(progress: Progress, files: int, count: int) -> None:
    progress.show(f"{files:,} files, {format_bytes(count)} read ...")


def backup(arguments: argparse.Namespace) -> int:
    """1 if something in the copy is damaged or missing; the rest is copied nevertheless.

    The daemon copies; every file of the copy is then hashed here. So a file that was damaged before, and one that the
    target's disk damaged, are both found, and nobody takes a damaged backup for a whole one.
    """
    known = inventory_of(arguments, quiet=False)  # before: what is made meanwhile is in no need of being there
    made = ask_daemon(arguments, "backup", start=True, target=os.path.abspath(arguments.target))
    progress = Progress()
    found = [
        each
        for each in VerificationWalk(Folders(Path(made["path"])), known, partial(_show_read, progress))
        if each.why != MISSING or still_needed(arguments, known, each)
    ]
    progress.clear()
    for each in found:
        say(finding_text(each))
    copied = f"{made['path']}: {made['files']} files, {made['bytes'] / 1e6:.1f} MB"
    if not found and not known.catalog:
        say(f"{copied}, all compared with what was written")
        return 0
    say(
        f"{copied}, of which {len(found) + len(known.catalog)} are damaged or missing, as listed; the rest is whole. "
        "Keep earlier backups.\n"
        "next: `speciate verify --all --quarantine` says which are damaged in the workspace, too, what needs them, and "
        "moves away those that can be made again; restore the others from an earlier backup."
    )
    return 1
