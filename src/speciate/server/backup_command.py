"""`speciate backup`: a copy of the workspace, and a look at whether the copy is what was once written.

The daemon copies; every file of the copy is then hashed here, so a file that was damaged before and one that the
target's disk damaged are both found, and nobody takes a backup for whole that is not.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from speciate.production.verification import MISSING, Walk
from speciate.server.online import control
from speciate.server.verify_command import Progress, finding_text, inventory_of, say, still_needed
from speciate.workspace.workspace import Folders


def backup(arguments: argparse.Namespace) -> int:
    """1 where something in the copy is damaged or missing; the rest is copied nevertheless."""
    known = inventory_of(arguments, quiet=False)  # before: what is made meanwhile is in no need of being there
    made = control(arguments, "backup", start=True, target=os.path.abspath(arguments.target))
    progress = Progress()
    found = [
        each
        for each in Walk(Folders(Path(made["path"])), known, progress.tell)
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
