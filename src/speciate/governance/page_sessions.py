"""Who is at the browser: single-use links, sessions, and what each may do. In memory alone: a new daemon knows nobody.

`speciate open` asks for a link over the unix socket. Its key is spent by a POST, within a minute, for a session. A
session looks; one that a person opened on a terminal for deciding also decides, for half an hour. A session of a team
begins with a token, has its role, and ends with it.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from speciate.governance.roles import ACTS, Act, Level, Role
from speciate.governance.tokens import Token
from speciate.unix_sockets import Account, own_account

LINK_SECONDS = 60.0
SESSION_SECONDS = 12 * 3600.0
DECIDE_SECONDS = 30 * 60.0
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


@dataclass(frozen=True)
class Session:
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


class Sessions:
    """Links and sessions of one front. Thread-safe. `monotonic`: seconds, by a clock that nobody sets. `token`: the one
    of that id, where it is in force."""

    def __init__(self, monotonic: Callable[[], float], token: Callable[[str], Token | None] = lambda _: None) -> None:
        self._monotonic, self._token, self._lock = monotonic, token, threading.Lock()
        self._links: dict[str, tuple[Grant, float]] = {}
        self._sessions: dict[str, Session] = {}

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
        return self._add(Session(grant.account, grant.level, grant.keys, *self._fresh()))

    def begin_with(self, token: Token) -> str:
        """The cookie of a new session: one that a browser brought along is never taken up."""
        return self._add(Session(TokenAccount.of(token), token.role, (), *self._fresh(), token))

    def _fresh(self) -> tuple[str, float]:
        return secrets.token_urlsafe(16), self._monotonic()

    def _add(self, session: Session) -> str:
        cookie = secrets.token_urlsafe(24)
        with self._lock:
            self._sessions = {
                each: held for each, held in self._sessions.items() if session.begun - held.begun < SESSION_SECONDS
            }
            while len(self._sessions) >= _MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[cookie] = session
        return cookie

    def find(self, cookie: str | None) -> Session | None:
        session = self._sessions.get(cookie) if cookie else None
        return session if session is not None and self.lasts(session) else None

    def lasts(self, session: Session) -> bool:
        """Whether it may still be used: a revoked or expired token ends it at once."""
        if self._monotonic() - session.begun >= SESSION_SECONDS:
            return False
        return session.token is None or self._token(session.token.id) == session.token

    def end(self, cookie: str | None) -> None:
        with self._lock:
            self._sessions.pop(cookie or "", None)

    def decides_for(self, session: Session) -> float:
        """Seconds for which one of this machine still decides; 0: it only looks."""
        left = DECIDE_SECONDS - (self._monotonic() - session.begun)
        return max(0.0, left) if session.role == "decide" else 0.0

    def acts(self, session: Session) -> frozenset[Act]:
        """What it may do now."""
        over = session.role == "decide" and self.decides_for(session) <= 0
        return ACTS["look" if over else session.role]
