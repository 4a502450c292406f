"""From a survey to the rows of a version: roles, labels, groups, ids, splits and the report.

Works on validated items; opens no foreign file. Two steps, so that rows that a dataset has already can be left out
between them: `draft_rows` says what each item is, `finish_draft` gives it its id and its split.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets import digest_columns
from speciate.datasets.columns import (
    CONTENT,
    FINGERPRINT,
    KEY,
    ORIGIN,
    SKETCH,
    START,
    STOP,
    array,
    class_name,
    clean,
    rename,
    shorten_class_name,
    with_column,
)
from speciate.datasets.ingest.survey import Survey
from speciate.datasets.leaks import (
    COARSE_COPIES,
    POSSIBLE_GROUPS,
    TELLING_INPUTS,
    TEXTS_ACROSS,
    copy_reason,
    copy_warnings,
    find_possible_groups,
    find_telling_inputs,
    group_warnings,
    groups_tied_by_copies,
    leak_warnings,
    texts_across,
)
from speciate.datasets.readers.coco import OBJECTS
from speciate.datasets.roles import (
    LabelArray,
    Roles,
    check_label,
    choose_roles,
    dates,
    group_array,
    implied_label,
    label_array,
    mapped,
    missing_group_warnings,
    number_cells,
    unread_columns,
)
from speciate.datasets.similarity import near_duplicates
from speciate.datasets.split_warnings import (
    empty_split_warnings,
    few_units_warnings,
    missing_label_warnings,
    uneven_split_warnings,
)
from speciate.datasets.splits import (
    FRACTIONS,
    KEEP_FIRST,
    Kept,
    append_rows,
    assign_splits,
    audit_split,
    find_missing_labels,
    made_by,
    members_of,
    near_pairs,
)
from speciate.datasets.targets import holds_boxes
from speciate.datasets.version_report import ForeignReport, SplitReport, VersionReport
from speciate.errors import Code, SpeciateError
from speciate.modalities import find
from speciate.refs import ALPHABET, LENGTH
from speciate.workspace.workspace import Folders

_log = logging.getLogger(__name__)

MISSING, INFINITE = "The label is missing.", "Its label is not a finite number."
WITHOUT_LABEL = (MISSING, INFINITE)
DATES = (
    "No model sees dates and times, so these are no inputs: {names}; make numbers of them beforehand. Where the rows "
    "are steps of series, call create_dataset again with reader='long:ID,TIME'."
)
UNREAD = (
    "Models read {text!r} alone. These columns are no inputs: {names}. create_dataset with modality='tabular' reads "
    "them, too, and the text as words."
)
_COLUMNS_SHOWN = 5
_RELATING = (CONTENT, FINGERPRINT, KEY, SKETCH, ORIGIN)
_REASONS_SHOWN = 5
_AT_ONCE = 1 << 16
"""Rows whose ids are computed together."""
_LONGEST_REASON = 300
OF_ONE_VERSION = (
    "steps", "warnings", "added", "already_there", "dropped_before", "label_conflicts", "set_aside_shown",
)  # fmt: skip
"""Report keys about the step that made a version; the other keys hold for later versions, too."""
MADE = "speciate: 70/15/15, groups and near-duplicates together, stratified"
BROUGHT = "the source"

Mask = npt.NDArray[np.bool_]
_NOTHING: Kept = MappingProxyType({})
_OF_LOGS = {"drawn", "label_source", "prediction", "predicted_by"}
"""Columns by which rows of a log are known (sources/answer_log.py)."""
ValidateRows = Callable[[pa.Table, Roles], pa.Table]
"""A table and its roles -> row_validation.VERDICTS on every row."""
NOUN = "ex"


class ColumnChoices(NamedTuple):
    """The caller's choices of columns."""

    label: str | None
    inputs: tuple[str, ...]
    group_by: str | None
    numeric: bool | None = None
    """Whether labels are numbers; None if that is not known yet."""
    implied: bool = True
    """Whether a column `label` is the label if none is named."""


