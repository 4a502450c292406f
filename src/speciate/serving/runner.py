"""One version in a process of its own, caged: foreign bytes are decoded there, and the model runs there.

It reads the version's folder (and packages with weights), has no network and no other file of the workspace, and dies
with the slot. Ending it is how a version's memory is freed. The other end of the pipe is that of the service pool.
Not thread-safe: one question at a time.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.finite import NOT_FINITE, finite
from speciate.sandbox import Cage, Caged, CagePolicy, Limits, python, start
from speciate.serving.folder import Target

LOAD, ANSWER = "speciate.production.answer:load", "speciate.production.answer:answer"
_LONGEST_ANSWER = 256 * 1024 * 1024  # bytes, of a whole batch
_MB = 1024 * 1024

Item = dict[str, Any]


class Died(Exception):
    """The process ended under a question: it crashed, or needed more memory than it may have."""


class Slow(Exception):
    """The process did not answer in time; it was killed."""


class Runner:
    """A started process; `load` before `answer`, `end` in any case."""

    def __init__(self, root: Path, scratch: Path, target: Target, memory_mb: int, policy: CagePolicy) -> None:
        self.target = target
        self._scratch = scratch / uuid.uuid4().hex
        self._scratch.mkdir(parents=True)
        limits = Limits(memory_mb=memory_mb + 2 * target.bytes // _MB, file_mb=768)
        folder = root / target.path
        cage = Cage((folder,), self._scratch, limits)
        try:
            self._caged: Caged = start(python("speciate.jobs.pool_process", str(root)), cage, policy)
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise
        self._ready, self._room = select.poll(), select.poll()  # unlike select(), these know descriptors beyond 1023
        self._ready.register(self._caged.stdout, select.POLLIN)
        self._room.register(self._caged.stdin, select.POLLOUT)
        os.set_blocking(self._caged.stdin.fileno(), False)
        self._about = {
            "model": str(folder),
            "modality": target.modality,
            "inputs": list(target.inputs),
            "parts": list(target.parts),
            "ignored_parts": list(target.ignored_parts),
        }

    @property
    def pid(self) -> int:
        return self._caged.pid

    def load(self, seconds: float) -> None:
        """Raises what loading raised, Died or Slow."""
        self._ask(LOAD, {"model": self._about["model"]}, seconds)

    def answer(self, items: Sequence[Item], seconds: float) -> list[Item]:
        """Predictions of these items in their order, as `production.answer` makes them; Died or Slow where none are.

        A number that is none (NaN, infinite) spoils its item: JSON has no such numbers, and nobody can use them.
        """
        numbered = [{**item, "id": str(place)} for place, item in enumerate(items)]
        answer, odd = self._ask(ANSWER, {**self._about, "items": numbered}, seconds)
        found: list[Item] = answer["predictions"]
        if len(found) != len(items):
            raise Died
        return [_checked(one) for one in found] if odd else found

    def cpu_seconds(self) -> float | None:
        """That all of its threads have used, by the scheduler's count in nanoseconds (Linux)."""
        try:
            threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
            return sum(int(one.read_text().split()[0]) for one in threads) / 1e9 or None
        except (OSError, ValueError, IndexError):  # a thread that ended meanwhile, too
            return None

    def interrupt(self) -> None:
        """Kill the process under whoever waits for its answer, from any thread; `end` must follow."""
        self._caged.interrupt()

    def end(self) -> None:
        self._caged.kill()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _ask(self, service: str, payload: dict[str, Any], seconds: float) -> tuple[dict[str, Any], bool]:
        """The answer, and whether there is a number in it that is none."""
        line = self._exchange(json.dumps({"service": service, "payload": payload}).encode() + b"\n", seconds)
        odd: list[str] = []

        def constant(name: str) -> float:
            odd.append(name)
            return float(name)

        try:
            reply = json.loads(line, parse_constant=constant)
            if (failure := reply.get("error")) is not None:
                refused = SpeciateError(Code(failure["code"]), str(failure["message"]), str(failure["recovery"]))
            else:
                return dict(reply["answer"]), bool(odd)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # it may say anything
            raise Died from None
        raise refused

    def _exchange(self, question: bytes, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        rest = memoryview(question)
        try:
            while rest:
                self._wait(self._room, deadline)
                rest = rest[os.write(self._caged.stdin.fileno(), rest) :]
        except OSError:
            raise Died from None
        parts: list[bytes] = []
        size = 0
        while not (parts and parts[-1].endswith(b"\n")):
            self._wait(self._ready, deadline)
            part = os.read(self._caged.stdout.fileno(), 1 << 20)
            size += len(part)
            if not part or size > _LONGEST_ANSWER:
                raise Died
            parts.append(part)
        return b"".join(parts)

    def _wait(self, poll: select.poll, deadline: float) -> None:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            self.interrupt()
            raise Slow


def _checked(prediction: Item) -> Item:
    if finite(prediction.get("output")) and finite(prediction.get("confidence")):
        return prediction
    return {**prediction, "output": None, "confidence": None, "error": NOT_FINITE}
