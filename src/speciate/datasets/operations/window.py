"""Cut each usable example into windows of equal length, each an example of its own.

All windows are whole: what is left behind the last one is dropped and counted, and a medium shorter than a window stays
as it is; where all are shorter, the step is refused. Windows inherit label and split, say in columns for people where
they begin and end, and keep the key of the row that they were cut from, so that it can be forgotten in them, too. Those
of one medium, and of its copies and near-duplicates, must never come apart, so where there is no group the smallest id
among them becomes the group.

Series in cells are cut there: content, fingerprint, sketch and quality are those of the window. Files stay whole: their
windows share the content, which names the file, and differ in where they begin and end; the fingerprint is made from
the file's and those bounds, and there is no sketch, for which the file would have to be decoded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from speciate.datasets.columns import (
    CONTENT,
    FINGERPRINT,
    KEY,
    ORIGIN,
    SKETCH,
    START,
    STOP,
    WINDOW_START,
    WINDOW_STOP,
    with_column,
)
from speciate.datasets.identity import sha256
from speciate.datasets.intake.judging_rows import judged
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.contract import Operation, Others, Outcome, Parameters, refusal
from speciate.datasets.operations.masks import usable
from speciate.datasets.split import components
from speciate.datasets.splitting import members_of
from speciate.datasets.versions import Manifest
from speciate.ids import id_from_key
from speciate.modalities import find

_MOST_WINDOWS = 1_000_000
_ENDLESS = 1e15
"""More windows than are ever cut; a stride of nearly nothing would be infinitely many."""
_MOST_VALUES = 100_000_000
"""In the cells of all windows together: they may overlap."""
_VERDICTS = {
    CONTENT: "content",
    FINGERPRINT: "fingerprint",
    SKETCH: "sketch",
    "quality": "quality",
    "reason": "reason",
}


class WindowParameters(Parameters):
    seconds: float | None = Field(None, gt=0, description="Length of a window of sound.")
    steps: int | None = Field(None, ge=1, description="Length of a window of a series.")
    stride: float | None = Field(None, gt=0, description="From one beginning to the next; default: the length.")

    @model_validator(mode="after")
    def _one_length(self) -> WindowParameters:
        if (self.seconds is None) == (self.steps is None):
            raise ValueError("a window has a length: give one of seconds and steps")
        if self.steps is not None and self.stride is not None and self.stride != int(self.stride):
            raise ValueError("stride counts steps, so it is a whole number")
        return self

    @property
    def unit(self) -> str:
        return "steps" if self.seconds is None else "seconds"

    @property
    def length(self) -> float:
        return float(self.seconds or self.steps or 0)


class Window(NamedTuple):
    """Of the example at `place`, in the unit of its modality."""

    place: int
    start: float
    stop: float

    def __str__(self) -> str:
        return f"[{self.start!r}:{self.stop!r}]"


def foresee(parameters: WindowParameters, manifest: Manifest, others: Others) -> Manifest:
    unit = find(manifest.modality).window_unit
    if unit is None:
        raise refusal(f"{manifest.modality} has no axis to cut windows from.", "Leave the step out.")
    if unit != parameters.unit:
        raise refusal(f"Windows of {manifest.modality} are cut in {unit}.", f"Call again with {unit}.")
    if not manifest.inputs and unit not in manifest.columns:
        raise refusal(
            f"{manifest.ref} has no column {unit!r}, which tells how long each file is.",
            "Call create_dataset again on the source.",
        )
    taken = next((name for name in (WINDOW_START, WINDOW_STOP) if name in (*manifest.inputs, manifest.label)), None)
    if taken is not None:
        raise refusal(f"The column {taken!r} plays a role here and cannot be replaced.", "Leave the step out.")
    kind = "BIGINT" if unit == "steps" else "DOUBLE"
    columns = {**manifest.columns, WINDOW_START: kind, WINDOW_STOP: kind}
    return manifest.model_copy(update={"rows": manifest.rows + _MOST_WINDOWS, "columns": columns})  # at most so many


def apply(rows: pa.Table, parameters: WindowParameters, context: Context) -> Outcome:
    manifest, ok = context.manifest, usable(rows)
    whole, beside = rows.filter(pa.array(ok)), rows.filter(pa.array(~ok))
    whole = with_column(whole, "group_key", pa.array(_groups(whole, manifest.modality), pa.string()))
    lengths = _lengths(whole, manifest, parameters.unit)
    if lengths and max(lengths) < parameters.length:
        raise refusal(
            f"No example is as long as a window of {parameters.length:g} {parameters.unit}: the longest has "
            f"{max(lengths):g}.",
            f"Call again with fewer {parameters.unit}.",
        )
    stride = parameters.stride or parameters.length
    total = sum(count(length, parameters.length, stride) for length in lengths)
    _check_count(total, parameters.length, whole, manifest)
    windows = [
        Window(place, start, min(start + parameters.length, length))
        for place, length in enumerate(lengths)
        for start in starts(length, parameters.length, stride)
    ]
    cut = _cut_cells(whole, windows, manifest) if manifest.inputs else _cut_files(whole, windows)
    if parameters.unit in manifest.columns and parameters.unit not in manifest.inputs:
        spans = pa.array([window.stop - window.start for window in windows])
        cut = with_column(cut, parameters.unit, spans.cast(whole[parameters.unit].type, safe=False))
    cut = _marked(cut, whole, windows, manifest)
    last = {window.place: window.stop for window in windows}
    audit = {
        "examples": whole.num_rows,
        "windows": len(windows),
        "shorter_than_a_window": sum(length < parameters.length for length in lengths),
        "with_a_rest_left_out": sum(length - last[place] > 1e-6 for place, length in enumerate(lengths)),
    }
    return Outcome(pa.concat_tables([cut, beside], promote_options="permissive").sort_by("id"), audit)


def starts(length: float, window: float, stride: float) -> list[float]:
    """Where the windows of a medium begin."""
    return [stride * i for i in range(count(length, window, stride))]


def count(length: float, window: float, stride: float) -> int:
    """How many windows a medium has."""
    return 1 if length < window else int(min((length - window) / stride, _ENDLESS) + 1e-9) + 1


def _check_count(windows: int, length: float, rows: pa.Table, manifest: Manifest) -> None:
    """INVALID where there would be too many, before any is cut."""
    if windows > _MOST_WINDOWS:
        raise refusal(
            f"These would be {windows:,} windows, and at most {_MOST_WINDOWS:,} can be cut at once.",
            "Call again with a longer window or stride, or sample the dataset first.",
        )
    values = int(windows * length) * sum(_channels(rows[name]) for name in manifest.inputs)
    if values > _MOST_VALUES:
        raise refusal(
            f"These {windows:,} windows would hold {values:,} values, and at most {_MOST_VALUES:,} can be cut at once.",
            "Call again with a longer stride, or sample the dataset first.",
        )


def _groups(rows: pa.Table, modality: str) -> list[str]:
    component = components(members_of(rows, modality)).tolist()
    ids, groups = rows["id"].to_pylist(), rows["group_key"].to_pylist()
    named: dict[int, list[str]] = defaultdict(list)
    for code, group in zip(component, groups, strict=True):
        if group is not None:
            named[code].append(group)
    smallest: dict[int, str] = {}
    for code, name in zip(component, ids, strict=True):
        smallest[code] = min(smallest.get(code, name), name)
    return [
        group if group is not None else min(named[code], default=smallest[code])
        for code, group in zip(component, groups, strict=True)
    ]


def _lengths(rows: pa.Table, manifest: Manifest, unit: str) -> list[float]:
    if manifest.inputs:
        return [float(len(cell[0]) if _nested(cell) else len(cell)) for cell in rows[manifest.inputs[0]].to_pylist()]
    whole = np.asarray(rows[unit].cast(pa.float64()).fill_null(0.0))
    if START in rows.column_names:  # windows of windows
        start, stop = (np.asarray(rows[name].cast(pa.float64())) for name in (START, STOP))
        whole = np.where(np.isnan(stop), whole, stop - start)
    return [float(length) for length in whole]


def _cut_cells(rows: pa.Table, windows: Sequence[Window], manifest: Manifest) -> pa.Table:
    cut = _taken(rows, windows)
    for name in manifest.inputs:
        cells = rows[name].to_pylist()
        cut = with_column(cut, name, pa.array([_slice(cells[w.place], w) for w in windows], rows[name].type))
    verdicts = judged(cut.select(list(manifest.inputs)), manifest.modality, list(manifest.inputs))
    for name, verdict in _VERDICTS.items():
        cut = with_column(cut, name, verdicts[verdict])
    return cut


def _cut_files(rows: pa.Table, windows: Sequence[Window]) -> pa.Table:
    before = _begins(rows, START)
    prints = rows[FINGERPRINT].to_pylist()
    cut = _taken(rows, windows)
    begin = [before[w.place] + w.start for w in windows]
    end = [before[w.place] + w.stop for w in windows]
    cut = with_column(cut, START, pa.array(begin, pa.float64()))
    cut = with_column(cut, STOP, pa.array(end, pa.float64()))
    cut = with_column(cut, FINGERPRINT, pa.array([sha256(f"{prints[w.place]}{w}") for w in windows], pa.string()))
    return with_column(cut, SKETCH, pa.nulls(len(windows), pa.binary()))


def _begins(rows: pa.Table, column: str) -> list[float]:
    """Where each example begins in the medium that it was cut from already."""
    cells = rows[column].to_pylist() if column in rows.column_names else [None] * rows.num_rows
    return [cell or 0.0 for cell in cells]


def _marked(cut: pa.Table, rows: pa.Table, windows: Sequence[Window], manifest: Manifest) -> pa.Table:
    """With the windows' bounds for people."""
    if manifest.inputs:
        known = rows[ORIGIN].is_valid().to_pylist() if ORIGIN in rows.column_names else [False] * rows.num_rows
        earlier = _begins(rows, WINDOW_START) if any(known) else [0.0] * rows.num_rows
        begin = [int((earlier[w.place] if known[w.place] else 0) + w.start) for w in windows]
        end = [start + int(w.stop - w.start) for start, w in zip(begin, windows, strict=True)]
        bounds = pa.array(begin, pa.int64()), pa.array(end, pa.int64())
    else:
        bounds = cut[START], cut[STOP]
    return with_column(with_column(cut, WINDOW_START, bounds[0]), WINDOW_STOP, bounds[1])


