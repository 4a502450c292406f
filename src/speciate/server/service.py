"""What the daemon does while it lives: owns the open workspace, answers connections, and knows when to leave.

It leaves when nobody needs it (no client, no unfinished job, no deployment, no watch), on request, when a newer client
comes (runs and deployments continue and are adopted by the next daemon), and at once when it may no longer be the
owner.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import anyio.to_thread
import uvicorn
from anyio.streams.buffered import BufferedByteStream

import speciate.tools
from speciate import __version__, unix_sockets
from speciate.environment import socket_path, system_socket
from speciate.errors import Code, SpeciateError
from speciate.governance import audit_heads, authorization
from speciate.governance.page_sessions import SESSIONS, KeptSessions
from speciate.governance.roles import Level
from speciate.jobs.engine import Engine
from speciate.jobs.executors import Executor
from speciate.jobs.folder import write_whole
from speciate.jobs.pool import Pool
from speciate.jobs.process_identity import identity
from speciate.loop import notifications
from speciate.loop.housekeeping import Housekeeper
from speciate.loop.watch.watcher import Watcher
from speciate.predictions import answer_lookup
from speciate.predictions.log_files import all_logs
from speciate.predictions.maintenance import LogMaintenance
from speciate.server.control.action import ControlContext
from speciate.server.control.dispatch import ENDING, perform
from speciate.server.mcp import app
from speciate.server.protocol import (
    CONTROL,
    DRAINING,
    HELLO_BYTES,
    HTTP,
    MCP,
    Hello,
    encode,
    refusal,
)
from speciate.server.tool_api import App, Caller
from speciate.serving.deployment_folder import all_deployments
from speciate.serving.deployments import DeploymentKeeper
from speciate.serving.http_bounds import bounded_protocol, raise_descriptor_limit
from speciate.serving.preloading import keep_loaded
from speciate.settings import hold, safety
from speciate.workspace.backup import AutomaticBackups
from speciate.workspace.database import Event
from speciate.workspace.lock import Lock
from speciate.workspace.scratch import remove_abandoned
from speciate.workspace.workspace import Workspace

if TYPE_CHECKING:
    from speciate.server.web.listener import Pages

_TICK_SECONDS = 1.0
_DRAIN_SECONDS = 10.0
_RAW_SOCKET = anyio.abc.SocketAttribute.raw_socket
_HTTP_CONNECTIONS, _HTTP_BACKLOG = 256, 256
"""A client of the older protocol keeps one open for what it is told unasked, and one for each call under way."""
NO_LONGER_OWNER = 74
_log = logging.getLogger(__name__)


def serve(
    workspace: Workspace,
    lock: Lock,
    ready: Callable[[], None],
    fixtures: Sequence[Path] = (),
    *,
    stay: bool = False,
    group: int | None = None,
    executor: Executor | None = None,
) -> None:
    """Serve an open workspace until it is time to leave, and close it; `stay`: not because nobody needs it. Calls
    `ready` once clients can connect. `group`: whose members are served, too, at the system's socket. `executor`: what
    may have been asked for imports already."""
    raise_descriptor_limit()
    root = workspace.folders.root
    authority = authorization.authority_of(workspace)
    for problem in authority.problems:
        _log.warning("authority: %s", problem)
    workspace.settings = authority.settings()
    hold(root, safety(workspace.settings))
    if workspace.salvaged:
        _log.warning("the catalog's log was torn; the last commits may be lost; see %s", workspace.salvaged)
    for deployment in all_deployments(workspace.folders) if workspace.copied_from else ():
        deployment.stop()  # before the engine notes that this copy was dealt with
    remove_abandoned(workspace.folders.cache)
    backups = AutomaticBackups(workspace)
    engine, pool = Engine(workspace, executor=executor), Pool(workspace.folders, workspace.settings)
    keeper, hooks = DeploymentKeeper(workspace, pool), list[notifications.Hook]()
    housekeeper, watcher = Housekeeper(workspace, engine, pool), Watcher(workspace, engine, refreshes=True)
    log_maintenance = LogMaintenance(root, lambda: all_logs(workspace.folders))
    try:
        service = Service(
            workspace, engine, pool, keeper, lock, fixtures, stay=stay, group=group, watcher=watcher
        )  # fixtures may bring kinds
        engine.start()
        keeper.start()
        backups.start()
        housekeeper.start()
        watcher.start()
        keep_loaded(workspace, pool, keeper.keeps)
        audit_heads.keep_heads(workspace)
        authority.listen()
        hooks += notifications.hooks(workspace)
        for hook in hooks:
            hook.start()
        service.serve_team()
        service.serve_sessions()
        anyio.run(service.run, ready)
        service.close()
    finally:
        housekeeper.stop()
        watcher.stop()
        engine.stop()
        keeper.stop()
        for hook in hooks:
            hook.stop()
        log_maintenance.close()
        answer_lookup.logs_of(workspace).close()
        pool.close()
        backups.stop()
        workspace.close()
    _log.info("left in order")


class _Client(BufferedByteStream):
    """A client's connection that knows whether an answer is owed: something came in since something last went out."""

    owes = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await super().receive(max_bytes)
        self.owes = self.owes or b'"id"' in data  # notifications have none, and are owed nothing
        return data

    async def send(self, item: bytes) -> None:
        await super().send(item)
        self.owes = False