class Draft(NamedTuple):
    """`table` has the fixed columns but `id`, the hidden ones, then the user's; `split` as the source brings it."""

    table: pa.Table
    modality: str
    inputs: tuple[str, ...]
    label: str | None
    numeric: bool
    renamed: dict[str, str]
    """The user's columns whose names were taken -> their stored names."""
    implied: bool = False
    """Whether the label is a column that the caller did not name."""
    warnings: tuple[str, ...] = ()
    """Warnings about the groups and the inputs."""
    keeps_apart: bool = False
    """Whether a row that nearly is one of another split is refused, though the source brings its splits: those of a log
    follow from each row alone."""

    @property
    def brings_split(self) -> bool:
        return bool(self.table["split"].null_count < self.table.num_rows)


class FinishedDraft(NamedTuple):
    table: pa.Table
    split: SplitReport
    warnings: tuple[str, ...] = ()


def draft_rows(survey: Survey, choices: ColumnChoices, validate: ValidateRows) -> Draft:
    """INVALID if a named column does not exist or no item can be used at all."""
    table, items = survey.table, survey.items
    implied, choices, unread = None, _without_box_label(choices, survey), list[str]()
    if choices.label is None and choices.implied:
        named = table.select([name for name in table.column_names if name.lower() == "label"])
        implied = implied_label(named.filter(_usable(items)), choices.inputs, media=survey.media)
    choices = choices._replace(label=choices.label or implied)
    quality = _QualityColumns(items["quality"], items["reason"])
    labels, numeric, infinite = _labels(survey, choices)
    if survey.media:
        roles = Roles(survey.modality, ())
        verdicts = items.append_column("key", items["content"])
    else:
        never = [name for name in (choices.label, choices.group_by) if name in table.column_names]
        roles = choose_roles(table, survey.modality, choices.inputs, [str(name) for name in never])
        if survey.modality == "auto" and choices.label is not None and not choices.inputs:
            unread = unread_columns(table, roles, [str(name) for name in never])
        verdicts = validate(table, roles)
        quality.record(np.asarray(pc.not_equal(verdicts["quality"], "ok")), verdicts["quality"], verdicts["reason"])
        table = _with_fields(table, verdicts["fields"])
    group_by = choices.group_by or _default_group(roles.modality, table)
    group = group_array(group_by, table, items["source"])
    if choices.label is not None:
        quality.record(infinite, "partial", INFINITE)
        quality.record(np.asarray(labels.is_null()), "partial", MISSING)
    quality.refuse_if_nothing_is_left()
    fixed = {"label": choices.label, "group_key": choices.group_by}  # a column called as its role is no other
    renamed = rename(name for name in table.column_names if fixed.get(name) != name)
    columns = {
        "split": items["split"],
        "label": labels,
        "group_key": group,
        "quality": quality.qualities,
        "reason": quality.reasons,
        "source": items["source"],
        CONTENT: verdicts["content"],
        FINGERPRINT: verdicts["fingerprint"],
        KEY: verdicts["key"],
        SKETCH: verdicts["sketch"],
        START: pa.nulls(len(labels), pa.float64()),
        STOP: pa.nulls(len(labels), pa.float64()),
        **{stored: table[name] for name, stored in renamed.items()},
    }
    inputs = tuple(renamed[name] for name in roles.inputs)
    draft = Draft(pa.table(columns), roles.modality, inputs, choices.label, numeric, _renamed_only(renamed))
    warnings = _warnings_of_groups(draft.table, choices.group_by, table.column_names)
    left_out = dates(table) if roles.modality == "tabular" and not choices.inputs else []
    if left_out := [clean(name) for name in left_out if name not in (choices.label, choices.group_by)]:
        warnings += (DATES.format(names=", ".join(map(repr, left_out[:_COLUMNS_SHOWN]))),)
    if unread:
        names = ", ".join(map(repr, map(clean, unread[:_COLUMNS_SHOWN])))
        further = f" and {len(unread) - _COLUMNS_SHOWN} more" if len(unread) > _COLUMNS_SHOWN else ""
        warnings += (UNREAD.format(text=clean(inputs[0]), names=names + further),)
    label = next((renamed.get(name, "label") for name in table.column_names if name == choices.label), None)
    warnings += _nearly_numbers(draft.table, inputs if roles.modality == "tabular" else (), label)
    return draft._replace(implied=implied is not None, warnings=warnings)


