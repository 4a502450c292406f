"""A table of labels beside media: which row is about which file, and the columns it brings."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from speciate.datasets.columns import clean
from speciate.datasets.sources import TABLES, normal_split
from speciate.datasets.survey import Survey, ask_table
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool


class Labelled(NamedTuple):
    survey: Survey
    """With the columns of the labels file; null where it does not name the item."""
    renamed: dict[str, str]
    """Columns of the labels file that the media have too -> `user_NAME`, as which they stand beside those."""


def with_labels(survey: Survey, pool: Pool, source: Path, labels: Path, key: str) -> Labelled:
    """The survey and its labels; a column `split` is the split. INVALID where a row may be about several files."""
    if not survey.paths:
        raise SpeciateError(
            Code.INVALID,
            "labels names files of media, but the source is a table, whose rows carry their labels.",
            "Call create_dataset with label, a column of the table, in the place of labels.",
        )
    if labels.suffix.lower() not in TABLES:
        raise SpeciateError(
            Code.INVALID, f"{labels.name!r} is not a CSV, JSONL or Parquet file.", "Call again with labels.path of one."
        )
    table = ask_table(pool, labels, text=[key])
    if key not in table.column_names:
        raise SpeciateError(
            Code.INVALID,
            f"labels.key names {key!r}; the file has the columns {', '.join(table.column_names[:20])}.",
            "Call again with a key of those.",
        )
    places = _places(_rows(table[key].to_pylist()), survey.paths, source, labels)
    return _joined(survey, table.take(pa.array(places, pa.int64())))


def _joined(survey: Survey, beside: pa.Table) -> Labelled:
    splits = list(survey.splits)
    if "split" in beside.column_names:
        brought = beside["split"].to_pylist()
        splits = [normal_split(name) or split for name, split in zip(brought, splits, strict=True)]
        beside = beside.drop_columns(["split"])
    own = set(survey.table.column_names)
    renamed = {name: f"user_{name}" for name in beside.column_names if name in own}
    joined = survey.table
    for name in beside.column_names:
        joined = joined.append_column(renamed.get(name, name), beside[name])
    return Labelled(replace(survey, table=joined, splits=splits), renamed)


def _rows(keys: Sequence[Any]) -> dict[str, int]:
    """Key -> place of its row."""
    known = [None if key is None else os.path.normpath(str(key)) for key in keys]
    if twice := [key for key, count in Counter(known).items() if key is not None and count > 1]:
        raise _ambiguous(f"{len(twice)} key(s) stand in several rows of the labels file, such as {clean(twice[0])!r}")
    return {key: place for place, key in enumerate(known) if key is not None}


def _places(rows: dict[str, int], paths: Sequence[Path], source: Path, labels: Path) -> list[int | None]:
    """The row of each file: what names its whole path first, then what names it without folders, then the stem."""
    found: dict[Path, str] = {}
    for spell in (lambda path: _whole(path, source, labels), lambda path: [path.name], lambda path: [path.stem]):
        left = rows.keys() - set(found.values())
        now = {path: key for path in paths if path not in found for key in spell(path) if key in left}
        key, count = next(iter(Counter(now.values()).most_common(1)), ("", 0))
        if count > 1:
            raise _ambiguous(f"The key {clean(key)!r} of the labels file names {count} files")
        found |= now
    return [rows[found[path]] if path in found else None for path in paths]


def _whole(path: Path, source: Path, labels: Path) -> Iterator[str]:
    """Its path below the source, then relative to the labels file: of two that match, the latter stands."""
    yield os.path.relpath(path, source)
    yield os.path.relpath(path, labels.parent)


def _ambiguous(what: str) -> SpeciateError:
    return SpeciateError(Code.INVALID, f"{what}.", "Give each file one row, with its path below the source as the key.")
