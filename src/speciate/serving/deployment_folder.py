"""The folder of one deployment: how the daemon and the deployment's process agree, whoever of them dies.

    wanted.json    what the deployment shall serve and how; written by the daemon, whole
    port           which it has on loopback, for good
    socket         where the daemon asks it; for its owner only
    claim          locked (flock) while the deployment's process lives
    state.json     what it serves, loads, and would not serve; written by the deployment, whole
    good.json      the target that served last: what a deployment that is started again begins with
    tallies.json   what the requests of each version came to; written by the deployment, whole, for the bake
    hours/         the same by hour, for 90 days; written by the deployment, a file a day
    journal.jsonl  what happened, appended by the deployment; the daemon makes events of it
    heard          how many bytes of the journal the daemon has made events of
    token          the bearer token of this deployment alone; for its owner only
    stop           exists: end, after the requests in flight
    log log.1      stdout and stderr, and those before
    replicas/N/    what a further process of the deployment writes, with the same names; it shares what the daemon
                   writes, the port and the token

Nothing here is in the catalog: a deployment serves on while no daemon lives, and the next daemon finds all of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from speciate.environment import runtime_folder
from speciate.jobs.folder import write_whole
from speciate.settings import Serving
from speciate.unix_sockets import LONGEST_PATH
from speciate.workspace.database import EventData
from speciate.workspace.lock import is_held
from speciate.workspace.workspace import Folders

_REPLICAS = "replicas"
_CLAIM_SECONDS = 2.0
"""`alive` holds the claim for an instant; a process that starts tries to take it for so long."""
_LOG_BYTES = 4 << 20

Model = TypeVar("Model", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Frozen):
    """A version that shall serve, with all that a process needs to serve it without the catalog."""

    generation: int
    """Generation of the alias: it grows with each move, so the same version promoted again is another target."""
    model: str
    """`name@v3`"""
    path: str
    """Path of its folder, below the workspace where it lies there: a workspace may be moved."""
    task: str
    modality: str
    inputs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    ignored_parts: tuple[str, ...] = ()
    """For mixed rows: the parts that an input may bring beside the ones that are read."""
    labels: tuple[str, ...] = ()
    """The labels that it may answer; empty where it answers no labels."""
    columns: tuple[tuple[str, str], ...] = ()
    """For rows: the columns that it reads, each with its type in JSON Schema."""
    bytes: int = 0
    warmup: str | None = None
    """A file with examples to try it on; it may be gone. None where there are none."""
    slowest_ms: float | None = None
    """The use case's limit on the p95 latency of one answer."""

    @property
    def key(self) -> tuple[int, str]:
        return self.generation, self.model


class Wanted(_Frozen):
    use_case: str
    options: Serving
    target: Target | None = None
    canary: Target | None = None
    """Version that answers so many `percent` of the requests beside `target`."""
    percent: float = 0.0


class Refused(_Frozen):
    """A version that was loaded and got no traffic."""

    generation: int
    model: str
    why: str
    at: float

    @property
    def key(self) -> tuple[int, str]:
        return self.generation, self.model


class State(_Frozen):
    pid: int = 0
    version: str = ""
    """Version of this package, as the process runs it; "" for one from before this field."""
    port: int = 0
    """Where it listens on loopback now; 0 where it does not."""
    socket: str = ""
    """Where the daemon asks it: a path, for a port may have become somebody else's."""
    serving: str | None = None
    since: float | None = None
    loading: str | None = None
    refused: Refused | None = None
    """Only while it is what is wanted."""
    canary: str | None = None
    """What answers beside `serving`."""
    canary_refused: Refused | None = None
    problem: str | None = None
    """Why the deployment cannot serve at all, such as a port in use."""
    apart: str | None = None
    """Why the daemon cannot ask it, though clients over HTTP can."""


class Entry(NamedTuple):
    """One line of the journal. `id` is never used twice."""

    id: str
    at: float
    type: str
    data: EventData


