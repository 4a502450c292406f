"""Tables of time series: sktime's .ts, and tables in wide or long layout.

Wide: one series per row, one step per column. Long: one step per row. Both become a column `series` of [channel][step],
one row per series, beside its other columns. A .ts file has `@` lines, then a series per line, channels separated by
`:`, the class last; time stamps are refused, because every value stands at its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.readers.formats import Reader
from speciate.datasets.readers.rows import REASON, from_rows, read_lines, unread_error, unreadable_error, with_bad_rows
from speciate.errors import Code, SpeciateError, closest
from speciate.modalities.time_series import CHANNEL_NAMES

SERIES, LABEL = "series", "label"
_ID = re.compile(r"(?i)(id|uid|key|series|unit|subject|patient|case|sample|recording|.*[_ .]?id|unique_id)")
_TIME = re.compile(r"(?i)(t|ts|ds|time|timestamp|date|datetime|step|cycle|tick|seconds|ms|time[_ ].*|.*[_ ]time)")
_CLASS = re.compile(r"(?i)(label|class|target|y|species|category)")
_KEPT = re.compile(r"(?i)(split|fold|group)")
_LEAST_STEPS = 8
_MOST_CLASSES = 100
_SERIES_TYPE = pa.list_(pa.list_(pa.float64()))


def reshape_series(
    table: pa.Table,
    reader: Reader,
    modality: str,
    path: Path,
    label: str | None = None,
    channels: Sequence[str] = (),
) -> pa.Table:
    """The table with a column `series`, if the caller chooses a layout, or it is about series and the layout is clear.

    `label`: the label column. `channels`: the columns of lists that are the channels, in this order; none: all of
    them. Rows that could not be read stay. INVALID if the chosen layout does not fit.
    """
    layout = reader.layout
    if layout is None and modality == "time-series" and not _has_lists(table):
        layout = "long" if _long_columns(table) else "wide"
    if layout is None:
        return _channels_together(table, channels) if modality == "time-series" else table
    bad = table.filter(pc.is_valid(table[REASON])) if REASON in table.column_names else None
    good = table.filter(pc.is_null(table[REASON])).drop_columns([REASON]) if bad is not None else table
    series = _from_long(good, reader.columns, path, label) if layout == "long" else _from_wide(good, path)
    if bad is None or not bad.num_rows:
        return series
    return pa.concat_tables([series, bad.select([REASON])], promote_options="default")


def _from_wide(table: pa.Table, path: Path) -> pa.Table:
    """Every numeric column is a step, in the order of the columns; all others stay.

    In a table without a header, whole numbers of few values in the first or last column are the class, as the UCR
    archive writes them.
    """
    steps = [field.name for field in table.schema if _is_step(field)]
    classes = _class_without_header(table, steps)
    if classes is not None:
        steps.remove(classes)
    if len(steps) < 2:
        raise _misfit_error(path, "wide", f"it has {len(steps)} numeric columns that could be steps")
    chosen = set(steps)
    values = np.stack(
        [_numbers(column) for name, column in zip(table.column_names, table.columns, strict=True) if name in chosen],
        axis=1,
    )
    kept = table.select([name for name in table.column_names if name not in chosen])
    if classes is not None:
        kept = kept.rename_columns([LABEL if name == classes else name for name in kept.column_names])
    elif LABEL not in kept.column_names and len(found := [n for n in kept.column_names if _CLASS.fullmatch(n)]) == 1:
        kept = kept.rename_columns([LABEL if name == found[0] else name for name in kept.column_names])
    return kept.append_column(_free_name(kept), _lists(values[:, np.newaxis, :]))


def _from_long(table: pa.Table, columns: Sequence[str], path: Path, label: str | None) -> pa.Table:
    """Sorted by series and time. Numeric columns are channels; columns that never change within a series stay its
    columns.

    Text that changes stays as a list. A series with a repeated time or a changing label gets a reason.
    """
    identity, time = columns or _long_columns(table) or _unclear_error(path)
    for name in (identity, time):
        if name not in table.column_names:
            raise _misfit_error(path, "long", f"it has no column {name!r}; {closest(name, table.column_names)}")
    lost = pc.or_(pc.is_null(table[identity]), pc.is_null(table[time]))
    missing = int(pc.sum(lost).as_py() or 0)
    table = table.filter(pc.invert(lost))
    places = pc.sort_indices(table, [(identity, "ascending"), (time, "ascending")])  # stable
    table = table.take(places)
    starts = _starts(table[identity])
    ends = np.append(starts[1:], table.num_rows)
    series: dict[str, pa.Array] = {identity: table[identity].take(pa.array(starts))}
    channels: list[str] = []
    torn = _differing(table[label or LABEL], starts) if (label or LABEL) in table.column_names else None
    if torn is not None and label is None and 2 * torn.where.sum() > len(starts):
        torn = None  # the caller did not name it as the label, and a series has one label
    for name in table.column_names:
        if name in (identity, time):
            continue
        column = table[name].combine_chunks()
        if torn is not None and name == (label or LABEL):
            series[name] = torn.values
        elif _is_constant(column, starts):
            series[name] = column.take(pa.array(starts))
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
            channels.append(name)
        else:
            series[name] = pa.ListArray.from_arrays(pa.array(np.append(starts, table.num_rows), pa.int32()), column)
    if not channels:
        raise _misfit_error(path, "long", "no numeric column changes within a series")
    values = np.stack([_numbers(table[name]) for name in channels])  # (C, rows)
    found = pa.table(series)
    lists = pa.array([[*map(list, values[:, i:j])] for i, j in zip(starts, ends, strict=True)], _SERIES_TYPE)
    found = _named(found.append_column(_free_name(found), lists), channels)
    found = _with_reasons(
        found, _series_with_repeated_times(table[time], starts), torn and torn.where, time, label or LABEL
    )
    if not missing:
        return found
    reasons = pa.array([f"{path.name!r} has no {identity!r} or {time!r} in a row."] * missing, pa.string())
    return pa.concat_tables([found, pa.table({REASON: reasons})], promote_options="default")


class _DifferingValues(NamedTuple):
    values: pa.Array
    """The one value of each series; null if there are several."""
    where: np.ndarray[Any, np.dtype[np.bool_]]
    """Series with several."""


def _differing(column: pa.ChunkedArray, starts: np.ndarray[Any, np.dtype[np.int64]]) -> _DifferingValues:
    """The value of each series in a column, and series with several values; missing steps are ignored."""
    encoded = column.combine_chunks().dictionary_encode()
    if not len(starts):
        return _DifferingValues(encoded.dictionary.slice(0, 0), np.zeros(0, bool))
    codes, unknown = np.asarray(pc.fill_null(encoded.indices, -1), np.int64), len(encoded.dictionary)
    highest = np.maximum.reduceat(codes, starts)
    where = np.minimum.reduceat(np.where(codes < 0, unknown, codes), starts) < highest
    return _DifferingValues(encoded.dictionary.take(pa.array(highest, mask=where | (highest < 0))), where)


def _series_with_repeated_times(
    times: pa.ChunkedArray, starts: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Series in which a time comes twice. They are sorted by it."""
    if not len(starts):
        return np.zeros(0, bool)
    same = np.ones(len(times), bool)
    same[_starts(times)] = False
    same[starts] = False
    return np.logical_or.reduceat(same, starts)