def _without_box_label(choices: ColumnChoices, survey: Survey) -> ColumnChoices:
    """Boxes are the target of detection and no class of their image; nor is the class that they share implied."""
    columns = survey.table.column_names
    if not survey.media or OBJECTS not in columns or not holds_boxes(survey.table.schema.field(OBJECTS).type):
        return choices
    label = None if choices.label == OBJECTS else choices.label
    return choices._replace(label=label, implied=False)


def _with_fields(table: pa.Table, fields: pa.ChunkedArray) -> pa.Table:
    """Adds the columns that a modality makes of the media in cells; existing columns stay as they are."""
    if fields.null_count == len(fields):
        return table
    values = [json.loads(text or "{}") for text in fields.to_pylist()]
    for name in dict.fromkeys(name for each in values for name in each):
        if name not in table.column_names:
            table = table.append_column(name, array([each.get(name) for each in values]))
    return table


def _default_group(modality: str, table: pa.Table) -> str | None:
    """The column that groups examples if nobody names another: those of one patient, or scaffold, stay together."""
    field = find(modality).default_group
    return field if field in table.column_names else None


def _warnings_of_groups(table: pa.Table, group_by: str | None, columns: Sequence[str]) -> tuple[str, ...]:
    """Warnings for a pattern or folders that miss items; a column shows its missing groups itself."""
    if group_by is None or group_by in columns:
        return ()
    usable = table.filter(_usable(table))
    return missing_group_warnings(group_by, usable["group_key"].to_pylist(), usable["source"].to_pylist())


def _nearly_numbers(table: pa.Table, inputs: Sequence[str], label: str | None) -> tuple[str, ...]:
    """Columns that are texts only for commas in their numbers, or for some other word for "missing" than the known
    ones: a learner sees categories there."""
    found = list[str]()
    for name in [*inputs, *([label] if label is not None and label not in inputs else [])]:
        cells = number_cells(table[name])
        if cells.with_commas:
            found.append(
                f"Column {clean(name)!r} is text, for {cells.commas:,} of its {cells.filled:,} cells are numbers with "
                "a comma. Write them like 51.8 and 1234, and it is read as numbers."
            )
        elif cells.nearly_all and name != label:
            others = cells.filled - cells.plain
            found.append(
                f"Column {clean(name)!r} is text, for {others:,} of its {cells.filled:,} cells are no numbers. Leave "
                "such cells empty, and it is read as numbers."
            )
    return tuple(found)


def finish_draft(
    draft: Draft,
    seed: int,
    kept_splits: Kept = _NOTHING,
    *,
    existing: pa.Table | None = None,
    fractions: Mapping[str, float] = FRACTIONS,
    folders: Folders | None = None,
) -> FinishedDraft:
    """Rows with ids and splits. A split that the source brings is kept; else one is made, without leaks.

    `kept_splits`: keys of earlier rows -> the split that they keep. `existing`: rows of the dataset that these are
    appended to, which keep their splits and ids; the two have no row in common. `fractions`: of the dataset's split.
    `folders`: of the workspace that remembers near-duplicates.
    If the caller holds no other reference to the draft, its rows are never in memory twice.
    """
    brings_split, table = draft.brings_split, draft.table
    draft = draft._replace(table=table.schema.empty_table())
    if brings_split:
        table = _without_copies(table, existing)
        if draft.keeps_apart and existing is not None:
            table = _without_near_copies(table, existing, draft.modality, folders)
    elif existing is None:
        usable = _usable(table)
        members = members_of(_usable_rows(table.select(_split_columns(table))), draft.modality, folders=folders)
        names = assign_splits(members, fractions, seed, kept_splits)
        table = with_column(table, "split", _scatter_names(names, usable))
        del members, names, usable
    else:
        table = _append_to_splits(table, existing, draft.modality, fractions, seed, folders)
    ids = _ids(table, None if existing is None else existing["id"])
    columns = {"id": ids, **dict(zip(table.column_names, table.columns, strict=True))}
    del table
    table = _sorted_by_id(columns)
    made = not brings_split
    whole = table if existing is None else _stack_split_columns(existing, table, draft.inputs)
    report = split_report(whole, draft.modality, made=made, inputs=draft.inputs, folders=folders)
    lacking = (*few_units_warnings(report), *missing_label_warnings(report["missing_labels"]))
    lacking += (*leak_warnings(report), *group_warnings(report), *copy_warnings(table["reason"]))
    if not made:
        if existing is None and fractions != FRACTIONS:
            lacking += ("The source brings its split, so 'fractions' was not used; a step 'split' deals anew.",)
        return FinishedDraft(table, report, lacking)
    if fractions != FRACTIONS:
        report["made_by"] = made_by(fractions)
    sizes = split_sizes(whole)
    warnings = empty_split_warnings(sizes, fractions, report, kept=len(kept_splits) > 0) + lacking
    if existing is None and not len(kept_splits):
        warnings += tuple(uneven_split_warnings(sizes, fractions))
    report |= {"fractions": dict(fractions), "seed": seed}
    return FinishedDraft(table, report, warnings)


