"""Cut each usable example into windows, each an example of its own: of equal length, or of so many units such as
frames.

All windows are whole: the rest behind the last one is dropped and counted, and a medium shorter than a window stays as
it is; if all are shorter, the step is refused. Windows inherit label and split, and say in columns for people where
they begin and end. They keep the key of the row that they were cut from, so that purging it also purges them. Windows
of one medium, and of its copies and near-duplicates, must never be separated, so without a group the smallest id among
them becomes the group.

Series in cells are cut: content, fingerprint, sketch and quality are those of the window. Files stay whole: their
windows share the content, which names the file, and differ in where they begin and end. The fingerprint is made from
the file's and those bounds; there is no sketch, because the file would have to be decoded for it. Where units begin is
read from each file in the sandbox, in seconds, so units may have any length, such as frames at a variable rate.

In mixed rows the one part with an axis is cut; the others stay whole in each window, with their sketches, and a row
without that part stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from speciate.datasets.ingest.row_validation import row_verdicts
from speciate.datasets.loading.decoding import Timestamps
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.operation import (
    Operation,
    Others,
    Outcome,
    Parameters,
    check_part_allowed,
    parts_of,
    refusal,
    usable_rows,
)
from speciate.datasets.splits import group_names
from speciate.datasets.versions import Manifest
from speciate.modalities import find
from speciate.modalities.contract import Modality
from speciate.modalities.multimodal import MULTIMODAL, PartName
from speciate.modalities.part_sketches import drop_part
from speciate.refs import id_from_key

_UNITS = ("seconds", "steps", "frames", "keyframes")
_MOST_WINDOWS = 1_000_000
_ENDLESS = 1e15
"""More windows than are ever cut; a stride of nearly nothing would be infinitely many."""
_MOST_VALUES = 100_000_000
"""Most values in the cells of all windows together: windows may overlap."""
_VERDICTS = {
    CONTENT: "content",
    FINGERPRINT: "fingerprint",
    SKETCH: "sketch",
    "quality": "quality",
    "reason": "reason",
}


class WindowParameters(Parameters):
    seconds: float | None = Field(None, gt=0, description="Length of a window of audio or video.")
    steps: int | None = Field(None, ge=1, description="Length of a window of a series.")
    frames: int | None = Field(None, ge=1, description="Frames of a video in a window.")
    keyframes: int | None = Field(None, ge=1, description="A window reaches from a keyframe to the Nth after it.")
    stride: float | None = Field(None, gt=0, description="From one beginning to the next; default: the length.")
    part: str | None = Field(None, description="Mixed rows: the part that is cut; the others stay whole.")

    @model_validator(mode="after")
    def _one_length(self) -> WindowParameters:
        if len([name for name in _UNITS if getattr(self, name) is not None]) != 1:
            raise ValueError(f"a window has a length: give one of {', '.join(_UNITS)}")
        if self.seconds is None and self.stride is not None and self.stride != int(self.stride):
            raise ValueError(f"stride counts {self.unit}, so it is a whole number")
        return self

    @property
    def unit(self) -> str:
        return next(name for name in _UNITS if getattr(self, name) is not None)

    @property
    def length(self) -> float:
        return float(getattr(self, self.unit))

    @property
    def step(self) -> float:
        return self.stride or self.length


class Axis(NamedTuple):
    """The axis that windows are cut along."""

    kind: Modality[Any]
    unit: str
    column: str
    """The column with the length of each medium."""
    part: PartName | None = None
    """For mixed rows: the part that is cut."""


class Window(NamedTuple):
    """A window of the example at `place`, in the unit of its modality."""

    place: int
    start: float
    stop: float

    def __str__(self) -> str:
        return f"[{self.start!r}:{self.stop!r}]"


class ExampleWindows(NamedTuple):
    """The windows of one example."""

    bounds: list[tuple[float, float]]
    """In the unit of its modality, from the example's own beginning."""
    length: float
    """Length of the example, in the unit that the windows are counted in."""
    rest: bool
    """Whether something is left behind the last window."""


