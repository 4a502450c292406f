"""What only a person may do, once a key is enrolled: questions, and the check of signed answers, in the daemon.

A question is open for two minutes and one attempt, in memory alone. The check uses the daemon's own state; of an answer
it reads only the key, the challenge and the signature. Which keys count is computed once, from the trail
(`approval_keys`) and the head outside the workspace (`audit_heads`); after that only a signature checked here changes
it.

A text editor changes settings.toml without a row in the audit. So if a key is enrolled, settings that decide what
needs a person are compared with those that a person confirmed by a signature. Differences are shown, and the stricter
of both holds until a person confirms: in the daemon, and in the processes of runs and deployments, which get the
daemon's `cage` and `trust` (`settings.hold`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict
from weakref import WeakKeyDictionary

from pydantic import ValidationError

from speciate.errors import Code, SpeciateError
from speciate.governance import approval_keys, audit, audit_heads, tokens
from speciate.governance.approval_keys import SettingsSnapshot
from speciate.governance.approval_signatures import Key, Question, SignedAnswer, canonical, check_signature
from speciate.governance.audit_heads import Head
from speciate.governance.tokens import Token
from speciate.settings import Settings, load
from speciate.workspace.database import Event
from speciate.workspace.workspace import Workspace

SECONDS = 120.0
"""Seconds for which a question is open."""
_NAMES = ("policy", "policies", "private_hosts", "cage", "roots", "trust", "executors")
"""Settings that decide what needs a person."""
_SINCE = ("executors",)
"""Those of `_NAMES` that snapshots from before there was the setting lack. Nothing was confirmed then."""
_MOST_OPEN = 1000
CONFIRM = (
    "the stricter of both is in force. A person who wants what is in the file confirms it: speciate policy --confirm. "
    "To undo the change instead, edit settings.toml, then: speciate stop"
)
"""Advice where settings.toml is not as it was confirmed."""
_log = logging.getLogger(__name__)
_READ = (
    "Read `speciate audit verify`. To continue from this trail, a person signs: speciate audit accept. Where no key "
    "that was known is in it, restore a newer backup."
)


class QuestionDocument(TypedDict):
    """A `SignatureRequest` as JSON."""

    question: Mapping[str, Any]
    workspace: str
    head: str
    challenge: str
    until: float
    keys: Sequence[Mapping[str, Any]]


class SignatureRequest(NamedTuple):
    """A question as the command line gets it."""

    question: Question
    workspace: str
    head: str
    challenge: str
    until: float
    keys: tuple[Key, ...]
    """Keys that may sign; empty where a typed yes is enough."""

    def document(self) -> QuestionDocument:
        return {
            "question": self.question._asdict(), "workspace": self.workspace, "head": self.head,
            "challenge": self.challenge, "until": self.until, "keys": [key._asdict() for key in self.keys],
        }  # fmt: skip


class _PendingQuestion(NamedTuple):
    question: str
    head: str
    until: float
    ends: float
    """When it ends, by the monotonic clock: the other one may be set."""


class Authority:
    """Questions, answers and confirmed settings of one open workspace. Thread-safe."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._lock = workspace, threading.Lock()
        self._change, self._paused = threading.Lock(), False
        self._open: dict[str, _PendingQuestion] = {}
        rows = audit.all_rows(workspace.database)
        self._kept, unreadable = _read_outside_heads(workspace)
        standing = approval_keys.replay_trail(rows, workspace.identity, _count_known_rows(rows, self._kept))
        self._misfits = (*unreadable, *(_contradictions(rows, standing, self._kept) if self._kept else ()))
        self._keys = dict(standing.keys)
        if self._misfits and self._kept:  # nobody but who was known may speak for a trail that is not the known one
            self._keys = {mark: key for mark, key in self._keys.items() if mark in self._kept.keys}
        self._tokens = {} if self._misfits else dict(standing.tokens)  # one that was revoked must not come back
        self._confirmed = standing.settings
        self._trail_problems = standing.problems
        self._differences: tuple[str, ...] = ()
        self._file, self._edits = _stamp(workspace), tuple[str, ...]()
        if self.required and self._confirmed is not None:
            self._differences = tuple(settings_differences(workspace.settings, self._confirmed))

    # What holds

    @property
    def required(self) -> bool:
        """Whether a person's answer must be signed."""
        return bool(self._keys) or bool(self._misfits) or bool(self._trail_problems and self._confirmed is not None)

    @property
    def keys(self) -> Mapping[str, Key]:
        """Keys in force, by fingerprint."""
        return dict(self._keys)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why what the workspace says of itself may not be what a person decided."""
        told = (f"{each}; {CONFIRM}" for each in dict.fromkeys((*self._differences, *self._edited())))
        return (*self._trail_problems, *self._misfits, *told)

    @property
    def differences(self) -> tuple[str, ...]:
        """What of settings.toml is not as it was confirmed."""
        return self._differences

    @property
    def confirmed(self) -> SettingsSnapshot:
        """Settings as they were confirmed last; as they are, where no key was enrolled before."""
        found = self._confirmed if self.required and self._confirmed is not None else None
        return dict(found if found is not None else settings_snapshot(self._workspace.settings))

    def settings(self) -> Settings:
        """Settings in force: the stricter ones, where settings.toml is not as it was confirmed."""
        settings = self._workspace.settings
        if not self._differences or self._confirmed is None:
            return settings
        return stricter_settings(settings, self._confirmed)

    def _edited(self) -> tuple[str, ...]:
        """What somebody wrote into settings.toml since the daemon read it. Read again only where it was written."""
        stamp = _stamp(self._workspace)
        if stamp != self._file:
            try:
                now = load(self._workspace.folders.root)
            except SpeciateError as error:
                self._edits = (f"settings.toml was changed, and the daemon could not start with it: {error.message}",)
            else:
                self._edits = tuple(settings_differences(now, self.confirmed)) if self.required else ()
            self._file = stamp
        return self._edits

    def sentence(self) -> str:
        """What an approval in this workspace is worth."""
        return (
            approval_keys.approval_strength(self._keys.values()) if self._keys or not self.required else _NO_KNOWN_KEY
        )

    # Questions and answers

    def ask(self, question: Question) -> SignatureRequest:
        """Open a question. Raises REFUSED where no key that could answer it is known."""
        keys = self._signers(question)
        head = approval_keys.head_of(audit.newest(self._workspace.database, most=1))
        challenge, clock = secrets.token_hex(16), self._workspace.clock
        until = round(clock.now() + SECONDS, 3)
        with self._lock:
            now = clock.monotonic()
            for old in [each for each, held in self._open.items() if held.ends <= now]:
                del self._open[old]
            while len(self._open) >= _MOST_OPEN:
                del self._open[next(iter(self._open))]
            self._open[challenge] = _PendingQuestion(_describe_question(question), head, until, now + SECONDS)
        return SignatureRequest(question, self._workspace.identity, head, challenge, until, tuple(keys.values()))

    def check(self, question: Question, answer: Any) -> SignedAnswer | None:
        """The signed answer to what would be done now; None where a typed yes is enough. The question is closed by it,
        whatever comes of it.

        Raises REFUSED without a signature, and for one of another key, question, workspace or time.
        """
        keys = self._signers(question)
        if not keys:
            return None
        if not isinstance(answer, dict):
            raise SpeciateError(
                Code.REFUSED,
                "Only a person decides this: it needs the signature of an approval key, and none came with it.",
                "A person runs the command on a terminal and signs; `speciate key list` names the keys.",
            )
        with self._lock:
            held = self._open.pop(str(answer.get("challenge")), None)
        if held is None or held.ends <= self._workspace.clock.monotonic():
            raise SpeciateError(
                Code.REFUSED,
                "This answers no open question: each is open for two minutes, for one answer, and not over a restart "
                "of the daemon.",
                _AGAIN,
            )
        if held.question != _describe_question(question):
            raise SpeciateError(Code.CONFLICT, "What was shown is not what would be decided.", _AGAIN)
        key = keys.get(str(answer.get("key")))
        if key is None:
            raise SpeciateError(
                Code.REFUSED, "The key that signed this is not enrolled here.", "See: speciate key list"
            )
        signed = SignedAnswer(
            workspace=self._workspace.identity, decision=question.decision, action=question.action,
            arguments=dict(question.arguments), shown=dict(question.shown), head=held.head,
            challenge=str(answer["challenge"]), until=held.until, key=key.fingerprint, name=key.name,
            signature=str(answer.get("signature")),
        )  # fmt: skip
        check_signature(key, signed.message(), signed.signature)
        return signed

    def _signers(self, question: Question) -> Mapping[str, Key]:
        """Who may answer. The first key signs for itself."""
        if not self.required:
            return approval_keys.key_to_enroll(question.arguments) if question.decision == "key enroll" else {}
        if not self._keys:
            raise SpeciateError(Code.REFUSED, _NO_KNOWN_KEY, _READ)
        return self.keys

    # Who may come over the network

    def tokens(self) -> list[Token]:
        """Tokens in force, by name. A clock that was set back revives none."""
        return sorted((each for each in self._tokens.values() if self._lasts(each)), key=lambda token: token.name)

    def token(self, id: str) -> Token | None:  # noqa: A002 - of a token
        """The token with this id, if it is in force."""
        found = self._tokens.get(id)
        return found if found is not None and self._lasts(found) else None

    def find_token(self, secret: str) -> Token | None:
        """The token in force that somebody sent."""
        found = tokens.find(self._tokens, secret)
        return found if found is not None and self._lasts(found) else None

    def _lasts(self, token: Token) -> bool:
        passed = self._workspace.elapsed.most(token.created)
        return max(self._workspace.clock.now(), token.created + passed) < token.expires

    def issue(self, wanted: Mapping[str, Any], by: str, proof: Mapping[str, Any]) -> Token:
        """Raises CONFLICT for a name that is in force."""
        tokens.check(self.tokens(), wanted)
        with self._changing():
            row = tokens.create(self._workspace, wanted, by, proof)
            made = tokens.of_row(row, approval_keys.evidence_of(row))
            self._tokens = {**self._tokens, made.id: made}
        return made

    def revoke_token(self, name: str, by: str) -> Token:
        """Revoke a token. Its open sessions end with the next request. Raises NOT_FOUND."""
        ended = tokens.named(self.tokens(), name)
        with self._changing():
            tokens.revoke(self._workspace, ended, by)
            self._tokens = {mark: each for mark, each in self._tokens.items() if mark != ended.id}
        return ended

    # What was signed changes who may sign

    def enroll(self, key: Key, by: str, proof: Mapping[str, Any]) -> audit.Row:
        """Raises CONFLICT for a key or a name that is in force."""
        approval_keys.check_new(key, self._keys)
        with self._changing():
            row = approval_keys.enroll(self._workspace, key, by, proof)
            if not self._keys:
                self._tokens = {}  # nobody signed for those that were issued before
            self._keys = {**self._keys, key.fingerprint: key}
        return row

    def revoke(self, key: Key, by: str, proof: Mapping[str, Any]) -> audit.Row:
        with self._changing():
            row = approval_keys.revoke(self._workspace, key, by, proof)
            self._keys = {mark: each for mark, each in self._keys.items() if mark != key.fingerprint}
        return row

    def confirm(self, settings: SettingsSnapshot) -> None:
        """Once a row says so."""
        self._confirmed, self._file = settings, None

    def to_accept(self) -> list[str]:
        """What a person must know of before continuing from this trail."""
        return [*self.problems, *audit_heads.missing_heads(self._workspace)]

    def accept(self, by: str, proof: Mapping[str, Any]) -> audit.Row:
        """A person continues from this trail as it is: it is the known one from here on, also for the heads in the
        workspace. Raises OSError where these cannot be written; then it is to be accepted again."""
        with self._changing():
            row = approval_keys.accept_problems(self._workspace, self.to_accept(), by, proof)
            audit_heads.accept_heads(self._workspace, row)
            rows = audit.all_rows(self._workspace.database)
            standing = approval_keys.replay_trail(rows, self._workspace.identity)
            self._keys, self._tokens = dict(standing.keys), dict(standing.tokens)
            self._misfits, self._trail_problems = (), ()
        return row

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """The head outside is not moved on to a row whose keys are not known here yet: a process that ends in between
        would leave what looks like a key that somebody slipped in."""
        with self._change:
            self._paused = True
            try:
                yield
            finally:
                self._paused = False
        self.keep_head()

    # The head outside the workspace

    def listen(self) -> None:
        """Keep the head from here on. Where what was kept does not fit, it stays, for it is the evidence."""
        self._workspace.database.listen(self._heard)
        self.keep_head()

    def _heard(self, events: Sequence[Event]) -> None:
        if any("audit" in event.data for event in events):
            self.keep_head()

    def keep_head(self) -> None:
        with self._lock:
            if self._paused or self._misfits or (not self._keys and self._kept is None):
                return
            row = audit.newest(self._workspace.database, most=1)
            keys = tuple(sorted(self._keys))
            head = Head(row[0].seq, row[0].hash, keys, str(self._workspace.folders.root.resolve())) if row else None
            if head is None or head == self._kept:
                return
            try:
                audit_heads.write_outside_head(self._workspace.identity, head, self._kept)
            except OSError:
                _log.exception("the head of the audit could not be kept outside the workspace")
            else:
                self._kept = head


_AGAIN = "Ask again: repeat the command on a terminal."
_NO_KNOWN_KEY = (
    "A key was enrolled in this workspace, and the catalog that is here does not have it: nobody can approve anything."
)
_of_workspace: WeakKeyDictionary[Workspace, Authority] = WeakKeyDictionary()
_making = threading.Lock()


def authority_of(workspace: Workspace) -> Authority:
    with _making:
        if workspace not in _of_workspace:
            _of_workspace[workspace] = Authority(workspace)
        return _of_workspace[workspace]


def _stamp(workspace: Workspace) -> tuple[int, int, int] | None:
    """Changes whenever somebody writes settings.toml; None without one."""
    try:
        found = (workspace.folders.root / "settings.toml").stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _describe_question(question: Question) -> str:
    return canonical(question._asdict())


def _read_outside_heads(workspace: Workspace) -> tuple[Head | None, tuple[str, ...]]:
    identity, root = workspace.identity, workspace.folders.root
    try:
        head = audit_heads.read_outside_head(identity, root)
        if head is None and (beside := audit_heads.other_places(identity, root)):
            _log.warning("a copy: its trail is not compared with the head that is kept of %s", ", ".join(beside))
        return head, ()
    except ValueError as error:
        return None, (str(error),)


def _count_known_rows(rows: Sequence[audit.Row], kept: Head | None) -> int:
    """How many rows are as they were when their head was kept."""
    if kept is None or not 0 < kept.row <= len(rows) or rows[kept.row - 1].hash != kept.hash:
        return 0
    return kept.row if not audit.broken_links(rows[: kept.row]) else 0


def _contradictions(rows: Sequence[audit.Row], standing: approval_keys.TrailState, kept: Head) -> tuple[str, ...]:
    return audit_heads.contradictions(rows, standing.keys_after, kept) if kept.keys or standing.periods else ()


def settings_snapshot(settings: Settings) -> SettingsSnapshot:
    """The settings of `_NAMES`, as JSON."""
    found: SettingsSnapshot = settings.model_dump(mode="json", include=set(_NAMES))
    return found


def settings_differences(settings: Settings, confirmed: Mapping[str, Any]) -> list[str]:
    """A sentence for each setting that is not as it was confirmed."""
    now = settings_snapshot(settings)
    before = {**{name: {} for name in _SINCE}, **confirmed}
    return [
        f"{name} in settings.toml is {json.dumps(now[name])}, and {json.dumps(before.get(name))} was confirmed"
        for name in _NAMES
        if now[name] != before.get(name)
    ]


def stricter_settings(settings: Settings, confirmed: Mapping[str, Any]) -> Settings:
    """Settings that have, one by one, whatever lets less happen without a person."""
    try:
        before = Settings.model_validate({name: confirmed[name] for name in _NAMES if name in confirmed})
    except ValidationError:  # of a later version: nothing of it can be compared
        before = Settings()
    named = {*settings.policies, *before.policies}
    policies = {name: _stricter_policy(settings.policy_of(name), before.policy_of(name)) for name in named}
    policy = _stricter_policy(settings.policy, before.policy)
    required = settings.trust.require_signature or before.trust.require_signature
    return settings.model_copy(
        update={
            "policy": policy,
            "policies": {name: own for name, own in policies.items() if own != policy or name in settings.policies},
            "private_hosts": tuple(host for host in settings.private_hosts if host in before.private_hosts),
            "cage": "required" if "required" in (settings.cage, before.cage) else settings.cage,
            "executors": {
                name: place for name, place in settings.executors.items() if before.executors.get(name) == place
            },
            "roots": before.roots if settings.roots != before.roots else settings.roots,
            "trust": settings.trust.model_copy(
                update={
                    "require_signature": required,
                    "public_keys": tuple(key for key in settings.trust.public_keys if key in before.trust.public_keys),
                }
            ),
        }
    )


def _stricter_policy(now: str, before: str) -> str:
    return "person" if "person" in (now, before) else now
