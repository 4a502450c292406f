"""An engine over real processes, and one that is stepped by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.jobs.engine import Engine
from speciate.jobs.kinds import Kinds
from speciate.settings import Capacity, Settings
from speciate.workspace.workspace import Workspace
from tests.data import fresh
from tests.jobs.work import KINDS


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Started, with real time and room for eight runs."""
    settings = Settings(policy="auto", capacity=Capacity(cpu=8))
    workspace = Workspace(fresh(tmp_path / "workspace"), settings=settings)
    engine = Engine(workspace, Kinds(extra=KINDS))
    engine.start()
    yield engine
    for job in engine.list(limit=100):
        engine.control(job.id, "cancel")
    for job in engine.list(limit=100):
        engine.wait(job.id, timeout=10)
    engine.stop()
    workspace.close()