def preflight(parameters: WindowParameters, manifest: Manifest, others: Others) -> Manifest:
    check_part_allowed(parameters.part, manifest.modality)
    kind = find(manifest.modality)
    if kind is MULTIMODAL:
        return _manifest_of_windows(manifest, "seconds")  # which part has an axis only the rows can tell
    unit = kind.window_unit
    if unit is None:
        raise refusal(f"{manifest.modality} has no axis to cut windows from.", "Leave the step out.")
    counted = (unit, *kind.mark_units)
    if parameters.unit not in counted:
        raise refusal(f"Windows of {manifest.modality} are cut in {' or '.join(counted)}.", f"Call again with {unit}.")
    if parameters.unit in kind.mark_units and manifest.inputs:
        raise refusal(f"Only files are cut in {parameters.unit}.", f"Call again with {unit}.")
    if not manifest.inputs and unit not in manifest.columns:
        raise refusal(
            f"{manifest.ref} has no column {unit!r}, which tells how long each file is.",
            "Call create_dataset again on the source.",
        )
    return _manifest_of_windows(manifest, unit)


def _manifest_of_windows(manifest: Manifest, unit: str) -> Manifest:
    taken = next((name for name in (WINDOW_START, WINDOW_STOP) if name in (*manifest.inputs, manifest.label)), None)
    if taken is not None:
        raise refusal(f"The column {taken!r} plays a role here and cannot be replaced.", "Leave the step out.")
    kind_of_bounds = "BIGINT" if unit == "steps" else "DOUBLE"
    columns = {**manifest.columns, WINDOW_START: kind_of_bounds, WINDOW_STOP: kind_of_bounds}
    return manifest.model_copy(update={"rows": manifest.rows + _MOST_WINDOWS, "columns": columns})  # at most so many


def check_rows(rows: pa.Table, parameters: WindowParameters, manifest: Manifest) -> None:
    _axis(rows.filter(pa.array(usable_rows(rows))), parameters, manifest)


def apply(rows: pa.Table, parameters: WindowParameters, context: Context) -> Outcome:
    manifest, ok = context.manifest, usable_rows(rows)
    whole, beside = rows.filter(pa.array(ok)), rows.filter(pa.array(~ok))
    axis = _axis(whole, parameters, manifest)
    whole = with_column(whole, "group_key", group_names(whole, manifest.modality, whole["id"].to_pylist()))
    cuts = _cut(whole, parameters, axis, context)
    longest = max((each.length for each in cuts), default=parameters.length)
    if longest < parameters.length:
        raise refusal(
            f"No example is as long as a window of {parameters.length:g} {parameters.unit}: the longest has "
            f"{longest:g}.",
            f"Call again with fewer {parameters.unit}.",
        )
    windows = [Window(place, *bounds) for place, each in enumerate(cuts) for bounds in each.bounds]
    cut = _cut_cells(whole, windows, manifest) if manifest.inputs else _cut_files(whole, windows, axis)
    if axis.column in manifest.columns and axis.column not in manifest.inputs:
        spans = pa.array([window.stop - window.start for window in windows], pa.float64())
        spans = pc.if_else(pc.is_valid(cut[axis.column]), spans, None)
        cut = with_column(cut, axis.column, spans.cast(whole[axis.column].type, safe=False))
    cut = _with_bounds(cut, whole, windows, manifest)
    audit = {
        "examples": whole.num_rows,
        "windows": len(windows),
        "shorter_than_a_window": sum(each.length < parameters.length for each in cuts),
        "with_a_rest_left_out": sum(each.rest for each in cuts),
    }
    return Outcome(pa.concat_tables([cut, beside], promote_options="permissive").sort_by("id"), audit)


