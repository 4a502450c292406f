"""The folder of one attempt: how a daemon, a supervisor and a worker agree on what happened, whoever of them dies.

    spec.json        what to run; written whole before the launch
    claim            locked (flock) while anything of this attempt lives
    begun            exists from the moment that a worker may act: an attempt runs once
    supervisor worker   pid, start time and boot id of each, to signal them safely
    log              stdout and stderr
    progress.jsonl   {at, done, total, unit, message} lines, appended
    cancel           exists: stop at the next safe point
    checkpoints/ outputs/
    reserve          room for `exit` on a disk that is full by then; given back at the end
    exit             {"code", "class", "message", "recovery", "detail"}; written whole, last

Standard library only: supervisor and zygote import it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from speciate.workspace.lock import is_held
from speciate.workspace.storage import FULL

RESUMABLE = 85
"""Exit code of a run that stopped on request after a checkpoint."""


SECOND = 76
"""Exit code of a worker that found its attempt begun by another one. It says nothing about the attempt."""


_RESERVE, _RESERVE_BYTES = "reserve", 16_384


class Outcome(NamedTuple):
    """`kind`: ok, user (never retried), transient, memory, full (the disk), stopped, killed. `message` and `recovery`
    are our words; what a library or a plug-in said, which may quote anything, is in `detail` alone."""

    code: int
    kind: str
    message: str = ""
    recovery: str = ""
    detail: str = ""


class Progress(NamedTuple):
    at: float
    done: float
    total: float | None
    unit: str
    message: str


def write_whole(path: Path, text: str, mode: int = 0o666) -> None:
    """All of `text` or nothing is at `path`, whenever the machine stops. `mode`: who may, less the umask."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # what a full disk took of it is in the way of everybody
        raise


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.outputs, self.checkpoints, self.log = path / "outputs", path / "checkpoints", path / "log"

    @property
    def run_id(self) -> str:
        return self.path.name

    def create(self, spec: dict[str, Any]) -> None:
        """Idempotent: a launch that is repeated finds the spec of the first one."""
        self.outputs.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        if not (self.path / "spec.json").exists():
            (self.path / _RESERVE).write_bytes(os.urandom(_RESERVE_BYTES))  # random: nothing packs it into less
            write_whole(self.path / "spec.json", json.dumps(spec))

    def spec(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.path / "spec.json").read_text())
        return loaded

    def alive(self) -> bool:
        """Whether the claim is held: something of this attempt still lives. The kernel frees it at the last death."""
        return is_held(self.path / "claim")

    def started(self) -> bool:
        """Whether a supervisor ever held the claim."""
        return (self.path / "supervisor").exists()

    def begin(self) -> bool:
        """Whether this process is the attempt's one run. A zygote may die between its fork and telling of it, so two
        workers of one attempt can exist; only the first of them may do anything."""
        try:
            os.close(os.open(self.path / "begun", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return False
        return True

    def stop_asked(self) -> bool:
        return (self.path / "cancel").exists()

    def outcome(self) -> Outcome | None:
        try:
            data = json.loads((self.path / "exit").read_text())
        except FileNotFoundError:
            return None
        words = (data.get(name, "") for name in ("message", "recovery", "detail"))
        return Outcome(data["code"], data["class"], *words)

    def end(self, outcome: Outcome) -> None:
        """Write `exit`, once: the first word stands. On a full disk it takes the room that was reserved for it."""
        path, reserve = self.path / "exit", self.path / _RESERVE
        if path.exists():
            return
        data = outcome._asdict()
        text = json.dumps({"code": data.pop("code"), "class": data.pop("kind"), **data})
        try:
            write_whole(path, text)
        except OSError as error:
            if error.errno not in FULL or not reserve.exists():
                raise
            reserve.unlink()
            write_whole(path, text)
        reserve.unlink(missing_ok=True)

    def result(self) -> dict[str, Any] | None:
        """What the run returned, where it ended well."""
        try:
            loaded: dict[str, Any] = json.loads((self.outputs / "result.json").read_text())
        except FileNotFoundError:
            return None
        return loaded

    def progress(self) -> Progress | None:
        """The newest whole line of progress."""
        try:
            with (self.path / "progress.jsonl").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return None
        for line in reversed(lines[:-1]):  # what follows the last newline is still being written
            try:
                data = json.loads(line)
            except ValueError:
                continue
            return Progress(data["at"], data["done"], data["total"], data["unit"], data["message"])
        return None

    def log_tail(self, lines: int) -> str:
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 200 * max(lines, 1)))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:]) if lines else ""
