"""A search over published models: words, and constraints as SQL conditions on a row of the catalogue.

A constraint holds or it does not; it is NULL if a model lacks the fact.

`Catalogue` has the table in DuckDB's memory and checks all constraints in one pass. A table that is copied once answers
in a millisecond; one that is opened and converted for each query takes fifty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from speciate.errors import near_names

_BENCHMARKS = {
    "imagenet": "ImageNet-1K", "imagenet1000": "ImageNet-1K", "in1k": "ImageNet-1K", "ilsvrc2012": "ImageNet-1K",
    "ilsvrc": "ImageNet-1K", "coco": "COCO-val2017", "coco2017": "COCO-val2017", "mscoco": "COCO-val2017",
    "kinetics": "Kinetics-400", "k400": "Kinetics-400",
}  # fmt: skip
_METRICS = {
    "top1": "acc@1", "accuracy": "acc@1", "acc": "acc@1", "top1accuracy": "acc@1", "accuracytop1": "acc@1",
    "top1acc": "acc@1", "acctop1": "acc@1", "top5": "acc@5", "top5accuracy": "acc@5", "top5acc": "acc@5",
    "map": "box_map", "boxap": "box_map", "bboxmap": "box_map", "meaniou": "miou",
}  # fmt: skip
"""Other spellings, by their letters -> the name under which values are published."""


class AtLeast(BaseModel):
    """A published value that a model must have; without bounds: any."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    benchmark: str = Field(description="As published, such as 'ImageNet-1K'; letters and digits count.")
    metric: str = Field(description="Such as 'acc@1', in the publisher's unit, usually percent.")
    above: FiniteFloat | None = None
    below: FiniteFloat | None = None

    @property
    def name(self) -> str:
        return figure_name(self.benchmark, self.metric)

    @property
    def constraint(self) -> str:
        """Name of its condition in counts of removed models."""
        return f"published {self.benchmark} {self.metric}"


