from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import attached
from tests.evaluation import world


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with a data set, a use case and a model, to be copied: training it once is enough."""
    root = tmp_path_factory.mktemp("trained") / "workspace"
    workspace = Workspace(root, settings=Settings(policy="auto"))
    world.make_dataset(workspace)
    world.define(workspace)
    world.train_model(workspace)
    workspace.close()
    return root


@pytest.fixture
def flowers(trained: Path, tmp_path: Path) -> Iterator[Workspace]:
    root = shutil.copytree(trained, tmp_path / "copy")
    with attached.catalog_in(root):
        workspace = Workspace(root, settings=Settings(policy="auto", private_hosts=("127.0.0.1",)))
        yield workspace
        workspace.close()
