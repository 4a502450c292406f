"""An engine with one place, `lab`: a double of Slurm or of Ray on this machine, real processes, real time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, Limits, Resources
from speciate.jobs.kinds import Kind, Kinds, Plan
from speciate.jobs.places import executor
from speciate.settings import Capacity, Settings
from speciate.workspace.workspace import Workspace
from tests.jobs.places.cluster import Double, look_often
from tests.jobs.places.ray_double import RayDouble
from tests.jobs.work import ENTRY, Work


class PlacedWork(Work):
    place: str | None = "lab"
    reads: tuple[str, ...] = ()


def plan(spec: PlacedWork, workspace: Workspace) -> Plan:
    if spec.place:
        workspace.settings.place(spec.place)
    return Plan(payload=spec.model_dump(), resources=Resources(place=spec.place), inputs=spec.reads)


PLACED = Kind(name="placed", spec=PlacedWork, plan=plan, run=ENTRY, limits=Limits(grace_seconds=5.0))
READS = Kind(name="reads", spec=PlacedWork, plan=plan, run=f"{Path(__file__).with_name('reads.py').resolve()}:read_all")
COMPUTES = Kind(
    name="computes", spec=PlacedWork, plan=plan, run=f"{Path(__file__).with_name('reads.py').resolve()}:compute"
)


AnyDouble = Double | RayDouble


@pytest.fixture(params=["slurm", pytest.param("ray", marks=pytest.mark.slow)])
def double(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AnyDouble]:
    if request.param == "slurm":
        yield Double(tmp_path / "cluster")
        return
    ray = RayDouble(tmp_path / "cluster")
    yield ray
    ray.close()


@pytest.fixture
def open_engine(tmp_path: Path, double: AnyDouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Engine]]:
    """Opens the one workspace with its engine started, after the one before was stopped."""
    monkeypatch.setattr(executor, "LOOK_SECONDS", 0.1)
    look_often(monkeypatch)
    monkeypatch.setattr(executor, "_BURY_SECONDS", 0.5)
    opened: list[Engine] = []

    def close() -> None:
        for engine in opened:
            engine.stop()
            engine.workspace.close()
        opened.clear()

    def begin(**place: object) -> Engine:
        close()
        settings = Settings(policy="auto", capacity=Capacity(cpu=8), executors={"lab": double.place(**place)})
        engine = Engine(Workspace(tmp_path / "workspace", settings=settings), Kinds(extra=[PLACED, READS, COMPUTES]))
        engine.start()
        opened.append(engine)
        return engine

    yield begin
    for engine in opened:
        for job in engine.list(limit=100):
            if job.state not in ENDED:
                engine.control(job.id, "cancel")
        for job in engine.list(limit=100):
            engine.wait(job.id, timeout=120)
    close()
