"""Tells people: sends notices to a webhook or hands them to a command, each in a thread that nobody waits for.

Each hook reads the events behind its cursor, which is in a file and moves on only once a notice was taken: so none is
lost to a crash, and one may come twice (its id tells). A hook that fails is tried again, ever less often, and the
failure is in its file for `get_status`. The first time a hook begins with what happens from then on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from speciate import peers
from speciate.environment import clean_environment
from speciate.errors import SpeciateError
from speciate.jobs.folder import write_whole
from speciate.production.notices import ENDS, Notice, notice_of
from speciate.settings import Settings
from speciate.workspace.database import Event
from speciate.workspace.workspace import Workspace

_LOOK_SECONDS = 30.0
_FIRST_GAP, _LONGEST_GAP = 1.0, 300.0
_HTTP_SECONDS, _COMMAND_SECONDS = 10.0, 30.0
_JOIN_SECONDS = 2.0
_BATCH = 200
_SAVE_EVENTS = 2000
"""Of no interest, after which the cursor is written all the same: the next daemon is not to read them again."""
_JOB = "SELECT kind, parent FROM jobs WHERE id = ?"
_BEGAN = "SELECT stamp FROM events ORDER BY seq LIMIT 1"
_log = logging.getLogger(__name__)

Deliver = Callable[[Notice], None]


class Undelivered(Exception):
    """The hook did not take a notice; the text says why, in our words."""


class State(BaseModel):
    """The file of a hook."""

    model_config = ConfigDict(frozen=True)
    seq: int
    """The last event that was dealt with."""
    failing: str | None = None
    since: float | None = None


class Hook:
    """One way to tell. `look` is one pass, for tests; `start` makes passes in a thread."""

    def __init__(self, workspace: Workspace, name: str, deliver: Deliver) -> None:
        self.name, self._workspace, self._deliver = name, workspace, deliver
        self._path = _file(workspace.folders.root, name)
        newest = workspace.database.last_seq
        self._state = _read(self._path) or State(seq=newest)
        if self._state.seq > newest:  # the catalog is an older one that was put back: its numbers are used again
            self._state = self._state.model_copy(update={"seq": newest})
        self._saved = 0
        self._save()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._gap = _FIRST_GAP
        self._thread = threading.Thread(target=self._loop, name=f"notify {name}", daemon=True)

    def start(self) -> None:
        self._workspace.database.listen(lambda events: self._wake.set())
        self._thread.start()

    def stop(self) -> None:
        """A delivery that is under way is not waited for: it is done again by the next daemon."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)  # who is reading the catalog has read it by then

    def look(self) -> bool:
        """Tell all that is new. False where the hook failed: what it did not take is told again."""
        database = self._workspace.database
        while not self._stop.is_set() and (events := database.events_after(self._state.seq, _BATCH)):
            for event in events:
                if self._stop.is_set():
                    return True  # the catalog is about to close; the next daemon goes on behind what was taken
                notice = notice_of(self._of_jobs(event), self._workspace.settings.notify, self._workspace_id)
                if notice and not self._told(notice, event.seq):
                    return False
            self._state = self._state.model_copy(update={"seq": events[-1].seq})
            if self._state.seq - self._saved >= _SAVE_EVENTS:
                self._save()
        return True

    def _told(self, notice: Notice, seq: int) -> bool:
        try:
            self._deliver(notice)
        except Undelivered as error:
            since = self._state.since or self._workspace.clock.now()
            self._state = State(seq=seq - 1, failing=str(error), since=since)
        else:
            self._state = State(seq=seq)
        self._save()
        return self._state.failing is None

    def _of_jobs(self, event: Event) -> Event:
        """Ends of jobs with what the event does not say."""
        if event.type not in ENDS:
            return event
        row = self._workspace.database.read_one(_JOB, [event.subject])
        return event._replace(data={"kind": row[0], "parent": row[1]}) if row else event

    @cached_property
    def _workspace_id(self) -> str:
        """Tells workspaces apart, wherever they lie: by the moment of their first event."""
        ((began,),) = self._workspace.database.read(_BEGAN)
        return hashlib.sha256(repr(began).encode()).hexdigest()[:12]

    def _save(self) -> None:
        try:
            write_whole(self._path, self._state.model_dump_json(), 0o600)
            self._saved = self._state.seq
        except OSError:
            _log.exception("the cursor of the notifications by %s could not be written", self.name)

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(_LOOK_SECONDS)
            self._wake.clear()
            try:
                held = not self._stop.is_set() and self.look()
            except Exception:  # noqa: BLE001 - the catalog is closing, say: the next pass may succeed
                _log.exception("notifications by %s failed", self.name)
                held = False
            if held:
                self._gap = _FIRST_GAP
            elif not self._stop.is_set():
                _log.warning("notifications by %s: %s", self.name, self._state.failing)
                self._stop.wait(self._gap)
                self._gap = min(2 * self._gap, _LONGEST_GAP)
                self._wake.set()


