"""What names of files and folders mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.datasets.sources import listing
from speciate.datasets.versions import version
from speciate.workspace.workspace import Workspace
from tests import data


def splits(folder: Path, *names: str) -> dict[str, str | None]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a,b\n1,2\n")
    return {file.name: file.split for file in listing(folder, "tabular").files}


@pytest.mark.parametrize("name", ["blood_test.csv", "test.csv", "dev.csv"])
def test_one_name_alone_is_no_split(tmp_path: Path, name: str) -> None:
    assert splits(tmp_path, name) == {name: None}
    assert listing(tmp_path / name, "auto").files[0].split is None


def test_two_names_are_splits_where_they_are_exactly_that(tmp_path: Path) -> None:
    names = ("Moves_TRAIN.csv", "dev.csv", "latest.csv", "contest.csv", "valid.csv")
    expected = ("train", "validation", None, None, "validation")
    assert splits(tmp_path, *names) == dict(zip(names, expected, strict=True))


def test_a_class_called_test_is_a_class(tmp_path: Path) -> None:
    splits(tmp_path, "test/a.csv", "control/b.csv")
    assert {(file.split, file.folder) for file in listing(tmp_path, "tabular").files} == {
        (None, "test"),
        (None, "control"),
    }


def test_classes_below_one_folder_train_are_classes(tmp_path: Path) -> None:
    splits(tmp_path, "train/cat/a.csv", "train/dog/b.csv")
    assert {(file.split, file.folder) for file in listing(tmp_path, "tabular").files} == {(None, "cat"), (None, "dog")}


def test_rows_without_a_split_are_reported(workspace: Workspace, tmp_path: Path) -> None:
    for i, name in enumerate(("train", "test", "extra")):
        data.review_csv(tmp_path / "set" / f"{name}.csv", 20, seed=i)
    manifest = data.ingest(workspace, "set", source=tmp_path / "set", label="label")
    assert set(manifest.splits) == {"train", "test"}
    assert version(workspace.database, "set").report["split"]["without_split"] == 20


def test_a_lone_file_named_like_a_split_gets_a_split_of_ours(workspace: Workspace, tmp_path: Path) -> None:
    manifest = data.ingest(workspace, "set", source=data.review_csv(tmp_path / "blood_test.csv"), label="label")
    assert set(manifest.splits) == {"train", "validation", "test"}
