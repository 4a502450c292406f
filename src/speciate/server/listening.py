"""Accepting connections on the daemon's unix socket, whatever a crowd of them does.

A moment without descriptors is waited out. A connection has seconds to say hello; of those that have not, only so many
may be open at once, and one more takes the place of the oldest.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.abc

HELLO_SECONDS = 10.0
MOST_SILENT = 64
MOST_CLIENTS = 256
"""Connections that last, of MCP clients and of those that keep HTTP open."""
_PAUSE_SECONDS = 0.2
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EPERM, errno.EPROTO}
_log = logging.getLogger(__name__)


async def serve_forever(
    listener: anyio.abc.SocketListener,
    handle: Callable[[anyio.abc.SocketStream], Coroutine[Any, Any, None]],
    connections: anyio.abc.TaskGroup,
) -> None:
    """As `listener.serve`, which ends at the first accept that fails. Raises BrokenResourceError for what lasts."""
    told = False
    while True:
        try:
            stream = await listener.accept()
        except anyio.BrokenResourceError as error:
            if not _passes(error.__cause__):
                raise
            if not told:
                _log.warning("no connection can be accepted for now: %s", error.__cause__)
            told = True
            await anyio.sleep(_PAUSE_SECONDS)
        else:
            told = False
            connections.start_soon(handle, stream)


def _passes(cause: BaseException | None) -> bool:
    return isinstance(cause, OSError) and cause.errno in _PASSING


class Silent:
    """The connections that have not said hello."""

    def __init__(self, most: int = MOST_SILENT, seconds: float = HELLO_SECONDS) -> None:
        self._most, self._seconds = most, seconds
        self._waiting: dict[anyio.CancelScope, None] = {}  # oldest first

    @contextmanager
    def hello(self) -> Iterator[None]:
        """While one is waited for. Raises TimeoutError when its time is over, or its place is needed."""
        if len(self._waiting) >= self._most:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.cancel()
        with anyio.move_on_after(self._seconds) as scope:
            self._waiting[scope] = None
            try:
                yield
            finally:
                self._waiting.pop(scope, None)
        if scope.cancelled_caught:
            raise TimeoutError("it said no hello in time")