def _axis(rows: pa.Table, parameters: WindowParameters, manifest: Manifest) -> Axis:
    """INVALID if the named part has no axis, or another part has one, too: which was cut would not be recorded."""
    kind = find(manifest.modality)
    if kind is not MULTIMODAL:
        return Axis(kind, str(kind.window_unit), str(kind.window_unit))
    having = [part for part in parts_of(rows) if find(part.modality).window_unit is not None]
    names = ", ".join(repr(part.own) for part in having)
    if len(having) != 1 or parameters.part not in (None, having[0].own):
        raise refusal(
            f"Windows are cut from the one part of mixed rows that has an axis; here that is {names or 'none'}.",
            "Call create_dataset again with inputs of which one has an axis." if len(having) > 1 else
            f"Call again with part={having[0].own!r}." if having else "Leave the step out.",
        )  # fmt: skip
    part, kind = having[0], find(having[0].modality)
    if parameters.unit not in (kind.window_unit, *kind.mark_units):
        raise refusal(
            f"Windows of {part.own!r} are cut in {' or '.join([str(kind.window_unit), *kind.mark_units])}.",
            f"Call again with {kind.window_unit}.",
        )
    return Axis(kind, str(kind.window_unit), f"{part.own}_{kind.window_unit}", part)


def _cut(rows: pa.Table, parameters: WindowParameters, axis: Axis, context: Context) -> list[ExampleWindows]:
    """The windows of each example. INVALID if there would be too many, before they are made."""
    manifest, length, stride = context.manifest, parameters.length, parameters.step
    if parameters.unit == axis.unit:
        lengths = _lengths(rows, manifest, axis.column)
        _check_count(sum(window_count(each, length, stride) for each in lengths), length, rows, manifest)
        return [windows_of_length(each, length, stride) for each in lengths]
    found, total = list[ExampleWindows](), 0
    for timestamps in _own_timestamps(rows, context.timestamps(rows, parameters.unit)):
        cut = windows_at_timestamps(timestamps, int(length), int(stride))
        total += len(cut.bounds)
        _check_count(total, 1, rows, manifest)
        found.append(cut)
    return found


def windows_of_length(whole: float, window: float, stride: float) -> ExampleWindows:
    """The windows of a medium that is `whole` long."""
    bounds = [(start, min(start + window, whole)) for start in window_starts(whole, window, stride)]
    return ExampleWindows(bounds, whole, whole - bounds[-1][1] > 1e-6)


def windows_at_timestamps(timestamps: Timestamps, window: int, stride: int) -> ExampleWindows:
    """Windows of `window` units; `timestamps` (M + 1,) says where units begin, and every `stride`th begins a window."""
    units = len(timestamps) - 1
    first = range(0, units - window + 1, stride) if units >= window else range(1)
    bounds = [(float(timestamps[at]), float(timestamps[min(at + window, units)])) for at in first]
    return ExampleWindows(bounds, float(units), first[-1] + window < units)


def window_starts(length: float, window: float, stride: float) -> list[float]:
    """Where the windows of a medium begin."""
    return [stride * i for i in range(window_count(length, window, stride))]


def window_count(length: float, window: float, stride: float) -> int:
    """How many windows a medium has."""
    return 1 if length < window else int(min((length - window) / stride, _ENDLESS) + 1e-9) + 1


def _check_count(windows: int, length: float, rows: pa.Table, manifest: Manifest) -> None:
    """INVALID if there would be too many windows, before any is cut."""
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


def _own_timestamps(rows: pa.Table, timestamps: Iterator[Timestamps]) -> Iterator[Timestamps]:
    """Timestamps within each example, which may be a window of its file, from its own beginning."""
    cells = rows[STOP].to_pylist() if STOP in rows.column_names else [None] * rows.num_rows
    for start, stop, found in zip(_begins(rows, START), cells, timestamps, strict=True):
        end = found[-1] if stop is None else min(stop, found[-1])
        inside = found[:-1][(found[:-1] >= start) & (found[:-1] < end)]
        begun = inside if len(inside) else np.array([start])  # between two of them: one unit, which began before
        yield np.append(begun, max(end, np.nextafter(begun[-1], np.inf))) - start


