"""The process of a deployment: `python -m speciate.serving.process FOLDER`, started by the daemon and outliving it.

It takes the claim, listens, and follows what is wanted. Of several replicas one listens once it serves a version, or
nothing serves: until then the others get all connections.

Exit status 75: another process has the claim; 73: its port is in use, as its state says.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import uvicorn

from speciate import __version__, unix_sockets
from speciate.environment import runtime_folder
from speciate.errors import SpeciateError
from speciate.faults import fault
from speciate.predictions.log import AnswerLog
from speciate.predictions.log_files import log_folder
from speciate.predictions.maintenance import LogMaintenance
from speciate.sandbox import SandboxPolicy
from speciate.serving.api import Api
from speciate.serving.deployment import Deployment
from speciate.serving.deployment_folder import AlreadyClaimed, DeploymentFolder, State, Target, Wanted
from speciate.serving.http_bounds import bound_listener, bound_socket, bounded_protocol, raise_descriptor_limit
from speciate.serving.replica import Process, Runner
from speciate.serving.request_metrics import Metrics
from speciate.settings import hold, in_force
from speciate.workspace.clock import SystemClock
from speciate.workspace.workspace import Folders

TAKEN, PORT_IN_USE = 75, 73
_PORT_SECONDS = 3.0
"""A port may be held a moment longer by who had it before."""
_LOOK_SECONDS = 0.2
_CONNECTIONS = 512
_SWITCH_SECONDS = 0.0005
"""How long the event loop may keep the interpreter while a version's thread waits for it; Python's own is 5 ms, which
would be added to the answer of every batch."""
_APART = (
    "The daemon cannot reach this deployment, for no unix socket could be made in its folder, nor in the folder for "
    "sockets that `speciate doctor` names. Clients over HTTP are served; `predict` uses the daemon's own pool."
)
_log = logging.getLogger(__name__)


class PortInUse(Exception):
    """Somebody else listens there."""


class _Server(uvicorn.Server):
    """Serves at once what it is run with, and `later` too, from when it `may_listen` there."""

    def __init__(self, config: uvicorn.Config, later: socket.socket | None, may_listen: Callable[[], bool]) -> None:
        super().__init__(config)
        self._later, self._may_listen = later, may_listen

    async def on_tick(self, counter: int) -> bool:
        if self._later and not self.should_exit and await asyncio.to_thread(self._may_listen):
            protocol = partial(
                cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class),
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state,
            )  # fmt: skip
            listens = asyncio.get_running_loop().create_server(protocol, sock=self._later, backlog=_CONNECTIONS)
            self.servers.append(await listens)
            self._later = None
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to us."""
        yield


def main(path: str, cage: str | None = None) -> int:
    """`cage`: how the daemon sandboxes; without it as settings.toml says."""
    folder = DeploymentFolder(Path(path))
    root = folder.shared.parent.parent
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        folder.claim()
    except AlreadyClaimed:
        return TAKEN
    wanted = folder.wanted()
    if wanted is None or folder.stopped or not folder.is_wanted:
        return 0
    fault("slot_claimed")
    raise_descriptor_limit()
    if cage is not None:
        hold(root, {"cage": cage})
    with contextlib.suppress(OSError):  # a full disk, say
        folder.tell(folder.state().model_copy(update={"port": 0, "socket": "", "serving": None}))
    try:
        listener = _listen(folder, wanted)
    except PortInUse as error:
        _log.error("%s", error)
        folder.tell(State(problem=str(error), refused=folder.state().refused))
        return PORT_IN_USE
    with contextlib.suppress(OSError):
        folder.keep_port(listener.getsockname()[1])
    _serve(folder, root, wanted, listener)
    return 0


