"""After an upgrade the daemon ends deployments that run the old package, and no other process."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate import __version__
from speciate.serving.deployment_folder import DeploymentFolder, State, Wanted, deployment_folder
from speciate.serving.deployments import DeploymentKeeper
from speciate.settings import Serving, Settings
from speciate.workspace.workspace import Workspace

USE_CASE = "reviews"
_HOLD = """
import fcntl, signal, sys
if sys.argv[3] == "drains":
    signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
claim = open(f"{sys.argv[2]}/claim", "w")
fcntl.flock(claim, fcntl.LOCK_EX)
print("claimed", flush=True)
sys.stdin.read()
"""
Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    yield workspace
    workspace.close()


@pytest.fixture
def folder(workspace: Workspace) -> DeploymentFolder:
    folder = deployment_folder(workspace.folders, USE_CASE)
    folder.create()
    folder.want(Wanted(use_case=USE_CASE, options=workspace.settings.serving))
    return folder


@pytest.fixture
def begin(folder: DeploymentFolder) -> Iterator[Begin]:
    """A process that holds the claim of a replica, with a command line as given. It "ends" at the signal, or "drains":
    says so and lives on."""
    begun: list[subprocess.Popen[str]] = []

    def start(module: str, of: DeploymentFolder | None = None, at_the_signal: str = "ends") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _HOLD, module, str((of or folder).path), at_the_signal]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        begun.append(process)
        assert process.stdout
        assert process.stdout.readline() == "claimed\n"
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def keeper_of(workspace: Workspace) -> DeploymentKeeper:
    pool: Any = None  # nothing is in production, so nobody gathers examples
    return DeploymentKeeper(workspace, pool)


@pytest.mark.parametrize("version", ["", "0.1.0"])
def test_a_process_of_another_version_is_asked_once_to_end(
    workspace: Workspace, folder: DeploymentFolder, begin: Begin, version: str
) -> None:
    process = begin("speciate.serving.process")
    folder.tell(State(pid=process.pid, version=version))
    keeper_of(workspace).look()
    assert process.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("module", "version"),
    [
        pytest.param("speciate.serving.process", __version__, id="of this version"),
        pytest.param("somebody.else", "0.1.0", id="whose pid was used again"),
    ],
)
def test_no_other_process_is_ended(
    workspace: Workspace, folder: DeploymentFolder, begin: Begin, module: str, version: str
) -> None:
    process = begin(module)
    folder.tell(State(pid=process.pid, version=version))
    keeper = keeper_of(workspace)
    keeper.look()
    keeper.look()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)


def test_replicas_of_another_version_are_ended_one_after_the_other(
    workspace: Workspace, folder: DeploymentFolder, begin: Begin
) -> None:
    folder.want(Wanted(use_case=USE_CASE, options=Serving(replicas=3)))
    folder.keep_port(4711)
    processes = list[subprocess.Popen[str]]()
    for replica in folder.replicas():
        replica.create()
        processes.append(begin("speciate.serving.process", replica, "drains"))
        replica.tell(State(pid=processes[-1].pid, version="0.1.0", serving="m@v1"))
    keeper = keeper_of(workspace)

    def asked() -> list[bool]:
        keeper.look()
        keeper.look()
        return [bool(select.select([process.stdout], [], [], 0.3)[0]) for process in processes]

    assert asked() == [True, False, False], "it answers its last requests, and its state says that it serves"
    folder.tell(State(pid=1, version=__version__, loading="m@v1"))
    assert asked() == [True, False, False], "the new process loads"
    folder.tell(State(pid=1, version=__version__, serving="m@v1"))
    assert asked() == [True, True, False]
