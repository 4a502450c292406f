"""Which column plays which role: label, group, inputs, and the modality that follows from the inputs. Pure.

The caller's choice wins. Otherwise: a list column is a series, a column called SMILES molecules, capitals of amino
acids are a protein, the one column of long text is text, and every column that is no label, group, split or key is an
input of a table row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import class_name, clean
from speciate.errors import Code, SpeciateError, closest
from speciate.modalities.biology.molecule import is_smiles
from speciate.modalities.biology.protein import is_sequence

_STRING = pa.string()
_SAMPLE = 200
_LONG_TEXT = 20  # characters on average
_MOST_CLASSES = 50
_SMILES = re.compile(r"(?i)((canonical|isomeric)[ _]?)?smiles")
_DAY = re.compile(r"\s*\d{1,2}([./-])\d{1,2}\1(19|20)\d\d(?!\d)")
_ASKED = ("messages", "conversations", "conversation", "prompt")
_ANSWERED = ("completion", "chosen", "response")
"""Column names of questions and answers in data for language models."""
_KEYS = re.compile(r"(?i)(id|index|unnamed.*|.*_id|name|key|path|file|filename|description)?")


class Roles(NamedTuple):
    modality: str
    inputs: tuple[str, ...]
    """Names of the user's columns; empty if the medium is a file."""


class LabelColumn(NamedTuple):
    """`values`: str for classes, float for numbers, None where missing."""

    values: list[Any]
    numeric: bool


def choose_roles(table: pa.Table, modality: str, inputs: Sequence[str], never: Sequence[str]) -> Roles:
    """The modality and the inputs of a table. `never`: columns that hold label, group or the like."""
    for name in inputs:
        if name not in table.column_names:
            raise _no_column("inputs", name, table)
        if name in never:
            raise SpeciateError(
                Code.INVALID,
                f"Column {name!r} is the label or the group, so a model must not see it.",
                "Call again without it in inputs.",
            )
    free = [name for name in table.column_names if name not in never]
    chosen = list(inputs) or _inputs_of(table, modality, free)
    words = [name for name in chosen or free if _is_list(table[name].type) and not _is_series(table[name].type)]
    if words and (inputs or not chosen):
        raise SpeciateError(
            Code.INVALID,
            f"Column {words[0]!r} holds lists of texts, which no model sees: a series is lists of numbers, and a text "
            "is one string.",
            "For a text, join its words with blanks into one column, then call again.",
        )
    if not chosen:
        raise SpeciateError(
            Code.INVALID,
            f"No column is left for a model to see (columns: {', '.join(table.column_names[:20])}).",
            "Call again with inputs=[...].",
        )
    return Roles(_modality_of(table, chosen) if modality == "auto" else modality, tuple(chosen))


