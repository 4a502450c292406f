"""What an HTTP server of ours grants to strangers: so many connections, so much time, so large a body.

uvicorn bounds none of them: `limit_concurrency` answers 503 but keeps the connection, and its keep-alive timer runs
only after an answer. So whoever may connect, with or without a token, could hold every descriptor of the process.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Protocol
else:
    _Protocol = AutoHTTPProtocol

HEAD_SECONDS = 10.0
"""Seconds until the head of a request is whole: from connecting, or from its first byte after an answer."""
_SILENT_SECONDS = 10.0
"""Longest pause between two pieces of a body, in seconds."""
_BODY_SECONDS = 300.0
"""Seconds from a head to the end of its body."""
_HEAD_BYTES = 64 << 10
_DROP_SECONDS, _PAUSE_SECONDS = 30.0, 1.0
_DROP_BYTES, _DROP_DECLARED_BYTES = 32 << 20, 1 << 30
"""Most bytes of a body that nobody reads, by its size and by what it declares. They are dropped, so that its sender
comes to read the answer. More, or a pause, ends it."""
_DESCRIPTORS = 1 << 16
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-type: text/plain\r\ncontent-length: 30\r\n\r\nToo many connections are open."
)


def bound_listener(address: str, port: int, backlog: int) -> socket.socket:
    """A socket that listens: from here on clients wait instead of being turned away. Raises OSError."""
    listener = bound_socket(address, port)
    try:
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def bound_socket(address: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket that has its port and gets no connections before it listens. `shared`: other processes of this user may
    listen there, too, and the kernel spreads connections over those that do. Raises OSError."""
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound


def raise_descriptor_limit() -> None:
    """The soft limit, which is 1,024 for the sake of select(), up to the hard one, as servers are advised to do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bounded_protocol(most: int) -> type[asyncio.Protocol]:
    """For `uvicorn.Config(http=...)`: at most so many connections, none of which may keep us waiting.

    One too many takes the place of the one that has been without a request for longest. Where each has one, the new
    one is answered with 503.
    """
    return type("BoundedProtocol", (_Bounded,), {"most": most})


class _Bounded(_Protocol):
    most: int
    _timer: asyncio.TimerHandle | None = None
    _deadline: float | None = None
    _body_until = 0.0
    _head_bytes = 0
    _idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._expect(HEAD_SECONDS)
        if len(self.connections) > self.most:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        before = self.cycle
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is not before:
            self._head_bytes = 0
            self._body_until = self.loop.time() + _BODY_SECONDS
        if self._idle:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self.transport.abort()
            elif self._deadline is None:
                self._expect(HEAD_SECONDS)
        elif self.cycle.more_body:
            self._expect(min(_SILENT_SECONDS, self._body_until - self.loop.time()))
        else:
            self._deadline = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle_since = self.loop.time()
        if self._idle:
            self._deadline = None  # until something comes uvicorn's timer for idle connections runs

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        idle = [each for each in self.connections if isinstance(each, _Bounded) and each._idle and each is not self]
        if idle:
            longest = min(idle, key=lambda each: (each.cycle is not None, each._idle_since))
            self.connections.discard(longest)
            longest.transport.abort()
        else:
            self.transport.write(_FULL)
            self.transport.close()

    def _expect(self, seconds: float) -> None:
        """Something must come within so many seconds."""
        self._deadline = self.loop.time() + seconds
        if self._timer is None:
            self._timer = self.loop.call_at(self._deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._deadline is None or self.transport.is_closing():
            return
        if self.flow.read_paused:  # it may have come, and we do not look
            self._expect(_SILENT_SECONDS)
        elif self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._due)
        else:
            self.transport.abort()


class TrimmedHeaders:
    """Middleware: white space around a field's value is no part of it (RFC 9110, 5.5), and the parser keeps some."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [(name, value.strip(b" \t")) for name, value in scope["headers"]]}
        await self._app(scope, receive, send)


class BoundedBodies:
    """Middleware: a body of more than `most` bytes is answered with 413. What is left of a body after an answer is
    dropped: a connection that is closed over unread bytes is reset, and its client may never see the answer."""

    def __init__(self, app: ASGIApp, most: int | None = None) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(self._app, self._most, scope, receive, send).run()
        else:
            await self._app(scope, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, app: ASGIApp, most: int | None, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._most, self._scope, self._receive, self._send = app, most, scope, receive, send
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "")
        self._declared = int(declared) if declared.isdigit() and len(declared) < 20 else 0
        self._whole = self._declared == 0 and "transfer-encoding" not in headers
        self._asked_for = headers.get("expect", "").lower() != "100-continue"
        """Whether the client sends its body, or waits until somebody wants it."""
        self._size = 0
        self._refused = False

    async def run(self) -> None:
        if self._most is not None and self._declared > self._most:
            await self._refuse()
        else:
            await self._app(self._scope, self._next, self._answer)

    async def _next(self) -> Message:
        message = await self._more()
        if self._most is not None and self._size > self._most:
            if not self._refused:
                await self._refuse()
            return {"type": "http.disconnect"}
        return message

    async def _more(self) -> Message:
        self._asked_for = True
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self._whole = self._whole or not message.get("more_body", False)  # also at a disconnect
        return message

    async def _answer(self, message: Message) -> None:
        if self._refused:
            return
        if self._whole:
            await self._send(message)
        elif message["type"] == "http.response.start":
            await self._send({**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]})
        elif message.get("more_body", False):
            await self._send(message)
        else:  # the client has its whole answer before we look at what else it sends
            await self._send({**message, "more_body": True})
            await self._drop_rest()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _refuse(self) -> None:
        told = f"The body is larger than {self._most or 0:,} bytes. Send less at once, or a path to a file."
        await JSONResponse({"error": told}, 413)(self._scope, self._receive, self._answer)
        self._refused = True

    async def _drop_rest(self) -> None:
        if not self._asked_for or self._declared > _DROP_DECLARED_BYTES:
            return
        end = max(self._declared, self._size + _DROP_BYTES)
        try:
            async with asyncio.timeout(_DROP_SECONDS):
                while not self._whole and self._size < end:
                    async with asyncio.timeout(_PAUSE_SECONDS):
                        await self._more()
        except TimeoutError:
            return
