"""What changed, told to open pages: a stream of the names of parts, each of which the page then asks for again.

A stream looks twice a second at a few counters and, for one run, at the times of its files; nothing is read or sent
while nothing changes. A run of any length costs the same.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from speciate.errors import SpeciateError
from speciate.server.tool_api import App
from speciate.workspace.database import Event

LOOK_SECONDS, BEAT_SECONDS = 0.5, 15.0
MOST_STREAMS = 24
"""Of one session: a browser has six at most, and those of pages that were left end half a second later."""
_FILES = ("progress", "log", "metrics.jsonl")


class Changes:
    """Counts what was committed, by the part that shows it."""

    def __init__(self, app: App) -> None:
        self._app, self._lock = app, threading.Lock()
        self._counts: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()
        app.workspace.database.listen(self._heard)

    def _heard(self, events: Sequence[Event]) -> None:
        with self._lock:
            self._counts.update(part for event in events for part in parts_of(event))

    def _stamps(self, job: str | None) -> dict[str, object]:
        with self._lock:
            stamps: dict[str, object] = dict(self._counts)
        if job:
            stamps["run"] = stamps.get(f"job:{job}"), self._files(job)
        return stamps

    def _files(self, job: str) -> tuple[int, ...]:
        """Times of change of what a run writes while it runs, and its children's."""
        try:
            found = self._app.engine.get(job)
            folders = [self._app.engine.folder(each).path for each in (found, *self._app.engine.children(job))]
        except SpeciateError:
            return ()
        stamps = list[int]()
        for folder in folders:
            for name in _FILES:
                try:
                    stamps.append(os.stat(folder / name).st_mtime_ns)
                except OSError:
                    continue
        return tuple(stamps)

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
            before, silent = await anyio.to_thread.run_sync(self._stamps, job), 0.0
            yield "retry: 2000\n\n"
            while lasts() and not await request.is_disconnected():
                await anyio.sleep(LOOK_SECONDS)
                silent += LOOK_SECONDS
                now = await anyio.to_thread.run_sync(self._stamps, job)
                changed = [part for part, stamp in now.items() if before.get(part) != stamp]
                before = now
                for part in changed:
                    yield f"data: {part}\n\n"
                if changed or silent >= BEAT_SECONDS:
                    silent = 0.0
                    yield ": still here\n\n"
        finally:
            self._streams[session] -= 1


def parts_of(event: Event) -> list[str]:
    """The parts of pages that show what an event tells of."""
    noun, colon, _ = event.subject.partition(":")
    if not colon:
        return ["runs", f"job:{event.subject}"]
    if noun == "approval" or event.type.startswith("approval."):
        return ["approvals", "status"]
    return ["status"]
