"""The process of a deployment: where it listens, and that it does so for good. Real processes."""

from __future__ import annotations

import http.client
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from speciate import unix_sockets
from speciate.serving.deployment_folder import DeploymentFolder, State, Wanted
from speciate.serving.deployments import deployment_view
from speciate.serving.http_bounds import bound_socket
from speciate.serving.process import PORT_IN_USE, shared_socket
from speciate.settings import Serving
from tests import forks
from tests.server.processes import Process
from tests.serving.fakes import target
from tests.serving.test_deployment import until

CROWD = 1200


@pytest.fixture
def folder() -> Iterator[DeploymentFolder]:
    """Of a deployment for which nothing is in production: it listens all the same.

    Its path is short: with a long one the socket lies in the runtime folder at once.
    """
    with tempfile.TemporaryDirectory(prefix="slot-") as short:
        folder = DeploymentFolder(Path(short) / "slots" / "reviews")
        folder.create()
        folder.want(Wanted(use_case="reviews", options=Serving()))
        yield folder


Start = Callable[[], Process]


@pytest.fixture
def start(folder: DeploymentFolder) -> Iterator[Start]:
    made: list[Process] = []

    def begin() -> Process:
        made.append(forks.start([sys.executable, "-P", "-m", "speciate.serving.process", str(folder.path)]))
        psutil.Process(made[-1].pid).rlimit(psutil.RLIMIT_NOFILE, (1024, 1024))
        return made[-1]

    yield begin
    for each in made:
        each.kill()
        each.wait()


def health(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/healthz")
    status = connection.getresponse().status
    connection.close()
    return status


def test_its_port_never_moves_also_where_somebody_takes_it_between_two_lives(
    folder: DeploymentFolder, start: Start
) -> None:
    first = start()
    until(lambda: folder.state().port, 60)
    port = folder.state().port
    assert health(port) == 503
    path = Path(folder.state().socket)
    assert path.stat().st_mode & 0o777 == 0o600
    first.kill()
    first.wait()
    with socket.create_server(("127.0.0.1", port)):
        second = start()
        assert second.wait(60) == PORT_IN_USE
        problem = folder.state().problem or ""
        assert f"Port {port}, which this deployment had before" in problem
        assert folder.state().port == 0
        folder.tell(State())  # nor where its state is lost
    start()
    until(lambda: folder.state().port, 60)
    assert folder.state().port == port
    assert health(port) == 503


@pytest.mark.parametrize("elsewhere", [True, False])
def test_where_the_workspace_has_no_unix_sockets_it_serves_all_the_same(
    monkeypatch: pytest.MonkeyPatch, folder: DeploymentFolder, start: Start, elsewhere: bool
) -> None:
    with tempfile.TemporaryDirectory(prefix="sock") as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        folder.socket.mkdir()  # nothing can be bound there, as on a file system without sockets
        if not elsewhere:
            folder.far_socket.mkdir()
        start()
        until(lambda: folder.state().port, 60)
        state = folder.state()
        assert health(state.port) == 503
        assert state.socket == (str(folder.far_socket) if elsewhere else "")
        said = deployment_view(folder).problem
        assert said is None if elsewhere else "daemon cannot reach this deployment" in (said or "")
        if elsewhere:
            connection = unix_sockets.connect(folder.far_socket, {os.getuid()}, 10)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: deployment\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 503")
            connection.close()


def test_a_crowd_of_silent_connections_hurts_no_client(folder: DeploymentFolder, start: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    process, flood = start(), list[socket.socket]()
    try:
        until(lambda: folder.state().port, 60)
        port = folder.state().port
        for _ in range(CROWD):
            flood.append(socket.create_connection(("127.0.0.1", port), 10))
        assert health(port) == 503
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < 700
    finally:
        for each in flood:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_folder_with_a_long_path_has_its_socket_elsewhere(tmp_path: Path) -> None:
    folder = DeploymentFolder(tmp_path / "a-rather-long-folder-name" / ("x" * 90))
    assert len(os.fsencode(folder.socket)) <= 100
    assert folder.socket.parent.stat().st_mode & 0o077 == 0


# Replicas

_OF_FAKES = """
import sys, time
from pathlib import Path
from speciate.serving import process
from tests.serving.fakes import FakeProcess

class Version(FakeProcess):
    def load(self, seconds):
        while Path(sys.argv[1], "loads").exists():
            time.sleep(0.05)

process.Runner = lambda root, place, target, memory_mb, policy: Version(target)
sys.exit(process.main(sys.argv[1]))
"""


@pytest.fixture
def replicas(folder: DeploymentFolder) -> list[DeploymentFolder]:
    folder.want(Wanted(use_case="reviews", options=Serving(replicas=2), target=target(1)))
    for replica in folder.replicas():
        replica.create()
    return folder.replicas()


StartReplica = Callable[[DeploymentFolder], "subprocess.Popen[bytes]"]


@pytest.fixture
def start_replica(replicas: list[DeploymentFolder]) -> Iterator[StartReplica]:
    """A process of a replica. Its versions load for as long as its folder has a file `loads`."""
    made: list[subprocess.Popen[bytes]] = []

    def begin(replica: DeploymentFolder) -> subprocess.Popen[bytes]:
        with (replica.path / "log").open("ab") as log:
            command = [sys.executable, "-c", _OF_FAKES, str(replica.path)]
            made.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[2]))
        return made[-1]

    yield begin
    for each in made:
        each.kill()
        each.wait()


