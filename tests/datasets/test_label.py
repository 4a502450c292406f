"""Labels for single examples: the next version says who set them, and who can be learned from follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets import version_rows
from speciate.datasets.label import apply_labels
from speciate.datasets.versions import Manifest, resolve, version
from speciate.errors import Code, SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.datasets import sealed


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with twenty reviews, to be copied."""
    return data.seeded(
        tmp_path_factory.mktemp("twenty") / "workspace", "reviews", rows=tuple(data.review_rows(20)), label="label"
    )


@pytest.fixture
def twenty(ingested: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with data.copied(ingested, tmp_path / "workspace", clock) as workspace:
        yield workspace


def rows_of(workspace: Workspace, manifest: Manifest) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in version_rows.read(workspace.folders, manifest).to_pylist()}


def test_a_new_label_is_a_new_version_and_says_who_set_it(twenty: Workspace) -> None:
    first = resolve(twenty.database, "reviews@v1")
    before = rows_of(twenty, first)
    chosen = next(name for name, row in before.items() if row["label"] == "good")
    second = data.label(twenty, "reviews", {chosen: "bad"}, source="agent")
    after = rows_of(twenty, second)
    assert second.ref == "reviews@v2"
    assert (after[chosen]["label"], after[chosen]["label_source"]) == ("bad", "agent")
    assert {name for name in before if after[name]["label"] != before[name]["label"]} == {chosen}
    assert second.labels == {"bad": 11, "good": 9}
    found = version(twenty.database, "reviews")
    assert (found.parents, found.operation) == (["reviews@v1"], {"op": "label", "source": "agent", "changed": 1})
    assert rows_of(twenty, first) == before


def test_the_same_labels_make_no_version(twenty: Workspace) -> None:
    first = resolve(twenty.database, "reviews@v1")
    name, row = next(iter(rows_of(twenty, first).items()))
    assert data.label(twenty, "reviews", {name: row["label"]}) == first


def test_a_dataset_without_labels_gets_its_first(workspace: Workspace) -> None:
    """What has none is excluded until it has one; then it is dealt to a split if it had none."""
    rows = tuple({"text": row["text"]} for row in data.review_rows(40))
    first = data.ingest(workspace, "reviews", rows=rows)
    assert first.label is None
    names = sorted(rows_of(workspace, first))
    second = data.label(workspace, "reviews", {name: "yes" if i % 2 else "no" for i, name in enumerate(names[:30])})
    assert second.labels == {"no": 15, "yes": 15}
    quality = version(workspace.database, "reviews").report
    assert (quality["ok"], quality["partial"]) == (30, 10)
    third = data.label(workspace, "reviews", dict.fromkeys(names[30:], "yes"))
    after = rows_of(workspace, third)
    assert {row["quality"] for row in after.values()} == {"ok"}
    assert None not in {row["split"] for row in after.values()}


def test_an_item_that_lacked_its_label_is_dealt_to_a_split_once_it_has_one(workspace: Workspace) -> None:
    rows = [row | ({"label": None} if i < 10 else {}) for i, row in enumerate(data.review_rows(40))]
    first = data.ingest(workspace, "reviews", rows=tuple(rows), label="label", group_by="film")
    before = rows_of(workspace, first)
    waiting = [name for name, row in before.items() if row["quality"] == "partial"]
    assert {before[name]["split"] for name in waiting} == {None}
    after = rows_of(workspace, data.label(workspace, "reviews", dict.fromkeys(waiting, "good")))
    splits: dict[str, set[str]] = {}
    for row in after.values():
        splits.setdefault(row["group_key"], set()).add(row["split"])
    assert all(len(names) == 1 for names in splits.values())
    assert all(after[name]["split"] == row["split"] for name, row in before.items() if name not in waiting)


def test_a_label_that_is_taken_away_excludes_the_example(twenty: Workspace) -> None:
    first = resolve(twenty.database, "reviews@v1")
    name = next(iter(rows_of(twenty, first)))
    row = rows_of(twenty, data.label(twenty, "reviews", {name: None}))[name]
    assert (row["label"], row["quality"], row["reason"]) == (None, "partial", "The label is missing.")


def test_a_group_that_came_elsewhere_meanwhile_takes_its_labelled_rows_along(workspace: Workspace) -> None:
    rows = data.review_rows(48)
    first = rows_of(workspace, data.ingest(workspace, "reviews", rows=rows, label="label", group_by="film"))
    away = sorted(name for name, row in first.items() if row["film"] not in ("film-0", "film-1"))
    data.label(workspace, "reviews", dict.fromkeys(away))
    more = [{**row, "text": f"Seen by somebody else, who wrote {i}"} for i, row in enumerate(rows[8::4])]
    data.ingest(workspace, "reviews", add=True, rows=more)
    after = rows_of(workspace, data.label(workspace, "reviews", {name: first[name]["label"] for name in away}))
    splits: dict[str, set[str]] = {}
    for row in after.values():
        splits.setdefault(row["film"], set()).add(row["split"])
    assert (len(after), len(splits)) == (58, 12)
    assert [film for film, names in splits.items() if len(names) > 1] == []


