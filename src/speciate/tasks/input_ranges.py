"""What training saw in each column of a table, kept beside the model: an answer to a row that lies far outside says so.

Only models of tables have it. A model that answers a row far from what it learned gives an answer all the same, often a
sure one; the remark is for whoever sent centimetres where training saw metres, or a category by another spelling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError, field_serializer

from speciate.errors import SpeciateError, quote_name
from speciate.modalities.tabular import number

FILE = "input_ranges.json"
_MOST_VALUES = 250
"""Different values of a column up to which they are its categories. A text of a few words has more."""
_LONGEST_VALUE = 200
"""Characters of a category: a column with longer cells is one of texts, and the file stays small."""
_LEAST_REPEATED = 2
"""Rows for each value, on average: where most rows have one of their own, a new one is nothing odd."""
_FAR = 0.5
"""How far beyond the range a number is far, as a share of its width."""
_MOST_REMARKS = 3
_EMPTY = "is empty, which it never was in training"


class ColumnRange(BaseModel):
    """`low` and `high` of a column of numbers, the `values` of one of categories; neither: nothing is known of it."""

    model_config = ConfigDict(frozen=True)
    low: float | None = None
    high: float | None = None
    values: frozenset[str] | None = None
    empty: bool = False
    """Whether training saw empty cells."""

    @field_serializer("values")
    def _in_order(self, values: frozenset[str] | None) -> list[str] | None:
        """The same training makes the same file, by which a model is known."""
        return None if values is None else sorted(values)


InputRanges = Mapping[str, ColumnRange]
_Stored = RootModel[dict[str, ColumnRange]]


def ranges_of(rows: Sequence[Mapping[str, Any]], inputs: Iterable[str]) -> InputRanges:
    """Ranges of these columns in the rows that a model learned from.

    >>> seen = ranges_of([{"age": 30, "sex": "f"}, {"age": 50, "sex": "f"}, {"age": None, "sex": "m"}], ["age", "sex"])
    >>> seen["age"].low, seen["age"].high, seen["age"].empty, seen["sex"].values
    (30.0, 50.0, True, None)
    """
    return {name: _range_of([row.get(name) for row in rows]) for name in inputs}


def _range_of(cells: Sequence[Any]) -> ColumnRange:
    there = [cell for cell in cells if not _is_empty(cell)]
    empty = len(there) < len(cells)
    if there and all(isinstance(cell, int | float) for cell in there):
        finite = [float(cell) for cell in there if math.isfinite(cell)]
        return ColumnRange(low=min(finite), high=max(finite), empty=empty) if finite else ColumnRange(empty=empty)
    values = frozenset(map(str, there))
    known = 0 < len(values) <= min(_MOST_VALUES, len(there) // _LEAST_REPEATED)
    known = known and max(map(len, values)) <= _LONGEST_VALUE
    return ColumnRange(values=values if known else None, empty=empty)


def _is_empty(cell: Any) -> bool:
    """A text without a letter counts too: forms send it where a file has no cell."""
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def joined(one: InputRanges, other: InputRanges) -> InputRanges:
    """What either saw, for a model that went on from another one's weights."""
    return {name: _both(seen, other[name]) if name in other else seen for name, seen in one.items()}


def _both(one: ColumnRange, other: ColumnRange) -> ColumnRange:
    empty = one.empty or other.empty
    if one.values is not None and other.values is not None:
        return ColumnRange(values=one.values | other.values, empty=empty)
    lows = [each.low for each in (one, other) if each.low is not None]
    highs = [each.high for each in (one, other) if each.high is not None]
    if len(lows) == len(highs) == 2:
        return ColumnRange(low=min(lows), high=max(highs), empty=empty)
    return ColumnRange(empty=empty)


def save(seen: InputRanges, folder: Path) -> None:
    (folder / FILE).write_text(_Stored(dict(seen)).model_dump_json(exclude_defaults=True))


def load(folder: Path) -> InputRanges:
    """Empty where a model has none, or where the file is of another kind: answers do not rest on it."""
    try:
        return _Stored.model_validate_json((folder / FILE).read_bytes()).root
    except (OSError, ValidationError):
        return {}


def remarks_on(row: Mapping[str, Any], seen: InputRanges) -> list[str]:
    """What is odd in a row, a sentence for each column, three at most. Values are not quoted: they are foreign text.

    >>> seen = {"age": ColumnRange(low=20, high=60), "sex": ColumnRange(values=frozenset({"f", "m"}))}
    >>> remarks_on({"age": 75, "sex": "f"}, seen)
    []
    >>> remarks_on({"age": 1975, "sex": None}, seen)
    ["'age' is far outside of what training saw: 20 to 60.", "'sex' is empty, which it never was in training."]
    """
    found: list[str] = []
    for name, range_ in seen.items():
        if (what := _odd(name, row.get(name), range_)) is None:
            continue
        if len(found) == _MOST_REMARKS:
            return [*found, "Other columns are odd, too."]
        found.append(f"{quote_name(name)} {what}.")
    return found


def _odd(name: str, cell: Any, seen: ColumnRange) -> str | None:
    if seen.values is not None:
        if _is_empty(cell):
            return None if seen.empty else _EMPTY
        return None if str(cell) in seen.values else "has a value that training never saw"
    if seen.low is None or seen.high is None:
        return None
    try:
        value = number(name, cell)
    except SpeciateError:  # the model's to refuse
        return None
    if math.isnan(value):
        return None if seen.empty else _EMPTY
    room = _FAR * (seen.high - seen.low)
    if seen.low - room <= value <= seen.high + room:
        return None
    if seen.low == seen.high:
        return f"was always {_in_short(seen.low)} in training"
    return f"is far outside of what training saw: {_in_short(seen.low)} to {_in_short(seen.high)}"


def _in_short(value: float) -> str:
    """Whole numbers in full: a date or an id is known by its last digits."""
    return f"{value:.15g}" if value.is_integer() else f"{value:g}"
