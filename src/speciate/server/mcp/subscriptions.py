"""Tells subscribed clients that a resource changed: from the catalog's events to both protocol eras.

One bus per server. The catalog's writer hands events over in its own thread; they are gathered and fanned out on the
event loop at most four times a second, each resource once. Nothing is replayed: a client reads the resource again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

import anyio.lowlevel
from mcp.server.subscriptions import ResourceUpdated, ServerEvent

from speciate.workspace.database import Event

Listener = Callable[[ServerEvent], None]

PERIOD_SECONDS = 0.25


class Updates:
    """The server's `SubscriptionBus`. Everything but `notice` runs on the event loop."""

    def __init__(self) -> None:
        self._listeners: dict[object, Listener] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: dict[str, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def notice(self, events: Sequence[Event]) -> None:
        """Called from the catalog's writer thread with what was committed."""
        loop = self._loop
        if loop is not None and self._listeners:
            uris = [uri for event in events for uri in changed_uris(event)]
            with contextlib.suppress(RuntimeError):  # the loop closed: nobody is left to be told
                loop.call_soon_threadsafe(self._gather, uris)

    async def publish(self, event: ServerEvent) -> None:
        self._fan_out(event)
        await anyio.lowlevel.checkpoint()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Hear of every update until the returned function is called."""
        self._loop = asyncio.get_running_loop()
        token = object()
        self._listeners[token] = listener

        def unsubscribe() -> None:
            self._listeners.pop(token, None)

        return unsubscribe

    def _gather(self, uris: Iterable[str]) -> None:
        self._pending.update(dict.fromkeys(uris))
        if self._timer is None and self._pending:
            self._flush()

    def _flush(self) -> None:
        """Send what is pending at once, then gather for a period."""
        pending, self._pending = self._pending, {}
        self._timer = asyncio.get_running_loop().call_later(PERIOD_SECONDS, self._flush) if pending else None
        for uri in pending:
            self._fan_out(ResourceUpdated(uri=uri))

    def _fan_out(self, event: ServerEvent) -> None:
        for listener in list(self._listeners.values()):
            listener(event)


def changed_uris(event: Event) -> list[str]:
    """The resources that show what an event tells of. Versions and evaluations never change once they are there."""
    noun, colon, name = event.subject.partition(":")
    if not colon:
        uris = [f"speciate://jobs/{event.subject}", f"speciate://jobs/{event.subject}/log"]
    elif noun == "evaluation":
        uris = [f"speciate://evaluations/{name}"]
    elif noun == "use_case":
        uris = [f"speciate://use-cases/{name}"]
    elif noun == "dataset" and "version" in event.data:
        uris = [f"speciate://datasets/{name}/v{event.data['version']}"]
    else:
        uris = []
    return [*uris, "speciate://status"]
