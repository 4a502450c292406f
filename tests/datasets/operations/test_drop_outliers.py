"""drop_outliers: examples far from all others, by a robust cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from speciate.datasets.operations.drop_outliers import distances, modified_z
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.datasets.operations.world import curate


def cloud(odd_split: str) -> tuple[dict[str, object], ...]:
    """Sixty points in a heap, and one far away."""
    random = np.random.default_rng(0)
    rows: list[dict[str, object]] = [
        {"x": float(x), "y": float(y), "kind": "ab"[i % 2], "split": "test" if i % 4 == 0 else "train"}
        for i, (x, y) in enumerate(random.normal(size=(60, 2)))
    ]
    return (*rows, {"x": 40.0, "y": -40.0, "kind": "a", "split": odd_split})


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with `cloud`, to be copied."""
    return data.seeded(tmp_path_factory.mktemp("points") / "workspace", "far", rows=cloud("train"), label="kind")


@pytest.fixture
def points(ingested: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with data.copied(ingested, tmp_path / "workspace", clock) as workspace:
        yield workspace


def test_the_far_point_is_dropped_and_a_test_example_only_on_request(points: Workspace) -> None:
    made = curate(points, "far", {"op": "drop_outliers"})
    assert 40.0 not in made.rows["x"].to_pylist()
    assert made.manifest.splits["test"] == 15
    assert made.steps[0]["audit"]["farthest"][0]["score"] > made.steps[0]["audit"]["scores"]["p95"]
    data.ingest(points, "tested", rows=cloud("test"), label="kind")
    assert 40.0 in curate(points, "tested", {"op": "drop_outliers"}).rows["x"].to_pylist()
    request = curate(points, "tested@v1", {"op": "drop_outliers", "splits": ["train", "test"]})
    assert 40.0 not in request.rows["x"].to_pylist()


def test_a_share_is_of_the_rows_that_may_be_dropped(points: Workspace) -> None:
    made = curate(points, "far", {"op": "drop_outliers", "share": 0.1, "neighbours": 3})
    assert made.steps[0]["before"] - made.steps[0]["after"] == 4  # of 46 in train
    assert 40.0 not in made.rows["x"].to_pylist()


def test_two_rules_at_once_and_too_few_rows_are_refused(workspace: Workspace) -> None:
    data.ingest(workspace, "far", rows=cloud("train")[:8], label="kind")
    with pytest.raises(SpeciateError, match="give one"):
        curate(workspace, "far", {"op": "drop_outliers", "share": 0.1, "cut": 3})
    with pytest.raises(SpeciateError, match="8 usable examples are too few"):
        curate(workspace, "far", {"op": "drop_outliers"})


def test_a_point_is_not_its_own_neighbour() -> None:
    assert distances(np.array([[0.0], [1.0], [3.0]], np.float32), 1).tolist() == [1.0, 1.0, 2.0]


@example([0.0, 3.0, 1.1125369292536007e-308])
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_scores_are_finite_and_equal_ones_are_no_outliers(numbers: list[float]) -> None:
    assert np.isfinite(modified_z(np.array(numbers))).all()
    assert modified_z(np.full(7, numbers[0])).tolist() == [0.0] * 7


def test_where_most_are_equal_the_one_that_is_not_stands_out() -> None:
    assert (modified_z(np.array([1.0] * 20 + [9.0])) > 3.5).tolist() == [False] * 20 + [True]
