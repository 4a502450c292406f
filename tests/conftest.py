"""What every test may use: a fresh workspace, and a clock that moves only when told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in every process of ours; read when torch is imported

import pytest
from hypothesis import settings

from speciate.settings import Settings
from speciate.workspace.workspace import Workspace

settings.register_profile("brief", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("brief")  # `make test-slow` asks for the thorough one


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


@pytest.fixture
def workspace(tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "workspace", clock=clock, settings=Settings(policy="auto"))
    yield workspace
    workspace.close()