def split_sizes(table: pa.Table) -> dict[str, int]:
    """How many usable rows lie in each split."""
    return _counts(table["split"].filter(_usable(table)).drop_null())


def split_report(
    table: pa.Table, modality: str, *, made: bool, inputs: Sequence[str] = (), folders: Folders | None = None
) -> SplitReport:
    """The report on the split of a whole version, from its usable rows."""
    usable = _usable_rows(table)
    members = members_of(usable.select(_split_columns(usable)), modality, folders=folders)
    numeric = pa.types.is_floating(table["label"].type)
    found = audit_split(members, usable["split"], usable["id"], numeric=numeric)
    texts = texts_across(usable, inputs)
    report: SplitReport = {
        "made_by": MADE if made else BROUGHT,
        "without_split": usable["split"].null_count,
        **found,
    }
    if texts:
        report[TEXTS_ACROSS] = texts
    if made and (possible := find_possible_groups(usable, inputs)):
        report[POSSIBLE_GROUPS] = possible
    if made:
        report |= groups_tied_by_copies(usable, members, report)
    telling = find_telling_inputs(usable, inputs)
    if TELLING_INPUTS in telling:
        report[TELLING_INPUTS] = telling[TELLING_INPUTS]
    if COARSE_COPIES in telling:
        report[COARSE_COPIES] = telling[COARSE_COPIES]
    report["missing_labels"] = find_missing_labels(usable, members, made=made)
    return report


def carry_report(report: Mapping[str, Any]) -> VersionReport:
    """The part of a report that holds for the next version, too."""
    return cast(VersionReport, {name: value for name, value in report.items() if name not in OF_ONE_VERSION})


def quality_report(table: pa.Table) -> VersionReport:
    """How many rows have each quality, and the most frequent reasons."""
    counts, reasons = _counts(table["quality"]), _most_frequent(table["reason"])
    several = pc.count_distinct(table["reason"]).as_py()
    untrusted: ForeignReport = {"reasons": reasons}
    if several > len(reasons):
        untrusted["reasons_shown"] = f"first {len(reasons)} of {several:,}"
    return {
        "ok": counts.get("ok", 0),
        "partial": counts.get("partial", 0),
        "refused": counts.get("refused", 0),
        "error": counts.get("error", 0),
        "untrusted": untrusted,
    }


class _QualityColumns:
    """The quality and reason of every item, while checks are made."""

    def __init__(self, qualities: pa.ChunkedArray, reasons: pa.ChunkedArray) -> None:
        self.qualities, self.reasons = qualities.combine_chunks(), reasons.combine_chunks()

    def record(self, where: Mask, quality: Any, reason: Any) -> None:
        """Records a verdict on items that have none yet: the first verdict stands."""
        open_ = pa.array(where & np.asarray(pc.equal(self.qualities, "ok")))
        self.qualities = pc.if_else(open_, quality, self.qualities)
        self.reasons = pc.if_else(open_, reason, self.reasons)

    def refuse_if_nothing_is_left(self) -> None:
        if _counts(self.qualities).get("ok"):
            return
        common = _most_frequent(self.reasons)
        _log.warning("Why no item can be used: %s", common or "the source has no rows")
        why = clean_reason(next(iter(common))) if common else "the source has no rows"
        raise SpeciateError(
            Code.INVALID,
            f"None of the {len(self.qualities)} items can be used; the log of the job has the most frequent reasons.",
            "Mend the source or name another modality, label or inputs, then call again.",
            why,
        )


