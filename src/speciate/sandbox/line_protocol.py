"""One of our modules in a sandboxed process that reads nothing of the workspace, asked line by line: JSON in, JSON out.

For others' code, of which each question may be the last: a service pool (jobs/pool.py) shares its processes between
askers and lets them read sealed data, answers among them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

from speciate.sandbox import Limits, Sandbox, SandboxPolicy, python, start

_LONGEST_LINE = 16 << 20
_GRACE_SECONDS = 1.0
"""After the deadline an answer that is there is still read; what never ends its line is not."""
_LIMITS = Limits(memory_mb=2048, file_mb=64, open_files=64)
_MOST_BYTES = 512 << 20
"""In its scratch folder, looked at while an answer is awaited. Files without a name are as many as may be open."""
_LOOK_SECONDS = 0.5


class SandboxClient:
    """A live process. After `ask` raised TimeoutError or EOFError it is of no more use. Call `end` in the end."""

    def __init__(self, module: str, folder: Path, policy: SandboxPolicy) -> None:
        """`folder`: where its scratch folder is made."""
        self._scratch = folder / f"cage-{uuid.uuid4().hex}"
        self._scratch.mkdir(parents=True)
        try:
            self._caged = start(python(module), Sandbox((), self._scratch, _LIMITS, code=True), policy)
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise
        self._ready = select.poll()
        self._ready.register(self._caged.stdout, select.POLLIN)
        os.set_blocking(self._caged.stdin.fileno(), False)
        self._open = select.poll()
        self._open.register(self._caged.stdin, select.POLLOUT)

    def ask(self, question: Any, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        self._write(json.dumps(question).encode() + b"\n", deadline)
        answer = b""
        while not answer.endswith(b"\n"):
            if not self._readable(deadline):
                continue
            part = os.read(self._caged.stdout.fileno(), 1 << 16)
            answer += part
            if not part or len(answer) > _LONGEST_LINE:
                raise EOFError
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise EOFError from None

    def _readable(self, deadline: float) -> bool:
        """Waits, but not long. TimeoutError after the deadline, EOFError where the scratch folder is too full."""
        if self._ready.poll(min(_milliseconds_left(deadline), _LOOK_SECONDS * 1000)):
            if time.monotonic() > deadline + _GRACE_SECONDS:
                raise TimeoutError
            return True
        if _milliseconds_left(deadline) == 0:
            raise TimeoutError
        if _bytes_below(self._scratch) > _MOST_BYTES:
            raise EOFError
        return False

    def _write(self, line: bytes, deadline: float) -> None:
        """What stopped itself reads nothing, and a pipe that is full takes nothing more."""
        rest = memoryview(line)
        while rest:
            if not self._open.poll(_milliseconds_left(deadline)):
                raise TimeoutError
            try:
                rest = rest[os.write(self._caged.stdin.fileno(), rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise EOFError from None

    def end(self) -> None:
        self._caged.kill()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _milliseconds_left(deadline: float) -> float:
    """Milliseconds."""
    return max(0.0, deadline - time.monotonic()) * 1000


def _bytes_below(folder: Path) -> int:
    """On disk: a file with holes counts as what is there."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found += os.lstat(os.path.join(place, name)).st_blocks * 512
    return found
