"""`.df()`: the table in a result, as a frame of whichever library is installed.

    rows beside their columns        query_dataset, preview_dataset, find_similar
    the result's list of objects     predictions, leaderboard, candidates, models, datasets, jobs, options, use cases

What stands under `untrusted` in an object becomes columns of its own: whoever makes a frame wants the cells.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

LISTS = (
    "predictions", "leaderboard", "candidates", "models", "versions", "datasets", "jobs", "approvals", "use_cases",
    "options", "neighbours",
)  # fmt: skip
"""Fields that a frame is made of: a result has one of them at most, but for the model behind `predictions`."""


def table_of(document: Mapping[str, Any]) -> pa.Table | None:
    """None for a result without a table."""
    columns, rows = document.get("columns"), (document.get("untrusted") or {}).get("rows")
    if rows is not None and columns:
        cells = [_array([row[at] for row in rows]) for at in range(len(columns))]
        return pa.Table.from_arrays(cells, names=_numbered([str(name) for name in columns]))
    for name in LISTS:
        if isinstance(items := document.get(name), list | tuple):
            return _of_objects([_flat(item) for item in items if isinstance(item, Mapping)])
    return None


def frame(table: pa.Table) -> Any:
    """A frame of pandas, else of polars, else the Arrow table itself."""
    if importlib.util.find_spec("pandas"):
        return table.to_pandas()
    if importlib.util.find_spec("polars"):
        return importlib.import_module("polars").from_arrow(table)
    return table


def _flat(item: Mapping[str, Any]) -> dict[str, Any]:
    foreign = item.get("untrusted")
    rest = {name: value for name, value in item.items() if name != "untrusted"}
    return rest | (dict(foreign) if isinstance(foreign, Mapping) else {})


def _of_objects(items: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for item in items for name in item)
    return pa.table({name: _array([item.get(name) for item in items]) for name in names})


def _numbered(names: Sequence[str]) -> list[str]:
    """Each name once: what SQL calls `a` a second time becomes `a_2`."""
    found = list[str]()
    for name in names:
        tries = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        found.append(next(each for each in tries if each not in found and (each == name or each not in names)))
    return found


def _array(values: Sequence[Any]) -> pa.Array:
    """Values of several types, such as labels and boxes, as JSON, and so integers of more than 64 bits."""
    plain = [value if not isinstance(value, Mapping) else json.dumps(value, default=str) for value in values]
    try:
        return pa.array(plain)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return pa.array([None if value is None else json.dumps(value, default=str) for value in values])
