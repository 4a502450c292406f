"""What every test may use: a fresh workspace, and a clock that moves only when told."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes start: what one compiles the others read
os.environ["WNSEARCHDIR"] = "/nowhere"  # whether WordNet is installed decides no test
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in every process of ours; read when torch is imported

import pytest
from hypothesis import settings

from speciate.environment import cores, uncollected
from speciate.evaluation.predictors import timing
from speciate.jobs.zygote import PRELOADS
from speciate.sandbox import warm
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import forks

sys.dont_write_bytecode = False  # nor do this process's own imports leave it
settings.register_profile("brief", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("brief")  # `make test-slow` asks for the thorough one


warm.MODULES = (*warm.MODULES, *PRELOADS["classical"])  # or each test's pool would import them to load its model
forks.start_daemons_here()
os.fsync = os.fstat  # type: ignore[assignment]  # no test cuts the power; a sync waits for whatever else the disk does


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests and the libraries they import are then no part of what the collector looks through; each
    training of transformers ends with a collection of everything."""
    with uncollected():
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: a third of the time a worker waits for processes that it has started."""
    return cores() * 3 // 2 if cores() > 1 else 1


@pytest.fixture(scope="session", autouse=True)
def brief_costs() -> Iterator[None]:
    """Evaluations in this process measure costs in the fewest and shortest turns that give an interval: no test asks
    what an answer really costs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_MOST_TURNS", timing._LEAST_TURNS)
        patch.setattr(timing, "_TURN_SECONDS", 0.001)
        patch.setattr(timing, "_TIMINGS", 80)  # 72 are the fewest that bound a p95
        yield


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are executed, as they are for users: the test is about how one starts."""
    monkeypatch.setattr(forks, "executes", True)


class ManualClock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = self._up = now

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._up

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._up += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock; no time passes."""
        self._now += seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new workspace, closed, to be copied: it does not know where it lies, so no copy is taken for one."""
    root = tmp_path_factory.mktemp("blank") / "workspace"
    workspace = Workspace(root, clock=ManualClock(), settings=Settings(policy="auto"))
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM meta WHERE key = 'place'"))
    workspace.close()
    return root


@pytest.fixture
def workspace(blank: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    """New, and of this test alone."""
    workspace = Workspace(shutil.copytree(blank, tmp_path / "workspace"), clock=clock, settings=Settings(policy="auto"))
    yield workspace
    workspace.close()
