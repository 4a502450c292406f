"""sample keeps n examples, four ways; balance makes the values of a column equally frequent."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from speciate.datasets.operations.sample_balance import apportion, farthest_first, seeded_hash, shuffle_keys
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


def test_the_least_certain_examples_labelled_or_not(workspace: Workspace) -> None:
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
    far = [{"tenfold": 10 * row["x"], "kind": row["kind"], "split": "train"} for row in pool]
    data.ingest(workspace, "far", rows=tuple(far), label="kind", inputs=("tenfold",))
    choose = {"op": "sample", "n": 2, "strategy": "uncertain", "model": "judge"}
    made = curate(workspace, "far", {"op": "derive", "column": "x", "sql": "tenfold / 10"}, choose)
    assert sorted(made.rows["x"].to_pylist()) == [-0.05, 0.05], "a step before it makes the column that it reads"
    with pytest.raises(SpeciateError, match=r"Step 1 \(sample\).*reads the column 'x'"):
        curate(workspace, "far@v1", choose)


@pytest.mark.parametrize(
    ("step", "code", "message"),
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
def test_invalid_parameters_are_refused(
    shared: Workspace, reviews: Manifest, step: dict[str, Any], code: Code, message: str
) -> None:
    with pytest.raises(SpeciateError) as raised:
        curate(shared, "reviews", {"op": "sample", **step})
    assert message in raised.value.message
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


def rows() -> tuple[dict[str, object], ...]:
    return tuple(
        {
            "text": f"a text about the number {i}",
            "kind": "rare" if i % 5 == 0 else "common",
            "site": f"s{i // 10}",
            "split": "test" if i >= 100 else "train",
            "score": i / 7,
        }
        for i in range(120)
    )


def test_train_is_balanced_and_test_left_as_it_is(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=rows(), label="kind", group_by="site")
    made = curate(workspace, "set", {"op": "balance"})
    found = Counter((row["split"], row["label"]) for row in made.rows.to_pylist())
    assert found == {
        ("train", "rare"): 20, ("train", "common"): 20, ("test", "rare"): 4, ("test", "common"): 16,
    }  # fmt: skip
    assert made.steps[0]["audit"] == {"per_class": {"train": {"kept": 20, "rarest": "rare", "classes": 2}}}
    whole = Counter(
        row["group_key"] for row in made.rows.to_pylist() if row["label"] == "common" and row["split"] == "train"
    )
    assert sorted(whole.values()) == [4, 8, 8]  # of ten groups of eight: two stay whole, one in part
    assert curate(workspace, "set@v1", {"op": "balance", "seed": 1}).manifest.id != made.manifest.id


def test_any_column_of_classes_will_do_but_no_numbers(workspace: Workspace, reviews: Manifest) -> None:
    data.ingest(workspace, "set", rows=rows(), label="kind")
    made = curate(workspace, "set", {"op": "balance", "column": "site", "splits": ["train", "test"]})
    assert set(Counter(made.rows["site"].to_pylist()).values()) == {10}
    with pytest.raises(SpeciateError, match="holds numbers"):
        curate(workspace, "set", {"op": "balance", "column": "score"})
    data.ingest(workspace, "bare", rows=tuple({"text": row["text"]} for row in rows()))
    with pytest.raises(SpeciateError, match="has no labels"):
        curate(workspace, "bare", {"op": "balance"})
    with pytest.raises(SpeciateError, match="did you mean 'site'"):
        curate(workspace, "set", {"op": "balance", "column": "sight"})


keys = st.lists(st.text(max_size=5), unique=True, max_size=20)


@given(keys, st.integers(0, 5), st.data())
def test_an_order_does_not_depend_on_who_else_is_there(names: list[str], seed: int, data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    order = [names[i] for i in shuffle_keys(names, seed)]
    assert [some[i] for i in shuffle_keys(some, seed)] == [name for name in order if name in some]


def test_another_seed_is_another_order() -> None:
    names = [f"ex-{i}" for i in range(20)]
    assert shuffle_keys(names, 0) != shuffle_keys(names, 1)
    assert seeded_hash(0, "a") != seeded_hash(1, "a")


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 50), min_size=1, max_size=6), st.data())
def test_shares_are_whole_add_up_and_are_within_one_of_exact(counts: dict[str, int], data: st.DataObject) -> None:
    total = sum(counts.values())
    wanted = data.draw(st.integers(0, total))
    given_ = apportion(counts, wanted)
    assert sum(given_.values()) == wanted
    assert all(abs(given_[name] - wanted * count / total) < 1 for name, count in counts.items())
    assert all(given_[name] <= count for name, count in counts.items())
