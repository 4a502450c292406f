"""Who is at the browser: single-use links, sessions, and what each may do.

`speciate open` asks for a link over the unix socket. Its key is spent by a POST, within a minute, for a session. A
session looks; one that a person opened on a terminal for deciding also decides, until it was left alone for half an
hour. A session of a team begins with a token, has its role, and ends with it.

Sessions outlive a daemon as hashes of their cookies in a file of the workspace. Whoever writes there could add one, so
the file makes nobody decide where a key is enrolled: the key signs again.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, ConfigDict

from speciate.governance.roles import ACTS, Act, Level, Role
from speciate.governance.tokens import Token
from speciate.jobs.folder import write_whole
from speciate.unix_sockets import Account, own_account

LINK_SECONDS = 60.0
SESSION_SECONDS, LONGEST_SECONDS = 12 * 3600.0, 7 * 86_400.0
"""A session ends once nobody used it for so long, and so long after it began."""
DECIDE_SECONDS, LONGEST_DECIDE_SECONDS = 30 * 60.0, 12 * 3600.0
"""The same of deciding."""
_SAVED_SECONDS = 60.0
SESSIONS, TEAM_SESSIONS = "pages.sessions", "team.sessions"
"""Files of the workspace."""
_MOST_LINKS, _MOST_SESSIONS = 100, 1000


class PageAccount(Account):
    """The account that opened the session, as the audit names it."""

    @property
    def name(self) -> str:
        return f"{super().name} (web)"


class TokenAccount(Account):
    """Whoever has a token. No account of the system has a space in its name."""

    token_name: str
    scope: tuple[str, ...]

    @classmethod
    def of(cls, token: Token) -> TokenAccount:
        made = cls(*own_account())
        made.token_name, made.scope = token.name, token.use_cases
        return made

    @property
    def name(self) -> str:
        return f"{self.token_name} (token)"

    @property
    def remote(self) -> bool:
        return True

    @property
    def use_cases(self) -> tuple[str, ...]:
        return self.scope


SealedKey = Mapping[str, Any]
"""A person's approval key as its file has it, still sealed by the passphrase: only the browser's tab opens it."""


class Grant(NamedTuple):
    """What a link is good for."""

    account: PageAccount
    level: Level
    keys: tuple[SealedKey, ...] = ()
    signed: bool = False
    """Whether an enrolled key signed that it decides."""


@dataclass(frozen=True)
class Session:
    id: str
    """Hash of its cookie."""
    account: PageAccount | TokenAccount
    role: Level | Role
    """Role with which it was opened; see `Sessions.acts`."""
    keys: tuple[SealedKey, ...]
    csrf: str
    begun: float
    """When it began, by the monotonic clock."""
    token: Token | None = None

    def knows(self, token: object) -> bool:
        """Whether a form is of this session."""
        return isinstance(token, str) and hmac.compare_digest(token.encode(), self.csrf.encode())


@dataclass
class _Record:
    """A session as it stands. Times are by the monotonic clock."""

    session: Session
    used: float
    """When a person last used it."""
    decides: bool
    """Whether it still decides, where it was opened for that: once it was left alone for too long, it does not."""
    signed: bool
    """Whether a key signed that it decides."""
    sealed: str = ""
    """The sealed keys of a session of an earlier daemon, which only its cookie opens."""


class Sessions:
    """Links and sessions of one front. Thread-safe. `monotonic`: seconds, by a clock that nobody sets. `token`: the one
    of that id, where it is in force. `kept`: where they outlive the daemon. `required`: whether a key is enrolled, so
    that a session decides only if one signed that."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        token: Callable[[str], Token | None] = lambda _: None,
        kept: KeptSessions | None = None,
        required: Callable[[], bool] = lambda: False,
    ) -> None:
        self._monotonic, self._token, self._lock = monotonic, token, threading.Lock()
        self._kept, self._required, self._saved = kept, required, monotonic()
        self._links: dict[str, tuple[Grant, float]] = {}
        self._records: dict[str, _Record] = {each.session.id: each for each in self._restored()}

    def _restored(self) -> Iterator[_Record]:
        """Those of an earlier daemon. A file tells nobody's signature: where a key is enrolled, they look until one
        signs again."""
        now = self._monotonic()
        for each in self._kept.load() if self._kept else ():
            token = self._token(each.token) if each.token else None
            account = TokenAccount.of(token) if token else PageAccount(each.uid, frozenset(each.groups))
            if each.token and token is None:
                continue
            session = Session(each.id, account, token.role if token else each.role, (), "", now - each.age, token)
            yield _Record(session, now - each.idle, each.decides, signed=False, sealed=each.sealed)

    def new_link(self, grant: Grant) -> str:
        """A key that becomes one session."""
        key, now = secrets.token_urlsafe(24), self._monotonic()
        with self._lock:
            self._links = {old: held for old, held in self._links.items() if held[1] > now}
            while len(self._links) >= _MOST_LINKS:
                del self._links[next(iter(self._links))]
            self._links[key] = grant, now + LINK_SECONDS
        return key

    def begin(self, key: str) -> str | None:
        """Spend a link's key: the cookie of its session; None for one that was spent, is old or never was."""
        with self._lock:
            grant, until = self._links.pop(key, (None, 0.0))
        if grant is None or until <= self._monotonic():
            return None
        return self._add(grant.account, grant.level, grant.keys, signed=grant.signed)

    def begin_with(self, token: Token) -> str:
        """The cookie of a new session: one that a browser brought along is never taken up."""
        return self._add(TokenAccount.of(token), token.role, (), token=token)

    def _add(
        self, account: PageAccount | TokenAccount, role: Level | Role, keys: tuple[SealedKey, ...], *,
        signed: bool = False, token: Token | None = None,
    ) -> str:  # fmt: skip
        cookie, now = secrets.token_urlsafe(24), self._monotonic()
        session = Session(_digest(cookie), account, role, keys, _csrf(cookie), now, token)
        sealed = _seal(cookie, keys) if self._kept and keys else ""
        with self._lock:
            self._records = {name: each for name, each in self._records.items() if self._is_young(each, now)}
            while len(self._records) >= _MOST_SESSIONS:
                del self._records[next(iter(self._records))]
            self._records[session.id] = _Record(session, now, role == "decide", signed, sealed)
            self._save()
        return cookie

    def find(self, cookie: str | None) -> Session | None:
        record = self._records.get(_digest(cookie)) if cookie else None
        if record is None or cookie is None or not self.lasts(record.session):
            return None
        if not record.session.csrf:  # of an earlier daemon
            keys = _unseal(cookie, record.sealed) if record.sealed else ()
            record.session = replace(record.session, csrf=_csrf(cookie), keys=keys)
        return record.session

    def use(self, session: Session) -> None:
        """A person used it just now, which makes it last. What a page asks for by itself is no use of it."""
        with self._lock:
            if (record := self._records.get(session.id)) is None:
                return
            record.decides = self.decides_for(session) > 0
            record.used = self._monotonic()
            if record.used - self._saved >= _SAVED_SECONDS:
                self._save()

    def lasts(self, session: Session) -> bool:
        """Whether it may still be used: a revoked or expired token ends it at once."""
        record = self._records.get(session.id)
        if record is None or not self._is_young(record, self._monotonic()):
            return False
        return session.token is None or self._token(session.token.id) == session.token

    def _is_young(self, record: _Record, now: float) -> bool:
        return now - record.used < SESSION_SECONDS and now - record.session.begun < LONGEST_SECONDS

    def end(self, cookie: str | None) -> None:
        with self._lock:
            if self._records.pop(_digest(cookie), None) if cookie else None:
                self._save()

    def end_all(self, session: Session) -> None:
        """Every session of its account or token."""
        with self._lock:
            self._records = {
                name: each for name, each in self._records.items()
                if (each.session.account.name, each.session.token) != (session.account.name, session.token)
            }  # fmt: skip
            self._save()

    def decides_for(self, session: Session) -> float:
        """Seconds for which one of this machine still decides if nobody uses it; 0: it only looks."""
        record = self._records.get(session.id)
        if record is None or session.role != "decide" or not record.decides:
            return 0.0
        if not record.signed and self._required():
            return 0.0
        now = self._monotonic()
        left = min(DECIDE_SECONDS - (now - record.used), LONGEST_DECIDE_SECONDS - (now - session.begun))
        return max(0.0, left)

    def acts(self, session: Session) -> frozenset[Act]:
        """What it may do now."""
        over = session.role == "decide" and self.decides_for(session) <= 0
        return ACTS["look" if over else session.role]

    def _save(self) -> None:
        now = self._saved = self._monotonic()
        if self._kept is None:
            return
        self._kept.save([
            KeptSession(
                id=each.session.id, uid=each.session.account.uid, groups=sorted(each.session.account.groups),
                role=each.session.role, token=each.session.token.id if each.session.token else None,
                age=now - each.session.begun, idle=now - each.used,
                decides=each.session.role == "decide" and self.decides_for(each.session) > 0, sealed=each.sealed,
            )
            for each in self._records.values()
        ])  # fmt: skip


