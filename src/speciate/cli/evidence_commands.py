"""`speciate evidence`: signed bundles of what a decision rests on. Checking one needs no workspace and no daemon."""

from __future__ import annotations

import argparse
import os
import sys

from speciate.cli.daemon_commands import check_exists
from speciate.cli.output import say
from speciate.environment import workspace_path
from speciate.errors import Code, SpeciateError
from speciate.governance.evidence_key import evidence_key
from speciate.promotion import verify_evidence
from speciate.server.client import connect
from speciate.workspace.catalog_identity import read_anchor


def evidence(arguments: argparse.Namespace) -> int:
    if arguments.action == "verify":
        return verify_evidence.report(arguments, sys.stdout.write)
    check_exists(arguments)
    return _export(arguments) if arguments.action == "export" else _show_key(arguments)


def _export(arguments: argparse.Namespace) -> int:
    given = {"use_case": arguments.use_case, "path": os.path.abspath(arguments.path), "rows": arguments.rows}
    if arguments.evaluation is not None:
        given["evaluation"] = arguments.evaluation
    made = connect(arguments.workspace).call("export_evidence", **given)
    place = "is in production" if made["in_production"] else "is not what production rests on"
    say(f"{made['bundle']}: {made['decision']}, {made['verdict']} {made['candidate']}, which {place}.")
    for note in made.get("notes", ()):
        say(note)
    say(f"Signed by the key {made['key']}: tell it to the reader by another way.\nThe reader runs: {made['check']}")
    return 0


def _show_key(arguments: argparse.Namespace) -> int:
    root = workspace_path(arguments.workspace)
    anchor = read_anchor(root)
    if anchor is None:
        raise SpeciateError(
            Code.NOT_FOUND, f"There is no workspace {root}, or no daemon ran in it yet.", "Name one with --workspace."
        )
    say(verify_evidence.fingerprint(evidence_key(anchor.identity).public))
    return 0