def _with_reasons(
    found: pa.Table,
    repeated: np.ndarray[Any, np.dtype[np.bool_]],
    torn: np.ndarray[Any, np.dtype[np.bool_]] | None,
    time: str,
    label: str,
) -> pa.Table:
    reasons = np.full(found.num_rows, None, object)
    if torn is not None:
        reasons[torn] = f"Its label {label!r} changes within the series."
    reasons[repeated] = f"Its {time!r} has a value twice."
    return found.append_column(REASON, pa.array(reasons, pa.string())) if (reasons != None).any() else found  # noqa: E711


def _long_columns(table: pa.Table) -> tuple[str, str] | None:
    """The columns of id and time, if their names are clear, an id repeats and no time does within it."""
    times = [name for name in table.column_names if _TIME.fullmatch(name)]
    ids = [name for name in table.column_names if _ID.fullmatch(name) and name not in times]
    for identity in ids:
        for time in times:
            pairs = table.select([identity, time]).group_by([identity, time]).aggregate([]).num_rows
            if pairs == table.num_rows and pc.count_distinct(table[identity]).as_py() * 2 <= table.num_rows:
                return identity, time
    return None


def _channels_together(table: pa.Table, channels: Sequence[str]) -> pa.Table:
    """Several columns of lists of numbers are the channels of one series; one is the series already."""
    lists = [field.name for field in table.schema if _is_list(field.type) and _is_number(field.type.value_type)]
    if set(channels) <= set(lists):
        lists = list(channels) or lists
    elif len(channels) > 1:
        return table  # the roles say which of the names is wrong
    if len(lists) < 2:
        return table
    rows = zip(*(table[name].to_pylist() for name in lists), strict=True)
    kept = table.drop_columns(lists)
    together = [None if None in row else list(row) for row in rows]
    return _named(kept.append_column(_free_name(kept), pa.array(together, _SERIES_TYPE)), lists)


def _named(table: pa.Table, channels: Sequence[str]) -> pa.Table:
    """With the names of the channels beside the series, or nobody could tell which is which."""
    if CHANNEL_NAMES in table.column_names:
        return table
    return table.append_column(CHANNEL_NAMES, pa.array([", ".join(channels)] * table.num_rows, pa.string()))


