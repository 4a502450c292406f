"""find_label_errors: wrong labels are found from folds that never saw the example's group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.datasets.operations.find_label_errors import FIND_LABEL_ERRORS, out_of_fold
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate

WRONG = range(0, 120, 15)
FLAGS = ("label_issue", "label_suggestion", "label_quality")


def points(count: int = 120) -> list[dict[str, Any]]:
    """Two clouds, and eight labels that are wrong."""
    random = np.random.default_rng(1)
    rows = []
    for i in range(count):
        right = "ab"[i % 2]
        x, y = random.normal(size=2) * 0.5 + (2 if i % 2 else -2)
        label = right if i not in WRONG else {"a": "b", "b": "a"}[right]
        rows.append({"x": float(x), "y": float(y), "kind": label, "truth": right, "site": f"s{i // 3}"})
    return rows


def test_wrong_labels_are_flagged_and_right_ones_suggested(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=tuple(points()), label="kind", inputs=("x", "y"), group_by="site")
    made = curate(workspace, "set", {"op": "find_label_errors"})
    assert made.steps[0]["flagged_column"] == "label_issue"
    assert made.manifest.columns["label_issue"] == "BOOLEAN"
    assert made.manifest.inputs == ("x", "y")
    found = [row for row in made.rows.to_pylist() if row["label_issue"]]
    assert len(found) == len(WRONG)
    assert all(row["label"] != row["truth"] == row["label_suggestion"] for row in found)
    assert all(row["label_quality"] < 0.5 for row in found)
    again = curate(workspace, "set", {"op": "find_label_errors"})
    assert again.manifest.ref == made.manifest.ref


def test_they_are_dropped_from_train_alone_by_default(workspace: Workspace) -> None:
    rows = [{**row, "split": "test" if i < 60 else "train"} for i, row in enumerate(points())]
    data.ingest(workspace, "set", rows=tuple(rows), label="kind", inputs=("x", "y"))
    made = curate(workspace, "set", {"op": "find_label_errors", "action": "drop"})
    assert made.manifest.splits == {"train": 56, "test": 60}
    everywhere = {"op": "find_label_errors", "action": "drop", "splits": ["train", "test"]}
    made = curate(workspace, "set@v1", everywhere)
    assert made.manifest.splits == {"train": 56, "test": 56}
    assert "label_issue" not in made.manifest.columns


def test_every_split_is_flagged_unless_some_are_named(workspace: Workspace) -> None:
    rows = [{**row, "split": "test" if i < 60 else "train"} for i, row in enumerate(points())]
    data.ingest(workspace, "set", rows=tuple(rows), label="kind", inputs=("x", "y"))
    step = {"op": "find_label_errors"}
    assert FIND_LABEL_ERRORS.parameters.model_json_schema()["properties"]["splits"]["default"] is None
    for wanted, splits in (({}, {"train", "test"}), ({"splits": ["test"]}, {"test"})):
        made = curate(workspace, "set@v1", {**step, **wanted}).rows.to_pylist()
        assert {row["split"] for row in made if row["label_issue"] is not None} == splits
        assert sum(bool(row["label_issue"]) for row in made) == 4 * len(splits)


def test_an_example_is_assessed_by_a_model_that_never_saw_its_group() -> None:
    """Labels that only the group tells, and vectors that only name the group: nothing can be known."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    labels = random.integers(0, 2, 40)[groups]
    vectors = random.normal(size=(40, 60))[groups].astype(np.float32)
    alone, _ = out_of_fold(vectors, labels, np.arange(200), 0)
    apart, assessed = out_of_fold(vectors, labels, groups, 0)
    assert assessed.all()
    assert (alone.argmax(1) == labels).mean() > 0.95
    assert (apart.argmax(1) == labels).mean() < 0.7
    assert np.allclose(apart.sum(1), 1)


def test_a_class_too_rare_to_judge_is_left_alone_and_named(workspace: Workspace) -> None:
    rows = [*points(60), {**points(1)[0], "kind": "rare", "x": 9.0}]
    data.ingest(workspace, "set", rows=tuple(rows), label="kind", inputs=("x", "y"))
    made = curate(workspace, "set", {"op": "find_label_errors"})
    assert made.steps[0]["audit"]["too_rare_to_judge"] == ["rare"]
    assert [row["label_issue"] for row in made.rows.to_pylist() if row["label"] == "rare"] == [None]


def test_numbers_no_labels_and_one_class_are_refused(workspace: Workspace, reviews: Manifest) -> None:
    numbers = tuple({"x": float(i), "y": i / 7} for i in range(20))
    data.ingest(workspace, "numbers", rows=numbers, label="y")
    data.ingest(workspace, "bare", rows=numbers)
    data.ingest(workspace, "one", rows=tuple({**row, "kind": "a"} for row in numbers), label="kind")
    step = {"op": "find_label_errors"}
    for name, message in {"numbers": "are numbers", "bare": "has no labels", "one": "two classes"}.items():
        with pytest.raises(SpeciateError, match=message):
            curate(workspace, name, step)


def test_labels_of_the_test_split_change_nothing_that_is_found_in_train(workspace: Workspace) -> None:
    """Every label of test and validation is turned round, and one is a class that train lacks."""
    splits = ["test" if i % 7 == 3 else "validation" if i % 7 == 4 else "train" for i in range(120)]
    rows = [{**row, "split": split} for row, split in zip(points(), splits, strict=True)]
    turned = [
        row if row["split"] == "train" else {**row, "kind": {"a": "b", "b": "a"}[row["kind"]] if i else "c"}
        for i, row in enumerate(rows)
    ]
    found = {}
    for name, given in (("right", rows), ("turned", turned)):
        data.ingest(workspace, name, rows=tuple(given), label="kind", inputs=("x", "y"))
        made = curate(workspace, name, {"op": "find_label_errors"}).rows.to_pylist()
        found[name] = {
            split: {(row["x"], row["y"]): [row[column] for column in FLAGS] for row in made if row["split"] == split}
            for split in ("train", "test")
        }
    assert found["right"]["train"] == found["turned"]["train"]
    assert any(flags[0] for flags in found["right"]["train"].values())
    assert sum(bool(flags[0]) for flags in found["turned"]["test"].values()) > 12
    assert sum(bool(flags[0]) for flags in found["right"]["test"].values()) < 5