def hooks(workspace: Workspace) -> list[Hook]:
    """Those of the settings. What a hook that is there no more had left to tell is forgotten."""
    notify, found = workspace.settings.notify, list[Hook]()
    if notify.webhook:
        found.append(Hook(workspace, "webhook", webhook(workspace.settings)))
    if notify.command:
        found.append(Hook(workspace, "command", command(notify.command)))
    for name in {"webhook", "command"} - {hook.name for hook in found}:
        _file(workspace.folders.root, name).unlink(missing_ok=True)
    return found


def alerts(workspace: Workspace) -> list[str]:
    """What a person must know of hooks that fail."""
    found = []
    for name in ("webhook", "command"):
        state = _read(_file(workspace.folders.root, name))
        if state and state.failing:
            found.append(f"Notifications by {name} do not arrive: {state.failing}. They are tried again.")
    return found


def document(notice: Notice) -> dict[str, object]:
    """As hooks get it. `text` alone is what chat services show."""
    return {
        "text": notice.text, "id": notice.id, "kind": notice.kind, "at": notice.at, "subject": notice.subject,
        **notice.data,
    }  # fmt: skip


def webhook(settings: Settings) -> Deliver:
    """Sends a POST to the settings' address. The peer must be public or listed, and so must one without TLS."""
    address, listed = str(settings.notify.webhook), frozenset(settings.private_hosts)
    parts = urlsplit(address)
    host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)

    def deliver(notice: Notice) -> None:
        import httpx2

        if parts.scheme != "https" and not peers.is_listed(host, port, listed):
            raise Undelivered(f"{host} has no TLS, and no person listed it (speciate hosts add {host}:{port})")
        try:
            peers.check_url(address, listed)
            with (
                peers.guarded(httpx2.Client(timeout=_HTTP_SECONDS, follow_redirects=False), listed) as client,
                client.stream("POST", address, json=document(notice)) as answer,
            ):
                status = answer.status_code
        except SpeciateError as error:
            raise Undelivered(str(error)) from None
        except (httpx2.HTTPError, OSError) as error:
            raise Undelivered(f"{host} could not be asked ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise Undelivered(f"{host} answered with status {status}")

    return deliver


def command(argv: Sequence[str]) -> Deliver:
    """Runs a program with the text as its last argument and the document as its input."""

    def deliver(notice: Notice) -> None:
        try:
            process = subprocess.Popen(
                [*argv, notice.text], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=clean_environment(), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise Undelivered(f"the command could not be started ({error.strerror})") from None
        try:
            process.communicate(json.dumps(document(notice)).encode(), timeout=_COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Undelivered(f"the command did not end within {_COMMAND_SECONDS:g} s") from None
        if process.returncode:
            raise Undelivered(f"the command ended with status {process.returncode}")

    return deliver


def _file(root: Path, name: str) -> Path:
    return root / f"notify-{name}.json"


def _read(path: Path) -> State | None:
    try:
        return State.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
