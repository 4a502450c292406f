"""What every request passes before a page sees it, and the headers that every answer carries.

Cookies of `127.0.0.1` go to every port there, whoever listens; so pages live under a host name of their own, and a
request for another name is refused, which ends DNS rebinding, too. Browsers say who asks (Origin, Sec-Fetch-Site), and
only our own pages may. `refusal` is pure.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speciate.server.web.sessions import Session, Sessions

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
FOREIGN_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""Of an answer with what others made: opened by itself, it runs nothing."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer a browser sends forms with the origin null
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cache-control": "no-store",
}
OPEN_PATHS = ("/open", "/favicon.ico", "/static/")
"""What needs no session: the page that spends a link's key, and files that are the same for everybody."""
_SAFE = ("GET", "HEAD")


def host_name(port: int) -> str:
    return f"speciate-{port}.localhost:{port}"


def cookie_name(port: int) -> str:
    return f"speciate-{port}"


class Asked(NamedTuple):
    """What the guard reads of a request."""

    method: str
    path: str
    query: str = ""
    host: str = ""
    origin: str | None = None
    site: str | None = None
    """Sec-Fetch-Site."""
    mode: str | None = None
    """Sec-Fetch-Mode."""


class Refusal(NamedTuple):
    status: int
    why: str
    again: bool = False
    """Whether the same address, asked for from our own page, may be answered: a link from elsewhere was followed."""


def refusal(asked: Asked, port: int, session: Session | None) -> Refusal | None:
    """Why a request gets no page; None where it may."""
    ours, reads = host_name(port), asked.method in _SAFE
    if asked.host != ours:
        return Refusal(403, "This address is not ours. Run `speciate open` for one that is.")
    if asked.origin is not None and asked.origin != f"http://{ours}":
        return Refusal(403, "Another origin asks.")
    if asked.site not in (None, "same-origin", "none"):
        follows = reads and asked.mode == "navigate" and asked.origin is None
        return Refusal(403, "This link was followed from another site.", follows)
    if not reads and asked.origin is None:
        return Refusal(403, "What changes something names its origin.")
    if asked.path in OPEN_PATHS or asked.path.startswith("/static/"):
        return None
    if session is None:
        return Refusal(401, "Nobody is signed in here. Run `speciate open` on a terminal; it prints a new link.")
    return None


class Guard:
    """Around all pages. Puts the session into `scope["session"]`, and headers on every answer."""

    def __init__(self, app: ASGIApp, sessions: Sessions, port: int, note: Callable[[], None]) -> None:
        self._app, self._sessions, self._port, self._note = app, sessions, port, note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket: no page of ours opens one
            return
        headers = Headers(scope=scope)
        session = self._sessions.find(cookie_of(headers, self._port))
        asked = Asked(
            scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers.get("host", ""),
            headers.get("origin"), headers.get("sec-fetch-site"), headers.get("sec-fetch-mode"),
        )  # fmt: skip
        refused = refusal(asked, self._port, session)
        scope["session"] = session
        if refused is None:
            self._note()
        await (_answer(refused, asked) if refused else self._app)(scope, receive, _with_headers(send))


def cookie_of(headers: Headers, port: int) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(cookie_name(port))
    except CookieError:
        return None
    return found.value if found else None


def _answer(refused: Refusal, asked: Asked) -> HTMLResponse:
    path = html.escape(quote(asked.path) + (f"?{asked.query}" if asked.query else ""))
    link = f'<p><a href="{path}">Open it from here</a></p>' if refused.again else ""
    why = html.escape(refused.why)
    return HTMLResponse(
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<title>speciate</title><link rel="stylesheet" href="/static/page.css">'
        f'<main class="alone"><h1>{refused.status}</h1><p>{why}</p>{link}</main></html>',
        refused.status,
    )


def _with_headers(send: Send) -> Send:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message["headers"]}
            more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return told
