"""What is exported and made a dataset again is the same version, in every format that can carry all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets import scan
from speciate.datasets.versions import Manifest
from speciate.workspace.workspace import Workspace
from tests import data

Source = Callable[[Workspace, Path], Manifest]


def pictures(workspace: Workspace, folder: Path) -> Manifest:
    source = data.digit_folder(folder / "digits", 30, classes=3)
    (source / "0" / "größe ☃.png").write_bytes(next((source / "0").glob("0*.png")).read_bytes())
    return data.ingest(workspace, "digits", source=source, label="folder")


def texts_of_a_table(workspace: Workspace, folder: Path) -> Manifest:
    rows = data.review_rows(40)
    rows[0]["film"], rows[1]["text"] = "007", 'Quotes ", commas,\r\nlines, 你好 and an emoji \N{SNOWMAN}.'
    return data.ingest(workspace, "reviews", rows=tuple(rows), label="label", group_by="film")


def texts_in_files(workspace: Workspace, folder: Path) -> Manifest:
    for i, row in enumerate(data.review_rows(20)):
        path = folder / "texts" / str(row["label"]) / f"{i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"\ufeff{row['text']}", encoding="utf-8")
    return data.ingest(workspace, "texts", source=folder / "texts", label="folder", modality="text")


def measurements(workspace: Workspace, folder: Path) -> Manifest:
    return data.ingest(workspace, "tumours", source=data.tumour_csv(folder / "t.csv", 60), label="diagnosis")


def fractions(workspace: Workspace, folder: Path) -> Manifest:
    rows = tuple({"x": i, "z": i / 3, "flag": i % 3 == 0, "y": i / 7} for i in range(40))
    return data.ingest(workspace, "fractions", rows=rows, label="y")


def series(workspace: Workspace, folder: Path) -> Manifest:
    return data.ingest(workspace, "moves", source=data.series_ts(folder / "moves", 30), label="label")


def peptides(workspace: Workspace, folder: Path) -> Manifest:
    return data.ingest(workspace, "peptides", source=data.peptide_fasta(folder / "p.fasta", 40), label="kind")


CASES = [
    *((pictures, name) for name in ("folder", "parquet", "hf")),
    (texts_in_files, "folder"),
    *((texts_of_a_table, name) for name in ("parquet", "csv", "jsonl", "hf")),
    *((measurements, name) for name in ("parquet", "csv")),
    *((fractions, name) for name in ("csv", "jsonl", "hf")),
    *((series, name) for name in ("parquet", "jsonl")),
    (peptides, "csv"),
]


def export(workspace: Workspace, dataset: str, format_: str, path: Path) -> dict[str, Any]:
    return data.run_job(workspace, "export", dataset=dataset, format=format_, path=path)


@pytest.mark.parametrize(("source", "format_"), CASES, ids=[f"{source.__name__}-{name}" for source, name in CASES])
def test_the_same_version_comes_back(source: Source, format_: str, workspace: Workspace, tmp_path: Path) -> None:
    made = source(workspace, tmp_path)
    report = export(workspace, made.name, format_, tmp_path / "out")["report"]
    again = data.ingest(workspace, "again", **report["create_again"])
    assert again.id == made.id
    assert (again.modality, again.inputs, again.splits) == (made.modality, made.inputs, made.splits)


@pytest.mark.parametrize("format_", ["csv", "hf"])
def test_texts_in_files_come_back_as_a_column(format_: str, workspace: Workspace, tmp_path: Path) -> None:
    """Their bytes differ from the text (a mark of the encoding), so that the version is another one."""
    made = texts_in_files(workspace, tmp_path)
    report = export(workspace, made.name, format_, tmp_path / "out")["report"]
    again = data.ingest(workspace, "again", **report["create_again"])
    assert (again.inputs, again.splits, again.labels) == (("text",), made.splits, made.labels)
    found = scan.read(workspace.folders, again, ["text"])["text"].to_pylist()
    assert sorted(found) == sorted(row["text"] for row in data.review_rows(20))


def test_peptides_come_back_from_fasta_with_label_and_split_in_the_header(workspace: Workspace, tmp_path: Path) -> None:
    made = peptides(workspace, tmp_path)
    report = export(workspace, made.name, "fasta", tmp_path / "out")["report"]
    again = data.ingest(workspace, "again", **report["create_again"])
    wanted = ["sequence", "label", "split"]
    old, new = (scan.read(workspace.folders, each, wanted).to_pylist() for each in (made, again))
    assert sorted(map(str, new)) == sorted(map(str, old))


@pytest.mark.parametrize("format_", ["csv", "hf"])
def test_one_split_keeps_its_name(format_: str, workspace: Workspace, tmp_path: Path) -> None:
    made = measurements(workspace, tmp_path)
    report = export(workspace, f"{made.ref}:test", format_, tmp_path / "out")["report"]
    assert report["splits"] == {"test": made.splits["test"]}
    again = data.ingest(workspace, "again", **report["create_again"])
    assert again.splits == {"test": made.splits["test"]}
