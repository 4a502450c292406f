"""The same example in two versions: known again whatever the columns' roles, and left in its split."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from speciate.datasets import version_rows
from speciate.datasets.identity import known_rows, row_keys
from speciate.datasets.ingest.row_validation import row_verdicts
from speciate.datasets.versions import Manifest
from speciate.workspace.workspace import Workspace
from tests import data


def measurements(count: int = 400) -> list[dict[str, Any]]:
    rng = random.Random(1)
    return [{"a": rng.random(), "b": rng.random(), "c": rng.random(), "kind": "xy"[i % 2]} for i in range(count)]


def known(workspace: Workspace, tested: Manifest, learned: Manifest) -> int:
    """How many test rows of one version another's model learned from."""
    theirs = version_rows.read(workspace.folders, learned, splits=("train", "validation"), usable=True)
    mine = version_rows.read(workspace.folders, tested, splits=("test",), usable=True)
    return sum(known_rows(mine, tested, theirs, learned).to_pylist())


def splits(workspace: Workspace, manifest: Manifest) -> dict[str, str]:
    rows = version_rows.read(workspace.folders, manifest, ["_key", "split"], usable=True).to_pylist()
    return {row["_key"]: row["split"] for row in rows}


def test_other_inputs_move_no_row_and_hide_none(workspace: Workspace) -> None:
    rows = tuple(measurements())
    first = data.ingest(workspace, "set", rows=rows, label="kind", inputs=("a", "b"))
    second = data.ingest(workspace, "set", rows=rows, label="kind", inputs=("a", "b", "c"))
    assert second.ref == "set@v2"
    before, after = splits(workspace, first), splits(workspace, second)
    assert sum(before[key] != split for key, split in after.items()) <= 2, (
        "rows that are near copies by one choice alone"
    )
    assert known(workspace, second, first) == 0
    redrawn = data.ingest(workspace, "set", rows=rows, label="kind", inputs=("a", "c"), seed=7)
    was = splits(workspace, first)
    moved = [key for key, split in splits(workspace, redrawn).items() if split == "test" and was[key] != "test"]
    assert known(workspace, redrawn, first) == len(moved) > 30


@pytest.mark.parametrize("change", ["a column more", "another label"])
def test_a_row_that_was_changed_where_its_model_does_not_look_is_known(workspace: Workspace, change: str) -> None:
    rows = measurements(100)
    first = data.ingest(workspace, "old", rows=tuple(rows), label="kind", inputs=("a", "b"))
    more = {"d": 1.5} if change == "a column more" else {"kind": "z"}
    changed = tuple({**row, **more, "split": "test"} for row in rows)
    second = data.ingest(workspace, "new", rows=changed, label="kind", inputs=("a", "b", "c"))
    assert known(workspace, second, first) == first.rows - first.splits["test"]


def test_near_copies_are_known(workspace: Workspace) -> None:
    rows = data.review_rows()
    first = data.ingest(workspace, "old", rows=tuple(rows), label="label")
    loud = tuple({**row, "text": str(row["text"]).upper(), "split": "test"} for row in rows)
    second = data.ingest(workspace, "new", rows=loud, label="label")
    assert known(workspace, second, first) == sum(first.splits.values()) - first.splits["test"]


def test_added_rows_move_no_old_one(workspace: Workspace) -> None:
    rows = measurements(120)
    first = splits(workspace, data.ingest(workspace, "set", rows=tuple(rows[:80]), label="kind"))
    manifest = data.ingest(workspace, "set", rows=tuple(reversed(rows)), label="kind")
    second = splits(workspace, manifest)
    assert {key: second[key] for key in first} == first
    assert manifest.splits == {"train": 84, "test": 18, "validation": 18}


def test_neither_types_nor_empty_columns_make_another_row() -> None:
    whole = pa.table({"a": [1, 2], "b": ["x", "y"]})
    fractions = pa.table({"b": ["x", "y"], "a": [1.0, 2.0], "c": pa.array([None, None], pa.float64())})
    assert row_keys(whole).equals(row_keys(fractions))
    assert row_keys(whole).equals(row_keys(whole.set_column(0, "a", pc.cast(whole["a"], pa.string()))))
    assert len(row_keys(whole).unique()) == 2


def test_whole_numbers_show_a_model_the_same_as_integers_and_as_fractions() -> None:
    for modality, cells in {"tabular": [1, 0, None], "time-series": [[1, 2], [3, 0], None]}.items():
        whole = pa.table({"x": pa.array(cells)})
        kind = pa.list_(pa.float64()) if modality == "time-series" else pa.float64()
        fractions = pa.table({"x": whole["x"].cast(kind)})
        assert row_verdicts(whole, modality, ["x"]).equals(row_verdicts(fractions, modality, ["x"]))