def clean_reason(reason: str) -> str:
    """A reason fit for an error message: short, without control characters."""
    return " ".join(clean(reason[at : at + 64]) for at in range(0, min(len(reason), _LONGEST_REASON), 64))


def _labels(survey: Survey, choices: ColumnChoices) -> tuple[pa.Array, bool, Mask]:
    """The labels, whether they are numbers, and which of them were infinite."""
    label, count = choices.label, survey.items.num_rows
    infinite = np.zeros(count, bool)
    if label is None:
        return pa.nulls(count, pa.string()), False, infinite
    if label == "folder" and "folder" not in survey.table.column_names:
        folders = survey.items["folder"].combine_chunks().dictionary_encode()
        classes = pa.array([shorten_class_name(name) for name in folders.dictionary.to_pylist()], pa.string())
        values: pa.Array = classes.take(folders.indices)
        numeric = False
    else:
        check_label(label, survey.table)
        found = label_array(survey.table[label])
        infinite, numeric = found.infinite, found.numeric if choices.numeric is None else choices.numeric
        values = _cast_labels(found, numeric=numeric)
    if numeric:  # also if the cells are texts
        infinite = infinite | np.isinf(np.asarray(values))
        values = pc.if_else(pa.array(infinite), None, values)
    return values, numeric, infinite


def _cast_labels(found: LabelArray, *, numeric: bool) -> pa.Array:
    if found.numeric and not numeric:
        return mapped(found.values, lambda value: class_name(value) or None)
    if numeric and not found.numeric:
        try:
            return mapped(found.values, float, pa.float64())
        except ValueError:
            raise SpeciateError(
                Code.INVALID,
                "The labels are no numbers, and those of the dataset are.",
                "Call add_examples with labels that are numbers.",
            ) from None
    return found.values


def _append_to_splits(
    table: pa.Table,
    existing: pa.Table,
    modality: str,
    fractions: Mapping[str, float],
    seed: int,
    folders: Folders | None,
) -> pa.Table:
    """The added rows with the splits that the dataset's rows require, or refused."""
    whole = _stack_split_columns(existing, table)
    new = np.arange(whole.num_rows) >= existing.num_rows
    taught = np.concatenate([np.zeros(existing.num_rows, bool), _not_drawn(table)])
    assigned = append_rows(whole, modality, new, fractions=fractions, seed=seed, only_train=taught, folders=folders)
    assigned = assigned.slice(existing.num_rows)
    for name in ("split", "quality", "reason"):
        table = with_column(table, name, assigned[name])
    return table


def _not_drawn(table: pa.Table) -> npt.NDArray[np.bool_]:
    """(N,) answers of a log that were asked about for their doubt, or for being contradicted: harder than the rest."""
    if not set(table.column_names) >= _OF_LOGS:
        return np.zeros(table.num_rows, bool)
    return np.asarray(pc.is_in(table["drawn"].cast(pa.string()), pa.array(["uncertain", "disagreement"])), bool)


def _without_copies(table: pa.Table, existing: pa.Table | None) -> pa.Table:
    """Refuses identical content in several splits that the source brings.

    The copy in the test split stays; if the dataset has the content already, only that split may hold it.
    """
    usable = np.asarray(_usable(table))
    named = pa.table({"content": table[CONTENT], "split": table["split"], "place": np.arange(table.num_rows)})
    named = named.filter(pa.array(usable))
    there: dict[str, str | None] = {}
    if existing is not None:
        old = existing.filter(
            pc.and_(_usable(existing), pc.is_in(existing[CONTENT], named["content"].combine_chunks()))
        )
        there = dict(zip(old[CONTENT].to_pylist(), old["split"].to_pylist(), strict=True))
    several = named.take(pa.array(digest_columns.repeated(named["content"])))
    several = several.group_by("content").aggregate([("split", "count_distinct")])
    crossing = several.filter(pc.greater(several["split_count_distinct"], 1))["content"].to_pylist()
    copies = named.filter(pc.is_in(named["content"], pa.array([*crossing, *there], pa.string()))).to_pylist()
    splits: dict[str, set[str | None]] = {}
    for row in copies:
        splits.setdefault(row["content"], set()).add(row["split"])
    stays = {content: there.get(content) or _first(names) for content, names in splits.items()}
    refused = {row["place"]: kept for row in copies if row["split"] != (kept := stays[row["content"]])}
    return _with_refused(table, {place: copy_reason(kept) for place, kept in refused.items()})


