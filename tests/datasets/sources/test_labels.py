"""A labels file beside images: which row is about which file, its split and its columns."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from speciate.datasets import version_rows
from speciate.datasets.sources.labels import order_labels
from speciate.datasets.sources.listing import SourceFile
from speciate.datasets.versions import Manifest, resolve, version
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data


def ingest(workspace: Workspace, folder: Path, rows: Iterable[Sequence[object]], **more: Any) -> Manifest:
    """The first row is the header, with `file` and `kind`."""
    path = folder.parent / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    labels = {"path": path, "key": "file", "column": "kind"} | more.pop("labels", {})
    return data.ingest(workspace, "set", source=folder, labels=labels, **more)


def table(workspace: Workspace) -> list[dict[str, Any]]:
    manifest = resolve(workspace.database, "set")
    rows: list[dict[str, Any]] = version_rows.read(workspace.folders, manifest).to_pylist()
    return rows


def test_its_split_is_kept_and_identical_content_across_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "set", 20, classes=2)
    paths = sorted(folder.rglob("*.png"))
    paths[15].write_bytes(paths[0].read_bytes())
    rows = [
        (path.name, "ab"[i % 2], "train" if i < 12 else "val" if i < 15 else "test") for i, path in enumerate(paths)
    ]
    manifest = ingest(workspace, folder, [("file", "kind", "split"), *rows])
    assert manifest.splits == {"train": 11, "validation": 3, "test": 5}
    assert version(workspace.database, "set").report["split"]["made_by"] == "the source"
    assert [row["split"] for row in table(workspace) if row["quality"] == "refused"] == ["train"]


def test_a_column_that_the_images_have_too_is_kept_beside(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "set", 20, classes=2)
    rows = [(path.name, "narrow" if i % 2 else "wide") for i, path in enumerate(sorted(folder.rglob("*.png")))]
    manifest = ingest(workspace, folder, [("file", "width"), *rows], labels={"column": "width"})
    assert manifest.labels == {"narrow": 10, "wide": 10}
    assert manifest.label == "user_width"
    assert {row["width"] for row in table(workspace)} == {8}


def test_keys_are_text_even_where_they_look_like_numbers(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "set", 20, classes=2)
    rows = [(path.stem, "ab"[i % 2]) for i, path in enumerate(sorted(folder.rglob("*.png")))]
    assert rows[0][0].startswith("0")
    assert ingest(workspace, folder, [("file", "kind"), *rows]).labels == {"a": 10, "b": 10}


def test_a_name_that_several_files_have_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "set", 20, classes=2)
    (folder / "1" / "0000.png").write_bytes((folder / "1" / "0001.png").read_bytes())
    with pytest.raises(SpeciateError, match=r"The key '0000\.png' of the labels file names 2 files") as raised:
        ingest(workspace, folder, [("file", "kind"), ("0000.png", "a")])
    assert "path below the source" in raised.value.recovery
    both = [("file", "kind"), ("0/0000.png", "a"), ("./1/0000.png", "b")]
    assert ingest(workspace, folder, both).labels == {"a": 1, "b": 1}


def test_a_key_in_several_rows_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "set", 20, classes=2)
    with pytest.raises(SpeciateError, match=r"several rows of the labels file, such as '0000.png'"):
        ingest(workspace, folder, [("file", "kind"), ("0000.png", "a"), ("0000.png", "b")])


def test_rows_without_a_key_are_counted_and_name_nothing() -> None:
    files = [SourceFile(Path(f"/set/{name}"), name, None, None) for name in ("a.png", "b.png")]
    rows = pa.table({"file": ["a.png", "", " ", None, "b.png"], "kind": list("12345")})
    found = order_labels(rows, "file", files, Path("/labels.csv"))
    assert found.table["kind"].to_pylist() == ["1", "5"]
    assert found.notes == ("'labels.csv': a row names no file, 3 times.",)


def test_a_packed_file_may_be_called_without_both_of_its_suffixes() -> None:
    files = [SourceFile(Path(f"/set/{name}"), name, None, None) for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz")]
    rows = pa.table({"scan": ["b", "a.nii", "c.nii.gz"], "kind": list("123")})
    assert order_labels(rows, "scan", files, Path("/labels.csv")).table["kind"].to_pylist() == ["2", "1", "3"]


def test_labels_for_a_table_need_a_key_that_both_have(workspace: Workspace, tmp_path: Path) -> None:
    source = data.review_csv(tmp_path / "reviews.csv", 20)
    with pytest.raises(SpeciateError, match=r"'reviews\.csv' has no such column; did you mean 'film'"):
        ingest(workspace, source, [("file", "kind"), ("a", "b")])
