"""Search and ranking of models: hard constraints first, then an order whose score parts are all shown.

A constraint holds or it does not; an unknown fact does not hold, and is counted apart. The result always states how
many models each constraint removes and how many more there would be without it, so that a caller without hits knows
which constraint to relax.

An index is made of parts, each a table with what is computed from it once. A registration makes the part of the
workspace's own models anew, from the earlier one, and none of the published ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.errors import unknown
from speciate.models.search import embeddings
from speciate.models.search.index import IndexRow
from speciate.models.search.model_families import Families, families
from speciate.models.search.search_query import AtLeast, Catalogue, Query, constraints, letters
from speciate.models.search.word_counts import WordCounts, word_scores

Sort = Literal["relevance", "published", "parameters", "released", "price"]
_FUSION = 60
"""k of reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)."""
_HALF_LIFE_DAYS = 365.0
_WEIGHTS = {"words": 3.0, "meaning": 3.0}
"""The query counts more than the date or the use of a model; each other part counts once."""
_NEAREST = 50
"""So many models match a query by meaning, without any of its words."""
_PRICES = ("usd_per_1m_output", "usd_per_minute", "usd_per_image")
_LESS_IS_BETTER = ("epe", "perimageepe", "flall", "wer", "cer", "mae", "mse", "rmse", "loss", "perplexity")
"""Metrics, by their letters, that no sort chooses by itself."""
_SCORES = npt.NDArray[np.float64]
_PLACES = npt.NDArray[np.int64]


class Dropped(NamedTuple):
    """The effect of one constraint: models that fail it, models without the fact, and how many more models there would
    be without it."""

    fails: int
    unknown: int
    alone: int


class Hit(NamedTuple):
    row: IndexRow
    score_parts: dict[str, float]
    children: int = 0
    """Further models of its family that pass every constraint."""


class Order(NamedTuple):
    """The values that models are sorted by where the caller named none."""

    by: str | None
    """None: no model has any, so they are sorted by relevance."""
    have: int
    """Models that have one; the others come last."""


class SearchResult(NamedTuple):
    hits: list[Hit]
    total: int
    """Models that pass every constraint."""
    shown: int
    """How many rows those models make, with each family as one row."""
    dropped_by: dict[str, Dropped]
    by_meaning: bool = False
    """Whether a vector of the query took part in the order."""
    lifted: tuple[str, ...] = ()
    """If no model is left: the fewest constraints without which some are."""
    known: int = 0
    """Models that were searched."""
    order: Order | None = None
    """If the values that a sort was to be by had to be chosen."""
    unmatched: bool = False
    """Whether words were searched for and no model has any of them."""


class IndexPart:
    """A table of models (index.SCHEMA) with what a search needs of it. No family of models crosses parts."""

    def __init__(self, table: pa.Table, cache: Path | None = None, before: IndexPart | None = None) -> None:
        """`cache`: a folder with vectors of texts. `before`: an earlier part that shares rows with this one."""
        self.table = table.combine_chunks()  # rows are taken from one chunk ten times faster than from several
        self.catalogue = Catalogue(self.table)
        refs, texts = self.table["ref"].to_pylist(), self.table["what"].to_pylist()
        named = [f"{ref} {what}" for ref, what in zip(refs, texts, strict=True)]
        self.words: WordCounts = WordCounts(named, before.words if before else None)
        self.meanings = embeddings.read_vectors(cache, embeddings.texts(self.table)) if cache else None
        self.families = families(self.table)
        self.released = np.array([date or "NaT" for date in self.table["released"].to_pylist()], "datetime64[D]")
        self.access_kinds, self.access_kind = _access_kinds(self.table)


class ModelIndex:
    """Models, ready to be searched; those of an earlier part go before equally good ones. Thread-safe."""

    def __init__(self, *parts: IndexPart) -> None:
        self._index_parts = parts
        self._table = pa.concat_tables([part.table for part in parts]).combine_chunks()
        self._count = self._table.num_rows
        self._starts = np.cumsum([part.table.num_rows for part in parts])[:-1]
        self._places = {ref: place for place, ref in enumerate(self._table["ref"].to_pylist())}
        self._families = Families(
            _numbered_on([part.families.of for part in parts]), np.concatenate([part.families.base for part in parts])
        )
        self._released = np.concatenate([part.released for part in parts])
        self._use = np.log1p(np.asarray(self._table["downloads"].fill_null(0), np.float64))
        self._access_kinds = pa.concat_tables([part.access_kinds for part in parts])
        self._access_kind = _numbered_on([part.access_kind for part in parts])

    @property
    def encoder(self) -> str | None:
        """The encoder that the vectors of queries must come from; None: there are no vectors here."""
        names = {part.meanings.encoder if part.meanings else None for part in self._index_parts}
        return names.pop() if len(names) == 1 else None

    def search(
        self,
        query: Query,
        *,
        sort: Sort = "relevance",
        limit: int = 20,
        offset: int = 0,
        today: str,
        usable: Callable[[pa.Table], Sequence[bool]] | None = None,
        vector: npt.NDArray[np.float32] | None = None,
    ) -> SearchResult:
        """The models that pass every constraint, best first, each family as one row.

        `today`: ISO date, for their age. `usable`: which models of a table can be used here and now; it is called with
        one model for each kind of access. `vector`: of the query's text, made by `encoder`. Raises NOT_FOUND for
        `children_of` an unknown model.
        """
        wanted = constraints(query)
        checked = [part.catalogue.check(wanted) for part in self._index_parts]
        checks = {each.name: np.concatenate(columns) for each, *columns in zip(wanted, *checked, strict=True)}
        if query.installed and usable is not None:
            checks["installed"] = np.asarray(usable(self._access_kinds), np.int8)[self._access_kind]
        if query.children_of is not None:
            family = self._families.of[self._place(query.children_of)]
            checks["children_of"] = (self._families.of == family).astype(np.int8)
        inside = np.flatnonzero(_all([known == 1 for known in checks.values()], self._count))
        wanted_figure, chosen_order = self._figure_to_sort_by(inside, query, sort)
        parts = self._parts(inside, query, today, vector, wanted_figure)
        price = self._price_to_sort_by(inside) if sort == "price" else None
        if price is not None and price.by != _PRICES[0]:
            chosen_order = price
        order = self._order(inside, parts, sort, price.by if price else None)
        total = len(order)
        children = np.zeros(total, np.int64)
        if query.children_of is None:
            asked = query.published or ((wanted_figure,) if wanted_figure else ())
            order, children = self._collapsed(inside, order, parts.get("words"), asked, sort)
        chosen = order[offset : offset + limit]
        rows = self._table.take(pa.array(inside[chosen])).to_pylist()
        hits = [
            Hit(row, {name: round(float(part[place]), 4) for name, part in parts.items()}, count)
            for row, place, count in zip(rows, chosen.tolist(), children[offset : offset + limit].tolist(), strict=True)
        ]
        dropped = _dropped(checks, self._count)
        return SearchResult(
            hits,
            total,
            len(order),
            dropped,
            "meaning" in parts,
            () if total else _blocking_constraints(checks, dropped),
            self._count,
            chosen_order,
            bool(query.text.strip()) and "meaning" not in parts and not np.any(parts.get("words", 0)),
        )

    def row(self, ref: str) -> IndexRow | None:
        """The row of one model, by its ref or as `hf:org/name`; None for an unknown one."""
        place = self._places.get(ref)
        if place is None and ref.startswith("hf:"):
            place = pc.index(self._table["hub"], ref.removeprefix("hf:")).as_py()
        return None if place is None or place < 0 else dict(self._table.slice(place, 1).to_pylist()[0])

    def refs(self) -> Collection[str]:
        return self._places.keys()

    def published(self) -> set[tuple[str, str]]:
        """(benchmark, metric) of every published value, as published."""
        inside = self._table["published"].combine_chunks().flatten()
        pairs = zip(inside.field("benchmark").to_pylist(), inside.field("metric").to_pylist(), strict=True)
        return {(benchmark, metric) for benchmark, metric in pairs if benchmark and metric}

    def _place(self, ref: str) -> int:
        if ref not in self._places:
            raise unknown("model", ref, self._places, "children_of takes the ref of a row that search_models showed.")
        return self._places[ref]

    def _parts(
        self,
        inside: _PLACES,
        query: Query,
        today: str,
        vector: npt.NDArray[np.float32] | None,
        figure: AtLeast | None,
    ) -> Mapping[str, _SCORES]:
        """The score of each model from 0 to 1 for each criterion; only criteria that apply to this query."""
        parts: dict[str, _SCORES] = {}
        if (scores := word_scores([part.words for part in self._index_parts], query.text)) is not None:
            scores = scores[inside]
            parts["words"] = scores / max(scores.max(initial=0.0), 1e-9)
        if vector is not None and self.encoder is not None:
            parts["meaning"] = np.maximum(self._nearness(inside, vector), 0.0).astype(np.float64)
        if figure is not None:
            parts["published"] = _percentiles(self._published(figure)[inside], figure)
        released = self._released[inside]
        if not np.isnat(released).all():
            days = (np.datetime64(today) - released).astype(np.float64)
            parts["recency"] = np.where(np.isnat(released), 0.0, 0.5 ** (np.maximum(days, 0.0) / _HALF_LIFE_DAYS))
        if (most := self._use[inside].max(initial=0.0)) > 0:
            parts["use"] = self._use[inside] / most
        return parts

    def _nearness(self, inside: _PLACES, vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        own = zip(
            self._index_parts, np.split(inside, np.searchsorted(inside, self._starts)), (0, *self._starts), strict=True
        )
        return np.concatenate(
            [part.meanings.vectors[places - start] @ vector for part, places, start in own if part.meanings]
        )

    def _published(self, figure: AtLeast) -> _SCORES:
        return np.concatenate([part.catalogue.published(figure) for part in self._index_parts])

    def _figure_to_sort_by(self, inside: _PLACES, query: Query, sort: Sort) -> tuple[AtLeast | None, Order | None]:
        """What a query asks for first; for a sort by published values without one, what most of these models have."""
        if query.published or sort != "published":
            return next(iter(query.published), None), None
        counts = Counter(
            (figure["benchmark"], figure["metric"])
            for figures in self._table["published"].take(pa.array(inside)).to_pylist()
            for figure in {(each["benchmark"], each["metric"]): each for each in figures or ()}.values()
            if letters(figure["metric"]) not in _LESS_IS_BETTER
        )
        if not counts:
            return None, Order(None, 0)
        (benchmark, metric), have = min(counts.items(), key=lambda each: (-each[1], each[0]))
        return AtLeast(benchmark=benchmark, metric=metric), Order(f"{benchmark} {metric}", have)

    def _price_to_sort_by(self, inside: _PLACES) -> Order:
        """The kind of price that most of these models have; of equals that of tokens."""
        known = {name: len(inside) - self._table[name].take(pa.array(inside)).null_count for name in _PRICES}
        best = max(_PRICES, key=lambda name: known[name])
        return Order(best if known[best] else None, known[best])

    def _order(self, inside: _PLACES, parts: Mapping[str, _SCORES], sort: Sort, price: str | None) -> _PLACES:
        fused = np.zeros(len(inside))
        for name, part in parts.items():
            ranks = np.argsort(np.argsort(-part, kind="stable"), kind="stable")
            fused += np.where(part > 0, _WEIGHTS.get(name, 1.0) / (_FUSION + 1 + ranks), 0.0)
        words, near = parts.get("words"), parts.get("meaning")
        if words is not None or near is not None:
            fused += _matching(words, near)  # models without a match do not come first
        match sort:
            case "published" if "published" in parts:
                key = -parts["published"]
            case "parameters":
                key = _numbers(self._table["parameters"], inside)
            case "price":
                key = _numbers(self._table[price or _PRICES[0]], inside)
            case "released":
                known = ~np.isnat(self._released[inside])
                key = np.where(known, -self._released[inside].astype(np.float64), np.inf)
            case _:
                key = -fused
        return np.lexsort((np.arange(len(inside)), -fused, key))

    def _collapsed(
        self, inside: _PLACES, order: _PLACES, words: _SCORES | None, figures: Sequence[AtLeast], sort: Sort
    ) -> tuple[_PLACES, _PLACES]:
        """The representative of each family, in the place of its best model, and how many more models it stands for.

        All of them pass every constraint. Models that differ in a requested published value are separate rows. The
        representative is the best model, or the base if the order is by relevance and words do not favour the best.
        """
        family = self._families.of[inside]
        for wanted in figures:
            values = np.nan_to_num(self._published(wanted)[inside], nan=np.inf)
            _, family = np.unique(np.stack([family, values]), axis=1, return_inverse=True)
            family = family.reshape(-1)
        _, first, group, sizes = np.unique(family[order], return_index=True, return_inverse=True, return_counts=True)
        group = group.reshape(-1)
        standing = order[first]
        if sort == "relevance":
            for place in np.flatnonzero(self._families.base[inside[order]] & (sizes[group] > 1)):
                best, base = standing[group[place]], order[place]
                if words is None or words[base] >= words[best]:
                    standing[group[place]] = base
        rank = np.argsort(first)
        return standing[rank], sizes[rank] - 1


def _dropped(checks: Mapping[str, npt.NDArray[np.int8]], count: int) -> dict[str, Dropped]:
    """What each constraint drops, in one pass: a row that fails one constraint alone would be there without it."""
    failing = np.zeros(count, np.int16)
    for own in checks.values():
        failing += own != 1
    return {
        name: Dropped(int((own == 0).sum()), int((own < 0).sum()), int(((failing == 1) & (own != 1)).sum()))
        for name, own in checks.items()
    }


def _blocking_constraints(
    checks: Mapping[str, npt.NDArray[np.int8]], dropped: Mapping[str, Dropped]
) -> tuple[str, ...]:
    """The one constraint whose removal alone gives most models; else the constraints that remove most, one after
    another until a model is left, without those that can be kept after all."""
    if alone := {name: each.alone for name, each in dropped.items() if each.alone}:
        return (max(alone, key=lambda name: alone[name]),)
    lifted: list[str] = []
    for name in sorted(checks, key=lambda name: -(dropped[name].fails + dropped[name].unknown)):
        lifted.append(name)
        if _some(checks, lifted):
            break
    for name in reversed(lifted[:-1]):
        if _some(checks, without := [each for each in lifted if each != name]):
            lifted = without
    return tuple(lifted)


def _some(checks: Mapping[str, npt.NDArray[np.int8]], without: Sequence[str]) -> bool:
    kept = [own == 1 for name, own in checks.items() if name not in without]
    return not kept or bool(np.logical_and.reduce(kept).any())


def _all(conditions: Sequence[npt.NDArray[np.bool_]], count: int) -> npt.NDArray[np.bool_]:
    found = np.ones(count, bool)
    for condition in conditions:
        found &= condition
    return found


def _percentiles(values: _SCORES, wanted: AtLeast) -> _SCORES:
    """The share of models that are not better: figures of different benchmarks cannot be compared."""
    less = wanted.above is None and wanted.below is not None
    better = np.where(np.isnan(values), -np.inf, -values if less else values)
    return np.where(np.isnan(values), 0.0, np.searchsorted(np.sort(better), better, "right") / max(len(values), 1))


def _access_kinds(table: pa.Table) -> tuple[pa.Table, _PLACES]:
    """One model for each kind of access, and (N,) which of them each model has: the workspace's own, each endpoint of
    it, each package, each provider, weights elsewhere by their format."""
    columns = (table[name].to_pylist() for name in ("ref", "format", "access"))
    keys = [_access_kind(ref, format_, by) for ref, format_, by in zip(*columns, strict=True)]
    _, first, door = np.unique(np.array(keys, dtype=str), return_index=True, return_inverse=True)
    return table.take(pa.array(first)), door.reshape(-1)


def _access_kind(ref: str, format_: str | None, by: str) -> str:
    source, colon, rest = ref.partition(":")
    match source if colon else "":
        case "":
            return ref if by == "api" else ""
        case "pkg":
            return ref
        case "api":
            return f"api:{rest.partition('/')[0]}"
    return f"{source}: {format_ or ''}"


def _matching(words: _SCORES | None, near: _SCORES | None) -> npt.NDArray[np.bool_]:
    """Models with a word of the query, or among the nearest ones by meaning."""
    found = np.zeros(len(words if words is not None else near if near is not None else ()), bool)
    if words is not None:
        found |= words > 0
    if near is not None:
        least = np.partition(near, -_NEAREST)[-_NEAREST] if len(near) > _NEAREST else 0.0
        found |= near >= max(least, 1e-9)
    return found


def _numbers(column: pa.ChunkedArray, inside: _PLACES) -> _SCORES:
    """Unknown ones last."""
    return np.asarray(column.cast(pa.float64()).fill_null(np.inf))[inside]


def _numbered_on(parts: Sequence[_PLACES]) -> _PLACES:
    """Numbers of several parts as one array: those of a later part begin where an earlier one's end."""
    ends = np.cumsum([0, *(int(each.max(initial=-1)) + 1 for each in parts)])
    return np.concatenate([each + start for each, start in zip(parts, ends[:-1], strict=True)])
