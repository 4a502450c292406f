"""What names of files and folders mean."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from speciate.datasets.readers.formats import Reader
from speciate.datasets.sources import listing as walking
from speciate.datasets.sources.listing import (
    DetectedLayout,
    SourceFile,
    detect_layout,
    find_source_files,
    name_below,
    named_files,
    walk_folder,
)
from speciate.datasets.versions import version
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data


def laid_out(source: Path, modality: str = "auto") -> DetectedLayout:
    files = named_files(
        [(path, name_below(source, path)) for path in find_source_files(source, source / "nowhere").files]
    )
    return detect_layout(source, files, modality, Reader())


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
    assert [name for name, _ in found.excluded] == ["c.bin", "d.txt"]


def test_links_are_followed_inside_alone_and_never_in_circles(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.png").write_bytes(b"x")
    (tmp_path / "outside.png").write_bytes(b"x")
    (folder / "inside.png").symlink_to(folder / "a" / "1.png")
    (folder / "outside.png").symlink_to(tmp_path / "outside.png")
    (folder / "nothing.png").symlink_to(folder / "nowhere.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "a" / "up").symlink_to(folder)
    found = walk_folder(folder)
    assert [path.relative_to(folder).as_posix() for path in found.files] == ["a/1.png", "inside.png"]
    assert dict(found.excluded) == {
        "outside.png": "A link that leads out of the source.", "nothing.png": "A link to nothing.",
        "circle.png": "A link that leads in a circle.", "a/up": "A link to a folder.",
    }  # fmt: skip
    assert dict(walk_folder(folder, links=False).excluded)["inside.png"] == "A link."


def test_pipes_and_sockets_are_excluded_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # paths of sockets are short
    os.mkfifo("pipe.png")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.png")
        found = walk_folder(tmp_path)
    assert not found.files
    assert dict(found.excluded) == {"pipe.png": "It is a pipe.", "socket.png": "It is a socket."}


def test_a_name_that_is_not_utf8_is_excluded_in_a_form_that_is(tmp_path: Path) -> None:
    (tmp_path / "größe ☃.png").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(b"x")
    found = walk_folder(tmp_path)
    assert [path.name for path in found.files] == ["größe ☃.png"]
    assert found.excluded == [("caf\\xe9.png", "Its name is not UTF-8.")]


def test_paths_longer_than_the_system_takes_end_the_way_down(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=here)
        deeper = os.open("n" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    (tmp_path / "a.png").write_bytes(b"x")
    found = walk_folder(tmp_path)
    assert [path.name for path in found.files] == ["a.png"]
    assert [reason for _, reason in found.excluded] == ["The folder cannot be read: File name too long."]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_are_excluded(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch(mode=0)
    (tmp_path / "closed").mkdir(mode=0)
    reasons = dict(walk_folder(tmp_path).excluded)
    (tmp_path / "closed").chmod(0o700)
    assert reasons == {
        "a.png": "It may not be read by this user.", "closed": "The folder cannot be read: Permission denied.",
    }  # fmt: skip


def test_hidden_files_and_cards_are_passed_over(tmp_path: Path) -> None:
    for name in (".hidden", "README.md", "LICENSE", "__MACOSX/a.png", ".git/a.png", "readable.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = walk_folder(tmp_path)
    assert ([path.name for path in found.files], found.excluded) == (["readable.png"], [])
    assert found.about == ["LICENSE", "README.md"]


def test_only_texts_are_about_the_data_and_they_are_counted(tmp_path: Path) -> None:
    examples = ["car/License.png", "cylinder/readme.stl", "notice/a.png", "notice.csv", "readme.txt.png"]
    about = ["COPYING", "car/readme.TXT", "licence.pdf", "x/ReadMe.rst"]
    for name in (*examples, *about):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = walk_folder(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.files] == examples
    assert (found.about, found.excluded) == (about, [])


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MOST_FILES", 3)
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    with pytest.raises(SpeciateError, match="more than 3 files"):
        walk_folder(tmp_path)