def test_a_replica_gets_connections_once_it_serves_or_nobody_does_and_ends_where_fewer_are_wanted(
    replicas: list[DeploymentFolder], start_replica: StartReplica
) -> None:
    first, second = replicas
    begun = start_replica(first)
    until(lambda: first.state().serving, 60)
    port = first.state().port
    (second.path / "loads").touch()
    start_replica(second)
    until(lambda: second.state().loading and second.state().port, 60)
    time.sleep(0.5)  # it might listen by now
    assert {health(port) for _ in range(30)} == {200}, "the other one answers all"
    begun.kill()
    begun.wait()
    until(lambda: answers(port), 60)
    assert health(port) == 503, "nobody else does: it says so"
    (second.path / "loads").unlink()
    until(lambda: second.state().serving, 60)
    assert health(port) == 200

    (first.path / "loads").touch()
    start_replica(first)
    until(lambda: first.state().loading and first.state().port, 60)
    (first.path / "loads").unlink()
    until(lambda: first.state().serving, 60)
    wanted = first.wanted()
    assert wanted
    first.want(wanted.model_copy(update={"options": Serving()}))
    until(lambda: not second.alive(), 60)
    until(lambda: health(port) == 200, 60)
    assert first.alive()


def answers(port: int) -> bool:
    try:
        return health(port) > 0
    except (OSError, http.client.HTTPException):
        return False


def test_replicas_of_one_deployment_share_a_port_and_nobody_else_does(
    replicas: list[DeploymentFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    other = DeploymentFolder(tmp_path / "slots" / "others")
    other.create()
    other.want(Wanted(use_case="others", options=Serving(replicas=2)))
    first, second = replicas
    with shared_socket(first, 0) as mine:
        port = mine.getsockname()[1]
        shared_socket(second, port).close()
        for _ in range(2):
            with pytest.raises(OSError, match="Another deployment has it"):
                shared_socket(other, port)
        shared_socket(second, port).close()


def test_a_port_where_a_program_without_a_lock_listens_is_in_use(
    replicas: list[DeploymentFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    first, second = replicas
    with bound_socket("127.0.0.1", 0, shared=True) as foreign:
        foreign.listen()
        port = foreign.getsockname()[1]
        for _ in range(2):
            with pytest.raises(OSError, match="in use"):
                shared_socket(first, port)
        second.claim()
        second.tell(State(port=port))
        shared_socket(first, port).close()  # it is the other replica's, from before there were locks
