"""The first act of a run on a node: `python -m speciate.jobs.places.unpack WHERE FOLDER SCRATCH PARENT NUMBER`, which
becomes the worker.

Copies what the run reads from the depot into the node's own disk, each file checked on the way, as a folder that looks
like the workspace to the worker; writes the run's spec with the paths that hold here; and executes `speciate.worker`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, cast

from speciate.errors import SpeciateError
from speciate.jobs.folder import RESUMABLE, Outcome, RunDocument, RunFolder, map_texts
from speciate.jobs.places.depot import read_sent
from speciate.jobs.places.depots import depot_of, open_room
from speciate.jobs.places.node import die_with_parent

_AGE_DIGITS = 14
"""Hexadecimal digits of nanoseconds: two years."""


class _Stopped(BaseException):
    """It was asked to stop."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped


def main(where: str, run_dir: str, scratch: str, parent: str, number: str) -> int:
    """Does not return where all is there. `number`: of this node among several."""
    die_with_parent(signal.SIGKILL, int(parent))  # the worker, too: it is what this process becomes
    folder, root = RunFolder(Path(run_dir)), Path(scratch) / "workspace"
    signal.signal(signal.SIGTERM, _stop)
    try:
        sent = read_sent(open_room(where))
        depot = depot_of(where)
        root.mkdir(mode=0o700)
        for entry in sent.inputs:
            depot.take(entry, root / entry.name)
            _set_age(root / entry.name, entry.sha256)
        moved = {old: str(root / new) if new else str(root) for old, new in sent.moved.items()}
        (root / "cache").mkdir(exist_ok=True)
        spec = cast(RunDocument, with_paths(sent.spec, moved))
        spec["moved"] = {there: here for here, there in moved.items()}
        if sent.interface is not None:
            spec["interface"] = sent.interface
        folder.create({**spec, "node": int(number)} if number != "0" else spec)
    except (SpeciateError, FileNotFoundError) as error:
        message = error.message if isinstance(error, SpeciateError) else f"it is not in the depot: {error}"
        folder.end(Outcome(1, "transient", message))
        return 1
    except _Stopped:
        folder.end(Outcome(RESUMABLE, "stopped", "stopped on request"))
        return RESUMABLE
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}  # keys of the depot
    return os.execve(sys.executable, [sys.executable, "-m", "speciate.worker", str(folder.path)], kept)


def _set_age(path: Path, sha256: str) -> None:
    """Give a file a time that follows from its content, so that the next attempt, which copies it anew, knows it for
    the same file."""
    age = int(sha256[:_AGE_DIGITS], 16)
    os.utime(path, ns=(age, age))


def with_paths(document: Any, moved: Mapping[str, str]) -> Any:
    """JSON with each absolute path that is a key of `moved`, or lies below one, as it is here; longest keys first."""
    longest_first = sorted(moved, key=len, reverse=True)

    def move(text: str) -> str:
        old = next((old for old in longest_first if text == old or text.startswith(f"{old}/")), None)
        return text if old is None else moved[old] + text[len(old) :]

    return map_texts(document, move)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:6]))
