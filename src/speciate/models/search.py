"""Which of the world's models fit: hard constraints first, then an order whose parts are all shown.

A constraint holds or it does not; what is not known of a model does not hold, and is counted apart. How many models
each constraint removes is always told, and how many there would be without it: so that whoever finds nothing knows what
to ask less of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Sort = Literal["relevance", "published", "parameters", "released", "price"]
_FUSION = 60
"""k of reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)."""
_HALF_LIFE_DAYS = 365.0
_WEIGHTS = {"words": 3.0}
"""What was asked for in words counts more than the date or the use of a model; each other part counts once."""
_SCORES = npt.NDArray[np.float64]


class AtLeast(BaseModel):
    """A published value that a model must have: on this benchmark, by this metric, and at least (or most) so much."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    benchmark: str = Field(description="As published, such as 'ImageNet-1K'; letters and digits count.")
    metric: str = Field(description="Such as 'acc@1', in the publisher's unit, usually percent.")
    above: FiniteFloat | None = None
    below: FiniteFloat | None = None


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
    """Of input and output each."""
    released_after: str | None = None
    published: tuple[AtLeast, ...] = ()
    weights: bool = False
    """Only models whose weights one can have."""
    installed: bool = False
    """Only those that can be used with nothing fetched or allowed first."""


class Constraint(NamedTuple):
    """`holds` is an SQL condition on a row, which is NULL where what it asks for is not known."""

    name: str
    holds: str
    parameters: tuple[Any, ...] = ()


class Dropped(NamedTuple):
    """What one constraint does: models that fail it, models of which is not known whether they hold it, and how many
    more there would be without it."""

    fails: int
    unknown: int
    alone: int


class Hit(NamedTuple):
    row: dict[str, Any]
    score_parts: dict[str, float]


class Found(NamedTuple):
    hits: list[Hit]
    total: int
    dropped_by: dict[str, Dropped]


def constraints(query: Query) -> list[Constraint]:
    """Each condition of a query by the name of its argument."""
    found: list[Constraint] = []
    if query.task is not None:
        found.append(Constraint("task", "list_contains(tasks, ?)", (query.task,)))
    if query.modality is not None:
        found.append(Constraint("modality", "list_contains(modalities, ?)", (query.modality,)))
    if query.sources:
        found.append(Constraint("sources", "list_has_any(sources, ?::VARCHAR[])", (list(query.sources),)))
    if query.licenses:
        found.append(Constraint("licenses", "list_contains(?::VARCHAR[], license)", (list(query.licenses),)))
    if query.max_parameters is not None:
        found.append(Constraint("max_parameters", "parameters <= ?", (query.max_parameters,)))
    if query.max_usd_per_1m_tokens is not None:
        found.append(
            Constraint(
                "max_usd_per_1m_tokens",
                "CASE WHEN access = 'weights' THEN true ELSE greatest(usd_per_1m_input, usd_per_1m_output) <= ? END",
                (query.max_usd_per_1m_tokens,),
            )
        )
    if query.released_after is not None:
        found.append(Constraint("released_after", "released > ?", (query.released_after,)))
    found += [_figure(wanted) for wanted in query.published]
    if query.weights:
        found.append(Constraint("weights", "access = 'weights'"))
    return found


def _figure(wanted: AtLeast) -> Constraint:
    """NULL where nobody published such a value."""
    bounds = [(sign, bound) for sign, bound in ((">", wanted.above), ("<", wanted.below)) if bound is not None]
    inside = " AND ".join(f"value {sign} ?" for sign, _ in bounds) or "true"
    holds = (
        f"(SELECT bool_or({inside}) FROM (SELECT unnest(published, recursive := true)) "
        f"WHERE {_plain('benchmark')} = ? AND {_plain('metric')} = ?)"
    )
    values = (*(bound for _, bound in bounds), _letters(wanted.benchmark), _letters(wanted.metric))
    return Constraint(f"published {wanted.benchmark} {wanted.metric}", holds, values)


def _plain(column: str) -> str:
    return f"regexp_replace(lower({column}), '[^a-z0-9]', '', 'g')"


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


