"""Files read as they are; several as one bundle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from speciate.datasets.ingest import raw_files
from speciate.datasets.ingest.raw_files import GONE, by_source_names, file_state, read_raw
from speciate.datasets.sources.listing import SourceFile
from speciate.modalities.bundles import members_of


def pair(folder: Path) -> SourceFile:
    (folder / "body").write_bytes(b"body")
    (folder / "head").write_bytes(b"head!")
    return SourceFile(folder, "pair", None, None, (("head", folder / "head"), ("body", folder / "body")))


def test_files_of_one_example_are_read_as_one_bundle(tmp_path: Path) -> None:
    file = pair(tmp_path)
    raw = read_raw(file, [str(tmp_path)])
    assert raw.data is not None
    assert members_of(raw.data) == {"head": b"head!", "body": b"body"}
    assert raw.sha256 == hashlib.sha256(raw.data).hexdigest()
    assert raw.state == file_state(file)
    assert raw.state.size == 9


def test_a_part_that_is_gone_or_lies_elsewhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    file = pair(tmp_path / "source")
    (tmp_path / "source" / "body").unlink()
    gone = read_raw(file, [str(tmp_path / "source")])
    assert (gone.data, gone.quality) == (None, "error")
    assert gone.reason == f"{GONE} It is 'body' of 2 files."
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "source" / "body").symlink_to(tmp_path / "secret")
    assert read_raw(file, [str(tmp_path / "source")]).quality == "refused"


def test_files_that_are_too_long_together_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_files, "LONGEST_FILE", 8)
    raw = read_raw(pair(tmp_path), [str(tmp_path)])
    assert (raw.data, raw.quality) == (None, "refused")
    assert raw.reason is not None
    assert "9 bytes" in raw.reason


def test_numbered_parts_are_called_as_their_source_calls_them() -> None:
    paths = [Path("/sent/a/IM 1"), Path("/sent/b/IM 1"), Path("/sent/IMcut")]
    parts = tuple((f"{number:05}.dcm", path) for number, path in enumerate(paths, 1))
    file = SourceFile(Path("/sent"), "series", None, None, parts)
    message = (
        "00003.dcm (instance 1): It is '00001.dcm'. And 2 more: 00001.dcm, 00002.dcm. Not 100001.dcm or 00001.dcmx."
    )
    assert by_source_names(message, file) == (
        "'IMcut' (instance 1): It is 'a/IM 1'. And 2 more: 'a/IM 1', 'b/IM 1'. Not 100001.dcm or 00001.dcmx."
    )
    assert by_source_names(None, file) is None
    words = SourceFile(Path("/sent"), "row", None, None, (("image", Path("/sent/1.png")),))
    assert by_source_names("image: no image.", words) == "image: no image."
