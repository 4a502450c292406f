"""merge: rows of another dataset, none twice, and nothing that a model learns from in the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import version
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate, read


def texts(numbers: range, split: str | None = None, site: str | None = None, **more: Any) -> tuple[dict[str, Any], ...]:
    found = []
    for i in numbers:
        row = {
            "text": f"a text about the number {i}, which is neither long nor short, and has an end",
            "kind": "ab"[i % 2],
        }
        row |= {"site": site or f"s{i}"} | ({"split": split} if split else {}) | more
        found.append(row)
    return tuple(found)


def test_rows_are_joined_and_none_comes_twice(workspace: Workspace) -> None:
    first = data.ingest(workspace, "mine", rows=texts(range(20)), label="kind", group_by="site")
    data.ingest(workspace, "more", rows=texts(range(10, 30)), label="kind", group_by="site")
    made = curate(workspace, "mine", {"op": "merge", "dataset": "more"})
    assert made.steps == [
        {
            "op": "merge", "before": 20, "after": 30,
            "audit": made.steps[0]["audit"] | {"added": 10, "already_there": 10, "conflicting_labels": 0},
        }
    ]  # fmt: skip
    assert len(set(made.rows["id"].to_pylist())) == len(set(made.rows["text"].to_pylist())) == 30
    assert version(workspace.database, "mine").parents == ["mine@v1", "more@v1"]
    [step] = version(workspace.database, "mine").operation["steps"]
    assert step == {"op": "merge", "dataset": "more@v1", "ungrouped": "leave_out"}
    old = read(workspace, first.ref)
    kept = made.column("split")
    assert all(
        kept[name] == split
        for name, split in zip(old["id"].to_pylist(), old["split"].to_pylist(), strict=True)
        if split == "train"
    )
    again = curate(workspace, "mine", {"op": "merge", "dataset": "more"})
    assert again.manifest.ref == made.manifest.ref


def test_images_of_both_can_be_loaded_and_a_conflict_is_reported(workspace: Workspace, tmp_path: Path) -> None:
    source = data.digit_folder(tmp_path / "one", 30, classes=3)
    data.ingest(workspace, "mine", source=source, label="folder")
    other = data.digit_folder(tmp_path / "two", 60, classes=3)
    moved = next((other / "1").iterdir())
    moved.rename(other / "2" / moved.name)
    data.ingest(workspace, "more", source=other, label="folder")
    made = curate(workspace, "mine", {"op": "merge", "dataset": "more"})
    assert made.manifest.rows == 60
    assert len(made.manifest.packs) == 2
    assert len(load_examples(workspace.folders, made.manifest)) == 60
    audit = made.steps[0]["audit"]
    assert audit["conflicting_labels"] == 1
    assert audit["conflicts"][0] | {"id": ""} == {"id": "", "label": "1", "other": "2"}
    assert made.column("label")[audit["conflicts"][0]["id"]] == "1"


def test_a_group_that_lies_in_two_splits_after_it_leaves_the_test_split(workspace: Workspace) -> None:
    mine = (*texts(range(10), "train"), *texts(range(10, 14), "test", "north"), *texts(range(14, 16), "test", "south"))
    data.ingest(workspace, "mine", rows=mine, label="kind", group_by="site")
    data.ingest(workspace, "more", rows=texts(range(20, 24), "train", "north"), label="kind", group_by="site")
    made = curate(workspace, "mine", {"op": "merge", "dataset": "more"})
    assert made.steps[0]["audit"]["components_across_splits"] == 1
    assert made.steps[0]["audit"]["moved"] == {"test to train": 4}
    assert {row["split"] for row in made.rows.to_pylist() if row["group_key"] == "north"} == {"train"}
    assert made.manifest.splits == {"train": 18, "test": 2}


def test_rows_without_a_group_are_not_merged_into_a_grouped_dataset_unless_declared_ungrouped(
    workspace: Workspace,
) -> None:
    data.ingest(workspace, "mine", rows=texts(range(10)), label="kind", group_by="site", inputs=("text",))
    some = (*texts(range(20, 24)), *({**row, "site": None} for row in texts(range(24, 27))))
    data.ingest(workspace, "some", rows=some, label="kind", group_by="site", inputs=("text",))
    data.ingest(workspace, "none", rows=texts(range(30, 34)), label="kind", inputs=("text",))
    made = curate(workspace, "mine", {"op": "merge", "dataset": "some"})
    audit = made.steps[0]["audit"]
    assert (audit["added"], audit["already_there"], audit["without_group"], made.manifest.rows) == (4, 0, 3, 14)
    assert "3 rows have no group" in audit["warnings"][0]
    with pytest.raises(SpeciateError) as raised:
        curate(workspace, "mine", {"op": "merge", "dataset": "none"})
    assert "no row of none@v1 says its own" in str(raised.value)
    assert "ungrouped='take'" in str(raised.value)
    taken = curate(workspace, "mine", {"op": "merge", "dataset": "none", "ungrouped": "take"})
    assert taken.manifest.rows == 18
    assert taken.rows["group_key"].null_count == 4
    curate(workspace, "none", {"op": "split", "group_by": "site"})
    assert curate(workspace, "mine@v1", {"op": "merge", "dataset": "none"}).manifest.rows == 14


@pytest.mark.slow
def test_groups_that_curation_made_of_examples_ask_nothing_of_others(workspace: Workspace) -> None:
    rows = tuple({"signal": [float((t * i) % 50 + i) for t in range(20)], "kind": "ab"[i % 2]} for i in range(20))
    data.ingest(workspace, "mine", rows=rows[:12], label="kind", inputs=("signal",))
    data.ingest(workspace, "more", rows=rows[12:], label="kind", inputs=("signal",))
    cut = curate(workspace, "mine", {"op": "window", "steps": 10})
    assert cut.rows["group_key"].null_count == 0
    assert curate(workspace, "mine", {"op": "merge", "dataset": "more"}).manifest.rows == 32


def test_near_duplicates_do_the_same(workspace: Workspace) -> None:
    long = " ".join(f"word{i}" for i in range(60))
    mine = [{"text": f"{i} {long[::-1][i:]} {i}", "kind": "ab"[i % 2], "split": "train"} for i in range(1)]
    mine += [
        {"text": long, "kind": "a", "split": "test"},
        {"text": "quite another text that is in the test", "kind": "b", "split": "test"},
    ]
    data.ingest(workspace, "mine", rows=tuple(mine), label="kind")
    near = (
        {"text": f"{long} again", "kind": "a", "split": "train"},
        {"text": "nothing like the others at all", "kind": "b", "split": "train"},
    )
    data.ingest(workspace, "more", rows=near, label="kind")
    made = curate(workspace, "mine", {"op": "merge", "dataset": "more"})
    assert made.steps[0]["audit"]["moved"] == {"test to train": 1}
    assert made.column("split", "text")[long] == "train"


def test_windows_lie_where_the_whole_series_does(workspace: Workspace) -> None:
    rows = tuple({"signal": [float((t * i) % 50 + i) for t in range(20)], "kind": "ab"[i % 2]} for i in range(20))
    for seed, name in enumerate(("mine", "more")):
        data.ingest(workspace, name, rows=rows, label="kind", inputs=("signal",), seed=seed)
    curate(workspace, "more", {"op": "window", "steps": 10})
    made = curate(workspace, "mine", {"op": "merge", "dataset": "more"})
    places: dict[str, set[str]] = {}
    for row in made.rows.to_pylist():
        places.setdefault(row["_origin"] or row["_key"], set()).add(row["split"])
    assert (made.rows.num_rows, len(places)) == (60, 20)
    assert [key for key, names in places.items() if len(names) > 1] == []


def test_unlabelled_rows_are_excluded_until_they_are_labelled(workspace: Workspace) -> None:
    data.ingest(workspace, "mine", rows=texts(range(10)), label="kind")
    bare = tuple({"text": row["text"], "site": "x", "score": 1.5} for row in texts(range(10, 14)))
    data.ingest(workspace, "bare", rows=bare, inputs=("text",))
    made = curate(workspace, "mine", {"op": "merge", "dataset": "bare"})
    assert made.rows["quality"].to_pylist().count("partial") == 4
    assert made.manifest.columns["score"] == "DOUBLE"
    other = curate(workspace, "bare", {"op": "merge", "dataset": "mine@v1"})
    assert other.manifest.label == "kind"
    assert other.manifest.labels == {"a": 5, "b": 5}


def test_the_same_content_under_other_notes_gets_an_id_of_its_own(workspace: Workspace) -> None:
    data.ingest(workspace, "mine", rows=texts(range(10), note="here"), label="kind", inputs=("text",))
    data.ingest(workspace, "more", rows=texts(range(5), note="there"), label="kind", inputs=("text",))
    made = curate(workspace, "mine", {"op": "merge", "dataset": "more"})
    assert made.rows.num_rows == len(set(made.rows["id"].to_pylist())) == 15


def test_a_column_of_two_types_becomes_text(workspace: Workspace) -> None:
    data.ingest(workspace, "mine", rows=texts(range(10), grade=1), label="kind", inputs=("text",))
    data.ingest(workspace, "more", rows=texts(range(10, 20), grade="good"), label="kind", inputs=("text",))
    made = curate(workspace, "mine", {"op": "merge", "dataset": "more"})
    assert set(made.rows["grade"].to_pylist()) == {"1", "good"}


def test_incompatible_datasets_are_refused_before_a_job_exists(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "mine", rows=texts(range(10)), label="kind", inputs=("text",))
    data.ingest(workspace, "digits", source=data.digit_folder(tmp_path / "d", 10, classes=2), label="folder")
    data.ingest(workspace, "wide", rows=texts(range(10)), label="kind", inputs=("text", "site"))
    data.ingest(workspace, "rated", rows=texts(range(10), rate=0.5), label="rate", inputs=("text",))
    data.ingest(
        workspace, "loud", rows=tuple({"text": row["text"], "Site": "x"} for row in texts(range(9))), inputs=("text",)
    )
    cases = {
        "digits": "holds image",
        "wide": "tabular",
        "rated": "are numbers",
        "loud": "'Site'",
        "mien": "did you mean 'mine'",
        "digits@v7": "no version 7",
    }
    for name, message in cases.items():
        with pytest.raises(SpeciateError) as raised:
            curate(workspace, "mine", {"op": "merge", "dataset": name})
        assert message in raised.value.message
        assert raised.value.message.startswith("Step 1 (merge): ")