class _HttpServer(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the daemon."""
        yield


class Service:
    def __init__(
        self,
        workspace: Workspace,
        engine: Engine,
        pool: Pool,
        keeper: DeploymentKeeper,
        lock: Lock,
        fixtures: Sequence[Path],
        *,
        stay: bool = False,
        group: int | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._stay, self._group, self._watcher = stay, group, watcher
        self.workspace, self.engine, self.keeper = workspace, engine, keeper
        self._context = ControlContext(
            workspace, engine, pool, keeper, workspace.clock.now(), lambda: len(self._clients), self._open_pages
        )
        self._pages: Pages | None = None
        self._making_pages = threading.Lock()
        self.draining = False
        self._lock = lock
        self._server = app.build(workspace, engine, pool, fixtures)
        self._read_only = sorted(tool.name for tool in app.declarations(speciate.tools, "__tool__") if tool.read_only)
        self._clients: set[_Client] = set()
        """Open connections of clients; those of control requests do not count."""
        self._silent = SilentConnections()
        self._last_busy = workspace.clock.monotonic()
        self._leave = anyio.Event()
        self._forgotten = False
        workspace.database.listen(self._heard)
        root = workspace.folders.root
        self._path = socket_path(root) if group is None else system_socket(root)
        self._protocols = {MCP: self._serve_mcp, CONTROL: self._serve_control, HTTP: self._serve_http}

    def serve_team(self) -> None:
        """Pages for a team's proxy, where settings name its address. What stands in the way is told in the log."""
        team = self.workspace.settings.team
        if team.address is None:
            return
        try:
            with self._making_pages:
                port = self._ready_pages().serve_team(team)
        except SpeciateError as error:
            _log.error("no pages for the team: %s", error)
        else:
            self._stay = True
            _log.info("pages for %s are served to its proxy at %s, port %d", team.address, team.listen, port)

    async def run(self, ready: Callable[[], None]) -> None:
        self._path.unlink(missing_ok=True)  # a leftover: whoever listened here held the lock that we hold
        listener = await anyio.create_unix_listener(self._path, mode=0o600 if self._group is None else 0o660)
        if self._group is not None:
            os.chown(self._path, -1, self._group)
        inode = self._path.stat().st_ino
        _write_card(self.workspace, self._path)
        async with anyio.create_task_group() as connections:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve_forever, listener, self._accept, connections)
                await tasks.start(self._heed_signals)
                tasks.start_soon(self._watch, inode)
                ready()
                _log.info("version %s serves %s as process %d", __version__, self.workspace.folders.root, os.getpid())
                await self._leave.wait()
                self.draining = True
                tasks.cancel_scope.cancel()
            await listener.aclose()
            self._path.unlink(missing_ok=True)
            await self._let_answers_out()
            connections.cancel_scope.cancel()

    def leave(self) -> None:
        """End the service soon: from the event loop's thread."""
        self._leave.set()

    def close(self) -> None:
        """Write what is only counted so far; the catalog must still be open."""
        with self._making_pages:
            if self._pages is not None:
                self._pages.close()
        self._server.calls.close()

    def serve_sessions(self) -> None:
        """Pages for browsers that are still signed in from an earlier daemon. Without any, none are loaded."""
        if not KeptSessions(self.workspace.folders.root / SESSIONS, self.workspace.clock.now).load():
            return
        try:
            with self._making_pages:
                self._ready_pages()
        except SpeciateError as error:
            _log.error("no pages for who is signed in: %s", error)

    def _open_pages(
        self, level: Level, account: unix_sockets.Account, keys: Sequence[Mapping[str, Any]], signed: bool
    ) -> str:
        """A link. The first one loads the pages, which nobody else waits for. In a worker thread."""
        with self._making_pages:
            pages = self._ready_pages()
        return pages.open(level, account, keys, signed)

    def _ready_pages(self) -> Pages:
        if self._pages is None:
            listener = importlib.import_module("speciate.server.web.listener")
            app = App(self.workspace, self.engine, self._context.pool)
            self._pages = listener.Pages(app, self._context)
        return self._pages

    def _heard(self, events: Sequence[Event]) -> None:
        self._forgotten |= any(event.type == "data.forgotten" for event in events)

    # Connections

    async def _accept(self, stream: anyio.abc.SocketStream) -> None:
        """One connection, whatever becomes of it: its trouble is nobody else's."""
        client = _Client(stream)
        async with client:
            try:
                if unix_sockets.may_connect(unix_sockets.peer_account(stream.extra(_RAW_SOCKET)), self._group):
                    with self._silent.hello():
                        hello = json.loads(await client.receive_until(b"\n", HELLO_BYTES))
                    await self._greet(client, hello)
            except (TimeoutError, ValueError, anyio.IncompleteRead, anyio.DelimiterNotFound) as error:
                _log.warning("a connection began with no hello: %r", error)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                _log.debug("a client went away")
            except Exception:  # noqa: BLE001 - logged; the daemon serves the others
                _log.exception("a connection failed")

    async def _greet(self, client: _Client, hello: Hello) -> None:
        if self.draining:
            await client.send(encode({"ok": False, "code": DRAINING}))
            return
        serve = self._protocols.get(str(hello.get("protocol")))
        if serve is None:
            await client.send(encode(refusal(_other_version(hello))))
        elif (
            serve == self._serve_mcp
            and _newer(str(hello.get("version", "")))
            and unix_sockets.may_succeed(unix_sockets.peer_account(client.extra(_RAW_SOCKET)), self._group)
        ):
            _log.info("leaving for version %s", hello["version"])
            await client.send(encode({"ok": False, "code": DRAINING}))
            self.leave()
        elif serve != self._serve_control and len(self._clients) >= MOST_CLIENTS:
            await client.send(encode(refusal(_too_many())))
        else:
            await serve(client, hello)

    async def _serve_mcp(self, client: _Client, hello: Hello) -> None:
        folder = hello.get("folder")
        peer = unix_sockets.peer_account(client.extra(_RAW_SOCKET))
        mine = unix_sockets.may_end_daemon(
            peer
        )  # others say of their folder what they like, and the daemon may read more
        caller = Caller(
            Path(folder) if folder and mine else None,
            f"{peer.name} over MCP",
            "stdio",
            "core" if hello.get("tools") == "core" else "all",
        )
        await client.send(encode({"ok": True, "version": __version__, "read_only": self._read_only}))
        self._clients.add(client)
        try:
            await self._server.serve_connection(client, caller)
        finally:
            self._clients.discard(client)
            self._last_busy = self.workspace.clock.monotonic()

    async def _serve_control(self, client: _Client, hello: Hello) -> None:
        """One action. What is begun is answered, also by a daemon that leaves: its client must know what was done."""
        with anyio.CancelScope(shield=True):
            done, answer = await self._perform(client, hello)
            with anyio.move_on_after(_DRAIN_SECONDS), contextlib.suppress(anyio.BrokenResourceError):
                await client.send(answer)
        if done and hello["action"] in ENDING:
            self.leave()

    async def _perform(self, client: _Client, hello: Hello) -> tuple[bool, bytes]:
        """Whether it was done, and the answer."""
        try:
            caller = unix_sockets.peer_account(client.extra(_RAW_SOCKET))
            result = await anyio.to_thread.run_sync(perform, self._context, hello, caller)
            return True, encode({"ok": True, "result": result})
        except SpeciateError as error:
            return False, encode(refusal(error))
        except Exception as error:  # noqa: BLE001 - logged; the client is told
            _log.exception("an action failed")
            return False, encode(refusal(app.defect_error(error)))

    async def _serve_http(self, client: _Client, hello: Hello) -> None:
        """Streamable HTTP on loopback while this connection lasts."""
        try:
            listener = _loopback(int(hello.get("port", 0)))
        except SpeciateError as error:
            await client.send(encode(refusal(error)))
            return
        port, token = listener.getsockname()[1], _token(self.workspace.folders.root / "http.token")
        config = uvicorn.Config(
            self._server.http_app(token, port), log_level="warning", lifespan="on", timeout_graceful_shutdown=2,
            http=bounded_protocol(_HTTP_CONNECTIONS), backlog=_HTTP_BACKLOG,
        )  # fmt: skip
        http = _HttpServer(config)
        self._clients.add(client)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(http.serve, [listener])
                await client.send(
                    encode({"ok": True, "url": f"http://127.0.0.1:{port}/mcp", "port": port, "token": token})
                )
                await _first_of(partial(_until_closed, client), self._leave.wait)
                client.owes = True  # when the daemon leaves, it waits until HTTP has ended in order
                http.should_exit = True
        finally:
            self._clients.discard(client)
            listener.close()

    async def _let_answers_out(self) -> None:
        """Wait a little for calls that are being answered; their clients repeat or give up what stays unanswered."""
        with anyio.move_on_after(_DRAIN_SECONDS):
            while any(client.owes for client in self._clients):
                await anyio.sleep(0.05)

    # When to leave

    async def _heed_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                _log.info("leaving: signal %d", number)
                self.leave()
                return

    def _nothing_waits(self) -> bool:
        """Whether no job is unfinished and no use case is watched."""
        return self.engine.idle() and (self._watcher is None or self._watcher.idle)

    async def _watch(self, inode: int) -> None:
        idle_seconds = 60 * self.workspace.settings.idle_exit_minutes
        nothing_waits, asked_at = False, -1
        while True:
            await anyio.sleep(min(_TICK_SECONDS, idle_seconds / 2))
            if not self._lock.intact():
                _log.critical("daemon.lock was replaced: somebody else may own the workspace now")
                os._exit(NO_LONGER_OWNER)
            if not _is_inode(self._path, inode):
                _log.warning("leaving: the socket %s is gone, nobody could reach us", self._path)
                self.leave()
            if self._forgotten:
                _log.info("leaving: something was forgotten, and only a catalog that nobody has open can be rewritten")
                self.leave()
            now = self.workspace.clock.monotonic()
            if self._pages is not None:
                self._last_busy = max(self._last_busy, self._pages.last_used)
            busy = bool(self._stay or self._clients) or not self.keeper.idle
            if (commits := self.workspace.database.commits) != asked_at:  # else the catalog says what it said
                nothing_waits, asked_at = await anyio.to_thread.run_sync(self._nothing_waits), commits
            if busy or not nothing_waits:
                self._last_busy = now
            elif now - self._last_busy >= idle_seconds:
                _log.info("leaving: idle")
                self.leave()


