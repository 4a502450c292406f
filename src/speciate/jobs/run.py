"""What a run sees: its spec, where to write, and how to say how far it is."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.redaction import Redaction
from speciate.workspace.workspace import Folders


class OutOfMemory(Exception):
    """Raise it to be tried again smaller (`run.memory_retries` tells how often it was)."""


class Transient(Exception):
    """Raise it for what may pass by itself (a network, a busy server): the job is retried with backoff."""


class Stopped(BaseException):
    """Raised in the main thread when the run is asked to stop; let it pass after saving a checkpoint."""


class Run:
    """Handed to `run(run)`. Raise SpeciateError for the user's mistakes; any other exception counts as one too."""

    def __init__(self, folder: RunFolder, keys: Mapping[str, str] = MappingProxyType({})) -> None:
        self.folder = folder
        self._keys = keys
        self.redacted = Redaction(keys.values())
        """`run.redacted(text)`: what others said, without the run's keys in it. For all that is kept of it."""
        spec = folder.spec()
        self.payload: dict[str, Any] = spec["payload"]
        self.job: str = spec["job"]
        self.allowances: dict[str, float] = spec.get("allowances", {})
        """By host, what all attempts of this job may spend there together."""
        self.folders = Folders(Path(spec["workspace"]))
        self.memory_retries: int = spec.get("memory_retries", 0)
        """How often this job ran out of memory before: halve the micro-batch that often."""
        self.resume_from = [RunFolder(Path(path)) for path in spec.get("resume_from", ())]
        """Earlier attempts, newest first; their `checkpoints/` and `outputs/` may be used again."""
        self.outputs, self.checkpoints = folder.outputs, folder.checkpoints

    def secret(self, name: str) -> str:
        """A key that the run's plan names. It must not be written anywhere, nor handed to a process."""
        if name not in self._keys:
            raise SpeciateError(
                Code.INTERNAL, f"This run was given no key {name!r}.", "Its kind must name it in Plan.secrets."
            )
        return self._keys[name]

    def progress(self, done: float, total: float | None = None, unit: str = "", message: str = "") -> None:
        line = {"at": time.time(), "done": done, "total": total, "unit": unit, "message": self.redacted(message)}
        with (self.folder.path / "progress.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to stop: save a checkpoint and raise `Stopped`."""
        return self.folder.stop_asked()
