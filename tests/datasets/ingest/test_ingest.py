"""Whole ingests of small real sources, decoded in the sandbox."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from speciate.datasets import version_rows
from speciate.datasets.ingest import ingest
from speciate.datasets.ingest.ingest import KIND, IngestSpec, store_inline_rows
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.roles import choose_roles
from speciate.datasets.splits import checked_fractions
from speciate.datasets.versions import Manifest, names, resolve, version
from speciate.errors import Code, SpeciateError
from speciate.refs import SPLITS
from speciate.workspace.workspace import Workspace
from tests import data
from tests.modalities.samples import BOMBS


def refusal(workspace: Workspace, **spec: Any) -> SpeciateError:
    with pytest.raises(SpeciateError) as raised:
        data.ingest(workspace, "set", **spec)
    assert names(workspace.database) == []
    assert raised.value.recovery
    return raised.value


def rows_of(workspace: Workspace, ref: str = "set") -> list[dict[str, Any]]:
    manifest = resolve(workspace.database, ref)
    return list(version_rows.read(workspace.folders, manifest).to_pylist())


def test_files_about_the_data_are_counted(workspace: Workspace, tmp_path: Path) -> None:
    source = data.digit_folder(tmp_path / "digits", 12)
    (source / "README.md").write_text("# about")
    (next(source.glob("*/*.png"))).rename(source / "0" / "license.png")
    manifest = data.ingest(workspace, "digits", source=source, label="folder")
    assert manifest.rows == 12
    notes = version(workspace.database, "digits").report["untrusted"]["notes"]
    assert notes == ["1 file is left out as a text about the data: 'README.md'."]


def test_a_column_that_a_word_for_missing_makes_text_is_told(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"âge": "-" if i < 3 else i, "code": f"x{i}", "size": "" if i < 3 else i, "seen": i % 2} for i in range(60)]
    with (tmp_path / "seen.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    data.ingest(workspace, "seen", source=tmp_path / "seen.csv", label="seen")
    told = [each for each in version(workspace.database, "seen").report["warnings"] if "no numbers" in each]
    assert told == [
        "Column 'âge' is text, for 3 of its 60 cells are no numbers. Leave such cells empty, and it is read as numbers."
    ]


def test_numbers_with_commas_are_told(workspace: Workspace, tmp_path: Path) -> None:
    rows = [f"{i},{i % 7};{i % 3},000.5;{'ab'[i % 2]},c;{i % 2}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["heat;price;kind;seen", *rows]))
    manifest = data.ingest(workspace, "seen", source=tmp_path / "t.csv", label="seen")
    assert [manifest.columns[name] for name in ("heat", "price", "kind")] == ["VARCHAR"] * 3
    assert [each for each in version(workspace.database, "seen").report["warnings"] if "comma" in each] == [
        f"Column {name!r} is text, for 60 of its 60 cells are numbers with a comma. Write them like 51.8 and 1234, and "
        "it is read as numbers."
        for name in ("heat", "price")
    ]


@pytest.mark.parametrize("column", ["heat", "label"])
def test_a_label_with_commas_in_its_numbers_is_told(workspace: Workspace, tmp_path: Path, column: str) -> None:
    rows = [f"{i};{i},{i % 7}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join([f"size;{column}", *rows]))
    manifest = data.ingest(workspace, "seen", source=tmp_path / "t.csv", label=column)
    assert len(manifest.labels) > 20, "a class for each number"
    told = [each for each in version(workspace.database, "seen").report["warnings"] if "with a comma" in each]
    assert told == [
        f"Column {column!r} is text, for 60 of its 60 cells are numbers with a comma. Write them like 51.8 and 1234, "
        "and it is read as numbers."
    ]


def test_a_label_of_several_numbers_in_one_cell_is_none_with_a_comma(workspace: Workspace) -> None:
    data.ingest(workspace, "tags", rows=[{"size": i, "tags": f"{i % 2},1,{i % 3}"} for i in range(60)], label="tags")
    assert not [each for each in version(workspace.database, "tags").report["warnings"] if "with a comma" in each]


def test_numbers_with_commas_beside_a_text_are_told(workspace: Workspace) -> None:
    rows = [
        {"note": f"please look at number {i} in hall {i % 5}", "heat": f"{i},5", "team": "ab"[i % 2]} for i in range(60)
    ]
    assert data.ingest(workspace, "notes", rows=rows, label="team").inputs == ("note",)
    [told] = [each for each in version(workspace.database, "notes").report["warnings"] if "Models read" in each]
    assert "These columns are no inputs: 'heat'." in told


def test_a_version_that_memory_cannot_hold_is_refused_before_it_is_split(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest.require_memory(1_000_000, 0, free_mb=2_000)
    ingest.require_memory(10_000, 1_000_000, free_mb=2_000)
    with pytest.raises(
        SpeciateError, match=r"10,000,000 rows takes at least 9,537 MB of memory, and 8,000 MB are free"
    ):
        ingest.require_memory(10_000_000, 0, free_mb=8_000)
    (tmp_path / "few.csv").write_text("text,label\nyes,a\nno,b\n")
    monkeypatch.setattr(ingest, "free_memory_mb", lambda: 0.0)
    with pytest.raises(SpeciateError, match="2 rows takes at least 0 MB") as refused:
        data.ingest(workspace, "few", source=tmp_path / "few.csv", label="label")
    assert refused.value.code is Code.UNAVAILABLE


def test_a_folder_of_images(workspace: Workspace, tmp_path: Path) -> None:
    manifest = data.ingest(workspace, "digits", source=data.digit_folder(tmp_path / "digits", 100), label="folder")
    examples = load_examples(workspace.folders, manifest)
    assert manifest.ref == "digits@v1"
    assert manifest.modality == "image"
    assert manifest.labels == Counter(example.label for example in examples)
    assert sum(manifest.splits.values()) == len(examples) == 100
    assert {example.media.shape for example in examples} == {(8, 8, 3)}
    assert [example.id for example in examples] == sorted(example.id for example in examples)
    assert manifest.columns["width"] == "BIGINT"


def test_a_table_of_texts_keeps_groups_together(workspace: Workspace, tmp_path: Path) -> None:
    source = data.review_csv(tmp_path / "reviews.csv")
    manifest = data.ingest(workspace, "reviews", source=source, label="label", group_by="film")
    assert (manifest.modality, manifest.inputs) == ("text", ("text",))
    places: dict[str, set[str]] = {}
    for example in load_examples(workspace.folders, manifest):
        places.setdefault(example.group, set()).add(example.split)
    assert all(len(splits) == 1 for splits in places.values())
    assert set(manifest.splits) == {"train", "validation", "test"}


def test_long_labels_stay_distinct_with_a_warning(workspace: Workspace, tmp_path: Path) -> None:
    long = "a label that describes at length what can be seen on the image, which is "
    kinds = [f"{long}shoes", f"{long}hats", "other"]
    rows = tuple({"text": f"a text about the number {i}", "kind": kinds[i % 3]} for i in range(60))
    manifest = data.ingest(workspace, "rows", rows=rows, label="kind")
    assert sorted(manifest.labels.values()) == [20, 20, 20]
    assert max(map(len, manifest.labels)) == 64
    assert "2 classes have names of more" in version(workspace.database, "rows").report["warnings"][0]
    one = next(row["id"] for row in rows_of(workspace, "rows") if row["label"] == "other")
    assert data.label(workspace, "rows", {one: kinds[0]}).labels.keys() == manifest.labels.keys()
    for i, row in enumerate(rows[:12]):
        path = tmp_path / "source" / row["kind"] / f"{i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row["text"])
    folders = data.ingest(workspace, "folders", source=tmp_path / "source", label="folder")
    assert folders.labels.keys() == manifest.labels.keys()


def test_a_series_whose_label_changes_is_excluded_alone(workspace: Workspace, tmp_path: Path) -> None:
    lines = ["m,t,x,label"] + [f"m{i // 30},{i % 30},{i * i % 97},{'ab'[i // 30 % 2]}" for i in range(180)]
    lines[40] = lines[40].replace(",b", ",a")
    (tmp_path / "long.csv").write_text("\n".join(lines))
    source = {"source": tmp_path / "long.csv", "reader": "long:m,t"}
    for name, label in (("named", "label"), ("implied", None)):
        manifest = data.ingest(workspace, name, **source, label=label)
        assert manifest.labels == {"a": 3, "b": 2}
        excluded = [(row["m"], row["reason"]) for row in rows_of(workspace, name) if row["quality"] == "error"]
        assert excluded == [("m1", "Its label 'label' changes within the series.")]


def test_groups_that_a_pattern_misses_are_a_warning(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "digits", 20, classes=2)
    found = {}
    for name, pattern in (("none", r"(patient\d+)"), ("some", r"^1/(\d+)"), ("all", r"(\d+)\.png")):
        data.ingest(workspace, name, source=folder, label="folder", group_by=pattern)
        found[name] = version(workspace.database, name).report["warnings"]
    assert "gives no example a group: it finds nothing in paths such as '0/0000.png'" in found["none"][0]
    assert "gives 11 of 20 examples no group" in found["some"][0]
    assert found["all"] == []
    step = {"op": "split", "group_by": r"(patient\d+)"}
    audit = data.run_job(workspace, "curate", dataset="all", steps=[step])["steps"][0]["audit"]
    assert "gives no example a group" in audit["warnings"][0]


def test_a_column_of_dates_is_no_input_and_the_rest_is_learned_from(workspace: Workspace, tmp_path: Path) -> None:
    lines = ["day,x,y,kind"] + [f"2024-01-{1 + i % 28:02},{i},{i * i % 31},{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    manifest = data.ingest(workspace, "dated", source=tmp_path / "t.csv", label="kind")
    assert (manifest.modality, manifest.inputs, sum(manifest.splits.values())) == ("tabular", ("x", "y"), 40)
    assert manifest.columns["day"] == "DATE"
    (message,) = version(workspace.database, "dated").report["warnings"]
    assert "'day'" in message
    assert "reader='long:ID,TIME'" in message


def test_days_that_are_texts_are_dates(workspace: Workspace, tmp_path: Path) -> None:
    """Not so versions of programs, nor a text that begins with a day."""
    lines = ["day,when,version,note,x,kind"] + [
        f"{1 + i % 28}.{1 + i % 12}.2024,{1 + i % 12}/{1 + i % 28}/2024 10:{i % 60:02},1.{i % 5}.{i},3.4.20 {i},"
        f"{i % 7},{'ab'[i % 2]}"
        for i in range(90)
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    manifest = data.ingest(workspace, "dated", source=tmp_path / "t.csv", label="kind")
    assert manifest.inputs == ("version", "note", "x")
    (message,) = version(workspace.database, "dated").report["warnings"]
    assert "'day', 'when';" in message


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"label": "team"}, ["'channel', 'heat'"]),
        ({"label": "team", "inputs": ("note",)}, []),
        ({"label": "team", "modality": "text"}, []),
        ({"label": "heat"}, ["'channel', 'team'"]),
        ({}, []),
    ],
)
def test_columns_beside_a_text_that_a_model_of_tables_would_read_are_told(
    workspace: Workspace, choices: dict[str, Any], told: list[str]
) -> None:
    rows = [
        {
            "ticket": f"T{i}", "opened": f"{1 + i % 28}.03.2024", "channel": ("mail", "chat")[i % 2], "heat": i / 7,
            "note": f"please look at number {i} in hall {i % 5}", "team": "ab"[i % 2],
        }
        for i in range(60)
    ]  # fmt: skip
    manifest = data.ingest(workspace, "notes", rows=rows, **choices)
    assert (manifest.modality, manifest.inputs) == ("text", ("note",))
    warnings = [each for each in version(workspace.database, "notes").report["warnings"] if "Models read" in each]
    assert [each.partition("no inputs: ")[2].partition(". ")[0] for each in warnings] == told


def test_peptides_from_fasta(workspace: Workspace, tmp_path: Path) -> None:
    manifest = data.ingest(workspace, "pep", source=data.peptide_fasta(tmp_path / "p.fasta"), label="kind")
    assert (manifest.modality, manifest.inputs) == ("protein", ("sequence",))
    assert manifest.labels == {"cationic": 40, "other": 40}


def test_series_keep_the_split_that_the_source_brings(workspace: Workspace, tmp_path: Path) -> None:
    manifest = data.ingest(workspace, "moves", source=data.series_ts(tmp_path / "moves"), label="label")
    assert manifest.modality == "time-series"
    assert manifest.splits == {"train": 40, "test": 20}
    assert {example.media.shape for example in load_examples(workspace.folders, manifest)} == {(2, 40)}


def test_a_table_of_numbers(workspace: Workspace, tmp_path: Path) -> None:
    manifest = data.ingest(workspace, "tumours", source=data.tumour_csv(tmp_path / "t.csv"), label="diagnosis")
    assert manifest.modality == "tabular"
    assert len(manifest.inputs) == 30
    assert "diagnosis" not in manifest.inputs
    example = load_examples(workspace.folders, manifest)[0]
    assert set(example.media) == set(manifest.inputs)
    assert example.columns["diagnosis"] == example.label


def test_fractions_are_numbers_to_predict(workspace: Workspace) -> None:
    rows = tuple({"x": float(i), "y": i / 7} for i in range(40))
    manifest = data.ingest(workspace, "numbers", rows=rows, label="y")
    assert manifest.numeric
    assert manifest.labels == {}
    assert all(isinstance(example.label, float) for example in load_examples(workspace.folders, manifest))


def test_the_same_content_again_is_the_same_version(workspace: Workspace) -> None:
    rows = data.review_rows()
    first = data.ingest(workspace, "reviews", rows=tuple(rows), label="label")
    again = data.ingest(workspace, "reviews", rows=tuple(reversed(rows)), label="label")
    assert (again.ref, again.id) == (first.ref, first.id)
    changed = data.ingest(workspace, "reviews", rows=tuple(rows[1:]), label="label")
    assert changed.ref == "reviews@v2"
    assert resolve(workspace.database, "reviews@v1") == first
    assert resolve(workspace.database, "reviews") == changed


def test_the_version_is_announced(workspace: Workspace) -> None:
    data.ingest(workspace, "reviews", rows=tuple(data.review_rows(8)), label="label")
    event = workspace.database.events_after(0)[-1]
    assert (event.subject, event.type, event.data["version"]) == ("dataset:reviews", "dataset.created", 1)


def test_bad_images_are_quarantined_with_a_reason_and_the_others_kept(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "digits", 20, classes=2)
    good = next((folder / "0").iterdir()).read_bytes()
    (folder / "0" / "cut.png").write_bytes(good[:-30])
    (folder / "0" / "empty.png").write_bytes(b"")
    (folder / "0" / "words.png").write_bytes(b"these are words")
    (folder / "1" / "bomb.png").write_bytes(BOMBS["image"])
    (folder / "1" / "größe ☃.png").write_bytes((folder / "1" / next((folder / "1").iterdir()).name).read_bytes())
    (folder / "1" / "notes.txt").write_text("not an image")
    data.ingest(workspace, "set", source=folder, label="folder")
    found = {row["source"]: row for row in rows_of(workspace)}
    assert found["0/cut.png"]["quality"] in ("partial", "error")
    assert found["0/empty.png"]["reason"] == "The file is empty."
    assert found["0/words.png"]["quality"] == found["1/notes.txt"]["quality"] == "error"
    assert found["1/bomb.png"]["quality"] == "refused"
    assert found["1/größe ☃.png"]["quality"] == "ok"
    report = version(workspace.database, "set").report
    assert (report["ok"], report["refused"], sum(report[q] for q in ("partial", "error"))) == (21, 1, 4)
    assert report["untrusted"]["reasons"]["The file is empty."] == 1
    assert len(load_examples(workspace.folders, resolve(workspace.database, "set"))) == 21


def test_copies_stay_together_in_a_split_that_we_make(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "digits", 40)
    for path in list(folder.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    manifest = data.ingest(workspace, "set", source=folder, label="folder")
    splits: dict[bytes, set[str]] = {}
    for example in load_examples(workspace.folders, manifest):
        splits.setdefault(example.media.tobytes(), set()).add(example.split)
    assert all(len(names) == 1 for names in splits.values())


def test_identical_content_across_the_sources_split_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{**row, "split": "train" if i < 60 else "test"} for i, row in enumerate(data.review_rows())]
    rows[0] = {**rows[0], "text": rows[70]["text"]}
    manifest = data.ingest(workspace, "set", rows=tuple(rows), label="label")
    assert manifest.splits == {"train": 59, "test": 20}
    refused = [row for row in rows_of(workspace) if row["quality"] == "refused"]
    assert [row["split"] for row in refused] == ["train"]
    assert "'test'" in refused[0]["reason"]


def test_copies_after_normalising_across_the_sources_split_are_reported(workspace: Workspace) -> None:
    rows = [{**row, "split": "train" if i < 60 else "test"} for i, row in enumerate(data.review_rows())]
    rows[0] = {**rows[0], "text": str(rows[70]["text"]).upper()}
    data.ingest(workspace, "set", rows=tuple(rows), label="label")
    assert version(workspace.database, "set").report["split"]["identical_after_normalising_across"] == 1


def test_folders_can_be_splits(workspace: Workspace, tmp_path: Path) -> None:
    data.digit_folder(tmp_path / "set" / "training", 30, classes=3)
    first = next((tmp_path / "set" / "training" / "2").iterdir())
    (tmp_path / "set" / "test" / "2").mkdir(parents=True)
    first.rename(tmp_path / "set" / "test" / "2" / first.name)
    manifest = data.ingest(workspace, "set", source=tmp_path / "set", label="folder")
    assert manifest.splits == {"train": 29, "test": 1}
    assert set(manifest.labels) == {"0", "1", "2"}


def test_a_labels_file_names_the_images(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "set", 20, classes=2)
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "kind", "patient"])
        for i, path in enumerate(sorted(folder.rglob("*.png"))[1:]):
            writer.writerow([path.name, "round" if path.parent.name == "0" else "straight", f"p{i // 3}"])
    manifest = data.ingest(
        workspace, "set", source=folder, labels={"path": labels, "key": "file", "column": "kind"}, group_by="patient"
    )
    assert set(manifest.labels) == {"round", "straight"}
    assert sum(manifest.labels.values()) == 19
    missing = [row for row in rows_of(workspace) if row["quality"] == "partial"]
    assert [row["reason"] for row in missing] == ["The label is missing."]


@pytest.mark.parametrize("numbers", [[0.5, 1.5], [0.0, 1.0]])
def test_an_infinite_label_counts_as_missing(workspace: Workspace, tmp_path: Path, numbers: list[float]) -> None:
    y = [*(numbers * 10), float("inf"), None]
    table = pa.table({"x": [float(i) for i in range(22)], "y": pa.array(y, pa.float64())})
    pq.write_table(table, tmp_path / "rows.parquet")
    manifest = data.ingest(workspace, "set", source=tmp_path / "rows.parquet", label="y")
    assert manifest.numeric is (numbers[0] == 0.5)
    excluded = sorted(row["reason"] for row in rows_of(workspace) if row["quality"] == "partial")
    assert excluded == ["Its label is not a finite number.", "The label is missing."]
    more = ({"x": 50.0, "y": "inf"}, {"x": 51.0, "y": "0.5"}) if manifest.numeric else ()
    if more:
        data.ingest(workspace, "set", add=True, rows=more)
        assert [row["quality"] for row in rows_of(workspace)].count("partial") == 3


@pytest.mark.parametrize("inputs", [(), ("tokens",)])
def test_lists_of_words_are_no_series_and_no_text(inputs: tuple[str, ...]) -> None:
    table = pa.table({"tokens": [["Ada", "sleeps"]] * 4, "tags": [["B", "O"]] * 4, "text": ["Ada sleeps"] * 4})
    with pytest.raises(SpeciateError, match="'tokens' holds lists of texts") as refusal:
        choose_roles(table.drop_columns(["text"]), "auto", inputs, ["tags"])
    assert "blanks" in refusal.value.recovery
    assert choose_roles(table, "text", (), ["tags"]) == ("text", ("text",))


def test_a_pattern_finds_the_group_in_the_path(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "set", 20, classes=2)
    data.ingest(workspace, "set", source=folder, label="folder", group_by=r"/(\d\d)\d\d\.png")
    assert {row["group_key"] for row in rows_of(workspace)} == {"00"}


def test_taken_column_names_are_kept_beside(workspace: Workspace) -> None:
    rows = tuple(
        {"id": i, "Source": "here", "text": f"a text about the number {i}", "kind": "ab"[i % 2]} for i in range(20)
    )
    manifest = data.ingest(workspace, "set", rows=rows, label="kind")
    assert {"user_id", "user_Source", "text", "kind"} == set(manifest.columns)


def test_broken_lines_are_kept_as_errors(workspace: Workspace, tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in data.review_rows(20)]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join([*lines[:10], "{broken", "[1, 2]", *lines[10:]]) + '\n{"text": "cut o')
    data.ingest(workspace, "set", source=source, label="label")
    report = version(workspace.database, "set").report
    assert (report["ok"], report["error"]) == (20, 3)


def test_a_csv_line_with_too_few_cells_is_an_error(workspace: Workspace, tmp_path: Path) -> None:
    source = data.review_csv(tmp_path / "rows.csv", 20)
    with source.open("a") as file:
        file.write("only one cell\n")
    data.ingest(workspace, "set", source=source, label="label")
    assert version(workspace.database, "set").report["error"] == 1


def test_parquet_with_lists_is_a_set_of_series(workspace: Workspace, tmp_path: Path) -> None:
    table = pa.table({"signal": [[float(i), 1.0, 2.0] for i in range(20)], "kind": ["a", "b"] * 10})
    pq.write_table(table, tmp_path / "signals.parquet")
    manifest = data.ingest(workspace, "set", source=tmp_path / "signals.parquet", label="kind")
    assert (manifest.modality, manifest.inputs) == ("time-series", ("signal",))


def test_a_folder_of_tables_is_one_table(workspace: Workspace, tmp_path: Path) -> None:
    for i in range(6):
        data.review_csv(tmp_path / "set" / ("good" if i % 2 else "mixed") / f"part{i}.csv", 10, seed=i)
    (tmp_path / "set" / "mixed" / "broken.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    manifest = data.ingest(workspace, "set", source=tmp_path / "set", label="label", group_by="folder")
    report = version(workspace.database, "set").report
    assert sum(manifest.splits.values()) == report["ok"] == 60
    assert report["partial"] + report["error"] == 1
    assert {row["group_key"] for row in rows_of(workspace)} == {"good", "mixed"}


def test_no_source_at_all_is_refused_before_a_job_exists(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").touch()
    one = store_inline_rows(workspace, [{"a": 1}])
    cases = {
        "There is no file": IngestSpec(name="set", source=tmp_path / "missing"),
        "holds no files": IngestSpec(name="set", source=tmp_path / "empty"),
        "is empty": IngestSpec(name="set", source=tmp_path / "empty.csv"),
        "rows is empty": IngestSpec(name="set", rows=store_inline_rows(workspace, [])),
        "Neither source nor rows": IngestSpec(name="set"),
        "cannot name a dataset": IngestSpec(name="a b", rows=one),
        "no modality 'imag'": IngestSpec(name="set", rows=one, modality="imag"),
    }
    for message, spec in cases.items():
        with pytest.raises(SpeciateError, match=message) as raised:
            KIND.plan(spec, workspace)
        assert raised.value.recovery


def test_a_fault_in_the_content_is_one_clear_error(workspace: Workspace, tmp_path: Path) -> None:
    source = data.review_csv(tmp_path / "rows.csv", 20)
    assert "did you mean 'label'" in refusal(workspace, source=source, label="lable").message
    assert "must not see it" in refusal(workspace, source=source, label="label", inputs=("label",)).message
    assert "neither a column" in refusal(workspace, source=source, label="label", group_by="patient").message
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)) * 4)
    assert refusal(workspace, source=tmp_path / "bytes.csv").code is Code.INVALID
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no parquet PAR1")
    assert "broken.parquet" in refusal(workspace, source=tmp_path / "broken.parquet").message
    (tmp_path / "odd.qqq").write_bytes(b"\x01\x02")
    assert "No modality fits" in refusal(workspace, source=tmp_path / "odd.qqq").message
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"words")
    assert (
        "None of the 1 items can be used; the log of the job has the most frequent reasons."
        in refusal(workspace, source=tmp_path / "bad").message
    )


def test_a_link_does_not_lead_out_of_the_source(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "set", 20, classes=2)
    outside = tmp_path / "outside.png"
    outside.write_bytes(next((folder / "0").iterdir()).read_bytes())
    (folder / "0" / "link.png").symlink_to(outside)
    data.ingest(workspace, "set", source=folder, label="folder")
    found = {row["source"]: row for row in rows_of(workspace)}
    assert found["0/link.png"]["reason"] == "A link that leads out of the source."
    assert found["0/link.png"]["_content"] is None


def test_lines_that_are_not_utf8_are_rows_of_quality_error(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    lines = [f"a film number {i},{'good' if i % 2 else 'bad'}".encode() for i in range(450)]
    for place in (3, 100, 449):
        lines[place] = b"caf\xe9 " + lines[place]
    lines[50] = b'"two\nlines",good'
    path.write_bytes(b"text,label\n" + b"\n".join(lines) + b"\n")
    data.ingest(workspace, "set", source=path, label="label")
    found = rows_of(workspace)
    assert Counter(row["quality"] for row in found) == {"ok": 447, "error": 3}
    reasons = {row["reason"] for row in found if row["quality"] == "error"}
    assert reasons == {"line 5 is not UTF-8", "line 103 is not UTF-8", "line 452 is not UTF-8"}


def test_a_file_of_another_encoding_says_so(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_bytes(b"text,label\n" + b"ol\xe9,good\n" * 9)
    error = refusal(workspace, source=path, label="label")
    assert "not UTF-8, first at line 2; save it as UTF-8" in error.message


def test_one_damaged_table_among_many_costs_only_itself(workspace: Workspace, tmp_path: Path) -> None:
    """A header of nonsense brings no input, a file without rows is still counted, and so is one that is no table."""
    folder = tmp_path / "tables"
    folder.mkdir()
    for i in range(6):
        text = "a sentence that is long enough to be taken for a text number"
        (folder / f"good-{i}.csv").write_text("text,label\n" + "".join(f"{text} {i} {j},a\n" for j in range(5)))
    (folder / "header.csv").write_text("text,label\n")
    (folder / "nonsense.csv").write_text(f"{'x' * 40},{'y' * 40}\n" + f"{'long and strange words ' * 9},b\n")
    (folder / "torn.csv").write_bytes(b"text,label\n\xff\xfe\xfd" * 9)
    manifest = data.ingest(workspace, "tables", source=folder, label="label", modality="text")
    rows = version_rows.read(workspace.folders, manifest).to_pylist()
    assert manifest.inputs == ("text",)
    assert sum(row["quality"] == "ok" for row in rows) == 30
    assert {row["source"].partition("#")[0] for row in rows} == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["id", "name", "key"])
def test_an_object_that_is_called_like_a_key_is_no_input(name: str) -> None:
    table = pa.table({name: [{"first": str(i)} for i in range(30)], "x": range(30), "y": range(30)})
    assert choose_roles(table, "auto", (), ()) == ("tabular", ("x", "y"))


def test_a_version_with_new_groups_says_that_rows_keep_their_splits(workspace: Workspace) -> None:
    rows = tuple({"text": f"remark {n} {n * n}", "label": "ab"[n % 2], "author": f"a{n % 12}"} for n in range(240))
    given = {"label": "label", "modality": "text", "inputs": ("text",), "rows": rows}
    data.ingest(workspace, "set", **given)
    manifest = data.ingest(workspace, "set", group_by="author", **given)
    (said,) = [each for each in version(workspace.database, "set").report["warnings"] if "No usable" in each]
    assert "keep the split of the version before" in said
    data.run_job(workspace, "curate", dataset=manifest.ref, steps=[{"op": "split"}])
    assert version(workspace.database, "set").manifest.splits.keys() == {"train", "validation", "test"}


def test_a_split_has_the_asked_shares_also_of_what_comes_later(workspace: Workspace) -> None:
    rows = tuple({"text": f"remark {number}", "label": "ab"[number % 2]} for number in range(200))
    asked = {"test": 0.4, "train": 0.5, "validation": 0.1}
    given = {"label": "label", "modality": "text", "inputs": ("text",)}
    manifest = data.ingest(workspace, "set", rows=rows[:100], fractions=asked, **given)
    assert dict(manifest.splits) == {"train": 50, "validation": 10, "test": 40}
    report = version(workspace.database, "set").report["split"]
    assert report["fractions"] == {"train": 0.5, "validation": 0.1, "test": 0.4}
    assert report["made_by"].startswith("speciate: 50/10/40 train/validation/test")
    added = data.ingest(workspace, "set", rows=rows[100:], add=True)
    assert dict(added.splits) == {"train": 100, "validation": 20, "test": 80}
    again = data.ingest(workspace, "set", rows=rows, fractions=asked, **given)
    assert splits_by_text(workspace, again) == splits_by_text(workspace, added), "the same call moves nothing"
    unnamed = data.ingest(workspace, "set", rows=rows, **given)
    assert splits_by_text(workspace, unnamed) == splits_by_text(workspace, added), "nor does one that names none"
    other = data.ingest(workspace, "set", rows=rows, fractions={"train": 0.9, "test": 0.1}, **given)
    assert other.splits["test"] < 30, "other shares are dealt anew"


def splits_by_text(workspace: Workspace, manifest: Manifest) -> dict[str, str]:
    rows = version_rows.read(workspace.folders, manifest).to_pylist()
    return {row["text"]: row["split"] for row in rows}


@pytest.mark.parametrize("shares", [(0.06, 0.57, 0.37), (0.33, 0.33, 0.33), (0.7, 0.15, 0.15)])
def test_shares_that_were_checked_stay_as_they_are(shares: tuple[float, float, float]) -> None:
    once = checked_fractions(dict(zip(SPLITS, shares, strict=True)))
    assert checked_fractions(once) == once


@pytest.mark.parametrize(
    ("fractions", "why"),
    [
        ({"test": 0.3}, "sum to 0.3"),
        ({"exam": 1.0}, "no split 'exam'"),
        ({"train": 1.2, "test": -0.2}, "below 0"),
        ({}, "at least one"),
        ({"train": math.nan, "test": 0.5}, "not to 1"),
    ],
)
def test_shares_that_are_none_are_refused(fractions: dict[str, float], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        IngestSpec(name="set", rows="0" * 64, fractions=fractions)


def test_a_split_that_the_source_brings_is_kept_and_the_shares_are_told_to_be_unused(workspace: Workspace) -> None:
    rows = tuple(
        {"text": f"remark {number}", "label": "ab"[number % 2], "split": ("train", "test")[number % 4 == 0]}
        for number in range(40)
    )
    asked = {"train": 0.5, "test": 0.5}
    manifest = data.ingest(workspace, "set", rows=rows, label="label", inputs=("text",), fractions=asked)
    assert dict(manifest.splits) == {"train": 30, "test": 10}
    assert "'fractions' was not used" in str(version(workspace.database, "set").report["warnings"])


@pytest.mark.parametrize(
    ("modality", "cores", "installed", "expected"),
    [("text", 2, True, ("networks",)), ("text", 1, True, ()), ("text", 2, False, ()), ("tabular", 2, True, ())],
)
def test_texts_that_a_package_reads_are_likely_to_meet_a_network(
    modality: str, cores: int, installed: bool, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
    workspace: Workspace,
) -> None:  # fmt: skip
    monkeypatch.setattr(ingest, "cores", lambda: cores)
    monkeypatch.setattr(ingest.packaged, "installed", lambda name: installed)
    rows = store_inline_rows(workspace, [{"text": "a word", "kind": "a"}, {"text": "another", "kind": "b"}])
    assert ingest.plan(IngestSpec(name="set", rows=rows, modality=modality), workspace).preload_next == expected
