"""Mixed rows in a call: what of them is a path, and what no model reads."""

from __future__ import annotations

import base64

import pytest

from speciate.errors import SpeciateError
from speciate.modalities.bundles import bundle, members_of
from speciate.modalities.contract import DecodeError
from speciate.modalities.mixed.multimodal import named_as
from speciate.production.mixed_inputs import parts_of_row
from tests.modalities.samples import photo

PARTS = ("scan.image", "report.text", "vitals.tabular")


def read(path: str) -> bytes:
    return f"what lies at {path}".encode()


def test_texts_and_rows_are_themselves_and_all_else_is_a_path() -> None:
    found = parts_of_row({"scan": "a.png", "report": "a.png", "vitals": {"age": 7}}, PARTS, read)
    assert found == {
        "scan.image": {"data": base64.b64encode(b"what lies at a.png").decode()},
        "report.text": {"value": "a.png"},
        "vitals.tabular": {"value": {"age": 7}},
    }
    at_paths = parts_of_row({"report": {"path": "a.txt"}, "vitals": {"path": "b.json"}}, PARTS, read)
    assert [list(cell) for cell in at_paths.values()] == [["data"], ["data"]]
    assert parts_of_row({"scan": None, "report": "x"}, PARTS, read) == {"report.text": {"value": "x"}}


def test_a_part_that_the_model_does_not_read_is_named() -> None:
    with pytest.raises(SpeciateError, match="did you mean 'report'"):
        parts_of_row({"reports": "x"}, PARTS, read)


def test_files_of_a_folder_are_parts_by_name_or_by_what_they_are() -> None:
    files = bundle({"scan.png": photo(), "notes.txt": b"of another name"})
    assert list(members_of(named_as(PARTS, files))) == ["report.text", "scan.image"]
    parts = bundle({"scan.image": photo()})
    assert named_as(PARTS, parts) == parts
    with pytest.raises(DecodeError, match="not clear which part"):
        named_as(PARTS, bundle({"what.bin": b"?"}))


def test_a_row_may_bring_the_parts_that_the_model_does_not_read() -> None:
    row = {"report": "x", "scan": "nowhere.png"}
    assert parts_of_row(row, ["report.text"], unread, ["scan.image"]) == {"report.text": {"value": "x"}}
    with pytest.raises(SpeciateError, match="names 'sound'"):
        parts_of_row(row | {"sound": "a.wav"}, ["report.text"], unread, ["scan.image"])
    with pytest.raises(SpeciateError, match="has only scan"):
        parts_of_row({"scan": "a.png"}, ["report.text"], unread, ["scan.image"])


def test_so_may_a_folder() -> None:
    files = bundle({"scan.png": photo(), "notes.txt": b"of another name"})
    assert list(members_of(named_as(["report.text"], files, ["scan.image"]))) == ["report.text"]
    several = ["scan.image", "scan_2.image"]
    assert list(members_of(named_as(["report.text"], files, several))) == ["report.text"]
    odd = bundle({"other.png": photo(), "notes.txt": b"which of the two pictures it is does not matter"})
    assert list(members_of(named_as(["report.text"], odd, several))) == ["report.text"]
    with pytest.raises(DecodeError, match="None of its files is a part that the model reads: report"):
        named_as(["report.text"], bundle({"scan.png": photo()}), ["scan.image"])


def unread(path: str) -> bytes:
    raise AssertionError(path)
