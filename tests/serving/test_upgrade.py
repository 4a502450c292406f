"""After an upgrade the daemon ends deployments that run the old package, and no other process."""

from __future__ import annotations

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
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace

USE_CASE = "reviews"
_HOLD = """
import fcntl, sys
claim = open(f"{sys.argv[2]}/claim", "w")
fcntl.flock(claim, fcntl.LOCK_EX)
print("claimed", flush=True)
sys.stdin.read()
"""
Begin = Callable[[str], subprocess.Popen[str]]


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
    """A process that holds the claim, with a command line as given."""
    begun: list[subprocess.Popen[str]] = []

    def start(module: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _HOLD, module, str(folder.path)]
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
