"""Label Studio's JSON export as a row per task: its data, and a column for each of its labelling tags.

    choices                             the class; a list of classes in every row where any task has several
    taxonomy                            the path, joined by " / "
    rating, number                      a number
    textarea                            the text
    labels, hypertextlabels             a tag for each word between white space: B-NAME, I-NAME or O
    rectanglelabels, polygonlabels      `objects` as of COCO, in pixels

Where several people labelled a task, the one that is marked as ground truth counts, else what most of them say; of
words' tags and of objects, the last annotation. A tie leaves the cell empty and is told. Skipped annotations and
predictions do not count. The form: https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from speciate.datasets.readers.coco import OBJECTS, BoxedObject

_SPANS, _OUTLINES = ("labels", "hypertextlabels"), ("rectanglelabels", "polygonlabels")
_WORD = re.compile(r"\S+")
_UNTAGGED = "O"


class LabelledTasks(NamedTuple):
    rows: list[dict[str, Any]]
    reasons: list[str]
    """A sentence for every kind of annotation that is not used, with its count."""


def is_label_studio(found: Any) -> bool:
    """Whether every record is a task with its data and the annotations of people."""
    return (
        isinstance(found, list)
        and bool(found)
        and all(
            isinstance(each, dict) and isinstance(each.get("data"), dict) and isinstance(each.get("annotations"), list)
            for each in found
        )
    )


def labelled_tasks(found: Sequence[Mapping[str, Any]]) -> LabelledTasks:
    """`found`: for which `is_label_studio` holds."""
    faults = Counter[str]()
    labels = [_agreed(task, faults) for task in found]
    _fill_in_empty(found, labels)
    several = {name for each in labels for name, value in each.items() if _is_choices(value) and len(value) > 1}
    rows = []
    for task, each in zip(found, labels, strict=True):
        row = {str(name): _cell(value) for name, value in task["data"].items()}
        for name, value in each.items():
            one = value[0] if _is_choices(value) and name not in several else value
            row[f"{name}_label" if name in row else name] = list(one) if isinstance(one, tuple) else one
        rows.append(row)
    return LabelledTasks(rows, [f"{count:,} {what}." for what, count in faults.items()])


def _fill_in_empty(found: Sequence[Mapping[str, Any]], labels: Sequence[dict[str, Any]]) -> None:
    """Who marked nothing where others marked regions said that there are none."""
    boxed = any(OBJECTS in each for each in labels)
    regions = [region for task in found for each in _that_count(task["annotations"]) for region in each["result"]]
    spans = {
        (str(region["from_name"]), str(region.get("to_name")))
        for region in regions
        if isinstance(region, dict) and region.get("type") in _SPANS and region.get("from_name")
    }
    for task, each in zip(found, labels, strict=True):
        if not _that_count(task["annotations"]):
            continue
        if boxed:
            each.setdefault(OBJECTS, [])
        for name, of in spans:
            if name not in each and (text := _text(task["data"], of)) is not None:
                each[name] = _tags(text, [])


def _is_choices(value: Any) -> bool:
    return isinstance(value, tuple)


def _cell(value: Any) -> Any:
    """A path below the export's own folder, where the value is a file that Label Studio serves itself."""
    if not isinstance(value, str) or not value.startswith("/data/"):
        return value
    url = urlsplit(value)
    asked = parse_qs(url.query).get("d")
    return asked[0] if url.path == "/data/local-files/" and asked else url.path.removeprefix("/data/")


def _agreed(task: Mapping[str, Any], faults: Counter[str]) -> dict[str, Any]:
    """Labels on which people agree, by column; nothing of a task that nobody labelled. Choices are tuples."""
    people = [_read(each["result"], task["data"], faults) for each in _that_count(task["annotations"])]
    agreed = dict[str, Any]()
    for name in dict.fromkeys(name for each in people for name in each):
        said = [each[name] for each in people if name in each]
        if isinstance(said[-1], list):
            agreed[name] = said[-1]
            continue
        (first, most), *others = Counter(said).most_common()
        if others and others[0][1] == most:
            faults[f"task(s) have a tie about {name!r}: the cell is empty"] += 1
        else:
            agreed[name] = first
    return agreed


def _that_count(annotations: Sequence[Any]) -> list[Mapping[str, Any]]:
    there: list[Mapping[str, Any]] = [
        each for each in annotations
        if isinstance(each, dict) and isinstance(each.get("result"), list) and not each.get("was_cancelled")
    ]  # fmt: skip
    return [each for each in there if each.get("ground_truth")][:1] or there