def _with_refused(table: pa.Table, reasons: Mapping[int, str]) -> pa.Table:
    """The table with the rows at these places refused."""
    if not reasons:
        return table
    places = sorted(reasons)
    mask = np.zeros(table.num_rows, bool)
    mask[places] = True
    for name, values in (("quality", ["refused"] * len(places)), ("reason", [reasons[place] for place in places])):
        column = table[name].cast(pa.string()).combine_chunks()
        table = with_column(table, name, pc.replace_with_mask(column, pa.array(mask), pa.array(values, pa.string())))
    return table


def _without_near_copies(table: pa.Table, existing: pa.Table, modality: str, folders: Folders | None) -> pa.Table:
    """Refuses rows that nearly are one of the dataset in another split, directly or by others between them; of new ones
    alone those stay that judge. Pairs are no complete list of what is near (near_duplicate_pairs): clusters are."""
    rows = _stack_split_columns(existing, table)
    usable, old = np.asarray(_usable(rows)), existing.num_rows
    splits, reasons = rows["split"].to_pylist(), dict[int, str]()
    there: dict[int, set[str | None]] = {}
    new: dict[int, list[int]] = {}
    counted = np.flatnonzero(usable)  # what was refused before lies in no split, and joins nobody
    pairs = near_pairs(rows.take(pa.array(counted)), modality, folders)
    for place, cluster in zip(counted.tolist(), near_duplicates.clusters(len(counted), pairs).tolist(), strict=True):
        if place < old:
            there.setdefault(cluster, set()).add(splits[place])
        else:
            new.setdefault(cluster, []).append(place)
    for cluster, places in new.items():
        lies = there.get(cluster) or {min((splits[place] for place in places), key=_rank)}
        for place in places:
            if others := sorted(map(str, lies - {splits[place]})):
                reasons[place - old] = f"It is a near-copy of an example in the split {others[0]!r}: it would leak."
    return _with_refused(table, reasons)


def _rank(split: str | None) -> int:
    return KEEP_FIRST.index(split) if split in KEEP_FIRST else len(KEEP_FIRST)


def _first(splits: Collection[str | None]) -> str:
    return next((name for name in KEEP_FIRST if name in splits), None) or min(map(str, splits))


def _ids(table: pa.Table, taken: pa.ChunkedArray | None) -> pa.Array:
    """Ids from the content, so that the same example has the same id in every version; copies are numbered. `taken`:
    ids that are not free."""
    bounds = [pc.coalesce(table[name].cast(pa.string()), "") for name in (START, STOP)]
    contents = pc.if_else(
        pc.is_valid(table[START]), pc.binary_join_element_wise(table[CONTENT], *bounds, ":"), table[CONTENT]
    )
    keys = pc.coalesce(contents, pc.binary_join_element_wise("source", table["source"], ":")).combine_chunks()
    del bounds, contents
    ids = example_ids(pc.binary_join_element_wise(keys, "1", ":"))
    again = np.zeros(len(keys), bool)
    places = digest_columns.repeated(keys)
    code = digest_columns.codes(keys.take(pa.array(places)))
    again[places] = np.bincount(code)[code] > 1
    if taken is not None:
        again |= _is_taken(ids, taken)
    if not again.any():
        return ids
    copies = np.flatnonzero(again)
    some = table.select(["label", "source"]).take(pa.array(copies))
    names, labels, sources = (each.to_pylist() for each in (keys.take(pa.array(copies)), *some.columns))
    order = sorted(range(len(copies)), key=lambda at: (names[at], str(labels[at]), sources[at]))
    numbered = _free_ids([names[at] for at in order], taken)
    places_of = np.empty(len(copies), np.int64)
    places_of[order] = np.arange(len(copies))
    return pc.replace_with_mask(ids, pa.array(again), numbered.take(pa.array(places_of)))


def _is_taken(ids: pa.StringArray, taken: pa.ChunkedArray) -> Mask:
    """(N,) which of few ids are among many."""
    some = taken.filter(pc.is_in(taken, value_set=ids))
    return np.asarray(pc.is_in(ids, value_set=some.combine_chunks()), bool)


