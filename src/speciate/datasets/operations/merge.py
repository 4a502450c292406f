"""Append the rows of another dataset with the same modality and input columns.

A row whose source cells (of media: whose bytes) exist already is not appended again; if the two label it differently,
the existing label stays and the conflict is reported. If examples are grouped here, rows of the other dataset without a
group are left out unless `ungrouped` says to append them. Splits are kept. But if the other's rows join groups or
near-duplicates of several splits, all of those move to a split that models learn from: to train rather than validation,
and never to test. If only one of the two is labelled, rows of the other are excluded until they are labelled.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from speciate.datasets.columns import CONTENT, KEY, clean, with_column
from speciate.datasets.ingest.append import is_grouped, rows_without_group
from speciate.datasets.ingest.draft import MISSING
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.operation import (
    Mask,
    Operation,
    Others,
    Outcome,
    Parameters,
    keep_rows,
    refusal,
    usable_rows,
)
from speciate.datasets.splits import components, members_of
from speciate.datasets.versions import Manifest
from speciate.refs import id_from_key

_SHOWN = 10
_WAY = (
    "Give them groups: make the other dataset with create_dataset(group_by=...), or by a step 'split' with group_by. "
    "If none of them belongs to a group here: ungrouped='take'."
)
_LEFT_OUT = "{count} rows have no group, as the rows here do, and were left out: they might leak. {way}"


class MergeParameters(Parameters):
    dataset: str = Field(description="name, name@v3 or name@TAG.")
    ungrouped: Literal["leave_out", "take"] = Field(
        "leave_out",
        description="The other's rows without a group, where rows here have one; take: none belongs to a group here.",
    )


def preflight(parameters: MergeParameters, manifest: Manifest, others: Others) -> Manifest:
    other = others[parameters.dataset]
    if other.modality != manifest.modality:
        raise refusal(f"{other.ref} holds {other.modality}, and {manifest.ref} {manifest.modality}.")
    if set(other.inputs) != set(manifest.inputs):
        raise refusal(
            f"A model sees {', '.join(other.inputs) or 'files'} of {other.ref}, but "
            f"{', '.join(manifest.inputs) or 'files'} of {manifest.ref}.",
            "Make the other dataset again with these inputs: create_dataset(inputs=[...]).",
        )
    if None not in (other.label, manifest.label) and other.numeric != manifest.numeric:
        kinds = {True: "numbers", False: "classes"}
        raise refusal(f"The labels of {other.ref} are {kinds[other.numeric]}, those here {kinds[manifest.numeric]}.")
    twins = {name.lower(): name for name in manifest.columns}
    for name in other.columns:
        if twins.get(name.lower(), name) != name:
            raise refusal(f"SQL could not tell the column {name!r} of {other.ref} from {twins[name.lower()]!r} here.")
    return manifest.model_copy(
        update={
            "label": manifest.label or other.label,
            "numeric": other.numeric if manifest.label is None else manifest.numeric,
            "packs": tuple(dict.fromkeys((*manifest.packs, *other.packs))),
            "columns": {**other.columns, **manifest.columns},
            "labels": dict((Counter(manifest.labels) + Counter(other.labels)).most_common()),
            "rows": manifest.rows + other.rows,
        }
    )


class LabelConflict(TypedDict):
    """A content that the two label differently."""

    id: str
    """Here."""
    label: str
    other: str


class _Audit(TypedDict):
    added: int
    already_there: int
    conflicting_labels: int
    components_across_splits: int
    moved: dict[str, int]
    without_group: NotRequired[int]
    warnings: NotRequired[list[str]]
    conflicts: NotRequired[list[LabelConflict]]


def apply(rows: pa.Table, parameters: MergeParameters, context: Context) -> Outcome:
    other = context.other(parameters.dataset)
    known = pc.is_in(other.rows[KEY], value_set=rows[KEY].combine_chunks(), skip_nulls=True)
    unknown = other.rows.filter(pc.invert(known))
    taken = _rows_of_groups(rows, unknown, parameters, context.manifest)
    fresh = _with_free_ids(taken, rows["id"].to_pylist())
    conflicts = _conflicts(rows, other.rows)
    manifest = preflight(parameters, context.manifest, {parameters.dataset: other.manifest})
    merged = _stack(rows, fresh)
    if manifest.label is not None:
        merged = _without_unlabelled(merged)
    moved = _unite_components(merged, fresh["id"].to_pylist(), manifest.modality)
    audit: _Audit = {
        "added": fresh.num_rows,
        "already_there": other.rows.num_rows - unknown.num_rows,
        "conflicting_labels": len(conflicts),
        "components_across_splits": moved.components,
        "moved": moved.moves,
    }
    if left_out := unknown.num_rows - taken.num_rows:
        audit |= {"without_group": left_out, "warnings": [_LEFT_OUT.format(count=left_out, way=_WAY)]}
    if conflicts:
        audit["conflicts"] = conflicts[:_SHOWN]
    return Outcome(moved.rows, audit, manifest=manifest)


def _rows_of_groups(rows: pa.Table, fresh: pa.Table, parameters: MergeParameters, manifest: Manifest) -> pa.Table:
    """The rows of `fresh` that a grouped dataset can take without a leak; all if the caller says so."""
    lacks = rows_without_group(fresh)
    if parameters.ungrouped == "take" or not lacks.any() or not is_grouped(rows, manifest.modality):
        return fresh
    if lacks.sum() == fresh.num_rows:
        raise refusal(
            f"{manifest.ref} has groups, and no row of {parameters.dataset} says its own: one might lie in two splits.",
            _WAY,
        )
    return keep_rows(fresh, ~lacks)


def _with_free_ids(rows: pa.Table, taken: Sequence[str]) -> pa.Table:
    """Gives new ids to rows whose id is another row's: further copies of a content get the next number."""
    used, ids = set(taken), rows["id"].to_pylist()
    contents, labels, sources = (rows[name].to_pylist() for name in (CONTENT, "label", "source"))
    for place in sorted(range(len(ids)), key=lambda i: (str(contents[i]), str(labels[i]), str(sources[i]), ids[i])):
        number = 1
        while ids[place] in used:
            ids[place] = id_from_key("ex", f"{contents[place] or f'source:{sources[place]}'}:{number}")
            number += 1
        used.add(ids[place])
    return with_column(rows, "id", pa.array(ids, pa.string()))


