"""Tells people: sends notices to a webhook or hands them to a command, each in a thread that nobody waits for.

Each hook reads the events behind its cursor, which is in a file and moves on only once a notice was taken: so none is
lost to a crash, and one may come twice (its id tells). A hook that fails is tried again, ever less often, and the
failure is in its file for `get_status`. The first time a hook begins with what happens from then on.

A watch tells of a use case once a day at most: what comes sooner waits until the day is over, and of several the most
important one is told. Questions are told at once, and so is what was taken out of production, which counts as the day's
notice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from speciate import hosts
from speciate.environment import clean_environment
from speciate.errors import SpeciateError
from speciate.jobs.folder import write_whole
from speciate.settings import Notify, Settings
from speciate.workspace.database import Event
from speciate.workspace.workspace import Workspace

_LOOK_SECONDS = 30.0
_FIRST_GAP, _LONGEST_GAP = 1.0, 300.0
_HTTP_SECONDS, _COMMAND_SECONDS = 10.0, 30.0
_JOIN_SECONDS = 2.0
_BATCH = 200
_SAVE_EVENTS = 2000
"""Events of no interest after which the cursor is written all the same: the next daemon is not to read them again."""
_DAY_SECONDS = 86_400.0
_JOB = "SELECT kind, parent, key FROM jobs WHERE id = ?"
_BEGAN = "SELECT stamp FROM events ORDER BY seq LIMIT 1"
_log = logging.getLogger(__name__)

Kind = Literal["waiting", "job", "rollback", "canary", "refused", "bake", "disk", "watch"]


class Notice(NamedTuple):
    """What a person is told. It holds no text of others: names are cleaned, reasons and errors are left out, and
    `get_status` has them."""

    id: str
    """Id that is the same for the same event, so that a receiver who gets it twice can tell."""
    at: float
    kind: Kind
    text: str
    """A sentence."""
    subject: str
    data: dict[str, str]


Deliver = Callable[[Notice], None]


class DeliveryFailed(Exception):
    """The hook did not take a notice; the text says why, in our words."""


class HookState(BaseModel):
    """The file of a hook."""

    model_config = ConfigDict(frozen=True)
    seq: int
    """The last event that was dealt with."""
    failing: str | None = None
    since: float | None = None
    told: dict[str, float] = {}
    """Use case -> when it was told of last, of those of today."""
    held: dict[str, int] = {}
    """Use case -> the event to tell of once the day is over."""


class Hook:
    """One way to tell. `look` is one pass, for tests; `start` makes passes in a thread."""

    def __init__(self, workspace: Workspace, name: str, deliver: Deliver) -> None:
        self.name, self._workspace, self._deliver = name, workspace, deliver
        self._path = _file(workspace.folders.root, name)
        newest = workspace.database.last_seq
        self._state = _read(self._path) or HookState(seq=newest)
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
                if not self._take(self._of_jobs(event)):
                    return False
            self._change(seq=events[-1].seq)
            if self._state.seq - self._saved >= _SAVE_EVENTS:
                self._save()
        return self._tell_held()

    def _take(self, event: Event) -> bool:
        notice = self._notice(event)
        if notice is None:
            return True
        use_case = _use_case(event)
        if use_case and event.type in _CAN_WAIT and self._was_told_today(use_case):
            held = self._state.held.get(use_case)
            if held is None or _importance(event) >= _importance(self._event(held)):
                self._change(held={**self._state.held, use_case: event.seq})
            self._change(seq=event.seq)
            self._save()
            return True
        return self._told(notice, event, event.seq)

    def _tell_held(self) -> bool:
        """What waited, of use cases whose day is over."""
        for use_case, seq in list(self._state.held.items()):
            if self._was_told_today(use_case):
                continue
            event = self._event(seq)
            notice = self._notice(event) if event else None
            if event and notice and not self._told(notice, event, self._state.seq, waited=True):
                return False
            self._change(held={name: other for name, other in self._state.held.items() if name != use_case})
            self._save()
        return True

    def _was_told_today(self, use_case: str) -> bool:
        """Not by a notice of the future: then the clock was set back."""
        told = self._state.told.get(use_case)
        return told is not None and 0 <= self._workspace.clock.now() - told < _DAY_SECONDS

    def _event(self, seq: int) -> Event | None:
        found = self._workspace.database.events_after(seq - 1, 1)
        return self._of_jobs(found[0]) if found and found[0].seq == seq else None

    def _notice(self, event: Event) -> Notice | None:
        return notice_of(event, self._workspace.settings.notify, self._workspace_id)

    def _told(self, notice: Notice, event: Event, seq: int, *, waited: bool = False) -> bool:
        """`seq`: the last event that is dealt with, once the notice is taken."""
        now = self._workspace.clock.now()
        try:
            self._deliver(notice)
        except DeliveryFailed as error:
            taken = seq if waited else event.seq - 1
            self._change(seq=taken, failing=str(error), since=self._state.since or now)
        else:
            told = {name: at for name, at in self._state.told.items() if now < at + _DAY_SECONDS}
            if (use_case := _use_case(event)) and event.type in _ONE_A_DAY:
                told[use_case] = now
            self._change(seq=seq, failing=None, since=None, told=told)
        self._save()
        return self._state.failing is None

    def _change(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)

    def _of_jobs(self, event: Event) -> Event:
        """Ends of jobs with what the event does not say."""
        if event.type not in ENDS:
            return event
        row = self._workspace.database.read_one(_JOB, [event.subject])
        return event._replace(data={"kind": row[0], "parent": row[1], "key": row[2]}) if row else event

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
    """The hooks that the settings name. What a hook that is there no more had left to tell is forgotten."""
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
    """The notice as hooks get it. `text` alone is what chat services show."""
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

        if parts.scheme != "https" and not hosts.is_listed(host, port, listed):
            raise DeliveryFailed(f"{host} has no TLS, and no person listed it (speciate hosts add {host}:{port})")
        try:
            hosts.check_url(address, listed)
            with (
                hosts.guard(httpx2.Client(timeout=_HTTP_SECONDS, follow_redirects=False), listed) as client,
                client.stream("POST", address, json=document(notice)) as answer,
            ):
                status = answer.status_code
        except SpeciateError as error:
            raise DeliveryFailed(str(error)) from None
        except (httpx2.HTTPError, OSError) as error:
            raise DeliveryFailed(f"{host} could not be asked ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise DeliveryFailed(f"{host} answered with status {status}")

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
            raise DeliveryFailed(f"the command could not be started ({error.strerror})") from None
        try:
            process.communicate(json.dumps(document(notice)).encode(), timeout=_COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise DeliveryFailed(f"the command did not end within {_COMMAND_SECONDS:g} s") from None
        if process.returncode:
            raise DeliveryFailed(f"the command ended with status {process.returncode}")

    return deliver


def _file(root: Path, name: str) -> Path:
    return root / f"notify-{name}.json"


def _read(path: Path) -> HookState | None:
    try:
        return HookState.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


_STRANGE = re.compile(r"[^\w@.:/-]")
_LONGEST_NAME = 96
ENDS = {
    "job.succeeded": "succeeded", "job.failed": "failed", "job.dead": "was given up", "job.cancelled": "was cancelled",
}  # fmt: skip
_UNWANTED = {"job.failed", "job.dead"}


def notice_of(event: Event, notify: Notify, workspace: str) -> Notice | None:
    """What to tell of an event; None where it is of no interest. `workspace`: what the notices' ids begin with. Ends of
    jobs bring their `kind`; those of a composite's children, with their `parent`, are told by the composite's end."""
    said = _describe_event(event, notify)
    if said is None:
        return None
    kind, text, data = said
    return Notice(f"{workspace}-{event.seq}", event.at, kind, text, _name(event.subject), data)


def _describe_event(event: Event, notify: Notify) -> tuple[Kind, str, dict[str, str]] | None:
    data, use_case = event.data, _name(event.subject.removeprefix("use_case:"))
    named = {key: _name(data[key]) for key in _NAMES if isinstance(data.get(key), str)}
    if event.type == "approval.requested":
        approval = named.get("approval", "")
        text = f"{use_case}: {named.get('action', 'something')} waits for a person: speciate approve {approval}"
        return "waiting", text, named
    if event.type in ENDS:
        if data.get("parent") or notify.jobs == "none" or (notify.jobs == "failed" and event.type not in _UNWANTED):
            return None
        if _STEP.match(str(data.get("key"))):  # the end of its episode tells of it
            return None
        return "job", f"{named.get('kind', 'A job')} {_name(event.subject)} {ENDS[event.type]}.", named
    if event.type == "alias.moved" and data.get("action") == "rollback":
        who = f"the bake took {named.get('before')} back" if data.get("actor") == "bake" else "it was rolled back"
        return "rollback", f"{use_case} is served by {named.get('after')} again: {who}.", named
    if event.type == "canary.ended":
        how = "was taken back by the bake" if data.get("actor") == "bake" else "was ended"
        return "canary", f"{use_case}: the canary {named.get('model')} {how}.", named
    if event.type == "canary.survived":
        return "canary", f"{use_case}: the canary {named.get('model')} held; it waits to get all requests.", named
    if event.type == "slot.refused":
        return (
            "refused",
            f"{use_case}: the deployment did not let {named.get('model')} serve; get_status says why.",
            named,
        )
    if event.type == "bake.broken":
        return "bake", f"{use_case}: {named.get('model')} breaks its limits and was left serving; get_status.", named
    if event.type in _WATCH:
        counts = {name: data[name] if isinstance(data.get(name), int) else 0 for name in ("episode", "new", "suits")}
        return "watch", f"{use_case}: {_WATCH[event.type].format(**counts)} speciate watch show {use_case}", named
    if event.type == "disk.low":
        return "disk", "The disk is nearly full: runs stopped at a checkpoint and wait; get_status says what to do.", {}
    if event.type == "disk.enough":
        return "disk", "The disk has room again: runs go on.", {}
    return None


_WATCH = {  # that an episode begins is in the feed alone
    "watch.labels": "answers wait for a label: speciate labels.",
    "watch.ended": "episode {episode} of its watch ended.",
    "watch.unresolved": "episode {episode} of its watch ended with nothing better in sight: it tries less often now.",
    "watch.budget": "its watch has used up this month.",
    "watch.disagreement": "those who label do not agree.",
    "watch.digest": "{new} new base models were published last month, {suits} of them suit it.",
}
_CAN_WAIT = (
    "canary.survived", "watch.digest", "watch.disagreement", "watch.budget", "watch.ended", "watch.unresolved"
)  # fmt: skip
"""Events of which a use case gets at most one a day; the most important one last."""
_ONE_A_DAY = (*_CAN_WAIT, "alias.moved", "canary.ended", "slot.refused", "bake.broken")
"""What counts as the day's notice. The answers that wait for a label, and a promotion for a person, are questions."""
_STEP = re.compile(r"watch/[^/]+/\d+/")
"""Key of a job of an episode; that of a monitoring job is another."""
_NAMES = ("approval", "action", "kind", "before", "after", "model", "alias", "audit")


def _use_case(event: Event) -> str | None:
    return event.subject.removeprefix("use_case:") if event.subject.startswith("use_case:") else None


def _importance(event: Event | None) -> int:
    return _CAN_WAIT.index(event.type) if event is not None and event.type in _CAN_WAIT else -1


def _name(text: Any) -> str:
    """Letters, digits and the signs of names alone."""
    return _STRANGE.sub("_", str(text))[:_LONGEST_NAME]
