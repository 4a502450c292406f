"""What a run sees: its payload, where to write, how to report progress, and its keys, redacted from the text of others.

Redaction is a second line of defence, should a library ever quote a key.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from speciate import environment
from speciate.errors import Code, SpeciateError
from speciate.jobs import egress
from speciate.jobs.egress import Permit
from speciate.jobs.folder import BEST, PROGRESS, RunFolder, write_checked
from speciate.workspace.workspace import Folders

Payload = TypeVar("Payload", bound=BaseModel)


class OutOfMemory(Exception):
    """Raise it to be tried again smaller (`run.memory_retries` tells how often it was)."""


class Transient(Exception):
    """Raise it for what may pass by itself (a network, a busy server): the job is retried with backoff."""


class Stopped(BaseException):
    """Raised in the main thread when the run is asked to stop; let it pass after saving a checkpoint."""


class Run:
    """Handed to `run(run)`. Raise SpeciateError for the user's mistakes; any other exception counts as one too."""

    def __init__(
        self,
        folder: RunFolder,
        keys: Mapping[str, str] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.clock, self._began = folder, clock, clock()
        self._keys = keys
        self.redacted = Redaction(keys.values())
        """`run.redacted(text)`: the text of others without the run's keys. Use it for everything that is kept."""
        spec = folder.spec()
        self.payload = spec["payload"]
        """Payload of the plan as JSON; `read_payload` gives the model that the kind's plan made."""
        self.job = spec["job"]
        self._spec = spec
        self.allowances = spec.get("allowances", {})
        """USD by host that all attempts of this job may spend there together."""
        self.folders = Folders(Path(spec["workspace"]))
        self.memory_retries = spec.get("memory_retries", 0)
        """How often this job ran out of memory before: halve the micro-batch that often."""
        self.cores = max(1, min(environment.cores(), int(spec.get("resources", {}).get("cpu", 1))))
        """Cores that it was given, as far as this process may use so many."""
        self.resume_from = [RunFolder(Path(path)) for path in spec.get("resume_from", ())]
        """Earlier attempts, newest first; their `checkpoints/` and `outputs/` may be used again."""
        self.outputs, self.checkpoints = folder.outputs, folder.checkpoints
        self.limit_seconds: float | None = spec.get("row", {}).get("limits", {}).get("run_seconds")
        """How long this attempt may run; None: as long as it takes."""
        self.node: int = spec.get("node", 0)
        """Number of this node, where several have the run together; the first, 0, leads."""
        self.interface: str | None = spec.get("interface")
        """Network interface by which they talk; None: that of the default route."""
        self._kept = 0

    def read_payload(self, payload: type[Payload]) -> Payload:
        return payload.model_validate(self.payload)

    def secret(self, name: str) -> str:
        """A key that the run's plan names. It must not be written anywhere, nor handed to a process."""
        if name not in self._keys:
            raise SpeciateError(
                Code.INTERNAL, f"This run was given no key {name!r}.", "Its kind must name it in Plan.secrets."
            )
        return self._keys[name]

    def permit(self, host: str) -> Permit | None:
        """To send rows to a host, as the start of this run found it allowed; None where nothing may go there."""
        return egress.permit_of_run(self._spec, host)

    def progress(self, done: float, total: float | None = None, unit: str = "", message: str = "") -> None:
        line = {"at": time.time(), "done": done, "total": total, "unit": unit, "message": self.redacted(message)}
        with (self.folder.path / PROGRESS).open("a") as file:
            file.write(json.dumps(line) + "\n")

    @property
    def seconds_left(self) -> float:
        """Seconds until its limit passes; infinite without one."""
        return math.inf if self.limit_seconds is None else self.limit_seconds - (self.clock() - self._began)

    def keep_best(self, write: Callable[[Path], Mapping[str, object]]) -> None:
        """Keep a whole result in case the limit passes before there is a better one: the job then ends well with it.

        `write(folder)` writes there what would be in `outputs/`, and returns what `run` would. The one before goes
        once this one is whole.
        """
        self._kept += 1
        folder = self.folder.path / f"{BEST}{self._kept}"
        folder.mkdir(exist_ok=True)
        write_checked(folder / "result.json", write(folder))
        shutil.rmtree(self.folder.path / f"{BEST}{self._kept - 1}", ignore_errors=True)

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to stop: save a checkpoint and raise `Stopped`."""
        return self.folder.stop_asked()


_SHORTEST_ENCODED = 10
"""Characters of a form that does not look like a key: shorter ones also occur in other text."""


class Redaction:
    """Hides a run's keys in text: also as JSON, Python and URLs write them, in hexadecimal and base64, and where one is
    printed in pieces. A key that is encrypted, compressed, reversed or written past `sys.stdout` and `sys.stderr` is
    not recognised."""

    def __init__(self, keys: Iterable[str]) -> None:
        written = {form for key in keys if key for form in (key, *_encoded_forms(key))}
        self._forms = sorted(written, key=len, reverse=True)  # a key that is part of another one comes after it

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, "[key]")
        return text

    def __bool__(self) -> bool:
        return bool(self._forms)

    def begun(self, text: str) -> int:
        """How many characters at the end of a text without keys may be the beginning of one: they wait for the rest."""
        longest = min(len(text), max(map(len, self._forms), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(form.startswith(text[-length:]) for form in self._forms):
                return length
        return 0


class RedactedStream:
    """A text stream that hides keys in whatever is written. Call `drain` in the end."""

    def __init__(self, stream: TextIO, redaction: Redaction) -> None:
        self._stream, self._redaction, self._pending = stream, redaction, ""

    def write(self, text: str) -> int:
        clean = self._redaction(self._pending + text)
        count = self._redaction.begun(clean)
        self._pending = clean[len(clean) - count :]
        self._stream.write(clean[: len(clean) - count])
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def drain(self) -> None:
        """Write what waits for a rest that does not come."""
        pending, self._pending = self._pending, ""
        self._stream.write(pending)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redirect_logging(streams: Iterable[tuple[Any, RedactedStream]]) -> None:
    """Let handlers that were made before, as by libraries that a zygote has imported, write to the new streams."""
    instead = {id(old): new for old, new in streams}
    for logger in (logging.root, *logging.Logger.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            kept = vars(handler).get("stream")  # others, such as logging.lastResort, look sys.stderr up at each line
            if isinstance(handler, logging.StreamHandler) and id(kept) in instead:
                handler.stream = instead[id(kept)]


def _encoded_forms(key: str) -> Iterator[str]:
    yield json.dumps(key)[1:-1]
    yield json.dumps(key, ensure_ascii=False)[1:-1]
    yield repr(key)[1:-1]
    yield repr(key.encode())[2:-1]
    yield html.escape(key)
    for safe in ("", "/"):
        yield quote(key, safe=safe)
        yield quote(key, safe=safe).lower()
    for coded in (key.encode().hex(), key.encode().hex().upper(), *_in_base64(key.encode())):
        if len(coded) >= _SHORTEST_ENCODED:
            yield coded


def _in_base64(data: bytes) -> Iterator[str]:
    """What of it is the same wherever it stands in what is encoded, such as behind `user:`."""
    for before in range(3):
        coded = base64.b64encode(bytes(before) + data)
        whole = 8 * (before + len(data)) // 6
        text = coded[(0, 2, 3)[before] : whole].decode()
        yield text
        yield text.translate({ord("+"): "-", ord("/"): "_"})