def _read(results: Sequence[Any], data: Mapping[str, Any], faults: Counter[str]) -> dict[str, Any]:
    """What one person said, by column."""
    said, spans, objects = dict[str, Any](), dict[tuple[str, str], list[tuple[int, int, str]]](), list[BoxedObject]()
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            faults["annotation(s) have no value"] += 1
            continue
        kind, name, of = str(result.get("type")), str(result.get("from_name")), str(result.get("to_name"))
        try:
            if kind in _SPANS:
                spans.setdefault((name, of), []).append(_span(value, kind))
            elif kind in _OUTLINES:
                objects.append(_object(result, value, kind))
            else:
                said[name] = _answer(value, kind)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            what = error.args[0] if isinstance(error, _Unread) else f"lack what {kind} has"
            faults[f"annotation(s) {what}"] += 1
    for (name, of), found in spans.items():
        if (text := _text(data, of)) is None:
            faults["task(s) with spans have no text in their data"] += 1
        else:
            said[name] = _tags(text, found)
    if objects:
        said[OBJECTS] = objects
    return said


class _Unread(ValueError):
    """Annotations of a kind that is not read, with what they do, for a sentence."""


def _answer(value: Mapping[str, Any], kind: str) -> Any:
    match kind:
        case "choices":
            return tuple(sorted(str(each) for each in _filled(value["choices"])))
        case "taxonomy":
            return tuple(sorted(" / ".join(map(str, each)) for each in _filled(value["taxonomy"])))
        case "rating" | "number":
            return float(value[kind])
        case "textarea":
            text = value["text"]
            return text if isinstance(text, str) else "\n".join(map(str, _filled(text)))
    raise _Unread(f"are of the type {kind!r}, which is not read")


def _filled(values: Any) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise ValueError("an empty list")
    return values


def _span(value: Mapping[str, Any], kind: str) -> tuple[int, int, str]:
    """Start, stop and label, in characters of the whole text."""
    offsets = value["globalOffsets"] if kind == "hypertextlabels" else value
    return int(offsets["start"]), int(offsets["end"]), str(_filled(value[kind])[0])


def _text(data: Mapping[str, Any], of: str) -> str | None:
    """What the labelling tag shows: by its name, else the only text."""
    texts = {str(name): value for name, value in data.items() if isinstance(value, str)}
    return texts.get(of) or (next(iter(texts.values())) if len(texts) == 1 else None)


def _tags(text: str, spans: Sequence[tuple[int, int, str]]) -> list[str]:
    """A word that a span touches is of it."""
    tags = []
    last: tuple[int, int, str] | None = None
    for word in _WORD.finditer(text):
        span = next((each for each in spans if each[0] < word.end() and word.start() < each[1]), None)
        tags.append(_UNTAGGED if span is None else f"{'I' if span is last else 'B'}-{span[2]}")
        last = span
    return tags


def _object(result: Mapping[str, Any], value: Mapping[str, Any], kind: str) -> BoxedObject:
    """A box in pixels, from per cent of the image."""
    width, height = float(result["original_width"]), float(result["original_height"])
    if not (width > 0 and height > 0 and math.isfinite(width * height)):
        raise ValueError("an image without a size")
    if value.get("rotation"):
        raise _Unread("are turned boxes, which are not read")
    if kind == "polygonlabels":
        corners = [(float(x) * width / 100, float(y) * height / 100) for x, y in _filled(value["points"])]
    else:
        x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
        corners = [(x, y), (x + float(value["width"]) * width / 100, y + float(value["height"]) * height / 100)]
    left, right = max(0.0, min(x for x, _ in corners)), min(width, max(x for x, _ in corners))
    top, bottom = max(0.0, min(y for _, y in corners)), min(height, max(y for _, y in corners))
    if not (right > left and bottom > top):
        raise _Unread("are empty boxes")
    outline = [[number for corner in corners for number in corner]] if kind == "polygonlabels" else None
    return {
        "category": str(_filled(value[kind])[0]),
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top) if outline is None else _area(corners),
        "iscrowd": False,
        "segmentation": json.dumps(outline) if outline else None,
    }


def _area(corners: Sequence[tuple[float, float]]) -> float:
    """Area of a polygon, by the shoelace formula; corners in order."""
    following = [*corners[1:], corners[0]]
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, following, strict=True))) / 2
