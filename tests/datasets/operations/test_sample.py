"""sample: n examples, four ways."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from speciate.datasets.operations.sample import farthest_first
from speciate.datasets.versions import Manifest, version
from speciate.errors import Code, SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate, read
from tests.training.world import train_now


def test_a_larger_sample_holds_the_smaller_one(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=tuple(data.review_rows(60)), label="label")
    small = curate(workspace, "set@v1", {"op": "sample", "n": 10, "seed": 3}).rows["id"].to_pylist()
    large = curate(workspace, "set@v1", {"op": "sample", "n": 25, "seed": 3}).rows["id"].to_pylist()
    other = curate(workspace, "set@v1", {"op": "sample", "n": 10, "seed": 4}).rows["id"].to_pylist()
    assert len(small) == 10
    assert set(small) < set(large)
    assert other != small


def test_in_proportion_to_labels_and_splits(workspace: Workspace) -> None:
    rows = [
        {
            "text": f"a text about the number {i}",
            "kind": "rare" if i % 10 == 0 else "common",
            "split": "test" if i % 4 == 3 else "train",
        }
        for i in range(200)
    ]
    data.ingest(workspace, "set", rows=tuple(rows), label="kind")
    made = curate(workspace, "set", {"op": "sample", "n": 40, "strategy": "stratified"})
    assert made.manifest.labels == {"common": 36, "rare": 4}
    assert made.manifest.splits == {"train": 30, "test": 10}
    assert made.steps[0]["audit"] == {"splits": {"train": 30, "test": 10}}


def test_as_different_as_possible(workspace: Workspace) -> None:
    """Four heaps of very different sizes: one of each is taken."""
    random = np.random.default_rng(0)
    centres = [(0, 0)] * 40 + [(30, 0)] * 5 + [(0, 30)] * 3 + [(30, 30)]
    rows = tuple({"x": float(x + random.normal()), "y": float(y + random.normal())} for x, y in centres)
    data.ingest(workspace, "set", rows=rows)
    made = curate(workspace, "set", {"op": "sample", "n": 4, "strategy": "diverse"})
    found = {(round(row["x"] / 30), round(row["y"] / 30)) for row in made.rows.to_pylist()}
    assert found == {(0, 0), (0, 1), (1, 0), (1, 1)}


points = arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(2)), elements=st.floats(-9, 9, width=16))


@given(points, st.data())
def test_no_point_is_farther_than_twice_the_best_that_could_be(vectors: Any, data: st.DataObject) -> None:
    """Gonzalez's bound, against all choices of k centres."""
    k = data.draw(st.integers(1, len(vectors)))
    chosen, reach = farthest_first(vectors, k, data.draw(st.integers(0, len(vectors) - 1)))
    assert len(set(chosen)) == k
    apart = np.linalg.norm(vectors[:, None].astype(float) - vectors[None], axis=-1)
    assert reach == pytest.approx(apart[:, chosen].min(axis=1).max(), abs=1e-6)
    best = min(apart[:, list(some)].min(axis=1).max() for some in itertools.combinations(range(len(vectors)), k))
    assert reach <= 2 * best + 1e-5


def test_what_a_model_is_least_sure_of_labelled_or_not(workspace: Workspace) -> None:
    random = np.random.default_rng(0)
    rows = [
        {"x": x, "kind": "ab"[int(random.random() < 1 / (1 + np.exp(-3 * x)))], "split": ("train", "validation")[i % 2]}
        for i, x in enumerate(np.linspace(-3, 3, 200).tolist())
    ]
    data.ingest(workspace, "learned", rows=tuple(rows), label="kind")
    train_now(workspace, name="judge", dataset="learned", method="classical")
    pool = [
        {"x": x, "kind": kind, "split": "train"}
        for x, kind in ((-3.0, "a"), (3.0, "b"), (-2.9, "a"), (0.05, None), (-0.05, "b"))
    ]
    data.ingest(workspace, "pool", rows=tuple(pool), label="kind", inputs=("x",))
    made = curate(workspace, "pool", {"op": "sample", "n": 2, "strategy": "uncertain", "model": "judge"})
    assert sorted(made.rows["x"].to_pylist()) == [-0.05, 0.05]
    assert made.steps[0]["audit"]["largest_margin"] < 0.9
    assert version(workspace.database, "pool").operation["steps"][0]["model"] == "judge@v1"


@pytest.mark.parametrize(
    ("step", "code", "said"),
    [
        ({"n": 0}, Code.INVALID, "greater than or equal to 1"),
        ({}, Code.INVALID, "n: Field required"),
        ({"n": 81}, Code.INVALID, "only 80 examples"),
        ({"n": 5, "strategy": "uncertain"}, Code.INVALID, "needs a model"),
        ({"n": 5, "strategy": "uncertain", "model": "nobody"}, Code.NOT_FOUND, "nobody"),
        ({"n": 5, "model": "judge"}, Code.INVALID, "the others take none"),
        ({"n": 5, "extractor": "descriptor"}, Code.INVALID, "only strategy='diverse'"),
        ({"n": 5, "strategie": "random"}, Code.INVALID, "did you mean 'strategy'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    shared: Workspace, reviews: Manifest, step: dict[str, Any], code: Code, said: str
) -> None:
    with pytest.raises(SpeciateError) as raised:
        curate(shared, "reviews", {"op": "sample", **step})
    assert said in raised.value.message
    assert raised.value.code is code
    assert raised.value.recovery


def test_quarantined_rows_are_never_drawn(workspace: Workspace) -> None:
    rows = data.review_rows(20)
    for place in range(0, 20, 4):
        rows[place]["text"] = None
    data.ingest(workspace, "set", rows=tuple(rows), label="label")
    assert Counter(read(workspace, "set")["quality"].to_pylist())["error"] == 5
    made = curate(workspace, "set", {"op": "sample", "n": 15})
    assert made.rows["quality"].to_pylist() == ["ok"] * 15
    with pytest.raises(SpeciateError, match="n is 16, but only 15"):
        curate(workspace, "set@v1", {"op": "sample", "n": 16})
