"""The outside of a sandboxed process: starts one of our modules that calls `serve` (serve.py), and asks it.

The process has a folder of its own to write in, and reads only what its `Access` lists. Its answers may hold anything:
it has met foreign bytes, or runs others' code, of which each question may be the last.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.sandbox.kernel import SandboxPolicy
from speciate.sandbox.process import Limits, Sandbox, python, start

_GRACE_SECONDS = 1.0
"""After the deadline an answer that is there is still read; an answer that never ends its line is not."""
_MOST_BYTES = 512 << 20
"""In the scratch folder of others' code, checked while an answer is awaited. `open_files` limits files without a name.
"""
_LOOK_SECONDS = 0.5
_QUOTED = 300


OnPart = Callable[[Any], Any]
"""Gets a part of an answer, and returns a word for whoever answers (JSON), or None."""


class AnswerTimeout(Exception):
    """The process did not take the question or answer it in time; it was killed."""


class ProcessDied(Exception):
    """The process ended under a question, wrote what is no answer to it, or filled its folder; it was killed.

    Its text is for logs: it quotes the last lines that the process wrote to standard error.
    """

    def __init__(self, how: str = "what it wrote is no answer", last: Sequence[str] = ()) -> None:
        super().__init__("; ".join((how, *(f"it wrote: {line}" for line in last))))
        self.how = how
        """What ended it, in our words: an exit code, a signal, or what it did."""


class RemoteError(Exception):
    """What the handler raised, as text that may quote anything. The process lives on."""


class Access(NamedTuple):
    """What a process may see and use. The default is for others' code."""

    readable: tuple[Path, ...] = ()
    limits: Limits = Limits(memory_mb=2048, file_mb=64, open_files=64)
    code: bool = True
    """Whether others' code runs in it (`Sandbox.code`); its scratch folder is then watched as well."""
    longest_answer: int = 16 << 20
    """Bytes of one line."""
    fork: bool = False
    """As `Sandbox.fork`."""
    family: str = ""
    """As `Sandbox.family`."""


