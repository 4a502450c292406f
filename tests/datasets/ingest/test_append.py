"""Adding to a dataset: nothing twice, old rows stay, and the version is that of ingesting all at once."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from speciate.datasets import version_rows
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import Manifest, names, version
from speciate.errors import Code, SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data


def add(workspace: Workspace, dataset: str = "set", **spec: Any) -> Manifest:
    return data.ingest(workspace, dataset, add=True, **spec)


def rows_of(workspace: Workspace, manifest: Manifest) -> list[dict[str, Any]]:
    return list(version_rows.read(workspace.folders, manifest).to_pylist())


def splits(workspace: Workspace, manifest: Manifest) -> dict[str, str]:
    return {row["id"]: row["split"] for row in rows_of(workspace, manifest)}


def test_new_rows_come_to_the_old_which_stay(workspace: Workspace) -> None:
    rows = data.review_rows(120)
    first = data.ingest(workspace, "set", rows=rows[:80], label="label", group_by="film")
    second = add(workspace, rows=rows[60:])
    found = version(workspace.database, "set")
    assert (second.ref, second.rows, found.parents) == ("set@v2", 120, ["set@v1"])
    assert (found.report["added"], found.report["already_there"], found.report["ok"]) == (40, 20, 120)
    assert found.operation["op"] == "add_examples"
    was = splits(workspace, first)
    assert {name: split for name, split in splits(workspace, second).items() if name in was} == was
    places: dict[str, set[str]] = {}
    for example in load_examples(workspace.folders, second):
        places.setdefault(example.group, set()).add(example.split)
    assert all(len(names) == 1 for names in places.values())


def test_the_same_source_again_adds_nothing(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "digits", 40, classes=2)
    (folder / "0" / "empty.png").write_bytes(b"")
    (folder / "1" / "words.png").write_bytes(b"these are words")
    first = data.ingest(workspace, "set", source=folder, label="folder")
    again = add(workspace, source=folder)
    assert again == first
    packs = set(workspace.folders.packs.iterdir())
    assert data.ingest(workspace, "set", source=folder, label="folder") == first
    assert set(workspace.folders.packs.iterdir()) == packs


def test_adding_ends_in_the_version_of_ingesting_all_at_once(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{**row, "split": "test" if i % 5 == 0 else "train"} for i, row in enumerate(data.review_rows(90))]
    whole = data.ingest(workspace, "whole", rows=rows, label="label", group_by="film")
    data.ingest(workspace, "set", rows=rows[:50], label="label", group_by="film")
    assert add(workspace, rows=rows[40:]).id == whole.id
    folder = data.digit_folder(tmp_path / "train", 60, classes=3)
    shutil.move(str(folder / "2"), tmp_path / "later")
    (tmp_path / "all" / "train").mkdir(parents=True)
    (tmp_path / "all" / "test").mkdir()
    shutil.copytree(folder / "0", tmp_path / "all" / "train" / "0")
    shutil.copytree(folder / "1", tmp_path / "all" / "test" / "1")
    data.ingest(workspace, "images", source=tmp_path / "all", label="folder")
    shutil.copytree(tmp_path / "later", tmp_path / "all" / "train" / "2")
    grown = add(workspace, "images", source=tmp_path / "all")
    assert grown.id == data.ingest(workspace, "at-once", source=tmp_path / "all", label="folder").id
    assert len(load_examples(workspace.folders, grown)) == 60


def test_copies_get_free_ids(workspace: Workspace) -> None:
    rows = data.review_rows(20)
    data.ingest(workspace, "set", rows=[*rows, rows[0]], label="label")
    other = [{**row, "label": "good" if row["label"] == "bad" else "bad"} for row in rows[:3]]
    manifest = add(workspace, rows=other)
    found = rows_of(workspace, manifest)
    assert len({row["id"] for row in found}) == len(found) == 24
    assert Counter(row["text"] for row in found)[rows[0]["text"]] == 3


def test_a_new_copy_goes_where_the_old_one_lies(workspace: Workspace) -> None:
    rows = data.review_rows(80)
    first = data.ingest(workspace, "set", rows=rows, label="label")
    where = {row["text"]: row["split"] for row in rows_of(workspace, first)}
    loud = [{**row, "text": str(row["text"]).upper()} for row in rows]
    manifest = add(workspace, rows=loud)
    for row in rows_of(workspace, manifest):
        if row["text"].isupper():
            assert row["split"] == next(split for text, split in where.items() if text.upper() == row["text"])


def test_content_of_another_split_is_refused(workspace: Workspace) -> None:
    rows = [{**row, "split": "test" if i < 20 else "train"} for i, row in enumerate(data.review_rows())]
    data.ingest(workspace, "set", rows=rows, label="label")
    manifest = add(
        workspace, rows=[{**rows[0], "film": "another", "split": "train"}, {**rows[1], "text": "new", "split": "train"}]
    )
    assert manifest.splits == {"train": 61, "test": 20}
    refused = [row for row in rows_of(workspace, manifest) if row["quality"] == "refused"]
    assert ["'test'" in row["reason"] for row in refused] == [True]


def test_a_column_of_another_type_is_widened_or_refused(workspace: Workspace) -> None:
    rows = [{"x": i, "name": f"n{i}", "kind": "ab"[i % 2]} for i in range(30)]
    data.ingest(workspace, "set", rows=rows, label="kind", inputs=("x",))
    wider = add(workspace, rows=[{"x": 0.5, "name": 7, "kind": "a"}])
    assert wider.columns == {"x": "DOUBLE", "name": "VARCHAR", "kind": "VARCHAR"}
    assert {row["x"] for row in rows_of(workspace, wider)} == {*range(30), 0.5}
    with pytest.raises(SpeciateError, match="holds DOUBLE in set@v2 and VARCHAR here") as raised:
        add(workspace, rows=[{"x": "many", "name": "n", "kind": "b"}])
    assert raised.value.code is Code.INVALID
    with pytest.raises(SpeciateError, match="lacks column"):
        add(workspace, rows=[{"name": "n", "kind": "b"}])


def test_whole_numbers_and_the_same_as_fractions_lie_in_one_split(workspace: Workspace) -> None:
    rows = [{"x": i, "note": "old", "kind": "ab"[i % 2]} for i in range(40)]
    data.ingest(workspace, "set", rows=rows, label="kind", inputs=("x",))
    again = [{"x": float(row["x"]), "note": "new", "kind": row["kind"]} for row in rows]
    found = rows_of(workspace, add(workspace, rows=[*again, {"x": 0.5, "note": "new", "kind": "a"}]))
    places: dict[float, set[str]] = {}
    contents: dict[float, set[str]] = {}
    for row in found:
        places.setdefault(row["x"], set()).add(row["split"])
        contents.setdefault(row["x"], set()).add(row["_content"])
    assert len(found) == 81
    assert [x for x, names in places.items() if len(names) > 1] == []
    assert {len(names) for names in contents.values()} == {1}


def test_a_new_column_is_empty_in_old_rows(workspace: Workspace) -> None:
    rows = data.review_rows(20)
    data.ingest(workspace, "set", rows=rows, label="label")
    manifest = add(workspace, rows=[{**row, "stars": 3} for row in data.review_rows(4, seed=9)])
    assert Counter(row["stars"] for row in rows_of(workspace, manifest)) == {None: 20, 3: 4}


def test_inline_rows_lie_in_a_blob_and_not_in_the_job(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=[{"text": "a secret that is told", "label": "x"}] * 2, label="label")
    kept = [path.read_text() for path in workspace.folders.runs.glob("*/spec.json")]
    assert kept
    assert not any("secret" in text for text in kept)


def test_adding_to_nothing_is_refused(workspace: Workspace) -> None:
    with pytest.raises(SpeciateError, match="no dataset 'set'"):
        add(workspace, rows=[{"a": 1}])
    assert names(workspace.database) == []


def test_near_copies_across_the_sources_split_are_reported(workspace: Workspace) -> None:
    words = "the quick brown fox jumps over the lazy dog while seven old men sit by the river and talk of rain"
    long = [f"{words}, chapter {i} of {i * 7}, told in the {place}" for i, place in enumerate(["north", "south"] * 8)]
    rows = [
        {"text": " ".join(reversed(text.split())) + f" number {i}", "label": "ab"[i % 2], "split": "train"}
        for i, text in enumerate(long)
    ]
    rows += [
        {"text": f"{words} again", "label": "a", "split": "train"},
        {"text": f"{words} once", "label": "a", "split": "test"},
    ]
    rows += [{"text": "something else entirely that has nothing to do with it", "label": "b", "split": "test"}]
    data.ingest(workspace, "set", rows=rows, label="label")
    report = version(workspace.database, "set").report
    assert report["split"]["near_duplicates_across"] >= 1
    assert json.dumps(report)
    manifest = version(workspace.database, "set").manifest
    ids = {row["id"] for row in pq.read_table(workspace.folders.root / manifest.parts[0].file).to_pylist()}
    assert {name for pair in report["split"]["near_duplicate_examples"] for name in pair} <= ids


LONG = "the quick brown fox jumps over the lazy dog while seven old men sit by the {} river and talk of rain and {}"


def test_a_row_that_belongs_with_two_splits_is_refused_and_nothing_leaks(workspace: Workspace) -> None:
    rows = data.review_rows(80)
    first = data.ingest(workspace, "set", rows=rows, label="label", group_by="film")
    placed = rows_of(workspace, first)
    learned = next(row for row in placed if row["split"] == "train")
    tested = next(row for row in placed if row["split"] == "test")
    bridge = {"text": tested["text"].upper(), "label": "good", "film": learned["film"]}
    manifest = add(workspace, rows=[bridge])
    found = next(row for row in rows_of(workspace, manifest) if row["text"] == bridge["text"])
    assert (found["quality"], found["split"]) == ("refused", None)
    assert "'test' and 'train'" in found["reason"]
    report = version(workspace.database, "set").report
    audit = report["split"]
    assert (audit["groups_across"], audit["identical_after_normalising_across"]) == (0, 0)
    assert "1 items were refused" in report["warnings"][0]
    data.run_job(workspace, "curate", dataset="set", steps=[{"op": "split"}])
    after = version(workspace.database, "set")
    assert (after.report["ok"], after.report["split"]["groups_across"]) == (81, 0)


def test_a_near_copy_of_a_row_in_a_split_of_another_name_comes_to_it(workspace: Workspace) -> None:
    rows = [{**row, "split": "train"} for row in data.review_rows(30)]
    rows += [{"text": LONG.format("old", "snow"), "label": "good", "split": "holdout"}]
    data.ingest(workspace, "set", rows=rows, label="label")
    manifest = add(workspace, rows=[{"text": LONG.format("old", "snow").upper() + "!", "label": "good"}])
    assert manifest.splits == {"train": 30, "holdout": 2}


def test_fractions_of_an_earlier_split_hold_for_appended_rows(workspace: Workspace) -> None:
    rows = data.review_rows(100)
    data.ingest(workspace, "set", rows=rows[:40], label="label")
    shares = {"train": 0.8, "test": 0.2}
    data.run_job(workspace, "curate", dataset="set", steps=[{"op": "split", "fractions": shares, "seed": 5}])
    manifest = add(workspace, rows=rows[40:])
    assert manifest.splits == {"train": 80, "test": 20}
    split = version(workspace.database, "set").report["split"]
    assert (split["fractions"], split["seed"]) == (shares, 5)
    assert "80/20" in split["made_by"]
    assert "steps" not in version(workspace.database, "set").report


def test_rows_labelled_since_are_not_new(workspace: Workspace, tmp_path: Path) -> None:
    """The source's labels are unchanged; the dataset's labels stand."""
    folder = data.digit_folder(tmp_path / "digits", 12, classes=2)
    first = data.ingest(workspace, "bare", source=folder)
    named = data.label(workspace, "bare", {row["id"]: "seen" for row in rows_of(workspace, first)})
    assert add(workspace, "bare", source=folder) == named
    classes = data.ingest(workspace, "set", source=folder, label="folder")
    other = data.label(workspace, "set", {rows_of(workspace, classes)[0]["id"]: "other"})
    result = data.run_job(workspace, "ingest", name="set", source=folder, add=True)
    assert result["dataset"] == other.ref
    assert (result["report"]["added"], result["report"]["label_conflicts"]) == (0, 1)
    assert "another label" in result["report"]["warnings"][0]


def test_rows_dropped_by_curation_stay_out(workspace: Workspace) -> None:
    rows = data.review_rows(40)
    data.ingest(workspace, "set", rows=rows, label="label")
    data.run_job(workspace, "curate", dataset="set", steps=[{"op": "filter", "where": "label = 'good'"}])
    manifest = add(workspace, rows=[*rows, *data.review_rows(42)[40:]])
    report = version(workspace.database, "set").report
    assert (report["added"], report["already_there"], report["dropped_before"]) == (2, 20, 20)
    assert "20 items were in an earlier version" in report["warnings"][0]
    assert manifest.rows == 22
    back = add(workspace, "set@v1", rows=rows)
    assert back.rows == 40


def channels_table(path: Path, start: float, count: int, *names: str) -> Path:
    """Series as columns of lists, by default of three channels."""
    lines = [
        {name: [start + i, float(place), 2.0, 3.0] for place, name in enumerate(names or "abc")}
        | {"label": "xy"[i % 2]}
        for i in range(count)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_added_series_have_the_channels_that_were_named_first(workspace: Workspace, tmp_path: Path) -> None:
    first = channels_table(tmp_path / "one.jsonl", 0.0, 12)
    data.ingest(workspace, "set", source=first, modality="time-series", label="label", inputs=("c", "a"))
    for number in (2, 3):
        made = add(workspace, source=channels_table(tmp_path / f"{number}.jsonl", 100.0 * number, 6))
        added = [row for row in rows_of(workspace, made) if row["source"].startswith(f"{number}.")]
        assert [[channel[1] for channel in row["series"]] for row in added] == [[2.0, 0.0]] * 6
        assert {row["quality"] for row in added} == {"ok"}
    lacking = channels_table(tmp_path / "lacking.jsonl", 900.0, 6, "a", "b")
    with pytest.raises(SpeciateError, match=r"a model of set@v3 sees: c\."):
        add(workspace, source=lacking)


def test_an_added_series_with_another_number_of_channels_is_an_error(workspace: Workspace, tmp_path: Path) -> None:
    first = channels_table(tmp_path / "one.jsonl", 0.0, 12, "a", "b")
    data.ingest(workspace, "set", source=first, modality="time-series", label="label")
    with pytest.raises(SpeciateError) as refused:
        add(workspace, source=channels_table(tmp_path / "two.jsonl", 100.0, 6))
    assert refused.value.foreign == "It has 3 channels; the examples of set@v1 have 2."
    series = [{"series": [[float(i), 1.0, 2.0]] * (2 + i % 2), "label": "x"} for i in range(200, 206)]
    (tmp_path / "three.jsonl").write_text("".join(json.dumps(row) + "\n" for row in series))
    made = add(workspace, source=tmp_path / "three.jsonl")
    added = [row for row in rows_of(workspace, made) if row["source"].startswith("three.")]
    assert sorted((row["quality"], row["reason"] or "") for row in added) == [
        *[("error", "It has 3 channels; the examples of set@v1 have 2.")] * 3, *[("ok", "")] * 3
    ]  # fmt: skip
