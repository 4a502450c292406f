"""Sentences about a split that leaks, from the report of a version. Pure.

A split that the source brings is kept, and so is an earlier one, so examples that belong together may lie in several
splits. Whoever makes such a version, adds to it or trains on it is told then, not at the evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import CONTENT, FIXED, HIDDEN, KEY, ORIGIN, clean
from speciate.datasets.split_warnings import FEW_UNITS
from speciate.datasets.splits import FRACTIONS, NOT_CHECKED, Members, components, units_without_copies
from speciate.datasets.telling_inputs import (
    MOST_ROWS,
    CoarseCopy,
    TellingInput,
    coarse_copies,
    copy_warning,
    telling_inputs,
    warning_of,
)
from speciate.datasets.version_report import SplitReport

TEXTS_ACROSS: Final = "texts_across"
TELLING_INPUTS: Final = "telling_inputs"
COARSE_COPIES: Final = "coarse_copies"
POSSIBLE_GROUPS: Final = "possible_groups"
"""Keys of a report's audit of the split."""
_LONG = 20
"""Characters on average, from which on cells are texts."""
_NUMBERED = re.compile(
    r"(?i)(^|_)(id|nr|no|number|patient|subject|user|person|author|speaker|site|machine|case|session)$"
)
"""Columns of whole numbers, and inputs, that say who or what; others, such as a year or a width, are measurements."""
_FEWEST_GROUPS, _MOST_NAMED = 10, 3
"""Different values, from which on a column may say which rows belong together, and columns that a warning names."""
_TIED = 1.5
"""How many times as many units there are without copies, from which on copies tie groups together."""
_COPY = "Identical content lies in the split "
"""Begins the reason of a refused row; the split follows."""


def copy_reason(split: str | None) -> str:
    """Why a row is refused whose content lies in another split, too."""
    return f"{_COPY}{split!r}."


def leak_warnings(split: Mapping[str, Any]) -> list[str]:
    """Warnings of a report's audit of the split; none if nothing crosses. Older reports may lack a count."""
    telling = [TellingInput.model_validate(each) for each in split.get(TELLING_INPUTS) or ()]
    copies = [CoarseCopy.model_validate(each) for each in split.get(COARSE_COPIES) or ()]
    return [
        *_crossing_warnings(split),
        *([warning_of(telling)] if telling else []),
        *([copy_warning(copies)] if copies else []),
    ]


def _crossing_warnings(split: Mapping[str, Any]) -> list[str]:
    counts = {
        "texts or media that are equal but for case, blanks or encoding": "identical_after_normalising_across",
        "groups": "groups_across",
        "pairs of near-duplicates": "near_duplicates_across",
    }
    found = [f"{count:,} {what}" for what, key in counts.items() if (count := _count(split.get(key)))]
    texts = split.get(TEXTS_ACROSS) or {}
    found += [f"{count:,} texts of the input {clean(name)!r}" for name, count in texts.items()]
    if not found:
        return []
    return [
        f"The split leaks: {', '.join(found)} lie in several splits, so a model is tested on what it learned. A step "
        "{'op': 'split'} of curate_dataset makes a split that keeps them together."
    ]


def texts_across(rows: pa.Table, inputs: Sequence[str]) -> dict[str, int]:
    """For several inputs: each column of texts -> how many of its texts lie in several splits.

    Rows with the same text and other cells are no copies, but a model that is trained on the text alone has seen them.
    Case and blanks at the ends do not count; columns with few different or short cells are no texts. `rows`: usable.
    """
    if len(inputs) < 2:
        return {}
    found = {}
    for name in inputs:
        if name not in rows.column_names or not pa.types.is_string(rows.schema.field(name).type):
            continue
        texts = pc.utf8_lower(pc.utf8_trim_whitespace(rows[name]))
        length = pc.mean(pc.utf8_length(texts)).as_py() or 0
        if length < _LONG or 2 * pc.count_distinct(texts).as_py() < rows.num_rows:
            continue
        placed = pa.table({"text": texts, "split": rows["split"]}).filter(pc.is_valid(rows["split"]))
        several = placed.group_by("text").aggregate([("split", "count_distinct")])
        crossing = several.filter(pc.and_(pc.greater(several["split_count_distinct"], 1), pc.is_valid(several["text"])))
        if crossing.num_rows:
            found[name] = crossing.num_rows
    return found