def test_a_row_that_is_labelled_again_comes_back_to_its_split(twenty: Workspace) -> None:
    first = rows_of(twenty, resolve(twenty.database, "reviews"))
    names = sorted(first)[:10]
    data.label(twenty, "reviews", dict.fromkeys(names))
    after = rows_of(twenty, data.label(twenty, "reviews", {name: first[name]["label"] for name in names}))
    assert {name: row["split"] for name, row in after.items()} == {name: row["split"] for name, row in first.items()}


def test_classes_that_look_like_numbers_keep_all_their_digits() -> None:
    names = [f"r{i:03}" for i in range(60)]
    made = sealed.rows({"id": names, "label": ["x"] * 60})
    found = apply_labels(made, {name: 1000001 + i for i, name in enumerate(names)}, "human", numeric=False, had="label")
    assert found.rows["label"].to_pylist() == [str(1000001 + i) for i in range(60)]


def test_a_class_is_the_same_as_a_whole_number_and_as_a_fraction() -> None:
    made = sealed.rows({"id": ["a", "b", "c"], "label": ["1", "1", "1"]})
    found = apply_labels(made, {"a": 1.0, "b": "cat", "c": 0.5}, "human", numeric=False, had="label")
    assert found.rows["label"].to_pylist() == ["1", "cat", "0.5"]


def test_numbers_stay_numbers(workspace: Workspace) -> None:
    rows = tuple({"text": row["text"], "stars": i + 0.5} for i, row in enumerate(data.review_rows(30)))
    first = data.ingest(workspace, "stars", rows=rows, label="stars")
    name = next(iter(rows_of(workspace, first)))
    assert rows_of(workspace, data.label(workspace, "stars", {name: "4"}))[name]["label"] == 4.0
    with pytest.raises(SpeciateError, match="is no number"):
        data.label(workspace, "stars", {name: "four"})


def test_ids_that_are_not_there_change_nothing(twenty: Workspace) -> None:
    with pytest.raises(SpeciateError, match="2 of the ids") as raised:
        data.label(twenty, "reviews", {"ex-none": "good", "ex-neither": "bad"})
    assert raised.value.code is Code.NOT_FOUND


def test_an_older_version_can_be_labelled_on_purpose_only(twenty: Workspace) -> None:
    first = resolve(twenty.database, "reviews@v1")
    name = next(name for name, row in rows_of(twenty, first).items() if row["label"] == "good")
    data.label(twenty, "reviews", {name: "bad"})
    third = data.label(twenty, "reviews@v1", {name: "neutral"})
    assert third.ref == "reviews@v3"
    assert version(twenty.database, "reviews@v3").parents == ["reviews@v1"]


def test_a_row_that_joins_two_splits_by_its_label_is_refused(workspace: Workspace) -> None:
    """It waited unlabelled, so that the split was made without it."""
    rows = data.review_rows(40)
    first = data.ingest(workspace, "reviews", rows=tuple(rows), label="label", group_by="film")
    placed = list(rows_of(workspace, first).values())
    learned = next(row for row in placed if row["split"] == "train")
    tested = next(row for row in placed if row["split"] == "test")
    bridge = {"text": tested["text"].upper(), "label": None, "film": learned["film"]}
    second = data.ingest(workspace, "reviews", add=True, rows=(bridge, data.review_rows(42)[41]))
    waiting = next(name for name, row in rows_of(workspace, second).items() if row["quality"] == "partial")
    third = rows_of(workspace, data.label(workspace, "reviews", {waiting: "good"}))
    assert (third[waiting]["quality"], third[waiting]["split"]) == ("refused", None)
    report = version(workspace.database, "reviews").report
    assert (report["refused"], report["split"]["groups_across"]) == (1, 0)


def test_the_split_report_is_of_the_labelled_version(workspace: Workspace) -> None:
    rows = [row | ({"label": None} if i < 20 else {}) for i, row in enumerate(data.review_rows(60))]
    first = data.ingest(workspace, "reviews", rows=tuple(rows), label="label")
    shares = {"train": 0.5, "test": 0.5}
    data.run_job(workspace, "curate", dataset="reviews", steps=[{"op": "split", "fractions": shares}])
    waiting = [name for name, row in rows_of(workspace, first).items() if row["quality"] == "partial"]
    last = data.label(workspace, "reviews", dict.fromkeys(waiting, "good"))
    split = version(workspace.database, "reviews").report["split"]
    assert last.splits == {"train": 30, "test": 30}
    assert split["fractions"] == shares
    assert 25 < split["test_units"] <= 30


def test_a_label_makes_nothing_readable(workspace: Workspace) -> None:
    """A row that lacks its label and its text, too, is an error first of all."""
    rows = [*data.review_rows(20), {"text": None, "label": None, "film": "none"}]
    first = data.ingest(workspace, "reviews", rows=tuple(rows), label="label", inputs=("text",), modality="text")
    name, row = next((name, row) for name, row in rows_of(workspace, first).items() if row["quality"] != "ok")
    assert "label" not in row["reason"]
    after = rows_of(workspace, data.label(workspace, "reviews", {name: "good"}))[name]
    assert after["quality"] == row["quality"]
    made = sealed.rows({"id": ["a"], "quality": ["partial"], "reason": ["The label is missing."]})
    found = apply_labels(made, {"a": "good"}, "human", numeric=False, had="label").rows
    assert found["quality"].to_pylist() == ["error"]
