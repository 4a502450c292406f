"""balance: classes as frequent as the rarest, within each split, group by group."""

from __future__ import annotations

from collections import Counter

import pytest

from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate


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