def find_possible_groups(rows: pa.Table, inputs: Sequence[str]) -> dict[str, int]:
    """Columns that may say which rows belong together (an author, a patient, a machine), where nobody said so: each ->
    how many of its values lie in several splits. `rows`: usable.

    They have ten values or more, short ones, most of which occur more than once. An input must be named like one.
    """
    if rows["group_key"].null_count < rows.num_rows:
        return {}  # somebody named groups
    label, found = pc.cast(rows["label"], pa.string()), dict[str, int]()
    for name in rows.column_names:
        kind = rows.schema.field(name).type
        is_key = bool(_NUMBERED.search(name))
        if name in (*FIXED, *HIDDEN) or (name in inputs and not is_key):
            continue
        if not (pa.types.is_string(kind) or (pa.types.is_integer(kind) and is_key)):
            continue
        if pc.all(pc.equal(pc.cast(rows[name], pa.string()), label)).as_py():
            continue  # where the label came from
        there = pc.and_(pc.is_valid(rows[name]), pc.is_valid(rows["split"]))
        value, split = (rows[each].filter(there).combine_chunks() for each in (name, "split"))
        if pa.types.is_string(kind) and (pc.mean(pc.utf8_length(value)).as_py() or 0) >= 2 * _LONG:
            continue
        code, lies = (np.asarray(each.dictionary_encode().indices, np.int64) for each in (value, split))
        counts = np.bincount(code)
        if len(counts) < _FEWEST_GROUPS or 2 * (counts > 1).sum() < len(counts):
            continue
        splits = np.bincount(np.unique(code * (lies.max(initial=0) + 1) + lies) // (lies.max(initial=0) + 1))
        if crossing := int((splits > 1).sum()):
            found[name] = crossing
    return found


def groups_tied_by_copies(rows: pa.Table, members: Members, report: SplitReport) -> SplitReport:
    """`copies` and `tied_groups`, where equal rows tie so many groups together that few units are left to test on:
    named groups, or else the first column that may name them. Empty where rows are windows or variants of others.
    `rows`: usable, as `members` has them."""
    named = rows["group_key"].null_count < rows.num_rows
    column = "group_key" if named else next(iter(report.get(POSSIBLE_GROUPS) or ()), None)
    tests_enough = named and report.get("test_units", 0) >= FEW_UNITS
    if column is None or tests_enough or (ORIGIN in rows.column_names and rows[ORIGIN].null_count < rows.num_rows):
        return {}
    contents = pc.coalesce(rows[CONTENT], rows[KEY])
    if not (copies := rows.num_rows - int(pc.count_distinct(contents, mode="all").as_py())):
        return {}
    grouped = members._replace(groups=rows[column].cast(pa.string()))
    units = int(components(grouped).max()) + 1
    if units >= FEW_UNITS / FRACTIONS["test"] or (without := units_without_copies(grouped, contents)) < _TIED * units:
        return {}
    return {"copies": copies, "tied_groups": {column: without}}


def group_warnings(split: Mapping[str, Any]) -> list[str]:
    """Which columns may say that rows belong together, and what to do if they do."""
    columns = dict(list((split.get(POSSIBLE_GROUPS) or {}).items())[:_MOST_NAMED])
    if not columns:
        return []
    told = ", ".join(f"{count:,} values of {clean(name)!r}" for name, count in columns.items())
    first = next(iter(columns))
    tied = first in (split.get("tied_groups") or {})
    before = "a step {'op': 'deduplicate', 'by': 'content'}, then " if tied else ""
    after = (
        f" ({split['copies']:,} rows repeat the content of another one, and would tie values together)" if tied else ""
    )
    return [
        f"{told} lie in several splits, and no groups were named. If rows with the same value belong together (of one "
        f"person, place or machine), a model is tested on what it knows: {before}a step {{'op': 'split', 'group_by': "
        f"{clean(first)!r}}} of curate_dataset keeps them together{after}."
    ]


def find_telling_inputs(rows: pa.Table, inputs: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Inputs in cells that alone give the label, or a coarser form of it: `TELLING_INPUTS` and `COARSE_COPIES` of an
    audit, without empty ones. By the rows of the training split; by all where none is. `rows`: usable. A single input
    is looked at, too."""
    names = [name for name in inputs if name in rows.column_names and _is_scalar(rows.schema.field(name).type)]
    if not names:
        return {}
    known = rows.select(list(dict.fromkeys((*names, "label", "group_key", "split"))))
    known = known.filter(pc.is_valid(known["label"]))
    train = known.filter(pc.fill_null(pc.equal(known["split"], "train"), False))
    known = train if train.num_rows else known
    if known.num_rows > MOST_ROWS:
        known = known.take(pa.array(np.linspace(0, known.num_rows - 1, MOST_ROWS).astype(int)))
    columns = {name: known[name].to_pylist() for name in names}
    labels, groups = known["label"].to_pylist(), known["group_key"].to_pylist()
    telling = telling_inputs(columns, labels, groups)
    told = {each.column for each in telling}
    copies = coarse_copies({name: columns[name] for name in names if name not in told}, labels, groups)
    found: dict[str, Sequence[TellingInput | CoarseCopy]] = {TELLING_INPUTS: telling, COARSE_COPIES: copies}
    return {name: [each.model_dump() for each in several] for name, several in found.items() if several}


def _is_scalar(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _count(found: Any) -> int:
    """0 also where nothing was counted: `NOT_CHECKED`, or an older report."""
    return int(found) if found and found != NOT_CHECKED else 0


def leaks_of_report(report: Mapping[str, Any]) -> list[str]:
    """`leak_warnings` of a version's report."""
    return leak_warnings(report.get("split") or {})


def copy_warnings(reasons: pa.ChunkedArray) -> list[str]:
    """A warning that counts the rows that were refused as copies across splits, from the reasons of all rows."""
    count = pc.sum(pc.starts_with(reasons.cast(pa.string()), _COPY)).as_py()
    if not count:
        return []
    return [
        f"{count:,} rows were refused, because the source has the same content in another split: a model would be "
        "tested on what it learned. Where several splits have it, the test split keeps it."
    ]