class Query(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str = ""
    task: str | None = None
    modality: str | None = None
    sources: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    """SPDX ids."""
    max_parameters: int | None = None
    max_usd_per_1m_tokens: float | None = None
    """Most US dollars for a million tokens, of input and of output each."""
    released_after: str | None = None
    published: tuple[AtLeast, ...] = ()
    weights: bool = False
    """Whether only models with published weights are found."""
    installed: bool = False
    """Whether only models are found that can be used without fetching or allowing anything first."""
    children_of: str | None = None
    """The ref of a model: only it and its near-identical children, each a row of its own."""


class Constraint(NamedTuple):
    """`holds` is an SQL condition on a row, which is NULL if the fact is unknown."""

    name: str
    holds: str
    parameters: tuple[Any, ...] = ()


def constraints(query: Query) -> list[Constraint]:
    """Each condition of a query by the name of its argument, as far as a row alone decides it. No two names are the
    same: of two published values of one metric the second is `... (2)`."""
    found: dict[str, Constraint] = {}
    for each in _constraints(query):
        name, number = each.name, 1
        while name in found:
            number += 1
            name = f"{each.name} ({number})"
        found[name] = each._replace(name=name)
    return list(found.values())


def _constraints(query: Query) -> Iterator[Constraint]:
    if query.task is not None:
        yield Constraint("task", "list_contains(tasks, ?)", (query.task,))
    if query.modality is not None:
        yield Constraint("modality", "list_contains(modalities, ?)", (query.modality,))
    if query.sources:
        yield Constraint("sources", "list_has_any(sources, ?::VARCHAR[])", (list(query.sources),))
    if query.licenses:
        yield Constraint("licenses", "list_contains(?::VARCHAR[], license)", (list(query.licenses),))
    if query.max_parameters is not None:
        yield Constraint("max_parameters", "parameters <= ?", (query.max_parameters,))
    if query.max_usd_per_1m_tokens is not None:
        yield Constraint(
            "max_usd_per_1m_tokens",
            "CASE WHEN access = 'weights' THEN true ELSE greatest(usd_per_1m_input, usd_per_1m_output) <= ? END",
            (query.max_usd_per_1m_tokens,),
        )
    if query.released_after is not None:
        yield Constraint("released_after", "released > ?", (query.released_after,))
    for wanted in query.published:
        yield _figure(wanted)
    if query.weights:
        yield Constraint("weights", "access = 'weights'")


def _figure(wanted: AtLeast) -> Constraint:
    """NULL if nobody published such a value."""
    bounds = [(sign, bound) for sign, bound in ((">", wanted.above), ("<", wanted.below)) if bound is not None]
    inside = " AND ".join(f"value {sign} ?" for sign, _ in bounds) or "true"
    holds = f"(SELECT bool_or({inside}) FROM figures f WHERE f.place = models.place AND f.name = ?)"
    return Constraint(wanted.constraint, holds, (*(bound for _, bound in bounds), wanted.name))


def figure_name(benchmark: str, metric: str) -> str:
    """The name of a figure, the same for all spellings of one benchmark and metric."""
    return f"{_usual(benchmark, _BENCHMARKS)} {_usual(metric, _METRICS)}"


def not_published(wanted: AtLeast, known: Iterable[tuple[str, str]]) -> str | None:
    """If nobody published such a value: the published alternatives. `known`: (benchmark, metric) as published."""
    known = sorted(set(known))
    if any(figure_name(*each) == wanted.name for each in known):
        return None
    benchmark = _usual(wanted.benchmark, _BENCHMARKS)
    metrics = [metric for name, metric in known if letters(name) == benchmark]
    value = f"{wanted.benchmark[:64]!r} by {wanted.metric[:64]!r}"
    if metrics:
        return f"No model here has a published value on {value}; on that benchmark: {', '.join(metrics)}."
    names = {letters(name): name for name, _ in known}
    near = [names[each] for each in near_names(benchmark, names)]
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return f"No model here has a published value on {value}; {hint}known: {', '.join(sorted(names.values()))}."


def _usual(name: str, others: Mapping[str, str]) -> str:
    own = letters(name)
    return letters(others.get(own, own))


def letters(name: str) -> str:
    """The letters and digits that all spellings of a benchmark or a metric share."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


_COLUMNS = (
    "tasks", "modalities", "sources", "license", "parameters", "access", "usd_per_1m_input", "usd_per_1m_output",
    "released",
)  # fmt: skip
"""The columns that constraints are about."""


class Catalogue:
    """Rows (index.SCHEMA) against which constraints are checked. Thread-safe."""

    def __init__(self, table: pa.Table) -> None:
        self._count = table.num_rows
        figures = _figures(table)
        self._values = {
            name: _best(figures.filter(pa.compute.equal(figures["name"], name))) for name in _distinct(figures)
        }
        self._connection = duckdb.connect(":memory:", config={"threads": 1})
        rows = table.select(_COLUMNS).append_column("place", pa.array(np.arange(self._count)))
        for name, content in (("models", rows), ("figures", figures)):
            self._connection.register("arrow", content)
            self._connection.execute(f"CREATE TABLE {name} AS SELECT * FROM arrow")
            self._connection.unregister("arrow")

    def check(self, wanted: Sequence[Constraint]) -> list[npt.NDArray[np.int8]]:
        """(N,) for each constraint: 1 where it holds, 0 where not, -1 where unknown."""
        if not wanted:
            return []
        columns = ", ".join(f"coalesce(({each.holds})::TINYINT, -1::TINYINT) AS c{i}" for i, each in enumerate(wanted))
        values = [value for each in wanted for value in each.parameters]
        with self._connection.cursor() as cursor:  # one connection is one thread's
            found = cursor.execute(f"SELECT place, {columns} FROM models", values).fetchnumpy()
        checked = np.zeros((len(wanted), self._count), np.int8)
        for i in range(len(wanted)):
            checked[i, found["place"]] = found[f"c{i}"]
        return list(checked)

    def published(self, wanted: AtLeast) -> npt.NDArray[np.float64]:
        """(N,) the best published value of each model, NaN without one."""
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
