"""Who is at the browser: single-use links, sessions, and what each may do. In memory alone: a new daemon knows nobody.

`speciate open` asks for a link over the unix socket. Its key is spent by a POST, within a minute, for a session. A
session looks; one that a person opened on a terminal for deciding also decides, for half an hour.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from speciate.unix_sockets import Account

Level = Literal["look", "decide"]
LINK_SECONDS = 60.0
SESSION_SECONDS = 12 * 3600.0
DECIDE_SECONDS = 30 * 60.0
_MOST_LINKS, _MOST_SESSIONS = 100, 1000


class PageAccount(Account):
    """The account that opened the session, as the audit names it."""

    @property
    def name(self) -> str:
        return f"{super().name} (web)"


SealedKey = Mapping[str, Any]
"""A person's approval key as its file has it, still sealed by the passphrase: only the browser's tab opens it."""


class Grant(NamedTuple):
    """What a link is good for."""

    account: PageAccount
    level: Level
    keys: tuple[SealedKey, ...] = ()


@dataclass(frozen=True)
class Session:
    account: PageAccount
    level: Level
    """As it was opened; see `Sessions.level`."""
    keys: tuple[SealedKey, ...]
    csrf: str
    begun: float
    """By the monotonic clock."""

    def knows(self, token: object) -> bool:
        """Whether a form is of this session."""
        return isinstance(token, str) and hmac.compare_digest(token.encode(), self.csrf.encode())


class Sessions:
    """Links and sessions of one daemon. Thread-safe. `monotonic`: seconds, by a clock that nobody sets."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic, self._lock = monotonic, threading.Lock()
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
        now = self._monotonic()
        with self._lock:
            grant, until = self._links.pop(key, (None, 0.0))
            if grant is None or until <= now:
                return None
            self._sessions = {
                cookie: held for cookie, held in self._sessions.items() if now - held.begun < SESSION_SECONDS
            }
            while len(self._sessions) >= _MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            cookie = secrets.token_urlsafe(24)
            self._sessions[cookie] = Session(grant.account, grant.level, grant.keys, secrets.token_urlsafe(16), now)
        return cookie

    def find(self, cookie: str | None) -> Session | None:
        session = self._sessions.get(cookie) if cookie else None
        return session if session and self._monotonic() - session.begun < SESSION_SECONDS else None

    def end(self, cookie: str | None) -> None:
        with self._lock:
            self._sessions.pop(cookie or "", None)

    def decides_for(self, session: Session) -> float:
        """Seconds for which it still decides; 0: it only looks."""
        left = DECIDE_SECONDS - (self._monotonic() - session.begun)
        return max(0.0, left) if session.level == "decide" else 0.0

    def level(self, session: Session) -> Level:
        """What it may do now."""
        return "decide" if self.decides_for(session) > 0 else "look"
