"""Files and folders that a caller names: read as they are, without a link or anything that could block."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from speciate.errors import SpeciateError
from speciate.modalities.bundles import members_of
from speciate.production.caller_file import read


def test_a_folder_is_the_bundle_of_its_files(tmp_path: Path) -> None:
    for name in ("b", "a.mtl", ".hidden"):
        (tmp_path / name).write_text(name)
    assert members_of(read(tmp_path, 1000)) == {"a.mtl": b"a.mtl", "b": b"b"}


def test_a_folder_is_read_no_further_than_the_budget(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).write_bytes(bytes(100))
    os.chmod(tmp_path / "9", 0)  # never opened
    assert 250 < len(read(tmp_path, 250)) < 1000


@pytest.mark.parametrize("what", ["empty", "link", "linked", "pipe", "folder", "bytes"])
def test_what_is_no_folder_of_one_example_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    if what != "empty":
        (folder / "slice").write_text("a")
    if what == "link":
        (folder / "other").symlink_to(tmp_path)
    elif what == "pipe":
        os.mkfifo(folder / "pipe")
    elif what == "folder":
        (folder / "below").mkdir()
    elif what == "bytes":
        (folder / os.fsdecode(b"\xff")).write_text("a")
    elif what == "linked":
        (tmp_path / "way").symlink_to(folder)
        folder = tmp_path / "way"
    with pytest.raises(SpeciateError, match="cannot be read"):
        read(folder, 1000)
