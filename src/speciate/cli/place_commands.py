"""`speciate places`: which clusters settings.toml names, and with --probe whether runs can go there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from speciate import settings
from speciate.cli.output import format_table, say, say_clean
from speciate.environment import workspace_path
from speciate.jobs.places.cluster import Finding
from speciate.jobs.places.probe import look_from_here, look_from_there
from speciate.workspace.filesystem import FilesystemCheck

_NONE = (
    "settings.toml names no place: runs are on this machine. A person adds a cluster as [executors.NAME]; "
    "docs/clusters.md shows how."
)


def places(arguments: argparse.Namespace) -> int:
    """1 where something that was looked at is wrong."""
    known = settings.load(workspace_path(arguments.workspace))
    named = {arguments.place: known.place(arguments.place)} if arguments.place else known.executors
    found = {
        name: [*look_from_here(place), *(look_from_there(place, arguments.seconds) if arguments.probe else ())]
        for name, place in named.items()
    }
    if arguments.json:
        say(json.dumps({name: [each._asdict() for each in findings] for name, findings in found.items()}, indent=2))
    elif not found:
        say(_NONE)
    for name, findings in {} if arguments.json else found.items():
        place = named[name]
        say(f"{name} ({place.kind}): at most {place.runs} runs at once, {place.capacity.gpu} GPUs")
        say_clean(format_table([["", "ok" if each.ok else "--", each.name, each.what] for each in findings]))
    if found and not arguments.probe and not arguments.json:
        say("With --probe a small job on each tells whether its nodes have this version and see the same folder.")
    return 0 if all(each.ok for findings in found.values() for each in findings) else 1


def checks(workspace: Path) -> Iterator[FilesystemCheck]:
    """For `speciate doctor`: what is seen without a job."""
    for name, place in settings.load(workspace).executors.items():
        for each in look_from_here(place):
            yield _check(name, each)


def _check(place: str, finding: Finding) -> FilesystemCheck:
    return FilesystemCheck(f"{place}: {finding.name}", finding.ok, finding.what)