_FORGOTTEN = "the reason was forgotten with purged data"


class AlreadyClaimed(Exception):
    """Another process is this deployment."""


class DeploymentFolder:
    """What one process of a deployment writes is below `path`, what all of them share below `shared`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        further = path.parent.name == _REPLICAS
        self.shared = path.parent.parent if further else path
        self.number = int(path.name) if further else 0
        """Number of the replica: 0 is the first, and of most deployments the only one."""

    @property
    def use_case(self) -> str:
        return self.shared.name

    def replicas(self) -> list[DeploymentFolder]:
        """Folders of all that are wanted, or that were once, this one first."""
        wanted = self.wanted()
        count = wanted.options.replicas if wanted else 1
        before = [int(path.name) for path in (self.shared / _REPLICAS).glob("[0-9]*")]
        numbers = range(1, max(count, *(number + 1 for number in before), 1))
        return [self, *(DeploymentFolder(self.shared / _REPLICAS / str(number)) for number in numbers)]

    @property
    def is_wanted(self) -> bool:
        """Whether so many replicas are wanted that this is one of them."""
        wanted = self.wanted()
        return wanted is not None and self.number < wanted.options.replicas

    # What the daemon writes

    def create(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def wanted(self) -> Wanted | None:
        return _read(self.shared / "wanted.json", Wanted)

    def want(self, wanted: Wanted) -> None:
        write_whole(self.shared / "wanted.json", wanted.model_dump_json(indent=1), 0o600)

    def wanted_stamp(self) -> tuple[int, int]:
        """Differs after each `want`."""
        try:
            found = (self.shared / "wanted.json").stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_mtime_ns

    @property
    def stopped(self) -> bool:
        return (self.shared / "stop").exists()

    def stop(self) -> None:
        (self.shared / "stop").touch()

    def unstop(self) -> None:
        (self.shared / "stop").unlink(missing_ok=True)

    def empty_log(self) -> None:
        """What libraries said may quote what was to be forgotten. Who writes appends, so nothing is in the way."""
        (self.path / "log.1").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self.path / "log", 0)

    def forget_reasons(self) -> None:
        """Why a version was refused, of a deployment that has ended: one from before reasons quoted no example may."""
        state = self.state()
        refused = {
            name: found.model_copy(update={"why": _FORGOTTEN})
            for name in ("refused", "canary_refused")
            if (found := getattr(state, name)) is not None
        }
        if refused and not self.alive():
            self.tell(state.model_copy(update=refused))

    def trim_log(self, most: int = _LOG_BYTES) -> None:
        """Keep what was written so far apart, and begin anew, where there is too much of it."""
        log = self.path / "log"
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > most:
                shutil.copyfile(log, self.path / "log.1")
                os.truncate(log, 0)

    # What the deployment writes

    def claim(self) -> int:
        """Become this deployment: a descriptor that holds the lock until this process ends. Raises AlreadyClaimed."""
        descriptor = os.open(self.path / "claim", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + _CLAIM_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    os.close(descriptor)
                    raise AlreadyClaimed from None
                time.sleep(0.05)
            else:
                self._mend()
                return descriptor

    def alive(self) -> bool:
        """Whether a process is this deployment. The kernel frees the lock at its death."""
        return is_held(self.path / "claim")

    @property
    def lives(self) -> bool:
        """Whether any replica is alive."""
        return any(each.alive() for each in self.replicas())

    def state(self) -> State:
        return _read(self.path / "state.json", State) or State()

    def tell(self, state: State) -> None:
        write_whole(self.path / "state.json", state.model_dump_json(indent=1), 0o600)

    def port(self) -> int:
        """The one that it had first, and has from then on. 0: none yet."""
        try:
            return int((self.shared / "port").read_text())
        except (FileNotFoundError, ValueError):
            return self.state().port  # of a deployment that is older than the file

    def keep_port(self, port: int) -> None:
        if self.port() != port or not (self.shared / "port").exists():
            write_whole(self.shared / "port", str(port), 0o600)

    @property
    def socket(self) -> Path:
        """For whoever is this deployment, to listen at; others ask its state. Elsewhere where its path is long."""
        near = self.path / "socket"
        return near if len(os.fsencode(near)) <= LONGEST_PATH else self.far_socket

    @property
    def far_socket(self) -> Path:
        """Path of a socket below no workspace, also for one whose file system has no sockets. Raises REFUSED, or
        OSError, where this user has no private folder for sockets."""
        return runtime_folder() / f"{hashlib.sha256(os.fsencode(self.path / 'socket')).hexdigest()[:24]}.slot"

    def good(self) -> Target | None:
        """What served last, unless what is wanted did. A replica that served nothing yet, or not for long, begins with
        what the first one served."""
        wanted = self.wanted()
        model = wanted.target.model if wanted and wanted.target else None
        found = [_read(folder / "good.json", Target) for folder in (self.path, self.shared)]
        return max(
            (each for each in found if each and each.model != model), key=lambda each: each.generation, default=None
        )

    def keep_good(self, target: Target) -> None:
        write_whole(self.path / "good.json", target.model_dump_json(indent=1), 0o600)

    @property
    def counters(self) -> Path:
        return self.path / "tallies.json"

    @property
    def hours(self) -> Path:
        return self.path / "hours"

    def token(self) -> str:
        """Made at first use; who has it may ask this deployment, and nothing else of the workspace."""
        path = self.shared / "token"
        with contextlib.suppress(FileNotFoundError):
            if token := path.read_text().strip():
                return token
        write_whole(path, token := secrets.token_urlsafe(32), 0o600)
        return token

    # The journal

    def note(self, type: str, at: float, **data: Any) -> None:  # noqa: A002 - the column of events
        """Append one line, durably. From one process at a time: the one that holds the claim."""
        line = json.dumps({"id": secrets.token_hex(8), "at": at, "type": type, "data": data}).encode() + b"\n"
        descriptor = os.open(self.path / "journal.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _mend(self) -> None:
        """End the last line, where a crash tore it."""
        with (self.path / "journal.jsonl").open("a+b") as file:
            if size := file.seek(0, os.SEEK_END):
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    def unheard(self) -> tuple[list[Entry], int]:
        """Whole lines that follow what was heard, and where they end."""
        start = self._heard()
        try:
            with (self.path / "journal.jsonl").open("rb") as file:
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            return [], start
        lines = data.split(b"\n")[:-1]  # what follows the last newline was torn, or is being written
        return [entry for line in lines if (entry := _entry(line))], start + sum(len(line) + 1 for line in lines)

    def heard(self, end: int) -> None:
        write_whole(self.path / "heard", str(end), 0o600)

    def _heard(self) -> int:
        try:
            return int((self.path / "heard").read_text())
        except (FileNotFoundError, ValueError):
            return 0


def deployments_root(folders: Folders) -> Path:
    return folders.root / "slots"


def deployment_folder(folders: Folders, use_case: str) -> DeploymentFolder:
    return DeploymentFolder(deployments_root(folders) / use_case)


def all_deployments(folders: Folders) -> list[DeploymentFolder]:
    root = deployments_root(folders)
    return [DeploymentFolder(path) for path in sorted(root.iterdir()) if path.is_dir()] if root.is_dir() else []


def is_deployed(folders: Folders, use_case: str) -> bool:
    """Whether a deployment of this use case is wanted."""
    folder = deployment_folder(folders, use_case)
    return folder.path.exists() and not folder.stopped


def _read(path: Path, model: type[Model]) -> Model | None:
    """None where the file is not there, or is of another version of this package."""
    try:
        return model.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _entry(line: bytes) -> Entry | None:
    """None for a line that was torn by a crash and then continued."""
    try:
        return Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None