def _conflicts(rows: pa.Table, other: pa.Table) -> list[LabelConflict]:
    """Contents that the two label differently."""
    mine: dict[str, tuple[str, Any]] = {}
    for content, name, label in zip(*(rows[column].to_pylist() for column in (CONTENT, "id", "label")), strict=True):
        if content is not None and label is not None:
            mine.setdefault(content, (name, label))
    found: dict[str, LabelConflict] = {}
    for content, label in zip(other[CONTENT].to_pylist(), other["label"].to_pylist(), strict=True):
        if label is not None and content in mine and mine[content][1] != label:
            name, own = mine[content]
            found.setdefault(name, {"id": name, "label": clean(str(own)), "other": clean(str(label))})
    return [found[name] for name in sorted(found)]


def _stack(rows: pa.Table, other: pa.Table) -> pa.Table:
    """One table of both, sorted by id; a column of two types becomes text."""
    for name in set(rows.column_names) & set(other.column_names):
        a, b = rows[name], other[name]
        if a.type == b.type or (_is_number(a.type) and _is_number(b.type)):
            continue
        if a.null_count == len(a) or b.null_count == len(b):
            kind = b.type if a.null_count == len(a) else a.type
        elif pa.types.is_nested(a.type) or pa.types.is_nested(b.type):
            raise refusal(f"The column {name!r} is {a.type} here and {b.type} there, which cannot be one column.")
        else:
            kind = pa.string()
        rows, other = with_column(rows, name, _cast(a, kind)), with_column(other, name, _cast(b, kind))
    return pa.concat_tables([rows, other], promote_options="permissive").sort_by("id")


def _cast(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    return pa.nulls(len(values), kind) if values.null_count == len(values) else values.cast(kind)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _without_unlabelled(rows: pa.Table) -> pa.Table:
    lacks = pc.and_(pc.equal(rows["quality"], "ok"), pc.is_null(rows["label"]))
    rows = with_column(rows, "reason", pc.if_else(lacks, MISSING, rows["reason"].cast(pa.string())))
    return with_column(rows, "quality", pc.if_else(lacks, "partial", rows["quality"]))


class _UnitedComponents(NamedTuple):
    rows: pa.Table
    components: int
    moves: dict[str, int]
    """`test to train` -> rows."""


def _unite_components(rows: pa.Table, fresh: Sequence[str], modality: str) -> _UnitedComponents:
    """Moves components of fresh and older rows that lie in several splits into the one that models learn from."""
    places = np.flatnonzero(usable_rows(rows))
    chosen = rows.take(pa.array(places))
    component = components(members_of(chosen, modality))
    splits = chosen["split"].to_pylist()
    new: Mask = np.asarray(pc.is_in(chosen["id"], pa.array(fresh, pa.string())), bool)
    there: dict[int, set[str]] = defaultdict(set)
    for code, name in zip(component.tolist(), splits, strict=True):
        if name is not None:
            there[code].add(name)
    across = {code for code in np.unique(component[new]).tolist() if len(there[code]) > 1}
    moves: Counter[str] = Counter()
    after = rows["split"].to_pylist()
    for place, code, name in zip(places.tolist(), component.tolist(), splits, strict=True):
        goal = min(there[code], key=_learned_first) if code in across else name
        if name is not None and name != goal:
            moves[f"{name} to {goal}"] += 1
            after[place] = goal
    return _UnitedComponents(
        with_column(rows, "split", pa.array(after, pa.string())), len(across), dict(moves.most_common())
    )


def _learned_first(split: str) -> tuple[int, str]:
    return {"train": 0, "validation": 1, "test": 3}.get(split, 2), split


MERGE = Operation(
    name="merge",
    what="take in the rows of another dataset, none twice",
    parameters=MergeParameters,
    preflight=preflight,
    apply=apply,
    unchecked="whether columns of one name can be one, and that rows say their groups where rows here have some",
    refers={"dataset": "dataset"},
)