def _taken(rows: pa.Table, windows: Sequence[Window]) -> pa.Table:
    """A row for each window, with ids and keys of their own."""
    ids, keys = rows["id"].to_pylist(), rows[KEY].to_pylist()
    cut = rows.take(pa.array([window.place for window in windows], pa.int64()))
    cut = with_column(cut, "id", pa.array([id_from_key("ex", f"{ids[w.place]}{w}") for w in windows], pa.string()))
    first = rows[ORIGIN].to_pylist() if ORIGIN in rows.column_names else [None] * rows.num_rows
    cut = with_column(cut, ORIGIN, pa.array([first[w.place] or keys[w.place] for w in windows], pa.string()))
    return with_column(cut, KEY, pa.array([sha256(f"{keys[w.place]}{w}") for w in windows], pa.string()))


def _channels(cells: pa.ChunkedArray) -> int:
    return pc.max(pc.list_value_length(cells)).as_py() or 1 if pa.types.is_nested(cells.type.value_type) else 1


def _nested(cell: Sequence[Any]) -> bool:
    return len(cell) > 0 and isinstance(cell[0], list)


def _slice(cell: Sequence[Any], window: Window) -> Sequence[Any]:
    start, stop = int(window.start), int(window.stop)
    return [channel[start:stop] for channel in cell] if _nested(cell) else cell[start:stop]


WINDOW = Operation(
    name="window",
    what="cut sounds or series into windows, each an example of its own",
    parameters=WindowParameters,
    foresee=foresee,
    apply=apply,
)
