"""Folders as they really are: links, pipes, odd names, what may not be read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from speciate.datasets.sources import walk as walking
from speciate.datasets.sources.walk import walk
from speciate.errors import SpeciateError


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
    found = walk(folder)
    assert [path.relative_to(folder).as_posix() for path in found.files] == ["a/1.png", "inside.png"]
    assert dict(found.set_aside) == {
        "outside.png": "A link that leads out of the source.", "nothing.png": "A link to nothing.",
        "circle.png": "A link that leads in a circle.", "a/up": "A link to a folder.",
    }  # fmt: skip
    assert dict(walk(folder, links=False).set_aside)["inside.png"] == "A link."


def test_what_is_no_file_is_set_aside_without_waiting_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # paths of sockets are short
    os.mkfifo("pipe.png")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.png")
        found = walk(tmp_path)
    assert not found.files
    assert dict(found.set_aside) == {"pipe.png": "It is a pipe.", "socket.png": "It is a socket."}


def test_a_name_that_is_not_utf8_is_set_aside_in_a_form_that_is(tmp_path: Path) -> None:
    (tmp_path / "größe ☃.png").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(b"x")
    found = walk(tmp_path)
    assert [path.name for path in found.files] == ["größe ☃.png"]
    assert found.set_aside == [("caf\\xe9.png", "Its name is not UTF-8.")]


def test_paths_longer_than_the_system_takes_end_the_way_down(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=here)
        deeper = os.open("n" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    (tmp_path / "a.png").write_bytes(b"x")
    found = walk(tmp_path)
    assert [path.name for path in found.files] == ["a.png"]
    assert [reason for _, reason in found.set_aside] == ["The folder cannot be read: File name too long."]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch(mode=0)
    (tmp_path / "closed").mkdir(mode=0)
    reasons = dict(walk(tmp_path).set_aside)
    (tmp_path / "closed").chmod(0o700)
    assert reasons == {
        "a.png": "It may not be read by this user.", "closed": "The folder cannot be read: Permission denied.",
    }  # fmt: skip


def test_hidden_files_and_cards_are_passed_over(tmp_path: Path) -> None:
    for name in (".hidden", "README.md", "LICENSE", "__MACOSX/a.png", ".git/a.png", "readable.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = walk(tmp_path)
    assert ([path.name for path in found.files], found.set_aside) == (["readable.png"], [])
    assert found.about == ["LICENSE", "README.md"]


def test_only_texts_are_about_the_data_and_they_are_counted(tmp_path: Path) -> None:
    examples = ["car/License.png", "cylinder/readme.stl", "notice/a.png", "notice.csv", "readme.txt.png"]
    about = ["COPYING", "car/readme.TXT", "licence.pdf", "x/ReadMe.rst"]
    for name in (*examples, *about):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = walk(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.files] == examples
    assert (found.about, found.set_aside) == (about, [])


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MOST_FILES", 3)
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    with pytest.raises(SpeciateError, match="more than 3 files"):
        walk(tmp_path)
