"""What every test may use: a fresh workspace, and a clock that moves only when told."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes start: what one compiles the others read
os.environ["WNSEARCHDIR"] = "/nowhere"  # whether WordNet is installed decides no test
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in every process of ours; read when torch is imported
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # too; read when numpy is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more workers than cores: a second thread spins for its share
os.environ.setdefault("OMP_NUM_THREADS", "1")  # what a test says of threads, and what our own runs set, goes first

import pytest
from hypothesis import settings

from speciate.environment import cores, uncollected
from speciate.evaluation.predictors import timing
from speciate.jobs import executors
from speciate.jobs.zygote import CONFINED, PRELOADS
from speciate.sandbox import warm
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import attached, forks
from tests.brief_costs import COUNTS, REFERENCE, latencies, measure_briefly

sys.dont_write_bytecode = False  # nor do this process's own imports leave it
settings.register_profile("brief", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("brief")  # `make test-slow` asks for the thorough one


warm.MODULES = (  # or each test's pool would import them, to load its model or to open its scans
    *warm.MODULES, *PRELOADS["classical"], "speciate.modalities.medical.dicom", "highdicom?", "nibabel?",
)  # fmt: skip
forks.start_programs_here()
_SYNC = os.fsync


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is marked `durable`, with all its fixtures, works as users do: files are synced, and programs are
    executed. All others sync nothing in this process, for a sync waits for whatever else the disk does, and programs
    are forks (forks.py): what they show holds for code, and not for disks or for starts of processes."""
    durable = item.get_closest_marker("durable") is not None or item.config.getoption("--durable")
    before = forks.executes
    os.fsync = _SYNC if durable else os.fstat  # type: ignore[assignment]
    forks.executes = durable or before
    try:
        return (yield)
    finally:
        os.fsync, forks.executes = _SYNC, before


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--durable", action="store_true", help="run every test as one that is marked `durable`")
    parser.addoption("--part", metavar="K/N", help="of the chosen tests the K-th of N parts, drawn by their names")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`--part`: a file that takes longer than there is time for, in pieces; all N parts together are all of it."""
    if (part := config.getoption("--part")) is None:
        return
    number, _, parts = part.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise pytest.UsageError(f"--part {part}: 1/3 to 3/3 are the three parts of three")
    drawn = sorted((each.nodeid for each in items), key=lambda name: hashlib.sha256(name.encode()).digest())
    kept = set(drawn[int(number) - 1 :: int(parts)])
    config.hook.pytest_deselected(items=[each for each in items if each.nodeid not in kept])
    items[:] = [each for each in items if each.nodeid in kept]


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


@pytest.fixture(scope="session")
def torch_parents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str | None]]:
    """Where sandboxed processes are forked that answer with torch, as a daemon has them forked. They are started when
    the first asks."""
    zygotes = executors._Zygotes(tmp_path_factory.getbasetemp())
    yield {family: zygotes.address(listener) for family, listener in CONFINED.items()}
    zygotes.close()


@pytest.fixture(autouse=True)
def own_warm_parents(torch_parents: dict[str, str | None]) -> Iterator[None]:
    """Whoever calls a worker in this process is told its daemon's warm parent, here none, and an engine that ends lets
    its zygotes go: all that come after would start programs, or import torch, instead of being forks."""
    for family, address in torch_parents.items():
        warm.offer(family, address)
    yield
    warm._given.clear()


@pytest.fixture(scope="session", autouse=True)
def brief_costs() -> Iterator[None]:
    """Evaluations in this process measure costs in the fewest and shortest turns that give an interval: no test asks
    what an answer really costs, but for those of the measurement, which take `measured_costs`."""
    with pytest.MonkeyPatch.context() as patch:
        measure_briefly(patch.setattr)
        yield


@pytest.fixture
def measured_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency is measured as for users, waiting included; costs in the fewest turns."""
    monkeypatch.setattr(timing, "_latencies", latencies)
    monkeypatch.setattr(timing, "_REFERENCE", REFERENCE)
    for name, count in COUNTS.items():
        monkeypatch.setattr(timing, name, count)


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
    root = shutil.copytree(blank, tmp_path / "workspace")
    with attached.catalog_in(root):
        workspace = Workspace(root, clock=clock, settings=Settings(policy="auto"))
        yield workspace
        workspace.close()
