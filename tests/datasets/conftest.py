"""One workspace, one process that answers and one dataset for the tests that change none of them.

Names of datasets in `shared` are taken by one file each: tests run in any order and alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from speciate.datasets.versions import Manifest
from speciate.jobs.pool import Pool
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import data


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace for tests that make no versions of what others look at."""
    workspace = Workspace(tmp_path_factory.mktemp("shared") / "workspace", settings=Settings(policy="auto"))
    yield workspace
    workspace.close()


@pytest.fixture(scope="session")
def pool(shared: Workspace) -> Iterator[Pool]:
    pool = Pool(shared.folders, shared.settings, size=1)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def digits(shared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """60 small images, ten labels."""
    folder = data.digit_folder(tmp_path_factory.mktemp("digits"), 60)
    return data.ingest(shared, "digits", source=folder, label="folder")


@pytest.fixture(scope="session")
def reviews(shared: Workspace) -> Manifest:
    """80 texts, two labels, groups of four by film."""
    return data.ingest(shared, "reviews", rows=tuple(data.review_rows(80)), label="label", group_by="film")
