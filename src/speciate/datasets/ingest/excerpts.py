"""Items that are parts of files: one per row of labels (sources/labels.py). Bounds are checked against the length of
the file, and frame numbers against its frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import WINDOW_START, WINDOW_STOP, with_column
from speciate.datasets.ingest.survey import Survey
from speciate.datasets.loading.decoding import Timestamps
from speciate.datasets.sources.labels import FRAME, JoinedLabels, join_labels
from speciate.datasets.sources.listing import normalise_split
from speciate.datasets.splits import group_names
from speciate.modalities import find

ReadTimestamps = Callable[[Sequence[str], str], dict[str, Timestamps]]
"""Contents and a unit -> where the units of each begin."""


class ExcerptSurvey(NamedTuple):
    survey: Survey
    renamed: dict[str, str]


class _Bounds(NamedTuple):
    start: float | None
    stop: float | None
    wrong: str | None = None
    """Why there is no such part."""


_WHOLE = _Bounds(None, None)


def cut_excerpts(survey: Survey, labels: pa.Table, about: Sequence[int], ask: ReadTimestamps) -> ExcerptSurvey:
    """The items, one per row of `labels`, with their bounds in the columns `window_start` and `window_stop`.

    Bounds are null for a whole file. An item outside its file gets quality error.
    """
    places = pa.array(about, pa.int64())
    items, table = survey.items.take(places), survey.table.take(places)
    if "split" in labels.column_names:
        names = [normalise_split(name) for name in labels["split"].to_pylist()]
        items = with_column(items, "split", pc.coalesce(pa.array(names, pa.string()), items["split"]))
        labels = labels.drop_columns(["split"])
    joined = join_labels(table, labels)
    unit = str(find(survey.modality).window_unit)
    lengths = table[unit].to_pylist()
    ok = pc.equal(items["quality"], "ok").to_pylist()
    if FRAME in labels.column_names and not {WINDOW_START, WINDOW_STOP} <= set(labels.column_names):
        bounds = _bounds_of_frames(labels[FRAME].to_pylist(), items["content"].to_pylist(), ok, ask)
    else:
        cells = zip(labels[WINDOW_START].to_pylist(), labels[WINDOW_STOP].to_pylist(), lengths, strict=True)
        bounds = [_check_bounds(start, stop, length, unit) for start, stop, length in cells]
    bounds = [each if usable else _WHOLE for each, usable in zip(bounds, ok, strict=True)]
    return ExcerptSurvey(
        replace(survey, table=_with_bounds(joined, bounds, unit), items=_with_quality(items, bounds)), joined.renamed
    )


def group_excerpts(rows: pa.Table, modality: str) -> pa.Table:
    """Gives each usable row a group: parts of one file, of its copies and near-duplicates share it.

    The group is the name of one of the files.
    """
    usable = np.asarray(pc.equal(rows["quality"], "ok"))
    chosen = rows.filter(pa.array(usable))
    groups: Any = np.array(rows["group_key"].to_pylist(), object)
    groups[usable] = group_names(chosen, modality, chosen["source"].to_pylist()).to_pylist()
    return with_column(rows, "group_key", pa.array(groups.tolist(), pa.string()))


def _bounds_of_frames(
    frames: list[Any], contents: list[str | None], ok: list[bool], ask: ReadTimestamps
) -> list[_Bounds]:
    named = [content if usable and frame is not None else None
             for frame, content, usable in zip(frames, contents, ok, strict=True)]  # fmt: skip
    timestamps = ask(list(dict.fromkeys(content for content in named if content is not None)), "frames")
    return [
        _WHOLE if content is None else _bounds_of_frame(frame, timestamps[content])
        for frame, content in zip(frames, named, strict=True)
    ]


def _bounds_of_frame(frame: Any, timestamps: Timestamps) -> _Bounds:
    number = _number(frame)
    if number is None or number != int(number) or not 0 <= number < len(timestamps) - 1:
        return _Bounds(
            None, None, f"Its label is about frame {_shorten_cell(frame)} of {len(timestamps) - 1}, the first being 0."
        )
    return _Bounds(float(timestamps[int(number)]), float(timestamps[int(number) + 1]))


def _check_bounds(start: Any, stop: Any, length: Any, unit: str) -> _Bounds:
    if start is None and stop is None:
        return _WHOLE
    first, last = _number(start), _number(stop)
    if first is None or last is None or not 0 <= first < last or first >= (length or 0):
        part = f"from {_shorten_cell(start)} up to {_shorten_cell(stop)} of {length or 0:g} {unit}"
        return _Bounds(None, None, f"Its label is about a part that does not exist: {part}.")
    return _Bounds(first, min(last, float(length)))


def _with_bounds(joined: JoinedLabels, bounds: Sequence[_Bounds], unit: str) -> pa.Table:
    table = joined.table
    for name, values in (
        (WINDOW_START, [each.start for each in bounds]),
        (WINDOW_STOP, [each.stop for each in bounds]),
    ):
        table = with_column(table, name, pa.array(values, pa.float64()))
    spans = [None if each.start is None or each.stop is None else each.stop - each.start for each in bounds]
    lengths = pc.coalesce(pa.array(spans, pa.float64()), table[unit].cast(pa.float64()))
    return with_column(table, unit, lengths.cast(table[unit].type, safe=False))


def _with_quality(items: pa.Table, bounds: Sequence[_Bounds]) -> pa.Table:
    wrong = pa.array([each.wrong for each in bounds], pa.string())
    items = with_column(items, "quality", pc.if_else(pc.is_valid(wrong), "error", items["quality"]))
    return with_column(items, "reason", pc.coalesce(wrong, items["reason"]))


def _number(cell: Any) -> float | None:
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _shorten_cell(cell: Any) -> str:
    return str(cell)[:20]