def _free_ids(names: Sequence[str], taken: pa.ChunkedArray | None) -> pa.StringArray:
    """(N,) an id for each name: of the first, second, ... row of a name the first, second, ... that is free."""
    found, last = [""] * len(names), Counter[str]()
    open_ = list(range(len(names)))
    while open_:
        numbers = list[int]()
        for place in open_:
            last[names[place]] += 1
            numbers.append(last[names[place]])
        ids = example_ids(pa.array([f"{names[at]}:{number}" for at, number in zip(open_, numbers, strict=True)]))
        busy = np.zeros(len(open_), bool) if taken is None else _is_taken(ids, taken)
        free: dict[str, list[str]] = {}
        for place, name, is_busy in zip(open_, ids.to_pylist(), busy.tolist(), strict=True):
            free.setdefault(names[place], []).extend([] if is_busy else [name])
        lacking = list[int]()
        for place in open_:
            if left := free[names[place]]:
                found[place] = left.pop(0)
            else:
                lacking.append(place)
        open_ = lacking
    return pa.array(found, pa.string())


def _usable(table: pa.Table) -> pa.ChunkedArray:
    return pc.equal(table["quality"], "ok")


def _usable_rows(table: pa.Table) -> pa.Table:
    """The table itself where all of it is usable."""
    usable = _usable(table)
    return table if pc.all(usable).as_py() else table.filter(usable)


def _sorted_by_id(columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    """The columns as one table; each of them is given up for the sorted one. Contents that are their own fingerprints
    are there once."""
    order = pc.sort_indices(columns["id"])
    is_same = columns[FINGERPRINT].equals(columns[CONTENT])
    for name in [*columns]:
        column = columns.pop(name)  # the sorted ones come behind those that are not
        columns[name] = columns[CONTENT] if name == FINGERPRINT and is_same else column.take(order)
    return pa.table(columns)


def _split_columns(table: pa.Table, also: Sequence[str] = ()) -> list[str]:
    """The columns that a split is made from, and `also`, as far as they are there."""
    wanted = ("id", "split", "label", "group_key", "quality", "reason", "source", *_RELATING, *also)
    return [name for name in dict.fromkeys(wanted) if name in table.column_names]


def _scatter_names(names: pa.StringArray, where: pa.ChunkedArray) -> pa.Array:
    """Names of the rows that `where` chooses, in the place of each; null elsewhere."""
    mask = np.asarray(where)
    places = np.where(mask, np.cumsum(mask) - 1, -1)
    return names.take(pa.array(places, pa.int64(), mask=~mask))


def _stack_split_columns(first: pa.Table, second: pa.Table, also: Sequence[str] = ()) -> pa.Table:
    """The columns that a split is made from, and `also`, of both."""
    tables = [table.select(_split_columns(table, also)) for table in (first, second)]
    return pa.concat_tables(tables, promote_options="permissive")


def _renamed_only(renamed: Mapping[str, str]) -> dict[str, str]:
    return {name: stored for name, stored in renamed.items() if name != stored}


def _counts(column: Any) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}


def _most_frequent(reasons: Any) -> dict[str, int]:
    counts = _counts(reasons.drop_null())
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_REASONS_SHOWN])


def example_ids(keys: pa.StringArray) -> pa.StringArray:
    """(N,) ids of examples, computed together; the same ids that `refs.id_from_key` gives one by one."""
    first = len(NOUN) + 1
    letters = np.empty((len(keys), first + LENGTH), np.uint8)
    letters[:, :first] = np.frombuffer(f"{NOUN}-".encode(), np.uint8)
    alphabet, base = np.frombuffer(ALPHABET.encode(), np.uint8), np.uint64(len(ALPHABET))
    for start in range(0, len(keys), _AT_ONCE):
        digests = digest_columns.sha256_of(keys.slice(start, _AT_ONCE).cast(pa.large_string()))
        numbers = np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64)
        for place in range(LENGTH):
            numbers, digits = np.divmod(numbers, base)
            letters[start : start + _AT_ONCE, first + place] = alphabet[digits.astype(np.intp)]
    offsets = np.arange(len(letters) + 1, dtype=np.int32) * np.int32(letters.shape[1])
    return pa.StringArray.from_buffers(len(letters), pa.py_buffer(offsets), pa.py_buffer(letters))
