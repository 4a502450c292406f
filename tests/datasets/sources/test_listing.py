"""What names of files and folders mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.datasets.sources.listing import LaidOut, SourceFile, lay_out, look, name_below, named_files
from speciate.datasets.sources.readers.choice import Reader
from speciate.datasets.versions import version
from speciate.workspace.workspace import Workspace
from tests import data


def laid_out(source: Path, modality: str = "auto") -> LaidOut:
    files = named_files([(path, name_below(source, path)) for path in look(source, source / "nowhere").files])
    return lay_out(source, files, modality, Reader())


def files_of(source: Path, modality: str = "tabular") -> list[SourceFile]:
    return laid_out(source, modality).listing.files


def splits(folder: Path, *names: str) -> dict[str, str | None]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a,b\n1,2\n")
    return {file.name: file.split for file in files_of(folder)}


@pytest.mark.parametrize("name", ["blood_test.csv", "test.csv", "dev.csv"])
def test_one_name_alone_is_no_split(tmp_path: Path, name: str) -> None:
    assert splits(tmp_path, name) == {name: None}
    assert files_of(tmp_path / name, "auto")[0].split is None


def test_two_names_are_splits_where_they_are_exactly_that(tmp_path: Path) -> None:
    names = ("Moves_TRAIN.csv", "dev.csv", "latest.csv", "contest.csv", "valid.csv")
    expected = ("train", "validation", None, None, "validation")
    assert splits(tmp_path, *names) == dict(zip(names, expected, strict=True))


def test_a_class_called_test_is_a_class(tmp_path: Path) -> None:
    splits(tmp_path, "test/a.csv", "control/b.csv")
    assert {(file.split, file.folder) for file in files_of(tmp_path)} == {
        (None, "test"),
        (None, "control"),
    }


def test_classes_below_one_folder_train_are_classes(tmp_path: Path) -> None:
    splits(tmp_path, "train/cat/a.csv", "train/dog/b.csv")
    assert {(file.split, file.folder) for file in files_of(tmp_path)} == {(None, "cat"), (None, "dog")}


def test_rows_without_a_split_are_reported(workspace: Workspace, tmp_path: Path) -> None:
    for i, name in enumerate(("train", "test", "extra")):
        data.review_csv(tmp_path / "set" / f"{name}.csv", 20, seed=i)
    manifest = data.ingest(workspace, "set", source=tmp_path / "set", label="label")
    assert set(manifest.splits) == {"train", "test"}
    assert version(workspace.database, "set").report["split"]["without_split"] == 20


def test_a_lone_file_named_like_a_split_gets_a_split_of_ours(workspace: Workspace, tmp_path: Path) -> None:
    manifest = data.ingest(workspace, "set", source=data.review_csv(tmp_path / "blood_test.csv"), label="label")
    assert set(manifest.splits) == {"train", "validation", "test"}


def test_shards_and_hyphens_name_splits(tmp_path: Path) -> None:
    names = ("data/train-00000-of-00002.csv", "data/test-00001-of-00002-0a1b.csv", "data/squad-validation.csv.gz")
    assert list(splits(tmp_path, *names).values()) == ["validation", "test", "train"]


def test_folders_that_all_share_mean_nothing(tmp_path: Path) -> None:
    splits(tmp_path, "pets/all/train2017/cat/a.csv", "pets/all/val2017/dog/a.csv")
    assert [(file.split, file.folder) for file in files_of(tmp_path)] == [("train", "cat"), ("validation", "dog")]


def test_one_folder_of_files_is_a_class(tmp_path: Path) -> None:
    splits(tmp_path, "cat/a.csv", "cat/b.csv")
    assert {file.folder for file in files_of(tmp_path)} == {"cat"}


RECORDING = "x,y\n" + "".join(f"{i},{i / 7}\n" for i in range(20))
LONG = "subject,time,x\n" + "".join(f"{i // 10},{i % 10},{i / 7}\n" for i in range(40))
TABLE = "age,city\n30,Rome\n"
BARE = "\n".join(f"{i},{i * i % 11}" for i in range(60))
TORN = BARE.replace("1", "?", 12)
MEDIA = ("media", "time-series")


@pytest.mark.parametrize(
    ("files", "modality", "expected"),
    [
        ({"a.csv": RECORDING, "b.csv": RECORDING}, "time-series", ("media", "time-series")),
        ({"a.csv": LONG, "b.csv": LONG}, "time-series", ("table", "time-series")),
        ({"X_TRAIN.csv": RECORDING, "X_TEST.csv": RECORDING}, "time-series", ("table", "time-series")),
        ({"a.csv": RECORDING}, "time-series", ("table", "time-series")),
        ({"a.csv": "", "b.csv": TORN, "c.csv": TORN, "d.csv": BARE, "e.csv": BARE}, "time-series", MEDIA),
        ({"a.csv": BARE, "b.csv": LONG, "c.csv": LONG}, "time-series", ("table", "time-series")),
        ({"a.csv": TABLE, "notes.txt": "words"}, "auto", ("table", "auto")),
        ({"a.txt": "words", "b.txt": "words", "labels.csv": TABLE}, "auto", ("media", "text")),
        ({"a.png": "x", "labels.json": "[]", "more.csv": TABLE}, "auto", ("table", "auto")),
        ({"a.png": "x", "labels.json": "[]", "more.csv": TABLE}, "image", ("media", "image")),
        ({"a.parquet": "x", "dataset_info.json": "{}", "state.json": "{}"}, "auto", ("table", "auto")),
    ],
)
def test_files_are_examples_or_hold_them(
    tmp_path: Path, files: dict[str, str], modality: str, expected: tuple[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = laid_out(tmp_path, modality).listing
    assert (found.layout, found.modality) == expected


def test_every_file_is_read_or_named_with_a_reason(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c.bin", "d.txt"):
        (tmp_path / name).write_text(TABLE)
    found = laid_out(tmp_path).listing
    assert [file.name for file in found.files] == ["a.csv", "b.csv"]
    assert [name for name, _ in found.set_aside] == ["c.bin", "d.txt"]
