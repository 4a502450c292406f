"""COCO's annotations as a row per image: `file_name`, `objects`, and `label` if all objects of an image share one
category. Annotations without an image, a category or a usable box are counted with the reason.

Data of the hub have the objects of an image as parallel lists (`{bbox: [...], category: [...]}`); they become the same
`objects`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict, TypeGuard

import pyarrow as pa

OBJECTS = "objects"
"""The column with the objects of each image."""
_BOX = "bbox"
_CATEGORIES = ("category", "categories", "category_name", "label", "labels", "category_id")
"""Names of the list of categories among parallel lists."""
_TOLERANCE = 1.0  # pixels that a box may reach beyond its image: tools round differently


class BoxedObject(TypedDict):
    """One of the `objects` of an image."""

    category: str
    bbox: list[float]
    """x, y, width, height in pixels."""
    area: float
    iscrowd: bool
    segmentation: str | None
    """JSON."""


class ImageRow(TypedDict):
    file_name: str
    objects: list[BoxedObject]
    label: str | None
    """The category, where all objects share one."""
    captions: NotRequired[list[str]]


class Images(NamedTuple):
    rows: list[ImageRow]
    reasons: list[str]
    """A sentence for every kind of unused annotation, with its count."""


def is_coco(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(found.get(key), list) for key in ("images", "annotations"))


def images(found: Mapping[str, object]) -> Images:
    """`found`: for which `is_coco` holds."""
    faults = Counter[str]()
    categories = {_key(each.get("id")): str(each.get("name")) for each in _dicts(found.get("categories"), faults)}
    categories.pop(None, None)
    rows: dict[Any, ImageRow] = {}
    sizes: dict[Any, tuple[float, float] | None] = {}
    for image in _dicts(found["images"], faults):
        key, name = _key(image.get("id")), image.get("file_name")
        if key is None or not isinstance(name, str) or key in rows:
            faults["image(s) have no file_name, no id, or the id of another"] += 1
            continue
        rows[key] = {"file_name": name, "objects": [], "label": None}
        sizes[key] = _size(image)
    for annotation in _dicts(found["annotations"], faults):
        key = _key(annotation.get("image_id"))
        if key not in rows:
            faults["annotation(s) name an image that is not in the file"] += 1
        elif isinstance(caption := annotation.get("caption"), str):
            rows[key].setdefault("captions", []).append(caption)
        elif (category := _key(annotation.get("category_id"))) not in categories:
            faults["annotation(s) name a category that is not in the file"] += 1
        elif (box := _box(annotation.get("bbox"), sizes[key], faults)) is not None:
            rows[key]["objects"].append(_object(annotation, categories[category], box))
    for row in rows.values():
        names = {each["category"] for each in row["objects"]}
        row["label"] = names.pop() if len(names) == 1 else None
    return Images(list(rows.values()), [f"{count:,} {what}." for what, count in faults.items()])


def _object(annotation: Mapping[str, object], category: str, box: list[float]) -> BoxedObject:
    outline, area = annotation.get("segmentation"), annotation.get("area")
    return {
        "category": category,
        "bbox": box,
        "area": float(area) if _is_finite(area) else box[2] * box[3],
        "iscrowd": bool(annotation.get("iscrowd")),
        "segmentation": json.dumps(outline) if outline else None,
    }


def _box(value: Any, size: tuple[float, float] | None, faults: Counter[str]) -> list[float] | None:
    """The box, cut to the image; None if nothing of it is left."""
    if not isinstance(value, list) or len(value) != 4 or not all(_is_finite(number) for number in value):
        faults["annotation(s) have no box of four numbers"] += 1
        return None
    x, y, width, height = map(float, value)
    if width <= 0 or height <= 0:
        faults["box(es) are empty"] += 1
        return None
    if size is None:
        return [x, y, width, height]
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + width, size[0]), min(y + height, size[1])
    if right <= left or bottom <= top:
        faults["box(es) lie outside of their image"] += 1
        return None
    if max(left - x, top - y, x + width - right, y + height - bottom) <= _TOLERANCE:
        return [x, y, width, height]
    faults["box(es) reach beyond their image and were cut to it"] += 1
    return [left, top, right - left, bottom - top]


def _size(image: Mapping[str, object]) -> tuple[float, float] | None:
    width, height = image.get("width"), image.get("height")
    return (float(width), float(height)) if _is_finite(width) and _is_finite(height) else None


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _key(value: Any) -> Any:
    """An id that can be looked up."""
    return value if isinstance(value, int | str) else None


def _dicts(values: Any, faults: Counter[str]) -> list[Mapping[str, object]]:
    if not isinstance(values, list):
        return []
    found: list[Mapping[str, object]] = [value for value in values if isinstance(value, dict)]
    if lost := len(values) - len(found):
        faults["element(s) are no objects"] += lost
    return found


def with_listed_objects(table: pa.Table, names: Sequence[str] = ()) -> pa.Table:
    """The table with a column `objects` of parallel lists as a list of objects; any other table as it is.

    `names`: of the categories that are numbers.
    """
    place = table.schema.get_field_index(OBJECTS)
    if place < 0 or (category := _category_list(table.schema.field(place).type)) is None:
        return table
    cells = [_listed(cell, category, names) for cell in table.column(place).to_pylist()]
    return table.set_column(place, OBJECTS, pa.array(cells))


def _category_list(kind: pa.DataType) -> str | None:
    """The field with the categories, if the type is an object of parallel lists with boxes."""
    if not pa.types.is_struct(kind):
        return None
    lists = [field.name for field in kind if pa.types.is_list(field.type) or pa.types.is_large_list(field.type)]
    return next((name for name in _CATEGORIES if name in lists), None) if _BOX in lists else None


def _listed(
    cell: Mapping[str, object] | None, category: str, names: Sequence[str]
) -> list[Mapping[str, object]] | None:
    if cell is None:
        return None
    lists = {name: values for name, values in cell.items() if isinstance(values, list)}
    count = min(len(lists[name]) if name in lists else 0 for name in (_BOX, category))
    others = [name for name in lists if name not in (_BOX, category) and len(lists[name]) >= count]
    return [
        {
            "category": _category_name(lists[category][i], names),
            _BOX: lists[_BOX][i],
            **{name: lists[name][i] for name in others},
        }
        for i in range(count)
    ]


def _category_name(value: Any, names: Sequence[str]) -> str:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else str(value)


def category_names(feature: Any) -> list[str]:
    """The names of categories in the description of a column by `datasets`; empty if it tells none."""
    if isinstance(feature, list):
        feature = feature[0] if feature else None
    if not isinstance(feature, dict):
        return []
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        return [str(name) for name in names] if isinstance(names, list) else []
    inner = [feature.get("feature"), *(feature.get(name) for name in _CATEGORIES)]
    return next((found for each in inner if (found := category_names(each))), [])
