"""The table of models in DuckDB's own memory, where constraints are asked: all of them in one pass over the rows.

A table that is copied once answers in a millisecond; one that is opened and converted for each question takes fifty.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from speciate.models.query import AtLeast, Constraint, figure_name

_ASKED = (
    "tasks", "modalities", "sources", "license", "parameters", "access", "usd_per_1m_input", "usd_per_1m_output",
    "released",
)  # fmt: skip
"""The columns that constraints are about."""


class Catalogue:
    """Rows (index.SCHEMA) to be asked. Thread-safe."""

    def __init__(self, table: pa.Table) -> None:
        self._count = table.num_rows
        figures = _figures(table)
        self._values = {
            name: _best(figures.filter(pa.compute.equal(figures["name"], name))) for name in _distinct(figures)
        }
        self._connection = duckdb.connect(":memory:", config={"threads": 1})
        rows = table.select(_ASKED).append_column("place", pa.array(np.arange(self._count)))
        for name, content in (("models", rows), ("figures", figures)):
            self._connection.register("arrow", content)
            self._connection.execute(f"CREATE TABLE {name} AS SELECT * FROM arrow")
            self._connection.unregister("arrow")

    def held(self, wanted: Sequence[Constraint]) -> list[npt.NDArray[np.int8]]:
        """(N,) for each constraint: 1 where it holds, 0 where not, -1 where that is not known."""
        if not wanted:
            return []
        columns = ", ".join(f"coalesce(({each.holds})::TINYINT, -1::TINYINT) AS c{i}" for i, each in enumerate(wanted))
        values = [value for each in wanted for value in each.parameters]
        with self._connection.cursor() as cursor:  # one connection is one thread's
            found = cursor.execute(f"SELECT place, {columns} FROM models", values).fetchnumpy()
        held = np.zeros((len(wanted), self._count), np.int8)
        for i in range(len(wanted)):
            held[i, found["place"]] = found[f"c{i}"]
        return list(held)

    def published(self, wanted: AtLeast) -> npt.NDArray[np.float64]:
        """(N,) the best published value of each model, NaN where there is none."""
        found = np.full(self._count, np.nan)
        if wanted.name in self._values:
            places, least, most = self._values[wanted.name]
            found[places] = least if wanted.above is None and wanted.below is not None else most
        return found


def _figures(table: pa.Table) -> pa.Table:
    """A row for each published value: the model's place, its name, the value."""
    lists = table["published"].combine_chunks()
    inside = lists.flatten()
    names = [
        figure_name(benchmark or "", metric or "")
        for benchmark, metric in zip(
            inside.field("benchmark").to_pylist(), inside.field("metric").to_pylist(), strict=True
        )
    ]
    places = pa.compute.list_parent_indices(lists)
    return pa.table(
        {"place": places.cast(pa.int64()), "name": pa.array(names, pa.string()), "value": inside.field("value")}
    )


def _distinct(figures: pa.Table) -> list[str]:
    found: list[str] = figures["name"].unique().to_pylist()
    return found


def _best(
    figures: pa.Table,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Places, each once, with the least and the most value of each."""
    found = figures.group_by("place").aggregate([("value", "min"), ("value", "max")])
    return tuple(np.asarray(found[name]) for name in ("place", "value_min", "value_max"))  # type: ignore[return-value]
