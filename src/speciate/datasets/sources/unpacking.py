"""Asks a caged process of its own to write files into a folder of the run: what archives and tables hold.

The process can write nothing else. When it has answered it is ended before anything in the folder is looked at, and
the folder is walked like a foreign one in which no link is followed.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.sandbox import Cage, CagePolicy, Limits, python, start
from speciate.workspace.workspace import Folders

_LIMITS = Limits(memory_mb=4096, file_mb=2048)
_SECONDS = 3600.0
_LONGEST_ANSWER = 64 << 20  # bytes
_SPARE = 1 << 30  # bytes of the disk that stay free


class Desk(NamedTuple):
    """Where a source is prepared."""

    pool: Pool
    cage: CagePolicy
    folders: Folders
    work: Path
    """A folder of the run's own; made where it is missing."""


def unpack_into(
    folder: Path, service: str, payload: dict[str, Any], *, readable: Iterable[Path], desk: Desk
) -> dict[str, Any]:
    """The answer of `service`, whose working folder `folder` is; it gets the bytes that it may write as `budget`.

    Raises what the service raises, UNAVAILABLE where the process crashed or took longer than an hour.
    """
    folder.mkdir(parents=True)
    budget = max(0, shutil.disk_usage(folder).free - _SPARE)
    question = memoryview(json.dumps({"service": service, "payload": {**payload, "budget": budget}}).encode() + b"\n")
    command = python("speciate.jobs.pool_process", str(desk.folders.root))
    caged = start(command, Cage(tuple(readable), folder, _LIMITS), desk.cage)
    try:
        while question:
            question = question[caged.stdin.write(question) :]
        line = _line(caged.stdout.fileno(), time.monotonic() + _SECONDS)
    except BrokenPipeError:
        line = b""
    finally:
        caged.kill()
    try:
        reply = json.loads(line)
    except ValueError:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"The process that unpacks was ended: it crashed, needed more than {_LIMITS.memory_mb} MB of memory, or "
            "more than an hour.",
            "Unpack it yourself and call create_dataset with the folder.",
        ) from None
    if (failure := reply.get("error")) is not None:
        raise SpeciateError(Code(failure["code"]), failure["message"], failure["recovery"])
    answer: dict[str, Any] = reply["answer"]
    return answer


def _line(descriptor: int, deadline: float) -> bytes:
    """What is written until a line ends; less where the writer ended, was too slow or wrote too much."""
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    line = bytearray()
    while not line.endswith(b"\n") and len(line) <= _LONGEST_ANSWER:
        if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return b""
        part = os.read(descriptor, 1 << 20)
        if not part:
            return b""
        line += part
    return bytes(line)