def _lengths(rows: pa.Table, manifest: Manifest, column: str) -> list[float]:
    if manifest.inputs:
        return [float(len(cell[0]) if _nested(cell) else len(cell)) for cell in rows[manifest.inputs[0]].to_pylist()]
    whole = np.asarray(rows[column].cast(pa.float64()).fill_null(0.0))
    if START in rows.column_names:  # windows of windows
        start, stop = (np.asarray(rows[name].cast(pa.float64())) for name in (START, STOP))
        whole = np.where(np.isnan(stop), whole, stop - start)
    return [float(length) for length in whole]


def _cut_cells(rows: pa.Table, windows: Sequence[Window], manifest: Manifest) -> pa.Table:
    cut = _rows_of_windows(rows, windows)
    for name in manifest.inputs:
        cells = rows[name].to_pylist()
        cut = with_column(cut, name, pa.array([_slice(cells[w.place], w) for w in windows], rows[name].type))
    verdicts = row_verdicts(cut.select(list(manifest.inputs)), manifest.modality, list(manifest.inputs))
    for name, verdict in _VERDICTS.items():
        cut = with_column(cut, name, verdicts[verdict])
    return cut


def _cut_files(rows: pa.Table, windows: Sequence[Window], axis: Axis) -> pa.Table:
    before = _begins(rows, START)
    prints = rows[FINGERPRINT].to_pylist()
    cut = _rows_of_windows(rows, windows)
    begin = [before[w.place] + w.start for w in windows]
    end = [before[w.place] + w.stop for w in windows]
    cut = with_column(cut, START, pa.array(begin, pa.float64()))
    cut = with_column(cut, STOP, pa.array(end, pa.float64()))
    cut = with_column(cut, FINGERPRINT, pa.array([sha256(f"{prints[w.place]}{w}") for w in windows], pa.string()))
    if axis.part is None:
        return with_column(cut, SKETCH, pa.nulls(len(windows), pa.binary()))
    whole = [drop_part(sketch, str(axis.part)) for sketch in cut[SKETCH].to_pylist()]
    return with_column(cut, SKETCH, pa.array(whole, pa.binary()))


def _begins(rows: pa.Table, column: str) -> list[float]:
    """Where each example begins in the medium that it was cut from already."""
    cells = rows[column].to_pylist() if column in rows.column_names else [None] * rows.num_rows
    return [cell or 0.0 for cell in cells]


def _with_bounds(cut: pa.Table, rows: pa.Table, windows: Sequence[Window], manifest: Manifest) -> pa.Table:
    """The rows with the windows' bounds for people."""
    if manifest.inputs:
        known = rows[ORIGIN].is_valid().to_pylist() if ORIGIN in rows.column_names else [False] * rows.num_rows
        earlier = _begins(rows, WINDOW_START) if any(known) else [0.0] * rows.num_rows
        begin = [int((earlier[w.place] if known[w.place] else 0) + w.start) for w in windows]
        end = [start + int(w.stop - w.start) for start, w in zip(begin, windows, strict=True)]
        bounds = pa.array(begin, pa.int64()), pa.array(end, pa.int64())
    else:
        bounds = cut[START], cut[STOP]
    return with_column(with_column(cut, WINDOW_START, bounds[0]), WINDOW_STOP, bounds[1])


def _rows_of_windows(rows: pa.Table, windows: Sequence[Window]) -> pa.Table:
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
    what="cut audio, videos or series into windows, each an example of its own",
    parameters=WindowParameters,
    preflight=preflight,
    apply=apply,
    check_rows=check_rows,
    unchecked="whether an example is as long as a window, and that there are not too many windows",
)