def _serve(folder: DeploymentFolder, root: Path, wanted: Wanted, listener: socket.socket) -> None:
    settings = in_force(root)
    policy: SandboxPolicy = settings.cage

    def launch(target: Target) -> Process:
        return Runner(root, root / "cache" / "pool", target, wanted.options.memory_mb, policy)

    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.freeze()  # what was imported stays: to look through it every thousand answers held up each for 25 ms
    clock, metrics = SystemClock(), Metrics(wanted.use_case)
    log = AnswerLog(log_folder(Folders(root), wanted.use_case), settings.log.of(wanted.use_case), clock)
    maintenance = LogMaintenance(root, lambda: [log.folder])
    deployment = Deployment(folder, wanted, launch, metrics, clock, lambda: listener.listen(_CONNECTIONS))
    port, near = listener.getsockname()[1], _near(folder)
    path = near.getsockname() if near else ""
    apart = None if near else _APART
    folder.note("slot.started", clock.now(), pid=os.getpid(), port=port)
    deployment.start(
        pid=os.getpid(), version=__version__, port=port, socket=path, apart=apart, problem=None, serving=None,
        since=None,
    )  # fmt: skip
    alone = wanted.options.replicas == 1
    server = _Server(
        uvicorn.Config(
            Api(deployment, metrics, folder.token(), log).app(), lifespan="off", log_level="warning", access_log=False,
            timeout_keep_alive=75, timeout_graceful_shutdown=int(wanted.options.drain_seconds),
            http=bounded_protocol(_CONNECTIONS), backlog=_CONNECTIONS,
        ),
        None if alone else listener,
        lambda: deployment.current is not None or _is_first_of_none(folder),
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    threading.Thread(target=_leave_when_told, args=(folder, deployment, server), name="stop", daemon=True).start()
    try:
        server.run([*([listener] if alone else []), *([near] if near else [])])
    finally:
        listener.close()
        deployment.end(wanted.options.drain_seconds)
        if near:
            Path(path).unlink(missing_ok=True)
        log.close()
        maintenance.close()
        folder.note("slot.ended", clock.now(), pid=os.getpid())


def _is_first_of_none(folder: DeploymentFolder) -> bool:
    """Whether no other replica serves, and this one is the first that lives: it says that nothing serves yet."""
    others = [each for each in DeploymentFolder(folder.shared).replicas() if each.number != folder.number]
    return not any((each.number < folder.number or each.state().serving) and each.alive() for each in others)


def _leave_when_told(folder: DeploymentFolder, deployment: Deployment, server: uvicorn.Server) -> None:
    """Where all are told to end, or fewer replicas are wanted now."""
    while not folder.stopped and folder.number < deployment.wanted.options.replicas:
        time.sleep(_LOOK_SECONDS)
    server.should_exit = True


def _near(folder: DeploymentFolder) -> socket.socket | None:
    """Where the daemon asks: in the deployment's folder, or where its file system has no sockets (virtiofs, exFAT) in
    this user's folder for them. None where neither can be: clients over HTTP are served all the same."""
    for place in ("socket", "far_socket"):
        try:
            return unix_sockets.listen(getattr(folder, place), _CONNECTIONS)
        except (OSError, SpeciateError) as error:
            _log.warning("no unix socket (%s): %s", place, error)
    return None


def _listen(folder: DeploymentFolder, wanted: Wanted) -> socket.socket:
    """A socket on loopback: at the port that is wanted; where that is 0 at the port it had before, and never at
    another: clients know it, and would give their token to whoever took it. It listens, unless there are further
    replicas. Raises PortInUse."""
    port, before = wanted.options.port, folder.port()
    end = time.monotonic() + _PORT_SECONDS
    while True:
        try:
            if wanted.options.replicas == 1:
                return bound_listener("127.0.0.1", port or before, _CONNECTIONS)
            return shared_socket(folder, port or before)
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
            if time.monotonic() < end and error.errno == errno.EADDRINUSE:
                time.sleep(0.1)
                continue
            raise PortInUse(_unusable(port, before, error)) from None


def shared_socket(folder: DeploymentFolder, port: int) -> socket.socket:
    """A bound socket at a port that the replicas of this deployment share, and nobody else. Raises OSError.

    The kernel lets all processes of a user share it. So replicas hold a lock with the deployment's name until they end,
    and the first of them looks whether somebody listens who has none.
    """
    port = port or _free_port()
    lock = _port_lock(port)
    try:
        is_first = lock is None or _hold(lock, os.path.realpath(folder.shared))
        others = (each for each in DeploymentFolder(folder.shared).replicas() if each.number != folder.number)
        if is_first and not any(each.state().port and each.alive() for each in others):
            bound_socket("127.0.0.1", port).close()
        return bound_socket("127.0.0.1", port, shared=True)
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise


def _free_port() -> int:
    with bound_socket("127.0.0.1", 0) as found:
        return int(found.getsockname()[1])


def _port_lock(port: int) -> int | None:
    """None where this user has no private folder for it."""
    try:
        return os.open(runtime_folder() / f"port-{port}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, SpeciateError) as error:
        _log.warning("no lock keeps other deployments from port %d: %s", port, error)
        return None


def _hold(lock: int, name: str) -> bool:
    """Hold a lock with all who have this name. Whether nobody had it. Raises OSError where another name has it."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(lock, 0)
        os.pwrite(lock, name.encode(), 0)
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.pread(lock, len(name.encode()) + 1, 0) == name.encode():
            return False
    raise OSError(errno.EADDRINUSE, "Another deployment has it")


def _unusable(port: int, before: int, error: OSError) -> str:
    if port:
        return f"Port {port} cannot be used: {error.strerror}."
    return (
        f"Port {before}, which this deployment had before, cannot be used: {error.strerror}. It is tried again until "
        "it is free. End what listens there, or stop the deployment and start it with another --port."
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
