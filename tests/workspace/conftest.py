"""Here a catalog is opened as it is for users: the tests are about that."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock


@pytest.fixture
def workspace(blank: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    root = shutil.copytree(blank, tmp_path / "workspace")
    workspace = Workspace(root, clock=clock, settings=Settings(policy="auto"))
    yield workspace
    workspace.close()
