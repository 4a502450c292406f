"""The folder of one attempt: how a daemon, a supervisor and a worker agree on what happened, whoever of them dies.

    spec.json        what to run; written whole before the launch
    claim            locked (flock) while anything of this attempt lives
    begun            exists from the moment that a worker may act: an attempt runs once
    supervisor worker   pid, start time and boot id of each, to signal them safely
    log              stdout and stderr
    progress.jsonl   {at, done, total, unit, message} lines, appended
    cancel           exists: stop at the next safe point
    checkpoints/ outputs/
    best-N/          as outputs/, kept in case a limit passes: counts where it has a result.json
    reserve          room for `exit` on a disk that is full by then; given back at the end
    exit             {"code", "class", "message", "recovery", "detail"}; written whole, last

spec.json, exit and outputs/result.json carry a checksum of their content (`_check`), so that none is believed that a
disk has changed; those of before there was one are taken as they are. Standard library only: supervisor and zygote
import it.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

from speciate.errors import CallDocument, Code, SpeciateError
from speciate.workspace.filesystem import FULL
from speciate.workspace.lock import is_held

RESUMABLE = 85
"""Exit code of a run that stopped on request after a checkpoint."""


SECOND = 76
"""Exit code of a worker that found its attempt begun by another one. It says nothing about the attempt."""


BEST, RESULT, EXIT = "best-", "result.json", "exit"
LOG, PROGRESS = "log", "progress.jsonl"
METRICS = "metrics"
"""Beginning of the names of files with metrics; they end in .jsonl. A run has one, or one for each candidate."""
TEAM = "team.json"
"""Where the processes of several nodes meet, and the key that they show there."""
_IS_BEST = re.compile(rf"{BEST}[0-9]{{1,9}}")
_CHECK = "_check"
_log = logging.getLogger(__name__)
FULL_BYTES = 4 << 20
"""With less free than that, whatever failed is put down to the disk: libraries say so in many ways."""
_RESERVE, _RESERVE_BYTES = "reserve", 16_384


NO_ROOM = 77
"""Exit code of a worker that a full disk kept from writing how it ended."""
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
"""Signals that a worker brought on itself: it is tried again, with a retry less."""


def is_growing(name: str) -> bool:
    """Whether a run appends to the file of this name while it runs."""
    return name in (LOG, PROGRESS) or (name.startswith(METRICS) and name.endswith(".jsonl"))


class Outcome(NamedTuple):
    """`kind`: ok, user (never retried), transient, memory, full (the disk), stopped, killed, starved (killed by the
    system for want of memory). `message` and `recovery` are our words; what a library or a plug-in said, which may
    quote anything, is in `detail` alone."""

    code: int
    kind: str
    message: str = ""
    recovery: str = ""
    detail: str = ""
    next: tuple[CallDocument, ...] = ()
    """Calls that `recovery` names, as `{"tool", "arguments"}`."""


class Progress(NamedTuple):
    at: float
    done: float
    total: float | None
    unit: str
    message: str


CheckedDocument = dict[str, Any]
"""JSON that `write_checked` wrote: spec.json, exit or a result, each with its own keys."""


RunResult = dict[str, Any]
"""outputs/result.json: what a kind's `run` returned. Its `collect` knows the keys."""


class LogTail(NamedTuple):
    text: str
    end: int
    """Byte of the log after the text: what is written from there on is new."""


def decode_whole(data: bytes) -> tuple[str, int]:
    """The text, and how many bytes it has: a character whose last bytes are still to come is left out.

    >>> decode_whole("twö".encode()), decode_whole("twö".encode()[:-1]), decode_whole(b"tw\\xf6!")
    (('twö', 4), ('tw', 2), ('tw�!', 4))
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    return text, len(data) - len(decoder.getstate()[0])


class RunDocument(TypedDict, total=False):
    """spec.json. Documents from before a key was introduced lack it."""

    job: str
    kind: str
    attempt: int
    entry: str
    """`module:function` of the kind's `run`."""
    payload: dict[str, Any]
    """Payload of the plan, as JSON; the kind knows its keys."""
    secrets: Sequence[tuple[str, str]]
    """Name and host of the keys that the run needs."""
    workspace: str
    settings: Mapping[str, Any]
    """`settings.safety` at the launch."""
    resources: Mapping[str, Any]
    preload: str
    """Profile of imports that its process is forked with, where one is."""
    memory_retries: int
    resume_from: Sequence[str]
    """Folders of earlier attempts, newest first."""
    inputs: Sequence[str]
    """`Plan.inputs`, of a run at a place."""
    sources: Sequence[str]
    """`Plan.sources`, of a run at a place."""
    moved: Mapping[str, str]
    """On a node: path of what was moved there -> its path on the daemon's machine."""
    node: int
    """Number of the node, where several have a run together. The first, 0, leads: what it writes is what counts."""
    interface: str
    """Network interface by which those nodes talk."""
    row: Mapping[str, Any]
    """The job, without result and error."""
    allowances: dict[str, float]
    """USD by host."""
    permits: Mapping[str, Sequence[str]]
    """By host, the datasets of which rows may go there."""
    zygote: str
    warm_parent: str
    """Where the launching process's warm parent listens (`sandbox.warm.use`)."""


