"""Images, and per split a JSON of COCO's object detection made from a column `objects`.

`objects` holds what the hub's datasets for detection hold: a list of {bbox, category, ...}, or one object of parallel
lists; boxes are [x, y, width, height] in pixels.

A column of a detector's answers, a list of {box, label, score}, becomes COCO's result format beside it:
`annotations/predictions_SPLIT.json`, for `COCO.loadRes` of pycocotools. `instances_SPLIT.json` then holds `objects`
where the dataset has them, else images and categories alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speciate.datasets.exports.cells import as_json
from speciate.datasets.exports.file_names import UniqueNames
from speciate.datasets.exports.format import ExportContent, Piece, ReportProgress, WriteReport, has_files
from speciate.datasets.readers.coco import OBJECTS
from speciate.datasets.versions import Manifest

_CATEGORY = ("category", "categories", "category_name", "label", "category_id")
_KEPT = ("iscrowd", "segmentation")
"""Passed on as they are; a segmentation may be JSON in a cell of text."""
_SIZE = ("width", "height")


class Coco:
    name = "coco"
    again = "data"
    files = False
    once = False
    column = OBJECTS

    def misfit(self, manifest: Manifest) -> str | None:
        if manifest.modality != "image" or not has_files(manifest):
            return "COCO is about images that are files."
        return None

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        (folder / "data" / "annotations").mkdir(parents=True)
        there = OBJECTS in export.rows.column_names
        objects = [
            list(_objects(cell)) for cell in (export.rows[OBJECTS].to_pylist() if there else [None] * len(export.ids))
        ]
        column = export.column if export.column != OBJECTS else None
        answers = [list(_objects(cell)) for cell in export.rows[column].to_pylist()] if column else []
        called = sorted({_category(each) for some in (*objects, *answers) for each in some})
        categories = {name: number for number, name in enumerate(called, 1)}
        names, lost = UniqueNames(), 0
        for piece in export.pieces():
            images = list(_images(export, piece, folder / "data" / f"{piece.name}_images", names, progress))
            annotations = [
                _annotation(each, image["id"], categories) for image in images for each in objects[image["id"] - 1]
            ]
            boxed = [each for each in annotations if each is not None]
            lost += len(annotations) - len(boxed)
            document = {
                "images": images,
                "annotations": [{"id": number, **each} for number, each in enumerate(boxed, 1)],
                "categories": [{"id": number, "name": name} for name, number in categories.items()],
            }
            target = folder / "data" / "annotations" / f"instances_{piece.name}.json"
            target.write_text(as_json(document) + "\n", encoding="utf-8")
            if column is not None:
                found = [
                    _result(each, image["id"], categories) for image in images for each in answers[image["id"] - 1]
                ]
                results = [each for each in found if each is not None]
                lost += len(found) - len(results)
                target = target.with_name(f"predictions_{piece.name}.json")
                target.write_text(as_json(results) + "\n", encoding="utf-8")
        return WriteReport(notes=(f"{lost:,} objects without a box of four numbers were left out.",) if lost else ())


def _images(
    export: ExportContent, piece: Piece, folder: Path, names: UniqueNames, progress: ReportProgress
) -> Iterator[dict[str, Any]]:
    """Writes the images, each under a name that is unique in the whole export: COCO knows no folders."""
    assert export.media is not None
    folder.mkdir()
    sizes = piece.rows.select([name for name in _SIZE if name in piece.rows.column_names]).to_pylist()
    for row in range(piece.rows.num_rows):
        place = piece.start + row
        name = names.claim("", export.media.names[place])
        (folder / name).write_bytes(export.media.read(place))
        yield {"id": place + 1, "file_name": name, **(sizes[row] if sizes else {})}
        progress(1)


def _objects(cell: Any) -> Iterator[dict[str, Any]]:
    cell = _parse_json(cell)
    if isinstance(cell, list):
        yield from (each for each in cell if isinstance(each, dict))
    elif isinstance(cell, dict):
        lists = {name: values for name, values in cell.items() if isinstance(values, list)}
        count = min((len(values) for values in lists.values()), default=0)
        yield from ({name: values[i] for name, values in lists.items()} for i in range(count))


def _parse_json(cell: Any) -> Any:
    """What JSON in a cell of text says; None if it is none."""
    if not isinstance(cell, str):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return None


def _category(found: dict[str, Any]) -> str:
    return next((str(found[name]) for name in _CATEGORY if found.get(name) is not None), "object")


def _result(found: dict[str, Any], image: int, categories: dict[str, int]) -> dict[str, Any] | None:
    box, score = found.get("box", found.get("bbox")), found.get("score")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
        return None
    confidence = float(score) if isinstance(score, int | float) else 1.0
    return {"image_id": image, "category_id": categories[_category(found)], "bbox": box, "score": confidence}


def _annotation(found: dict[str, Any], image: int, categories: dict[str, int]) -> dict[str, Any] | None:
    box = found.get("bbox", found.get("box"))
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
        return None
    area = found.get("area")
    return {
        "image_id": image,
        "category_id": categories[_category(found)],
        "bbox": box,
        "area": box[2] * box[3] if area is None else area,
        "iscrowd": 0,
        **{name: _parse_json(found[name]) for name in _KEPT if found.get(name) is not None},
    }


COCO = Coco()
