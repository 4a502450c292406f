"""The server of the pages: a thread of the daemon with a loop of its own, from the first `speciate open` on.

What it imports is loaded then and not before, so that no daemon starts slower or larger for pages that nobody opens.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

import uvicorn

from speciate.errors import Code, SpeciateError
from speciate.evaluation.reports.shown_media import ShownMedia
from speciate.governance import authorization
from speciate.governance.page_sessions import (
    SESSIONS,
    TEAM_SESSIONS,
    Grant,
    KeptSessions,
    PageAccount,
    SealedKey,
    Sessions,
)
from speciate.governance.passkeys import PendingPasskeys
from speciate.governance.roles import Level
from speciate.predictions.held_labels import HeldLabels
from speciate.server.changes import Changes
from speciate.server.control.action import ControlContext
from speciate.server.request_log import RequestLog
from speciate.server.tool_api import App
from speciate.server.web.events import Streams
from speciate.server.web.guard import Front, host_name, local_front, team_front
from speciate.server.web.pages.labelling import add_label
from speciate.server.web.site import Site, prepare
from speciate.server.web.visit import Parts
from speciate.serving.http_bounds import bound_listener, bounded_protocol
from speciate.settings import Team
from speciate.unix_sockets import Account

_CONNECTIONS, _BACKLOG = 256, 64
_ANSWER_SECONDS, _END_SECONDS = 10, 15.0
"""For what is being answered when the daemon leaves: whoever decided something must learn what came of it."""
_PORT_FILE = "pages.port"
_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the daemon."""
        yield


class Pages:
    """The pages of one daemon. Raises UNAVAILABLE where no port can be had."""

    def __init__(self, app: App, control: ControlContext) -> None:
        self._app, self._control, self._clock = app, control, app.workspace.clock
        folders = app.workspace.folders
        requests = RequestLog(folders.root / "requests", app.workspace.clock.now)
        self._parts = Parts(
            ShownMedia(folders, app.pool), HeldLabels(partial(add_label, control)), requests, PendingPasskeys()
        )
        self._streams = Streams(Changes(app))
        self._running = list[_Running]()
        self.last_used = self._clock.monotonic()
        """When the pages were last used, by the monotonic clock."""
        listener = _listen(app)
        self.port: int = listener.getsockname()[1]
        threading.Thread(target=prepare, name="pages-prepared", daemon=True).start()
        self.sessions = Sessions(
            self._clock.monotonic, kept=KeptSessions(folders.root / SESSIONS, app.workspace.clock.now),
            required=lambda: authorization.authority_of(app.workspace).required,
        )  # fmt: skip
        self._serve(listener, local_front(self.port), self.sessions)

    def serve_team(self, team: Team) -> int:
        """The pages for a team's proxy, from here on: the port. Raises UNAVAILABLE."""
        listener = _bound(team.listen, team.port)
        authority = authorization.authority_of(self._app.workspace)
        kept = KeptSessions(self._app.workspace.folders.root / TEAM_SESSIONS, self._app.workspace.clock.now)
        self._serve(listener, team_front(team), Sessions(self._clock.monotonic, authority.token, kept))
        return int(listener.getsockname()[1])

    def open(self, level: Level, account: Account, keys: Sequence[SealedKey], signed: bool = False) -> str:
        """A link for one session; it is good for a minute."""
        grant = Grant(PageAccount(*account), level, tuple(keys), signed)
        self._note()
        self._parts.media.warm()  # while the browser starts
        return f"http://{host_name(self.port)}/open#{self.sessions.new_link(grant)}"

    def close(self) -> None:
        """Store what was labelled and not stored yet, and end."""
        self._parts.labels.close()
        self._streams.close()
        for each in self._running:
            each.server.should_exit = True
        for each in self._running:
            each.thread.join(_END_SECONDS)
            each.listener.close()
        self._parts.media.close()

    def _note(self) -> None:
        self.last_used = self._clock.monotonic()

    def _serve(self, listener: socket.socket, front: Front, sessions: Sessions) -> None:
        """Serve the pages, in a thread with a loop of its own."""
        site = Site(self._app, self._control, self._parts, self._streams, sessions, front)
        config = uvicorn.Config(
            site.application(self._note), log_level="warning", lifespan="off",
            timeout_graceful_shutdown=_ANSWER_SECONDS, http=bounded_protocol(_CONNECTIONS), backlog=_BACKLOG,
            access_log=False, ws="none", server_header=False,
            proxy_headers=False,  # the guard reads them, from the proxy alone
        )  # fmt: skip
        server = _Server(config)

        def run() -> None:
            try:
                server.run(sockets=[listener])
            except Exception:  # noqa: BLE001 - the daemon goes on without pages
                _log.exception("the pages ended")

        thread = threading.Thread(target=run, name="pages", daemon=True)
        self._running.append(_Running(server, thread, listener))
        thread.start()


class _Running(NamedTuple):
    server: _Server
    thread: threading.Thread
    listener: socket.socket


def _bound(address: str, port: int) -> socket.socket:
    """Raises UNAVAILABLE."""
    try:
        return bound_listener(address, port, _BACKLOG)
    except OSError as error:
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"Port {port} of {address} cannot be had for the pages: {error.strerror}.",
            "Free the port.",
        ) from None


def _listen(app: App) -> socket.socket:
    """Listen at the port of before, where it is free: bookmarks keep working."""
    path = app.workspace.folders.root / _PORT_FILE
    kept = 0
    with suppress(OSError, ValueError):
        kept = int(path.read_text())
    with suppress(SpeciateError):
        if 1024 <= kept <= 65_535:
            return _bound("127.0.0.1", kept)
    listener = _bound("127.0.0.1", 0)
    with suppress(OSError):
        path.write_text(str(listener.getsockname()[1]))
    return listener