def map_texts(document: Any, change: Callable[[str], str]) -> Any:
    """JSON with each text in it changed; names stay."""
    if isinstance(document, str):
        return change(document)
    if isinstance(document, Mapping):
        return {name: map_texts(value, change) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [map_texts(each, change) for each in document]
    return document


def write_whole(path: Path, text: str, mode: int = 0o666) -> None:
    """All of `text` or nothing is at `path`, whenever the machine stops. `mode`: who may, less the umask."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")  # nobody else's, thread or host
    try:
        with open(temporary, "w", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # what a full disk took of it is in the way of everybody
        raise


def write_checked(path: Path, document: Mapping[str, object]) -> None:
    """As `write_whole`, as JSON with a checksum in it."""
    write_whole(path, to_checked(document))


def to_checked(document: Mapping[str, object]) -> str:
    return json.dumps({**document, _CHECK: _checksum(json.dumps(document))})


def read_checked(path: Path, recovery: str) -> CheckedDocument:
    """What `write_checked` wrote. Raises DAMAGED, FileNotFoundError."""
    return from_checked(path.read_bytes(), str(path), recovery)


def from_checked(data: bytes, path: str, recovery: str) -> CheckedDocument:
    """What `to_checked` made. Raises DAMAGED, which names `path`."""
    known, document = None, None
    try:
        document = json.loads(data)
        known = document.pop(_CHECK, None)
    except (ValueError, TypeError, RecursionError, AttributeError):
        document = None
    if not isinstance(document, dict) or (known is not None and known != _checksum(json.dumps(document))):
        raise SpeciateError(Code.DAMAGED, f"{path} is damaged: it is not what was written.", recovery)
    return document


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def to_outcome(data: bytes, path: str) -> Outcome | None:
    """What `exit` says; None where nobody can read it any more."""
    try:
        document = from_checked(data, path, "The attempt counts as lost.")
    except SpeciateError as error:
        _log.error("%s", error)
        return None
    code, calls = document.get("code"), document.get("next", ())
    texts = [document.get("class"), *(document.get(name, "") for name in ("message", "recovery", "detail"))]
    if (
        type(code) is not int
        or not all(isinstance(text, str) for text in texts)
        or not (isinstance(calls, list | tuple) and all(isinstance(call, dict) for call in calls))
    ):
        _log.error("%s does not say how the run ended: %.200s", path, document)
        return None
    kind, message, recovery, detail = texts
    return Outcome(code, kind, message, recovery, detail, tuple(calls))


def is_best(name: str) -> bool:
    """Whether a folder of that name keeps a result.

    >>> is_best("best-12"), is_best("best-x"), is_best("best-")
    (True, False, False)
    """
    return _IS_BEST.fullmatch(name) is not None


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.outputs, self.checkpoints, self.log = path / "outputs", path / "checkpoints", path / LOG

    @property
    def run_id(self) -> str:
        return self.path.name

    def create(self, spec: RunDocument) -> None:
        """Idempotent: a launch that is repeated finds the spec of the first one."""
        self.outputs.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        if not (self.path / "spec.json").exists():
            (self.path / _RESERVE).write_bytes(os.urandom(_RESERVE_BYTES))  # random: nothing packs it into less
            write_checked(self.path / "spec.json", spec)

    def spec(self) -> RunDocument:
        """Raises DAMAGED where it is not what was written, FileNotFoundError."""
        recovery = "The next attempt gets a new one: control_job(action='retry')."
        return cast(RunDocument, read_checked(self.path / "spec.json", recovery))

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
        """How it ended. None where it said nothing, or where nobody can read it any more: then it counts as lost."""
        try:
            return to_outcome((self.path / EXIT).read_bytes(), str(self.path / EXIT))
        except FileNotFoundError:
            return None

    def end(self, outcome: Outcome) -> None:
        """Write `exit`, once: the first word stands. On a full disk it takes the room that was reserved for it."""
        path, reserve = self.path / EXIT, self.path / _RESERVE
        if path.exists():
            return
        data = outcome._asdict()
        document = {"code": data.pop("code"), "class": data.pop("kind"), **data}
        try:
            write_checked(path, document)
        except OSError as error:
            if error.errno not in FULL or not reserve.exists():
                raise
            reserve.unlink()
            write_checked(path, document)
        reserve.unlink(missing_ok=True)

    def best_so_far(self) -> RunFolder | None:
        """The newest whole result that the run kept in case its limit passes: this folder, with that as its outputs."""
        kept = [path.parent for path in self.path.glob(f"{BEST}*/{RESULT}") if is_best(path.parent.name)]
        if not kept:
            return None
        found = RunFolder(self.path)
        found.outputs = max(kept, key=lambda path: int(path.name.removeprefix(BEST)))
        return found

    def result(self) -> RunResult | None:
        """What the run returned, where it ended well. Raises DAMAGED where that is not what was written."""
        try:
            return read_checked(self.outputs / RESULT, "Call control_job(action='retry') to run it again.")
        except FileNotFoundError:
            return None

    def progress(self) -> Progress | None:
        """The newest whole line of progress."""
        try:
            with (self.path / PROGRESS).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return None
        for line in reversed(lines[:-1]):  # what follows the last newline is still being written
            try:
                data = json.loads(line)
                return Progress(data["at"], data["done"], data["total"], data["unit"], data["message"])
            except (ValueError, KeyError, TypeError):
                continue
        return None

    def log_tail(self, lines: int) -> str:
        text = self.read_tail(lines).text
        return "\n".join(text.splitlines()[-lines:]) if lines else ""

    def read_tail(self, lines: int) -> LogTail:
        """The last lines of the log, as they are."""
        try:
            with self.log.open("rb") as file:
                begin = max(0, os.fstat(file.fileno()).st_size - 200 * max(lines, 1))
                file.seek(begin)
                text, length = decode_whole(file.read())
        except FileNotFoundError:
            return LogTail("", 0)
        return LogTail("".join(text.splitlines(keepends=True)[-lines:]) if lines else "", begin + length)
