"""Label Studio's JSON export: what people said, as columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.readers.json_records import read_json
from speciate.datasets.readers.rows import REASON
from speciate.datasets.versions import version
from speciate.workspace.workspace import Workspace
from tests import data

SIZE = {"original_width": 200, "original_height": 100}


def said(kind: str, value: Any, name: str = "tag", **more: Any) -> dict[str, Any]:
    return {"from_name": name, "to_name": "text", "type": kind, "value": value, **more}


def task(data: dict[str, Any], *people: Any) -> dict[str, Any]:
    annotations = [each if isinstance(each, dict) else {"result": each} for each in people]
    return {"id": 7, "data": data, "annotations": annotations, "predictions": [{"result": []}]}


def choices(*names: str) -> list[dict[str, Any]]:
    return [said("choices", {"choices": list(names)})]


def read(path: Path, *found: Any) -> tuple[list[dict[str, Any]], list[str]]:
    (path / "tasks.json").write_text(json.dumps(found))
    rows: list[dict[str, Any]] = read_json(path / "tasks.json", ()).to_pylist()
    good = [{k: v for k, v in row.items() if k != REASON} for row in rows if not row.get(REASON)]
    return good, [row[REASON] for row in rows if row.get(REASON)]


def test_what_most_people_say_and_ground_truth_first(tmp_path: Path) -> None:
    a, b = choices("a"), choices("b")
    found, reasons = read(
        tmp_path,
        task({"text": "x"}, a, b, a),
        task({"text": "y"}, a, {"result": b, "ground_truth": True}),
        task({"text": "z"}, a, b),
        task({"text": "skipped"}, {"result": a, "was_cancelled": True}),
    )
    assert [row["tag"] for row in found] == ["a", "b", None, None]
    assert reasons == ["1 task(s) have a tie about 'tag': the cell is empty."]


def test_choices_are_lists_where_any_task_has_several(tmp_path: Path) -> None:
    found, _ = read(tmp_path, task({"text": "x"}, choices("b", "a")), task({"text": "y"}, choices("b")))
    assert [row["tag"] for row in found] == [["a", "b"], ["b"]]


def test_spans_become_a_tag_for_each_word(tmp_path: Path) -> None:
    span = {"start": 4, "end": 15, "text": "Ada Lovelac", "labels": ["PER"]}
    after = {"start": 17, "end": 21, "text": "Ada ", "labels": ["PER"]}
    found, _ = read(
        tmp_path,
        task({"text": "Met Ada Lovelace Ada here"}, [said("labels", span), said("labels", after)]),
        task({"text": "Met nobody"}, []),
    )
    assert [row["tag"] for row in found] == [["O", "B-PER", "I-PER", "B-PER", "O"], ["O", "O"]]


def test_boxes_and_outlines_are_pixels(tmp_path: Path) -> None:
    box = {"x": 10.0, "y": 20.0, "width": 50.0, "height": 90.0, "rotation": 0, "rectanglelabels": ["car"]}
    outline = {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["roof"]}
    found, reasons = read(
        tmp_path,
        task({"image": "/data/local-files/?d=street/1.png"}, [
            said("rectanglelabels", box, **SIZE), said("polygonlabels", outline, **SIZE),
            said("rectanglelabels", box | {"rotation": 30}, **SIZE), said("brushlabels", {"rle": [1]}, **SIZE),
        ]),
        task({"image": "/data/upload/3/1a2b-2.png"}, []),
        task({"image": "s3://bucket/3.png"}),
    )  # fmt: skip
    assert [row["image"] for row in found] == ["street/1.png", "upload/3/1a2b-2.png", "s3://bucket/3.png"]
    first, second, third = (row["objects"] for row in found)
    assert [each["bbox"] for each in first] == [[20.0, 20.0, 100.0, 80.0], [0.0, 0.0, 100.0, 50.0]]  # cut to the image
    assert [each["area"] for each in first] == [8000.0, 2500.0]
    assert json.loads(first[1]["segmentation"]) == [[0.0, 0.0, 100.0, 0.0, 100.0, 50.0]]
    assert (second, third) == ([], None)  # nothing there, and nobody looked
    assert sorted(reasons) == [
        "1 annotation(s) are of the type 'brushlabels', which is not read.",
        "1 annotation(s) are turned boxes, which are not read.",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        said("choices", {"choices": []}), said("rating", {"rating": "many"}), said("labels", {"start": 1}),
        said("rectanglelabels", {"x": 1}), {"type": "choices"}, 3, None,
        said("rectanglelabels", {"x": 1, "y": 1, "width": 1, "height": 1, "rectanglelabels": ["a"]},
             original_width=1e308, original_height=1e308),
    ],
)  # fmt: skip
def test_a_broken_annotation_is_told_and_the_others_stay(tmp_path: Path, wrong: Any) -> None:
    other = wrong | {"from_name": "other"} if isinstance(wrong, dict) else wrong
    found, reasons = read(tmp_path, task({"text": "x"}, [*choices("a"), other]))
    assert found[0]["tag"] == "a"
    assert len(reasons) == 1
    assert reasons[0].startswith("1 annotation(s) ")


def test_an_export_beside_its_images_is_a_dataset_of_boxes(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "export"
    folder = data.digit_folder(root / "upload", 20, classes=2)
    box = {"x": 25.0, "y": 25.0, "width": 50.0, "height": 50.0, "rectanglelabels": ["ink"]}
    seen = {"original_width": 8, "original_height": 8}
    names = [str(path.relative_to(root)) for path in sorted(folder.rglob("*.png"))]
    tasks = [task({"image": f"/data/{name}"}, [said("rectanglelabels", box, **seen)]) for name in names]
    (root / "tasks.json").write_text(json.dumps(tasks))
    manifest = data.ingest(workspace, "boxes", source=root)
    assert (manifest.modality, manifest.rows) == ("image", 20)
    assert "object-detection" in str(version(workspace.database, "boxes").report["warnings"])
