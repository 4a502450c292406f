from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.workspace import blobs as blob_files
from speciate.workspace.blobs import Blobs, make_folder

pytestmark = pytest.mark.durable


def test_a_blob_is_named_by_its_content_and_written_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    name = blobs.put(b"scan")
    written = blobs.path(name).stat().st_ino
    assert name == hashlib.sha256(b"scan").hexdigest()
    assert blobs.put(b"scan") == name
    assert blobs.path(name).stat().st_ino == written
    assert blobs.get(name) == b"scan"
    assert list(blobs) == [name]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [name]


def test_a_damaged_blob_is_not_handed_out(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    name = blobs.put(b"scan")
    blobs.path(name).write_bytes(b"scam")
    with pytest.raises(SpeciateError, match="is damaged") as caught:
        blobs.get(name)
    assert caught.value.code is Code.DAMAGED


def test_a_missing_blob_and_a_name_that_is_none_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SpeciateError) as caught:
        Blobs(tmp_path).get("0" * 64)
    assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(ValueError, match="not a sha256"):
        Blobs(tmp_path).get("../../etc/passwd")


def test_what_a_writer_left_half_done_is_no_blob(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    name = blobs.put(b"scan")
    (blobs.path(name).parent / f".{name}.1.abcd").write_bytes(b"sc")
    assert list(blobs) == [name]


def test_a_folder_that_is_made_where_another_was_gets_its_name_on_the_disk_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(blob_files, "sync_folder", synced.append)
    for _ in range(2):
        make_folder(tmp_path / "ab")
        make_folder(tmp_path / "ab")
        (tmp_path / "ab").rmdir()  # file systems give its inode to the next one
    assert synced == [tmp_path, tmp_path]