class Index:
    """A table of models (index.SCHEMA), ready to be searched. Thread-safe."""

    def __init__(self, table: pa.Table) -> None:
        from bm25s import BM25

        self._table, self._count = table, table.num_rows
        texts = zip(table["ref"].to_pylist(), table["what"].to_pylist(), strict=True)
        self._released = np.array([date or "NaT" for date in table["released"].to_pylist()], "datetime64[D]")
        self._use = np.log1p(np.asarray(table["downloads"].fill_null(0), np.float64))
        self._words = BM25()
        self._words.index([_words(f"{ref} {what}") for ref, what in texts], show_progress=False)

    def search(
        self,
        query: Query,
        *,
        sort: Sort = "relevance",
        limit: int = 20,
        offset: int = 0,
        today: str,
        usable: Callable[[pa.Table], Sequence[bool]] | None = None,
    ) -> Found:
        """The models that hold every constraint, best first. `today`: ISO date, for how old they are. `usable`: tells
        of a table which of its models can be used here and now."""
        wanted = constraints(query)
        held = dict(zip([each.name for each in wanted], self._held(wanted), strict=True))
        if query.installed and usable is not None:
            held["installed"] = np.asarray(usable(self._table), np.int8)
        inside = np.flatnonzero(_all([known == 1 for known in held.values()], self._count))
        parts = self._parts(inside, query, today)
        order = self._order(inside, parts, sort)
        chosen = order[offset : offset + limit]
        rows = self._table.take(pa.array(inside[chosen])).to_pylist()
        hits = [
            Hit(row, {name: round(float(part[place]), 4) for name, part in parts.items()})
            for row, place in zip(rows, chosen.tolist(), strict=True)
        ]
        return Found(hits, len(inside), {name: _dropped(name, held, self._count) for name in held})

    def _held(self, wanted: Sequence[Constraint]) -> list[npt.NDArray[np.int8]]:
        """(N,) for each constraint: 1 where it holds, 0 where not, -1 where that is not known."""
        if not wanted:
            return []
        columns = ", ".join(f"coalesce(({each.holds})::TINYINT, -1::TINYINT) AS c{i}" for i, each in enumerate(wanted))
        values = [value for each in wanted for value in each.parameters]
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            connection.register("models", self._table)
            found = connection.execute(f"SELECT {columns} FROM models", values).fetchnumpy()
        return [np.asarray(found[f"c{i}"], np.int8) for i in range(len(wanted))]

    def _parts(self, inside: npt.NDArray[np.int64], query: Query, today: str) -> Mapping[str, _SCORES]:
        """What speaks for each model, from 0 to 1, one part for each reason; only those that tell something here."""
        parts: dict[str, _SCORES] = {}
        if words := [word for word in _words(query.text) if word in self._words.vocab_dict]:
            scores = np.asarray(self._words.get_scores(words), np.float64)[inside]
            parts["words"] = scores / max(scores.max(initial=0.0), 1e-9)
        if query.published:
            parts["published"] = _percentiles(self._table.take(pa.array(inside)), query.published[0])
        released = self._released[inside]
        if not np.isnat(released).all():
            days = (np.datetime64(today) - released).astype(np.float64)
            parts["recency"] = np.where(np.isnat(released), 0.0, 0.5 ** (np.maximum(days, 0.0) / _HALF_LIFE_DAYS))
        if (most := self._use[inside].max(initial=0.0)) > 0:
            parts["use"] = self._use[inside] / most
        return parts

    def _order(self, inside: npt.NDArray[np.int64], parts: Mapping[str, _SCORES], sort: Sort) -> npt.NDArray[np.int64]:
        fused = np.zeros(len(inside))
        for name, part in parts.items():
            ranks = np.argsort(np.argsort(-part, kind="stable"), kind="stable")
            fused += np.where(part > 0, _WEIGHTS.get(name, 1.0) / (_FUSION + 1 + ranks), 0.0)
        if "words" in parts:
            fused = np.where(parts["words"] > 0, fused + 1.0, fused)  # without a word of it nothing comes first
        match sort:
            case "published" if "published" in parts:
                key = -parts["published"]
            case "parameters":
                key = _numbers(self._table["parameters"], inside)
            case "price":
                key = _numbers(self._table["usd_per_1m_output"], inside)
            case "released":
                known = ~np.isnat(self._released[inside])
                key = np.where(known, -self._released[inside].astype(np.float64), np.inf)
            case _:
                key = -fused
        return np.lexsort((np.arange(len(inside)), -fused, key))


def _dropped(name: str, held: Mapping[str, npt.NDArray[np.int8]], count: int) -> Dropped:
    own = held[name]
    without = _all([known == 1 for other, known in held.items() if other != name], count)
    return Dropped(int((own == 0).sum()), int((own < 0).sum()), int((without & (own != 1)).sum()))


def _all(conditions: Sequence[npt.NDArray[np.bool_]], count: int) -> npt.NDArray[np.bool_]:
    found = np.ones(count, bool)
    for condition in conditions:
        found &= condition
    return found


def _percentiles(rows: pa.Table, wanted: AtLeast) -> _SCORES:
    """Of each value among those here: figures of different benchmarks say nothing of one another."""
    benchmark, metric = _letters(wanted.benchmark), _letters(wanted.metric)
    values = np.array(
        [
            max(
                (
                    figure["value"]
                    for figure in figures or ()
                    if _letters(figure["benchmark"]) == benchmark and _letters(figure["metric"]) == metric
                ),
                default=np.nan,
            )
            for figures in rows["published"].to_pylist()
        ]
    )
    better = values if wanted.above is not None else -values
    order = np.argsort(np.argsort(np.where(np.isnan(better), -np.inf, better), kind="stable"), kind="stable")
    return np.where(np.isnan(values), 0.0, (order + 1) / max(len(values), 1))


def _numbers(column: pa.ChunkedArray, inside: npt.NDArray[np.int64]) -> _SCORES:
    """Unknown ones last."""
    return np.asarray(column.cast(pa.float64()).fill_null(np.inf))[inside]


def _words(text: str) -> list[str]:
    """Lower case; `vit_base_patch16` is one word and its parts."""
    found = re.findall(r"[a-z0-9][a-z0-9_.\-]*", text.lower())
    return [part for word in found for part in dict.fromkeys((word.strip("._-"), *re.split(r"[_.\-]+", word))) if part]