class KeptSession(BaseModel):
    """A session as its file has it: the hash of its cookie, which says nothing of the cookie."""

    model_config = ConfigDict(frozen=True)
    id: str
    uid: int
    groups: list[int]
    role: Any
    token: str | None
    age: float
    idle: float
    decides: bool
    sealed: str


class _KeptFile(BaseModel):
    at: float
    sessions: list[KeptSession]


class KeptSessions:
    """Sessions of one front in a file of the workspace, for its owner alone. `now`: by the clock on the wall, for none
    other outlives a process. Where that went back, or the file cannot be read, everybody signs in again."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path, self._now = path, now

    def load(self) -> list[KeptSession]:
        try:
            kept = _KeptFile.model_validate_json(self._path.read_bytes())
        except (OSError, ValueError):
            return []
        passed = self._now() - kept.at
        if passed < 0:
            return []
        older = [
            each.model_copy(update={"age": each.age + passed, "idle": each.idle + passed}) for each in kept.sessions
        ]
        return [
            each.model_copy(update={"decides": each.decides and each.idle < DECIDE_SECONDS})
            for each in older if each.idle < SESSION_SECONDS and each.age < LONGEST_SECONDS
        ]  # fmt: skip

    def save(self, sessions: Sequence[KeptSession]) -> None:
        """Without room for them they end with this daemon."""
        text = _KeptFile(at=self._now(), sessions=list(sessions)).model_dump_json()
        with contextlib.suppress(OSError):
            write_whole(self._path, text, 0o600)


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()


def _csrf(cookie: str) -> str:
    """The token of a session's forms: the same after a restart, and nobody who reads the file can make it."""
    return hmac.digest(cookie.encode(), b"speciate-csrf", "sha256").hex()


def _cipher(cookie: str) -> AESGCM:
    return AESGCM(hmac.digest(cookie.encode(), b"speciate-sealed-keys", "sha256"))


def _seal(cookie: str, keys: Sequence[SealedKey]) -> str:
    """For the file: only whoever brings the cookie opens it."""
    nonce = secrets.token_bytes(12)
    return (nonce + _cipher(cookie).encrypt(nonce, json.dumps([dict(each) for each in keys]).encode(), None)).hex()


def _unseal(cookie: str, sealed: str) -> tuple[SealedKey, ...]:
    try:
        data = bytes.fromhex(sealed)
        return tuple(json.loads(_cipher(cookie).decrypt(data[:12], data[12:], None)))
    except (ValueError, InvalidTag):
        return ()
