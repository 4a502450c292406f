"""Pages of a version's examples, picked by what a person asks for: the SQL of a filter, and the filter in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.datasets import columns
from speciate.datasets.inspect.query import query
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.workspace.workspace import Folders

AS_TEXT = ("text", "tabular")
"""Modalities whose examples are read, not looked at."""
QUALITIES = (*columns.QUALITIES, "any")
_PREVIEWED, _SEARCHED = 6, 6
"""Columns of an input that a page shows, and that words are looked for in."""
_NUMBERS = ("DOUBLE", "FLOAT", "BIGINT", "INTEGER", "int", "float", "double", "decimal", "bool")


class ExampleFilter(NamedTuple):
    label: str | None = None
    split: str | None = None
    quality: str = "ok"
    """One of `QUALITIES`."""
    column: str | None = None
    value: str | None = None
    """Rows whose `column` says this; or, with `low` and `high`, lies between these."""
    low: float | None = None
    high: float | None = None
    contains: str | None = None
    """Words, in any case."""

    def words(self) -> list[tuple[str, str]]:
        """The names of the parameters of an address, and what they ask for; without the quality."""
        found = [
            (name, f"{name} is {value}") for name, value in (("label", self.label), ("split", self.split)) if value
        ]
        if self.column and self.value is not None:
            found.append(("column is", f"{self.column} is {self.value}"))
        elif self.column and self.low is not None and self.high is not None:
            found.append(("column from to", f"{self.column} from {self.low:.4g} to {self.high:.4g}"))
        return [*found, *([("q", f"contains “{self.contains}”")] if self.contains else [])]

    def conditions(self, manifest: Manifest) -> list[str]:
        """Conditions in SQL, all of which hold. Raises NOT_FOUND for the column."""
        found = [] if self.quality == "any" else [f"quality = {_text(self.quality)}"]
        for name, value in (("label", self.label), ("split", self.split)):
            if value:
                found.append(f"CAST({name} AS VARCHAR) = {_text(value)}")
        if self.column:
            if self.column not in manifest.columns and self.column not in ("label", "quality"):
                raise SpeciateError(Code.NOT_FOUND, f"{manifest.ref} has no column {self.column!r}.", "Follow a link.")
            if self.value is not None:
                found.append(f"CAST({_quoted(self.column)} AS VARCHAR) = {_text(self.value)}")
            elif self.low is not None and self.high is not None:
                found.append(f"CAST({_quoted(self.column)} AS DOUBLE) BETWEEN {self.low!r} AND {self.high!r}")
        if self.contains:
            texts = [name for name in manifest.inputs if not _is_number(manifest.columns.get(name, ""))]
            pattern = _text(f"%{_like(self.contains)}%")
            places = [*texts[:_SEARCHED], "label", "source", "id"]
            likes = [f"CAST({_quoted(name)} AS VARCHAR) ILIKE {pattern} ESCAPE '\\'" for name in places]
            found.append(f"({' OR '.join(likes)})")
        return found


class ExamplePage(NamedTuple):
    """`rows`: id, label, split, quality; why it is not ok, if others than those are wanted; the first cells of what is
    read, which are of the columns `read`."""

    rows: Sequence[Sequence[Any]]
    more: bool
    read: Sequence[str]


def example_page(
    pool: Pool, folders: Folders, manifest: Manifest, wanted: ExampleFilter, count: int, after: str | None = None
) -> ExamplePage:
    """By id, from the one after `after` on."""
    why = ["reason", "source"] if wanted.quality != "ok" else []
    inputs = [name for name in manifest.inputs if name not in columns.FIXED]
    read = inputs[:_PREVIEWED] if manifest.modality in AS_TEXT else []
    chosen = ", ".join(["id", "label", "split", "quality", *map(_quoted, [*why, *read])])
    conditions = [*wanted.conditions(manifest), *([f"id > {_text(after)}"] if after else [])]
    sql = f"SELECT {chosen} FROM examples WHERE {' AND '.join(conditions) or 'true'} ORDER BY id"
    rows = query(pool, folders, manifest, sql=sql, limit=count + 1, whole=True).rows
    return ExamplePage(rows[:count], len(rows) > count, read)


class Neighbours(NamedTuple):
    """Ids of the examples beside one, in the order of a page."""

    before: str | None
    after: str | None


def neighbours(pool: Pool, folders: Folders, manifest: Manifest, wanted: ExampleFilter, name: str) -> Neighbours:
    """The examples beside this one among all that the filter takes, whether or not it takes this one."""
    conditions, at = " AND ".join(wanted.conditions(manifest)) or "true", _text(name)
    sql = f"SELECT max(id) FILTER (id < {at}), min(id) FILTER (id > {at}) FROM examples WHERE {conditions}"
    [(before, after)] = query(pool, folders, manifest, sql=sql, limit=1, whole=True).rows
    return Neighbours(before, after)


def one_example(pool: Pool, folders: Folders, manifest: Manifest, name: str) -> Mapping[str, Any]:
    """Its cells by column, all of them foreign. Raises NOT_FOUND."""
    sql = f"SELECT * FROM examples WHERE id = {_text(name)}"
    page = query(pool, folders, manifest, sql=sql, limit=1, whole=True)
    if not page.rows:
        raise SpeciateError(Code.NOT_FOUND, f"There is no such example in {manifest.ref}.", "Open its grid.")
    return dict(zip(page.columns, page.rows[0], strict=True))


def _is_number(kind: str) -> bool:
    return any(word in kind for word in _NUMBERS)


def _like(words: str) -> str:
    return words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _text(value: str) -> str:
    """The text as a literal of SQL."""
    return "'" + value.replace("'", "''").replace("\0", "") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