def _other_version(hello: Hello) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"This daemon is version {__version__} and does not speak {hello.get('protocol')!r} "
        f"(client version {hello.get('version')!r}).",
        "Install the same version on both sides: pip install -U speciate; then `speciate stop`.",
    )


def _too_many() -> SpeciateError:
    return SpeciateError(
        Code.UNAVAILABLE,
        f"{MOST_CLIENTS} clients are connected to this daemon, and it serves no more at once.",
        "End some of them (`speciate status` counts them), then try again.",
    )


def _newer(version: str) -> bool:
    return _parts(version) > _parts(__version__)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _is_inode(path: Path, inode: int) -> bool:
    try:
        return path.stat().st_ino == inode
    except OSError:
        return False


async def _first_of(*waits: Callable[[], Awaitable[None]]) -> None:
    """Wait until one of them is over."""

    async def wait(one: Callable[[], Awaitable[None]]) -> None:
        await one()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for each in waits:
            tasks.start_soon(wait, each)


async def _until_closed(client: _Client) -> None:
    try:
        while True:
            await client.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return


def _loopback(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(_HTTP_BACKLOG)  # from here on clients wait instead of being turned away
    except OSError as error:
        listener.close()
        raise SpeciateError(
            Code.UNAVAILABLE, f"Port {port} cannot be used: {error.strerror}.", "Choose another: --http 0 takes any."
        ) from error
    return listener


def _token(path: Path) -> str:
    """The bearer token of this workspace, made at first use; the file is for its owner only."""
    if path.exists() and (token := path.read_text().strip()):
        return token
    write_whole(path, token := secrets.token_urlsafe(32), mode=0o600)
    return token


def _write_card(workspace: Workspace, path: Path) -> None:
    """daemon.json tells people and programs who serves; the lock alone decides."""
    pid = os.getpid()
    _, start, boot = identity(pid).split()
    card = {
        "pid": pid,
        "start_time": start,
        "boot_id": boot,
        "version": __version__,
        "socket": str(path),
    }
    write_whole(workspace.folders.root / "daemon.json", json.dumps(card))


HELLO_SECONDS = 10.0
MOST_SILENT = 64
MOST_CLIENTS = 256
"""Connections that last, of MCP clients and of those that keep HTTP open."""
_PAUSE_SECONDS = 0.2
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EPERM, errno.EPROTO}


async def serve_forever(
    listener: anyio.abc.SocketListener,
    handle: Callable[[anyio.abc.SocketStream], Coroutine[Any, Any, None]],
    connections: anyio.abc.TaskGroup,
) -> None:
    """Accept connections as `listener.serve` does, which ends at the first accept that fails. A moment without
    descriptors is waited out. Raises BrokenResourceError for failures that last."""
    logged = False
    while True:
        try:
            stream = await listener.accept()
        except anyio.BrokenResourceError as error:
            if not _is_passing(error.__cause__):
                raise
            if not logged:
                _log.warning("no connection can be accepted for now: %s", error.__cause__)
            logged = True
            await anyio.sleep(_PAUSE_SECONDS)
        else:
            logged = False
            connections.start_soon(handle, stream)


def _is_passing(cause: BaseException | None) -> bool:
    return isinstance(cause, OSError) and cause.errno in _PASSING


class SilentConnections:
    """The connections that have not said hello. Each has some seconds to do so; only so many may be open at once, and
    one more takes the place of the oldest."""

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
