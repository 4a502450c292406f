"""What changed, told to open pages: a stream of the names of parts, each of which the page then asks for again.

A stream looks twice a second, and sends nothing while nothing changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from speciate.server.changes import Changes

LOOK_SECONDS, BEAT_SECONDS = 0.5, 15.0
MOST_STREAMS = 24
"""Streams of one session: a browser has six at most, and those of pages that were left end half a second later."""


class Streams:
    """Streams of events to the pages of one daemon."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._streams: Counter[str] = Counter()
        self._closed = False

    def close(self) -> None:
        """End every stream within a moment."""
        self._closed = True

    def stream(self, request: Request, lasts: Callable[[], bool]) -> Response:
        """`?job=ID`: that run's files, too. Until the session ends."""
        session: str = request.scope["session"].csrf
        if self._streams[session] >= MOST_STREAMS:
            return PlainTextResponse("This session has as many streams as it may.", 429)
        told = self._told(request, request.query_params.get("job"), session, lasts)
        return StreamingResponse(told, media_type="text/event-stream")

    async def _told(
        self, request: Request, job: str | None, session: str, lasts: Callable[[], bool]
    ) -> AsyncIterator[str]:
        self._streams[session] += 1
        try:
            before, silent = await anyio.to_thread.run_sync(self._changes.stamps, job), 0.0
            yield "retry: 2000\n\n"
            while lasts() and not self._closed and not await request.is_disconnected():
                await anyio.sleep(LOOK_SECONDS)
                silent += LOOK_SECONDS
                now = await anyio.to_thread.run_sync(self._changes.stamps, job)
                changed = [part for part, stamp in now.items() if before.get(part) != stamp]
                before = now
                for part in changed:
                    yield f"data: {part}\n\n"
                if changed or silent >= BEAT_SECONDS:
                    silent = 0.0
                    yield ": still here\n\n"
        finally:
            self._streams[session] -= 1
