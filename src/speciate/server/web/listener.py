"""The server of the pages: a thread of the daemon with a loop of its own, from the first `speciate open` on.

What it imports is loaded then and not before, so that no daemon starts slower or larger for pages that nobody opens.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import uvicorn

from speciate.errors import Code, SpeciateError
from speciate.server.control import ControlContext
from speciate.server.tool_api import App
from speciate.server.web.guard import host_name
from speciate.server.web.media import Media
from speciate.server.web.pages.labelling import HeldLabels
from speciate.server.web.sessions import Grant, Level, PageAccount, SealedKey, Sessions
from speciate.server.web.site import Site
from speciate.server.web.visit import Parts
from speciate.serving.http_bounds import bounded_protocol
from speciate.unix_sockets import Account

_CONNECTIONS, _BACKLOG = 256, 64
_END_SECONDS, _START_SECONDS = 5.0, 10.0
_PORT_FILE = "pages.port"
_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the daemon."""
        yield


class Pages:
    """Of one daemon. Raises UNAVAILABLE where no port can be had."""

    def __init__(self, app: App, control: ControlContext) -> None:
        self._clock = app.workspace.clock
        self._listener = _listen(app)
        self.port: int = self._listener.getsockname()[1]
        self.sessions = Sessions(self._clock.monotonic)
        self.last_used = self._clock.monotonic()
        """By the monotonic clock."""
        self._parts = Parts(Media(app.workspace.folders, app.pool), HeldLabels(control))
        site = Site(app, control, self._parts, self.sessions, self.port)
        config = uvicorn.Config(
            site.application(self._note), log_level="warning", lifespan="off", timeout_graceful_shutdown=1,
            http=bounded_protocol(_CONNECTIONS), backlog=_BACKLOG, access_log=False, ws="none", server_header=False,
        )  # fmt: skip
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._serve, name="pages", daemon=True)
        self._thread.start()

    def open(self, level: Level, account: Account, keys: Sequence[SealedKey]) -> str:
        """A link for one session; it is good for a minute."""
        grant = Grant(PageAccount(*account), level, tuple(keys))
        self._note()
        return f"http://{host_name(self.port)}/open#{self.sessions.new_link(grant)}"

    def close(self) -> None:
        """Store what was labelled and not stored yet, and end."""
        self._parts.labels.close()
        self._server.should_exit = True
        self._thread.join(_END_SECONDS)
        self._parts.media.close()
        self._listener.close()

    def _note(self) -> None:
        self.last_used = self._clock.monotonic()

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        except Exception:  # noqa: BLE001 - the daemon goes on without pages
            _log.exception("the pages ended")


def _listen(app: App) -> socket.socket:
    """At the port of before, where it is free: bookmarks keep working."""
    path = app.workspace.folders.root / _PORT_FILE
    kept = 0
    with suppress(OSError, ValueError):
        kept = int(path.read_text())
    for port in (kept, 0) if 1024 <= kept <= 65_535 else (0,):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            problem = error
            continue
        with suppress(OSError):
            path.write_text(str(listener.getsockname()[1]))
        return listener
    raise SpeciateError(
        Code.UNAVAILABLE, f"No port of this machine can be had for the pages: {problem.strerror}.", "Repeat the call."
    )
