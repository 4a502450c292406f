"""JSON and JSONL in the forms in which rows come."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.readers.json_records import read_json, read_jsonl
from speciate.datasets.readers.rows import REASON
from speciate.errors import SpeciateError


def found(path: Path, value: Any) -> list[dict[str, Any]]:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    rows: list[dict[str, Any]] = (read_jsonl if path.suffix == ".jsonl" else read_json)(path, ()).to_pylist()
    return rows


@pytest.mark.parametrize(
    "value",
    [
        [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
        {"version": 3, "data": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]},
        {"a": [1, 2], "b": ["x", "y"]},
    ],
    ids=["list", "one list within", "lists per column"],
)
def test_forms_of_json(tmp_path: Path, value: Any) -> None:
    assert found(tmp_path / "a.json", value) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_an_object_can_be_labels_by_key(tmp_path: Path) -> None:
    assert found(tmp_path / "a.json", {"1.png": "cat", "2.png": "dog"}) == [
        {"key": "1.png", "value": "cat"},
        {"key": "2.png", "value": "dog"},
    ]
    assert found(tmp_path / "a.json", {"1.png": {"kind": "cat"}})[0] == {"key": "1.png", "kind": "cat"}


def test_lines_that_are_no_objects_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n[1]\n{"a": \n{"a": "\xe9"}\n{"a": "\\ud800"}\n' + b"[" * 100_000 + b'\n{"a": 2}\n')
    rows = read_jsonl(path, ()).to_pylist()
    assert [row["a"] for row in rows if row[REASON] is None] == [1, 2]
    assert [row[REASON].split(":")[0] for row in rows if row[REASON]] == [
        f"Line {number} is not an object of JSON" for number in (3, 4, 5, 6, 7)
    ]


def test_keys_that_rows_lack_are_null_and_mixed_types_are_text(tmp_path: Path) -> None:
    rows = found(tmp_path / "a.jsonl", '{"a": 1, "b": 2}\n{"a": "x"}\n{"a": 12345678901234567890123}\n')
    assert rows == [{"a": "1", "b": 2}, {"a": "x", "b": None}, {"a": "12345678901234567890123", "b": None}]


def test_a_byte_order_mark_and_compression(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(json.dumps([{"a": "é"}]).encode("utf-8-sig"))
    assert read_json(tmp_path / "a.json", ()).to_pylist() == [{"a": "é"}]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n'))
    assert read_jsonl(tmp_path / "a.jsonl.gz", ()).to_pylist() == [{"a": 1}]


@pytest.mark.parametrize("text", ["", "nothing", "3", "{}", '{"a": [1], "b": [1, 2]}', '{"a": {"b": 1}, "c": 2}'])
def test_a_file_that_is_no_table_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpeciateError, match=r"'a\.json' cannot be read"):
        found(tmp_path / "a.json", text)


def test_coco_is_a_row_per_image_and_unusable_annotations_are_counted(tmp_path: Path) -> None:
    def box(image: int, category: int, *bbox: float) -> dict[str, Any]:
        return {"id": 0, "image_id": image, "category_id": category, "bbox": list(bbox), "iscrowd": 0}

    value = {
        "images": [
            {"id": 1, "file_name": "1.jpg", "width": 100, "height": 50},
            {"id": 2, "file_name": "2.jpg", "width": 100, "height": 50},
            {"id": 3, "file_name": "3.jpg"},
            {"id": 3, "file_name": "again.jpg"},
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            box(1, 7, 0, 0, 10, 10), box(1, 7, 95, 40, 20, 5), box(1, 7, 200, 0, 5, 5), box(1, 7, 1, 1, 0, 5),
            box(2, 7, 0, 0, 5, 5), box(2, 8, 0, 0, 100.5, 50), box(9, 7, 0, 0, 1, 1), box(9, 7, 0, 0, 1, 1),
            box(1, 9, 0, 0, 1, 1), {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3]},
            {"image_id": [1], "category_id": 7}, "nonsense",
        ],
    }  # fmt: skip
    rows = found(tmp_path / "a.json", value)
    images = {row["file_name"]: row for row in rows if row[REASON] is None}
    assert {name: row["label"] for name, row in images.items()} == {"1.jpg": "cat", "2.jpg": None, "3.jpg": None}
    assert [each["bbox"] for each in images["1.jpg"]["objects"]] == [[0, 0, 10, 10], [95, 40, 5, 5]]
    assert [each["category"] for each in images["2.jpg"]["objects"]] == ["cat", "dog"]
    assert images["3.jpg"]["objects"] == []
    assert {row[REASON] for row in rows if row[REASON]} == {
        "1 element(s) are no objects.",
        "1 image(s) have no file_name, no id, or the id of another.",
        "3 annotation(s) name an image that is not in the file.",
        "1 annotation(s) name a category that is not in the file.",
        "1 annotation(s) have no box of four numbers.",
        "1 box(es) are empty.",
        "1 box(es) lie outside of their image.",
        "1 box(es) reach beyond their image and were cut to it.",
    }


def test_coco_without_any_object(tmp_path: Path) -> None:
    value = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [], "categories": []}
    assert found(tmp_path / "a.json", value) == [{"file_name": "1.jpg", "objects": [], "label": None}]
