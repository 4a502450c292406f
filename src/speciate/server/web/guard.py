"""What every request passes before a page sees it, and the headers that every answer carries.

Cookies of `127.0.0.1` go to every port there, whoever listens; so pages live under a host name of their own, and a
request for another name is refused, which ends DNS rebinding, too. Browsers say who asks (Origin, Sec-Fetch-Site), and
only our own pages may. A team comes by way of a proxy, to a port of its own with sessions of its own: what that proxy
says of the client counts, and nobody else is answered there. `refusal` is pure.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speciate.governance.page_sessions import Session, Sessions
from speciate.server.request_log import Networks, Request, RequestLog, client_address, is_from
from speciate.server.web.routes import act_of
from speciate.settings import Team

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer a browser sends forms with the origin null
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cache-control": "no-store",
}
_SAFE = ("GET", "HEAD")
_YEAR = 31_536_000
STATIC = Path(__file__).parent / "static"
FILES = "/static/" + sha256(b"".join(path.read_bytes() for path in sorted(STATIC.rglob("*.*")))).hexdigest()[:12]
"""Where browsers find these files: another address once one of them is another, so that they are kept for good."""
SIGNED_IN = "speciate.signed_in"
"""Key in the scope of a request: the token by which it began a session."""


def host_name(port: int) -> str:
    return f"speciate-{port}.localhost:{port}"


class Front(NamedTuple):
    """Where pages are served: for this machine, or for a team."""

    host: str
    """Name and port of the host, as the header Host names it."""
    scheme: str
    cookie: str
    entrance: str
    """The path that begins a session."""
    proxies: Networks = ()
    """Proxies that may ask for a team; if it is empty, nobody."""

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def team(self) -> bool:
        return self.scheme == "https"

    @property
    def site(self) -> str:
        """The host without its port: what a passkey is bound to."""
        return self.host.partition(":")[0]

    def is_open(self, path: str) -> bool:
        """What needs no session: what begins one, and files that are the same for everybody."""
        return path in (self.entrance, "/favicon.ico") or path.startswith("/static/")


def local_front(port: int) -> Front:
    return Front(host_name(port), "http", f"speciate-{port}", "/open")


def team_front(team: Team) -> Front:
    """`__Host-`: browsers take this cookie over HTTPS alone, and from no other host of the domain."""
    host = (team.address or "").removeprefix("https://")
    return Front(host, "https", "__Host-speciate", "/login", tuple(ip_network(each) for each in team.proxies))


class IncomingRequest(NamedTuple):
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
    peer: str = ""
    """IP address of the other end of the connection."""
    protocol: str | None = None
    """X-Forwarded-Proto."""


class Refusal(NamedTuple):
    status: int
    why: str
    again: bool = False
    """Whether the same address, asked for from our own page, may be answered: a link from elsewhere was followed."""
    sign_in: bool = False


def refusal(asked: IncomingRequest, front: Front, session: Session | None) -> Refusal | None:
    """Why a request gets no page; None where it may."""
    reads = asked.method in _SAFE
    if front.team and not is_from(asked.peer, front.proxies):
        return Refusal(403, "This port is for the proxy that the settings name.")
    if front.team and asked.protocol != "https":
        return Refusal(403, "The proxy does not say that this came over HTTPS (X-Forwarded-Proto).")
    if asked.host != front.host:
        return Refusal(403, "This address is not ours. Run `speciate open` for one that is.")
    if asked.origin is not None and asked.origin != front.origin:
        return Refusal(403, "Another origin asks.")
    if asked.site not in (None, "same-origin", "none"):
        follows = reads and asked.mode == "navigate" and asked.origin is None
        return Refusal(403, "This link was followed from another site.", follows)
    if not reads and asked.origin is None:
        return Refusal(403, "What changes something names its origin.")
    if front.is_open(asked.path) or session is not None:
        return None
    if front.team:
        return Refusal(401, "Nobody is signed in here.", sign_in=True)
    ended = "Nobody is signed in here: a session ends twelve hours after its last use, and a week after it began."
    return Refusal(401, f"{ended} Run `speciate open` on a terminal; it prints a new link.")


class Guard:
    """Around all pages. Puts the session into `scope["session"]`, and headers on every answer. What is let through has
    an act of the table that the session's role has; `denied` answers the rest."""

    def __init__(
        self, app: ASGIApp, front: Front, sessions: Sessions, denied: ASGIApp, log: RequestLog, note: Callable[[], None]
    ) -> None:
        self._app, self._front, self._sessions = app, front, sessions
        self._denied, self._log, self._note = denied, log, note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket: no page of ours opens one
            return
        headers = Headers(scope=scope)
        session = self._sessions.find(cookie_of(headers, self._front.cookie))
        hosts = headers.getlist("host")
        asked = IncomingRequest(
            scope["method"], scope["path"], scope["query_string"].decode("latin-1"),
            hosts[0] if len(hosts) == 1 else "", headers.get("origin"), headers.get("sec-fetch-site"),
            headers.get("sec-fetch-mode"), (scope.get("client") or ("", 0))[0], headers.get("x-forwarded-proto"),
        )  # fmt: skip
        refused = refusal(asked, self._front, session)
        forwarded = headers.get("x-forwarded-for") if self._front.team else None
        scope["session"] = session
        scope["peer"] = client_address(forwarded, asked.peer, self._front.proxies)
        send = self._with_headers(send, asked.path)
        if self._front.team and not asked.path.startswith(("/static/", "/favicon.ico")):
            send = self._logged(send, asked, scope)
        if refused is None:
            self._note()
            if session is not None and (asked.method not in _SAFE or asked.mode in (None, "navigate")):
                self._sessions.use(session)  # a person did: what an open page asks for by itself comes in another mode
        await self._answering(asked, session, refused)(scope, receive, send)

    def _answering(self, asked: IncomingRequest, session: Session | None, refused: Refusal | None) -> ASGIApp:
        if refused is not None:
            return _answer(refused, asked)
        if self._front.is_open(asked.path):
            return self._app
        assert session is not None, "the rule above"
        act = act_of(asked.method, asked.path)
        return self._app if act is not None and act in self._sessions.acts(session) else self._denied

    def _logged(self, send: Send, asked: IncomingRequest, scope: Scope) -> Send:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                session: Session | None = scope["session"]
                token = session.token if session else scope.get(SIGNED_IN)
                self._log.add(Request(token, asked.method, asked.path, message["status"], scope["peer"]))
            await send(message)

        return told

    def _with_headers(self, send: Send, path: str) -> Send:
        ours = HEADERS | ({"strict-transport-security": f"max-age={_YEAR}"} if self._front.team else {})
        kept = {**ours, "cache-control": f"public, max-age={_YEAR}, immutable"}

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours_now = kept if path.startswith(f"{FILES}/") and message["status"] == 200 else ours
                given = {name.lower() for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in ours_now.items() if k.encode() not in given]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        return told


def inside(address: str) -> str:
    """Where to go after signing in: a path of these pages, whatever was asked for."""
    plain = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if plain and "\\" not in address and not address.startswith("/login") else "/"


def cookie_of(headers: Headers, name: str) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return found.value if found else None


def _answer(refused: Refusal, asked: IncomingRequest) -> Response:
    address = quote(asked.path) + (f"?{asked.query}" if asked.query else "")
    if refused.sign_in and asked.method in _SAFE and asked.mode in (None, "navigate"):
        return RedirectResponse(f"/login?next={quote(address, safe='')}", 303)
    link = f'<p><a href="{html.escape(address)}">Open it from here</a></p>' if refused.again else ""
    why = html.escape(refused.why)
    return HTMLResponse(
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>speciate</title><link rel="stylesheet" href="{FILES}/page.css">'
        f'<main class="alone"><h1>{refused.status}</h1><p>{why}</p>{link}</main></html>',
        refused.status,
    )
