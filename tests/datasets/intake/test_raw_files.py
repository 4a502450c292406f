"""Files read as they are; several as one bundle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from speciate.datasets.intake import raw_files
from speciate.datasets.intake.raw_files import GONE, facts_of, read_raw
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
    assert raw.facts == facts_of(file)
    assert raw.facts.size == 9


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