def label_column(values: Sequence[Any]) -> LabelColumn:
    """Fractions are numbers to predict; whole numbers are classes if there are few of them; all else is a class.

    Infinite numbers count as missing.
    """
    values = [None if is_infinite(value) else value for value in values]
    present = [value for value in values if not _missing(value)]
    if present and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        whole = all(float(value).is_integer() for value in present)
        if not whole or len(set(present)) > max(_MOST_CLASSES, len(present) // 20):
            return LabelColumn([None if _missing(value) else float(value) for value in values], True)
        return LabelColumn([None if _missing(value) else str(int(value)) for value in values], False)
    return LabelColumn([None if _missing(value) else class_name(value) or None for value in values], False)


class LabelArray(NamedTuple):
    """`label_column`, of a whole column."""

    values: pa.Array
    """(N,) texts for classes, float64 for numbers."""
    numeric: bool
    infinite: npt.NDArray[np.bool_]
    """(N,) which cells were infinite."""


def label_array(column: pa.ChunkedArray) -> LabelArray:
    """`label_column`, and which cells were infinite: of each different cell once."""
    kind, infinite = column.type, np.zeros(len(column), bool)
    if pa.types.is_string(kind) or pa.types.is_boolean(kind):
        return LabelArray(mapped(column, lambda value: label_column([value]).values[0]), False, infinite)
    cells = column.combine_chunks()
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        infinite = np.asarray(pc.fill_null(pc.is_inf(cells), False), bool)
        cells = pc.if_else(pc.or_(pc.is_nan(cells), pa.array(infinite)), None, cells)
    elif not pa.types.is_integer(kind):
        values = cells.to_pylist()
        found = label_column(values)
        infinite = np.array([is_infinite(value) for value in values], bool)
        labels = pa.array(found.values, pa.float64() if found.numeric else _STRING)
        return LabelArray(labels, found.numeric, infinite)
    present = len(cells) - cells.null_count
    whole = pa.types.is_integer(kind) or pc.all(pc.equal(cells, pc.trunc(cells)), min_count=0).as_py()
    different = cells if pa.types.is_integer(kind) else pc.add(cells, 0.0)  # 0 and -0 are one
    if present and (not whole or pc.count_distinct(different).as_py() > max(_MOST_CLASSES, present // 20)):
        return LabelArray(cells.cast(pa.float64(), safe=False), True, infinite)
    return LabelArray(mapped(cells, lambda value: str(int(value))), False, infinite)


def mapped(
    cells: pa.ChunkedArray | pa.Array, function: Callable[[Any], str | float | None], kind: pa.DataType = _STRING
) -> pa.Array:
    """`function` of each cell that is not null, asked for each different one of a chunk once."""
    found = [pa.array([], kind)]
    for chunk in cells.chunks if isinstance(cells, pa.ChunkedArray) else [cells]:
        encoded = chunk.dictionary_encode()
        values = [function(each) for each in encoded.dictionary.to_pylist()]
        found.append(pa.array(values, kind).take(encoded.indices))
    return pa.concat_arrays(found)


def is_infinite(value: Any) -> bool:
    """Whether it is infinite, which is neither a class nor a number to predict."""
    return isinstance(value, float) and math.isinf(value)


def group_array(group_by: str | None, table: pa.Table, sources: pa.ChunkedArray) -> pa.Array:
    """(N,) `groups`, of a column without an object for each row."""
    if group_by is None:
        return pa.nulls(len(sources), pa.string())
    if group_by in table.column_names and not pa.types.is_nested(table.schema.field(group_by).type):
        return mapped(table[group_by], lambda value: None if _missing(value) else str(value))
    return pa.array(groups(group_by, table, sources.to_pylist()), pa.string())


def groups(group_by: str | None, table: pa.Table, sources: Sequence[str]) -> list[str | None]:
    """The group of each item: a column's value, the folder it lies in, or what a pattern finds in its path."""
    if group_by is None:
        return [None] * len(sources)
    if group_by in table.column_names:
        return [None if _missing(value) else str(value) for value in table[group_by].to_pylist()]
    paths = [source.partition("#")[0] for source in sources]
    if group_by == "folder":
        return [path.rpartition("/")[0] or None for path in paths]
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise SpeciateError(
            Code.INVALID, f"group_by {group_by!r} is no column and no regular expression: {error}.", _columns(table)
        ) from error
    if pattern.groups < 1:
        raise SpeciateError(
            Code.INVALID,
            f"group_by {group_by!r} is neither a column nor 'folder', and as a regular expression it has no group.",
            _columns(table) or "Put the part that is the key in parentheses, such as '(patient\\d+)'.",
        )
    return [found[1] if (found := pattern.search(path)) else None for path in paths]


def missing_group_warnings(group_by: str, found: Sequence[str | None], sources: Sequence[str]) -> tuple[str, ...]:
    """A warning if a pattern or the folders give some items no group."""
    lacking = [source for group, source in zip(found, sources, strict=True) if group is None]
    if not lacking:
        return ()
    such = clean(lacking[0].partition("#")[0])
    if len(lacking) == len(found):
        return (f"group_by {group_by!r} gives no example a group: it finds nothing in paths such as {such!r}.",)
    return (f"group_by {group_by!r} gives {len(lacking):,} of {len(found):,} examples no group, such as {such!r}.",)


def check_label(label: str, table: pa.Table) -> None:
    """NOT_FOUND with near names if the label is no column."""
    if label not in table.column_names:
        raise _no_column("label", label, table)


def implied_label(usable: pa.Table, inputs: Sequence[str], *, media: bool) -> str | None:
    """The column whose name makes it the label: a model that saw it would see the answer.

    For media only if every item has it: otherwise it would exclude items without it.
    """
    for name in usable.column_names:
        if name.lower() == "label" and name not in inputs:
            lacking = usable[name].null_count
            return name if lacking == 0 or (not media and lacking < usable.num_rows) else None
    return None


def _inputs_of(table: pa.Table, modality: str, free: list[str]) -> list[str]:
    filled = _well_filled(table, free)
    lists = [name for name in filled if _is_list(table[name].type)]
    series = [name for name in lists if _is_series(table[name].type)]
    texts = [name for name in filled if _is_text(table[name].type)]
    if modality in ("auto", "time-series") and series:
        return series[:1]
    if modality in ("auto", "molecule") and (molecules := [name for name in texts if _molecules(name, table[name])]):
        return molecules[:1]
    if modality in ("auto", "protein") and (sequences := [name for name in texts if _sequences(table[name])]):
        return sequences[:1]
    if modality in ("auto", "text"):
        if question := _question_column(texts):
            return [question]
        longest = max(texts, key=lambda name: _mean_length(table[name]), default=None)
        if longest is not None and (modality == "text" or _mean_length(table[longest]) >= _LONG_TEXT):
            return [longest]
    no_number = {*lists, *dates(table)}
    return [name for name in free if not (_KEYS.fullmatch(name) and _all_differ(table[name])) and name not in no_number]


def _question_column(texts: Sequence[str]) -> str | None:
    """The column with the question, if the names of the columns tell."""
    answered = any(name in texts for name in _ANSWERED)
    return next((name for name in _ASKED if name in texts and (name != "prompt" or answered)), None)


def says_answers(inputs: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether a dataset without a label has answers all the same, by the names of its columns."""
    return len(inputs) == 1 and inputs[0] == _question_column(columns)


def dates(table: pa.Table) -> list[str]:
    """Columns of dates or times, which are neither numbers nor texts to a model: never inputs by themselves."""
    return [field.name for field in table.schema if pa.types.is_temporal(field.type) or _says_days(table[field.name])]


def _says_days(column: pa.ChunkedArray) -> bool:
    """Whether a column of texts holds days with the year last, such as 31.12.2024, with a time or without."""
    if not _is_text(column.type):
        return False
    sample = _sample(column)
    return bool(sample) and sum(map(bool, map(_DAY.match, sample))) >= 0.95 * len(sample)


def unread_columns(table: pa.Table, roles: Roles, never: Sequence[str]) -> list[str]:
    """Numbers and categories beside the one text that roles chose by themselves, which a model of tables would read."""
    if roles.modality != "text" or roles.inputs[0] == _question_column(table.column_names):
        return []
    free = [name for name in table.column_names if name not in never]
    others = [name for name in _inputs_of(table, "tabular", free) if name not in roles.inputs]
    return [
        name
        for name in others
        if not _is_text(table[name].type) or _few_values(table[name]) or number_cells(table[name]).with_commas
    ]


_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_COMMA_NUMBER = r"^\s*[-+]?(\d[\d.]*,\d+|\d{1,3}(,\d{3})+(\.\d*)?)\s*$"
_NEARLY_ALL = 0.9


class NumberCells(NamedTuple):
    """Counts of the cells of a column of texts: filled ones, plain numbers, and numbers with a comma."""

    filled: int
    plain: int
    commas: int

    @property
    def with_commas(self) -> bool:
        """Whether only commas make it text."""
        return self.commas > 0 and self.plain + self.commas >= _NEARLY_ALL * self.filled

    @property
    def nearly_all(self) -> bool:
        """Whether a few other cells make it text."""
        return _NEARLY_ALL * self.filled <= self.plain < self.filled


def number_cells(column: pa.ChunkedArray) -> NumberCells:
    """None are counted where the column holds no texts."""
    if not _is_text(column.type):
        return NumberCells(0, 0, 0)
    filled = column.filter(pc.not_equal(pc.utf8_trim_whitespace(column), ""))
    plain, commas = (pc.sum(pc.match_substring_regex(filled, each)).as_py() or 0 for each in (_NUMBER, _COMMA_NUMBER))
    return NumberCells(len(filled), plain, commas)


def _well_filled(table: pa.Table, names: list[str]) -> list[str]:
    """Columns with at least half as many values as the fullest: one damaged header among many files adds others."""
    counts = {name: table.num_rows - table[name].null_count for name in names}
    return [name for name in names if 2 * counts[name] >= max(counts.values(), default=0)]


def _modality_of(table: pa.Table, inputs: list[str]) -> str:
    first = table[inputs[0]]
    if _is_list(first.type):
        return "time-series"
    if len(inputs) == 1 and _is_text(first.type):
        if _molecules(inputs[0], first):
            return "molecule"
        if _sequences(first):
            return "protein"
        if inputs[0] == _question_column(table.column_names):
            return "text"
        return "text" if _mean_length(first) >= _LONG_TEXT or not _few_values(first) else "tabular"
    return "tabular"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_series(kind: pa.DataType) -> bool:
    """Lists of numbers, or of such lists; also if all are empty."""
    if _is_list(kind):
        return _is_series(kind.value_type)
    return not _is_text(kind)


def _sample(column: pa.ChunkedArray) -> list[str]:
    return [value for value in column.slice(0, 5 * _SAMPLE).to_pylist() if value][:_SAMPLE]


def _sequences(column: pa.ChunkedArray) -> bool:
    sample = _sample(column)
    return bool(sample) and sum(map(is_sequence, sample)) >= 0.95 * len(sample)


def _molecules(name: str, column: pa.ChunkedArray) -> bool:
    """Whether a column holds molecules: its name must say so, too, for many a word could be SMILES."""
    sample = _sample(column)
    return _SMILES.fullmatch(name) is not None and bool(sample) and sum(map(is_smiles, sample)) >= 0.9 * len(sample)


def _mean_length(column: pa.ChunkedArray) -> float:
    sample = _sample(column)
    return sum(map(len, sample)) / max(len(sample), 1)


def _few_values(column: pa.ChunkedArray) -> bool:
    sample = _sample(column)
    return len(set(sample)) <= max(10, len(sample) // 4)


def _all_differ(column: pa.ChunkedArray) -> bool:
    if pa.types.is_nested(column.type):
        return len(set(map(repr, column.to_pylist()))) == len(column)
    return int(pc.count_distinct(column).as_py()) == len(column)


def _missing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())  # noqa: PLR0124 - NaN


def _columns(table: pa.Table) -> str:
    return f"Columns: {', '.join(map(repr, table.column_names[:20]))}." if table.num_columns else ""


def _no_column(role: str, name: str, table: pa.Table) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{role} names {name!r}, and the source has no such column; {closest(name, table.column_names)}",
        f"Call again with {role} naming a column" + (", or 'folder'." if role == "label" else "."),
    )