def series_of_channels(inputs: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """The input that these named columns have become: one series, where several were its channels."""
    together = len(inputs) > 1 and SERIES in columns and not set(inputs) & set(columns)
    return (SERIES,) if together else tuple(inputs)


def _has_lists(table: pa.Table) -> bool:
    return any(_is_list(field.type) for field in table.schema)


def _class_without_header(table: pa.Table, steps: Sequence[str]) -> str | None:
    if list(steps) != table.column_names or steps != [f"f{i}" for i in range(len(steps))] or not table.num_rows:
        return None
    whole = [name for name in steps if pa.types.is_integer(table.schema.field(name).type) or _is_whole(table[name])]
    ends = [name for name in (steps[0], steps[-1]) if whole == [name]]
    few = min(_MOST_CLASSES, max(2, table.num_rows // 2))
    return ends[0] if ends and pc.count_distinct(table[ends[0]]).as_py() <= few else None


def _is_whole(column: pa.ChunkedArray) -> bool:
    values = _numbers(column)
    return bool(np.all(values == np.round(values)))


def _is_step(field: pa.Field) -> bool:
    names = _ID.fullmatch(field.name) or _CLASS.fullmatch(field.name) or _KEPT.fullmatch(field.name)
    return _is_number(field.type) and not names


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _numbers(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(rows,), NaN where there is none."""
    return np.asarray(pc.fill_null(column.cast(pa.float64(), safe=False), float("nan")).to_numpy(), dtype=np.float64)


def _lists(values: np.ndarray[Any, np.dtype[np.float64]]) -> pa.Array:
    """(rows, channels, steps) as a column of lists of lists."""
    rows, channels, steps = values.shape
    inner = pa.ListArray.from_arrays(pa.array(np.arange(rows * channels + 1) * steps, pa.int32()), values.ravel())
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * channels, pa.int32()), inner)


def _starts(ids: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where in a sorted column a new value begins."""
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]])) if len(codes) else np.empty(0, np.int64)


def _is_constant(column: pa.Array, starts: np.ndarray[Any, np.dtype[np.int64]]) -> bool:
    """Whether it changes nowhere but where a series begins."""
    if len(column) < 2 or _is_list(column.type):
        return len(column) < 2
    codes = pc.fill_null(column.dictionary_encode().indices, -1).to_numpy()
    changes = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    return bool(np.isin(changes, starts).all())


def _free_name(table: pa.Table) -> str:
    name, number = SERIES, 2
    while name in table.column_names:
        name, number = f"{SERIES}_{number}", number + 1
    return name


def _unclear_error(path: Path) -> Any:
    raise _misfit_error(path, "long", "no two columns are clearly the id of a series and its time")


def _misfit_error(path: Path, layout: str, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{path.name!r} cannot be read as {layout} series: {why}.",
        "Call create_dataset again with reader='wide', or with reader='long:ID,TIME' naming the columns.",
    )


def read_ts(path: Path, text: Sequence[str]) -> pa.Table:
    """A series that is not what the header declares is a bad row."""
    header, rows, bad = _Header(), [], []
    numbered = read_lines(path)
    for number, line in numbered:
        if line is None:
            raise unreadable_error(path, f"its header is not UTF-8 at line {number}")
        if line.lower().startswith("@data"):
            break
        header = header.with_line(line, path)
    else:
        raise unreadable_error(path, "no line @data ends its header")
    if header.stamped:
        raise unreadable_error(path, "series with time stamps are not read")
    for series, (number, line) in enumerate(((n, s) for n, s in numbered if s is None or _is_series(s)), 1):
        try:
            if line is None:
                raise ValueError(f"line {number} is not UTF-8")
            rows.append(_series(line.strip(), header))
        except ValueError as error:
            bad.append(f"Series {series}: {error}.")
    return with_bad_rows(from_rows(rows), bad)


def _is_series(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


class _SeriesRow(TypedDict):
    series: list[list[float]]
    """[channel][step]"""
    label: str | None


class _Header(NamedTuple):
    channels: int | None = None
    length: int | None = None
    classes: frozenset[str] = frozenset()
    labelled: bool = False
    stamped: bool = False

    def with_line(self, line: str, path: Path) -> _Header:
        word, _, rest = line.strip().partition(" ")
        first = rest.split(" ")[0].lower()
        try:
            if word.lower() in ("@dimensions", "@dimension"):
                return self._replace(channels=int(first))
            if word.lower() == "@serieslength":
                return self._replace(length=int(first) or None)
        except ValueError as error:
            raise unread_error(path, error) from None
        if word.lower() in ("@classlabel", "@targetlabel"):
            return self._replace(labelled=first == "true", classes=frozenset(rest.split()[1:]))
        if word.lower() == "@timestamps":
            return self._replace(stamped=first == "true")
        return self


def _series(line: str, header: _Header) -> _SeriesRow:
    parts = line.split(":")
    label = parts.pop().strip() if header.labelled else None
    if header.channels is not None and len(parts) != header.channels:
        raise ValueError(f"{len(parts)} channels where the header declares {header.channels}")
    if header.classes and label not in header.classes:
        raise ValueError(f"{label!r} is none of the classes that the header declares")
    channels = [[float("nan") if cell.strip() == "?" else float(cell) for cell in part.split(",")] for part in parts]
    lengths = {len(channel) for channel in channels}
    if len(lengths) > 1 or (header.length is not None and lengths != {header.length}):
        declared = "" if header.length is None else f" where the header declares {header.length}"
        raise ValueError(f"channels of {', '.join(map(str, sorted(lengths)))} values{declared}")
    return {"series": channels, "label": label}