class SandboxClient:
    """A live process. After AnswerTimeout, ProcessDied or what `on_part` raised it is of no more use. Call `end` in the
    end.

    Not thread-safe, but for `interrupt`: one question at a time.
    """

    def __init__(
        self,
        module: str,
        folder: Path,
        policy: SandboxPolicy,
        access: Access = Access(),  # noqa: B008 - never changed
        *arguments: str,
        keep: bool = False,
    ) -> None:
        """`folder`: where a scratch folder is made, which goes with the process. With `keep` the process writes into
        `folder` itself, which is made and stays."""
        self.scratch = folder if keep else folder / f"sandbox-{uuid.uuid4().hex}"
        self._keep, self._access = keep, access
        self.scratch.mkdir(parents=True)
        sandbox = Sandbox(access.readable, self.scratch, access.limits, access.code, access.fork, access.family)
        try:
            self._process = start(python(module, *arguments), sandbox, policy)
        except BaseException:
            self._remove_scratch()
            raise
        self._room, self._ready = select.poll(), select.poll()  # unlike select(), these know descriptors beyond 1023
        self._room.register(self._process.stdin, select.POLLOUT)
        self._ready.register(self._process.stdout, select.POLLIN)
        os.set_blocking(self._process.stdin.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def rests(self) -> bool:
        """Between questions: whether it lives and says nothing. It may have been killed meanwhile."""
        return not self._ready.poll(0)

    def open(self, loading: Any, seconds: float) -> None:
        """Hand over what the handler needs before any question. Raises as `ask`."""
        self._exchange("open", loading, seconds, None)

    def ask(
        self,
        question: Any,
        seconds: float,
        parse_constant: Callable[[str], float] | None = None,
        on_part: OnPart | None = None,
    ) -> Any:
        """The handler's answer: JSON of any form. `parse_constant`: as of `json.loads`. `on_part`: gets each part of
        the answer that comes before it, and may answer with a word for the handler.

        Raises RemoteError for what the handler raised, AnswerTimeout or ProcessDied where there is no answer.
        """
        return self._exchange("ask", question, seconds, parse_constant, on_part)

    def interrupt(self) -> None:
        """Kill the process under whoever waits for its answer, from any thread; `end` must follow."""
        self._process.interrupt()

    def end(self) -> None:
        self._process.kill()
        self._remove_scratch()

    def _remove_scratch(self) -> None:
        if not self._keep:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _exchange(
        self,
        verb: str,
        content: Any,
        seconds: float,
        parse_constant: Callable[[str], float] | None,
        on_part: OnPart | None = None,
    ) -> Any:
        """As `ask`. Its ProcessDied says how the process ended, found out before it is killed for it."""
        deadline, mark = time.monotonic() + seconds, secrets.token_hex(8)
        frame = {verb: content, "mark": mark} | ({"parts": True} if on_part else {})
        question = json.dumps(frame).encode() + b"\n"
        try:
            self._write(question, deadline)
            lines = _Lines(self._read, self._access.longest_answer, deadline)
            while "part" in (reply := _parse_reply(lines.next(), mark, parse_constant)):
                if on_part is None:
                    raise ProcessDied
                if (word := on_part(reply["part"])) is not None:
                    self._write(json.dumps({"word": word, "mark": mark}).encode() + b"\n", deadline)
            if lines.rest:
                raise ProcessDied  # more than an answer
        except BaseException:  # whatever `on_part` raises, too: nobody reads the rest of the answer
            self.interrupt()
            raise
        if "error" in reply:
            raise RemoteError(str(reply["error"])[:_QUOTED])
        return reply.get("value")

    def _write(self, line: bytes, deadline: float) -> None:
        """A process that is stopped reads nothing, and a pipe that is full takes nothing more."""
        rest = memoryview(line)
        while rest:
            if not self._room.poll(_milliseconds_left(deadline)):
                raise AnswerTimeout
            try:
                rest = rest[os.write(self._process.stdin.fileno(), rest) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._died() from None

    def _read(self, deadline: float) -> bytes:
        """The next bytes. ProcessDied at its end."""
        self._wait_readable(deadline)
        if not (part := os.read(self._process.stdout.fileno(), 1 << 20)):
            raise self._died()
        return part

    def _died(self) -> ProcessDied:
        return ProcessDied(*self._process.ending())

    def _wait_readable(self, deadline: float) -> None:
        while not self._ready.poll(min(_milliseconds_left(deadline), _LOOK_SECONDS * 1000)):
            if _milliseconds_left(deadline) == 0:
                raise AnswerTimeout
            if self._access.code and _bytes_below(self.scratch) > _MOST_BYTES:
                raise ProcessDied("it filled its folder")
        if time.monotonic() > deadline + _GRACE_SECONDS:
            raise AnswerTimeout


class _Lines:
    """The lines of one exchange, of so many bytes together at most."""

    def __init__(self, read: Callable[[float], bytes], most: int, deadline: float) -> None:
        self._read, self._room, self._deadline = read, most, deadline
        self.rest = bytearray()
        """Bytes that were read and follow the lines that were given."""

    def next(self) -> bytearray:
        searched = 0
        while (end := self.rest.find(b"\n", searched)) < 0:
            searched = len(self.rest)
            self.rest += self._read(self._deadline)
            if len(self.rest) > self._room:
                raise ProcessDied("its answer is too long")
        line, self.rest = self.rest[: end + 1], self.rest[end + 1 :]
        self._room -= len(line)
        return line


def _parse_reply(line: bytearray, mark: str, parse_constant: Callable[[str], float] | None) -> dict[str, Any]:
    try:
        reply = json.loads(line, parse_constant=parse_constant)
    except (ValueError, RecursionError):
        raise ProcessDied from None
    if not isinstance(reply, dict) or reply.get("mark") != mark:
        raise ProcessDied
    return reply


def _milliseconds_left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic()) * 1000


def _bytes_below(folder: Path) -> int:
    """Bytes on disk below a folder: a file with holes counts as what is there."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_blocks * 512
    return size


class NoAnswer(NamedTuple):
    """The handler raised, or the process was lost to this question or to too many before it."""

    why: Literal["raised", "too_slow", "ended", "given_up"]
    detail: str


class RestartingClient:
    """A process that is started when it is first asked, and again after it was lost. Call `end` in the end."""

    def __init__(self, load: Callable[[], SandboxClient], what: str) -> None:
        """`load`: starts and opens a process. After it raised INVALID, which another attempt would not change, every
        question raises that. `what`: what is asked about, in the plural."""
        self._load, self._what = load, what
        self._client: SandboxClient | None = None
        self._refusal: SpeciateError | None = None
        self.lost = 0
        """Processes, so far."""

    def ask(self, question: Any, seconds: float, most_lost: int) -> Any:
        """The answer, JSON of any form, or NoAnswer."""
        if self.lost >= most_lost:
            return NoAnswer("given_up", f"{self.lost} {self._what} before it took too long or ended their process")
        client = self._client = self._client or self._start()
        try:
            return client.ask(question, seconds)
        except RemoteError as error:
            return NoAnswer("raised", str(error))
        except AnswerTimeout:
            return self._lose("too_slow", f"more than {seconds:g} s")
        except ProcessDied:
            detail = "its process ended: too much memory, it left by itself, or it wrote where it may not"
            return self._lose("ended", detail)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.end()

    def _start(self) -> SandboxClient:
        if self._refusal is not None:
            raise self._refusal
        try:
            return self._load()
        except SpeciateError as error:
            if error.code is Code.INVALID:
                self._refusal = error
            raise

    def _lose(self, why: Literal["too_slow", "ended"], detail: str) -> NoAnswer:
        self.end()
        self.lost += 1
        return NoAnswer(why, detail)
