"""Which task a dataset without a label is made for, by its modality and the names and types of its columns."""

from __future__ import annotations

import pyarrow as pa
import pytest

from speciate.datasets.columns import type_name
from speciate.datasets.readers.coco import category_names, with_listed_objects
from speciate.datasets.targets import holds_boxes, natural_target

BOXES = pa.array([[{"category": "cat", "bbox": [1.0, 2.0, 3.0, 4.0]}], []])


def test_boxes_are_known_by_their_type_and_by_its_name() -> None:
    nothing = pa.array([[], []], pa.list_(pa.null()))
    named = pa.array([[{"category": "cat"}]])
    for column, expected in ((BOXES, True), (nothing, False), (named, False), (pa.array(["x"]), False)):
        assert holds_boxes(column.type) is expected
        assert holds_boxes(type_name(column.type)) is expected
    assert holds_boxes(None) is False


@pytest.mark.parametrize(
    ("modality", "inputs", "columns", "task", "column"),
    [
        ("image", (), {"objects": type_name(BOXES.type), "caption": "VARCHAR"}, "object-detection", "objects"),
        ("image", (), {"mask": "VARCHAR"}, "image-segmentation", "mask"),
        ("nifti", (), {"mask": "VARCHAR"}, "volume-segmentation", "mask"),
        ("image", (), {"text": "VARCHAR"}, "image-text-to-text", "text"),
        ("audio", (), {"sentence": "VARCHAR", "seconds": "DOUBLE"}, "automatic-speech-recognition", "sentence"),
        ("text", ("prompt",), {"prompt": "VARCHAR", "response": "VARCHAR"}, "text-generation", "response"),
        ("episode", (), {"steps": "BIGINT"}, "behaviour-cloning", None),
    ],
)
def test_columns_tell_the_task(
    modality: str, inputs: tuple[str, ...], columns: dict[str, str], task: str, column: str | None
) -> None:
    found = natural_target(modality, inputs, columns)
    assert found is not None
    assert (found.task, found.column) == (task, column)


def test_an_input_is_no_target_and_other_columns_tell_nothing() -> None:
    assert natural_target("text", ("text",), {"text": "VARCHAR", "kind": "VARCHAR"}) is None
    assert natural_target("text", ("answer",), {"answer": "VARCHAR"}) is None
    assert natural_target("image", (), {"width": "BIGINT", "objects": "VARCHAR"}) is None
    assert natural_target("tabular", ("mask",), {"mask": "VARCHAR"}) is None


def test_parallel_lists_become_objects() -> None:
    table = pa.table({"objects": [{"bbox": [[0, 0, 2, 2], [1, 1, 3, 3]], "categories": [1, 0], "area": [4, 9]}, None]})
    (cell, missing) = with_listed_objects(table, ["cat", "dog"])["objects"].to_pylist()
    assert cell == [
        {"category": "dog", "bbox": [0, 0, 2, 2], "area": 4},
        {"category": "cat", "bbox": [1, 1, 3, 3], "area": 9},
    ]
    assert missing is None
    assert holds_boxes(with_listed_objects(table)["objects"].type)
    other = pa.table({"objects": ["x"]})
    assert with_listed_objects(other) is other


def test_class_names_of_the_hub_are_found_at_any_depth() -> None:
    labels = {"_type": "ClassLabel", "names": ["cat", "dog"]}
    for feature in (
        {"category": {"_type": "Sequence", "feature": labels}},
        {"_type": "Sequence", "feature": {"category": labels, "bbox": {}}},
        [{"category": labels}],
    ):
        assert category_names(feature) == ["cat", "dog"]
    assert category_names({"bbox": {}}) == category_names(None) == []
