"""The index of published models: one table with a row for each model, and the source and date of each field.

Rows of several sources about one model become one row: the first source counts for each field, in the order of
`sources.SOURCES`. A table is shipped with the package, so that a search needs no network; a workspace may hold a newer
one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.models.search import sources
from speciate.models.search.sources import Entry

SHIPPED = Path(__file__).parent / "known_models.parquet"
SCHEMA = pa.schema(
    [
        ("ref", pa.string()),
        ("what", pa.string()),
        ("access", pa.string()),
        ("tasks", pa.list_(pa.string())),
        ("modalities", pa.list_(pa.string())),
        ("parameters", pa.int64()),
        ("license", pa.string()),
        (
            "published",
            pa.list_(pa.struct([("benchmark", pa.string()), ("metric", pa.string()), ("value", pa.float64())])),
        ),
        ("usd_per_1m_input", pa.float64()),
        ("usd_per_1m_output", pa.float64()),
        ("usd_per_image", pa.float64()),
        ("usd_per_minute", pa.float64()),
        ("context_tokens", pa.int64()),
        ("released", pa.string()),
        ("base_model", pa.string()),
        ("relation", pa.string()),
        ("hub", pa.string()),
        ("revision", pa.string()),
        ("format", pa.string()),
        ("bytes", pa.int64()),
        ("gflops", pa.float64()),
        ("languages", pa.list_(pa.string())),
        ("downloads", pa.int64()),
        ("likes", pa.int64()),
        ("gated", pa.bool_()),
        ("sources", pa.list_(pa.string())),
        ("origins", pa.map_(pa.string(), pa.string())),
    ]
)
"""The fields of an Entry, the names of the sources that know it, and the source and date of each known field:
`timm 1.0.31, 2026-11-25`."""


_UNITED = ("tasks", "modalities")
_PACKAGES = {
    "pkg": "speciate", "open_clip": "open_clip_torch", "segmentation_models": "segmentation_models_pytorch",
    "prices": "genai-prices", "llm_guard": "llm-guard", "pipelines": "transformers",
}  # fmt: skip
"""Sources whose origin does not begin with their name."""


class SourceListing(NamedTuple):
    """Entries of one source at one time."""

    source: str
    origin: str
    date: str
    entries: Iterable[Entry]


def list_sources(names: Iterable[str], date: str) -> Iterator[SourceListing]:
    """The entries of these sources, of the installed ones. `date`: today's, ISO."""
    for name in names:
        source = sources.find(name)
        if source.installed():
            yield SourceListing(name, source.origin(), date, source.entries())


def merge(
    listings: Iterable[SourceListing], sizes: Mapping[str, int] | None = None, before: pa.Table | None = None
) -> pa.Table:
    """One row for each model, sorted by ref. `sizes`: parameters of timm's architectures. `before`: an earlier table,
    whose fields from other sources stay."""
    listings = list(listings)
    facts = [
        *_current_facts(listings, sizes),
        *(_earlier_facts(before, {each.source for each in listings}) if before is not None else ()),
    ]
    order = {name: place for place, name in enumerate(sources.table())}
    rows: dict[str, _Row] = {}
    for each in sorted(facts, key=lambda each: order.get(each.source, len(order))):
        rows.setdefault(each.model, _Row()).add(each.fields, each.source, each.origin)
    ordered = sorted(rows.values(), key=lambda row: str(row.fields["ref"]))
    return pa.Table.from_pylist([row.as_dict() for row in ordered], SCHEMA)


class _SourceFact(NamedTuple):
    """The fields of one source about one model."""

    model: str
    """The model's repository, or its ref if it has none."""
    source: str
    origin: str
    fields: Mapping[str, Any]
    """Fields of an `Entry` that the source knows."""


def _current_facts(listings: Iterable[SourceListing], sizes: Mapping[str, int] | None) -> Iterator[_SourceFact]:
    for source, origin, date, entries in listings:
        for entry in entries:
            fields = {name: value for name, value in entry.model_dump().items() if value not in (None, ())}
            if source == "timm" and sizes:
                architecture = entry.ref.removeprefix("timm:").partition(".")[0]
                fields |= {"parameters": sizes[architecture]} if architecture in sizes else {}
            yield _SourceFact(entry.hub or entry.ref, source, f"{origin}, {date}", fields)


def _earlier_facts(before: pa.Table, listed: Collection[str]) -> Iterator[_SourceFact]:
    """The facts of a table from sources that are not listed now. A row names the first source of each field; required
    fields are restored for the other sources."""
    left = pa.array([not set(names) <= set(listed) for names in before["sources"].to_pylist()], pa.bool_())
    for row in before.filter(left).to_pylist():
        origins = dict(row["origins"])
        by = {field: _source_of(origin, row["sources"]) for field, origin in origins.items()}
        ref = f"hf:{row['hub']}" if row["hub"] else row["ref"]
        for source in row["sources"]:
            if source in listed:
                continue
            own = [field for field in origins if by[field] == source]
            fields = {field: row[field] for field in origins if field in own or field in _UNITED}
            if "relation" in own:
                fields["base_model"] = row["base_model"]  # which the relation is to
            fields = {"ref": ref, "what": row["what"], "access": row["access"], **fields}
            yield _SourceFact(row["hub"] or row["ref"], source, origins[own[0] if own else "ref"], fields)


def _source_of(origin: str, known: Sequence[str]) -> str:
    """The source of the origin `timm 1.0.31, 2026-11-25`, among those that know a model; any other origin is a hub's
    server."""
    word = origin.partition(",")[0].partition(" ")[0]
    return next((name for name in known if word in (name, _PACKAGES.get(name))), "hub" if "hub" in known else known[0])


IndexRow = dict[str, Any]
"""A row of the index: field of SCHEMA -> value."""


class _Row:
    def __init__(self) -> None:
        self.fields: IndexRow = {}
        self._origins: dict[str, str] = {}
        self._sources: dict[str, None] = {}

    def add(self, fields: Mapping[str, Any], source: str, origin: str) -> None:
        """Known fields stay; tasks and modalities of all sources are united."""
        if fields.get("base_model") != self.fields.get("base_model", fields.get("base_model")):
            fields = {name: value for name, value in fields.items() if name != "relation"}  # to another base
        for name, value in fields.items():
            if name in _UNITED and name in self.fields:
                self.fields[name] = tuple(dict.fromkeys((*self.fields[name], *value)))
            elif name not in self.fields:
                self.fields[name], self._origins[name] = value, origin
        self._sources[source] = None

    def as_dict(self) -> IndexRow:
        return {**self.fields, "sources": list(self._sources), "origins": sorted(self._origins.items())}


def write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", compression_level=19)


def read(path: Path = SHIPPED) -> pa.Table:
    """A table of an earlier version may lack columns: their fields are unknown then."""
    found = pq.read_table(path)
    for field in SCHEMA:
        if field.name not in found.column_names:
            found = found.append_column(field, pa.nulls(found.num_rows, field.type))
    return found.select(SCHEMA.names).cast(SCHEMA)


def known_sizes(table: pa.Table) -> dict[str, int]:
    """Parameters of timm's architectures by an earlier table: networks do not change their size."""
    refs, found = table["ref"].to_pylist(), table["parameters"].to_pylist()
    return {
        ref.removeprefix("timm:").partition(".")[0]: count
        for ref, count in zip(refs, found, strict=True)
        if ref.startswith("timm:") and count is not None
    }
