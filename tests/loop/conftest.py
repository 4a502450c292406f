"""A use case in production, for tests of monitoring and of what an episode learns from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ManualClock
from tests.data import copied
from tests.loop.monitored import Production, promoted_root


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with a model in production, to be copied."""
    return promoted_root(tmp_path_factory.mktemp("promoted"))


@pytest.fixture
def production(seed: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Production]:
    with copied(seed, tmp_path / "workspace", clock) as workspace:
        made = Production(workspace, clock)
        yield made
        made.close()
