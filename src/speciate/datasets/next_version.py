"""The next version of a dataset, at a cost that follows the change and not the dataset; and how a run hands it over.

Added or changed rows become a further part, removed rows a list of positions in the parts that have them, and the
multiset hash changes by those rows alone. A chain that grows too long, or a change of most rows, is written anew: first
the later parts as one, then all of it.

`run` returns `pack_version(...)`; `collect` reads it back in the daemon, `commit` registers it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets import version_rows
from speciate.datasets.columns import FIXED, HIDDEN, type_name
from speciate.datasets.content_hash import (
    HASHING,
    Lanes,
    lanes,
    pack_lanes,
    row_digests,
    seal_rows,
    unpack_lanes,
    version_id,
)
from speciate.datasets.version_rows import PART, PLACE, Places, sort_by_id
from speciate.datasets.versions import Manifest, Part, register
from speciate.errors import Call, Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Folders

MOST_PARTS = 8
MOST_LABELS = 10_000
"""Classes that a manifest lists, the most frequent: it stands in the catalog and travels in specs."""
_WORTH_A_PART = 0.5
"""A change of more than this share of the rows is written as a new base."""

Mask = npt.NDArray[np.bool_]


class SealedVersion(NamedTuple):
    """A version that is on disk and not yet registered: its number is 0."""

    manifest: Manifest
    lanes: Lanes


def seal_first(folders: Folders, rows: pa.Table, manifest: Manifest, hashing: int = HASHING) -> SealedVersion:
    """All rows as one base. `manifest`: all fields that do not follow from the rows. `hashing`: as an earlier version
    of the dataset has it, so that the same rows have the same id."""
    rows = _by_id(rows)
    part, total = _seal(folders, manifest, rows, hashing)
    manifest = manifest.model_copy(update={"hashing": hashing})
    return SealedVersion(_complete_manifest(folders, manifest, rows, (part,), total), total)


def seal_appended(
    folders: Folders, parent: Manifest, total: Lanes, added: pa.Table, packs: Sequence[str] = ()
) -> SealedVersion:
    """`parent` and the rows `added`, whose ids it must not have."""
    if not added.num_rows:
        return SealedVersion(parent, total)
    added = _by_id(added)
    part, more = _seal(folders, parent, added, parent.hashing)
    after = total + more
    parts = _compact(folders, parent, (*parent.parts, part))
    manifest = parent.model_copy(
        update={
            "version": 0,
            "id": version_id(after),
            "parts": parts,
            "packs": tuple(dict.fromkeys((*parent.packs, *packs))),
            "columns": _columns_of(folders, parts),
            "splits": _sum(parent.splits, count_values(added, "split")),
            "labels": {} if parent.numeric else _most_frequent(_sum(parent.labels, count_values(added, "label"))),
            "rows": parent.rows + added.num_rows,
        }
    )
    return SealedVersion(manifest, after)


def seal_changed(
    folders: Folders, parent: Manifest, total: Lanes, new: pa.Table, manifest: Manifest | None = None
) -> SealedVersion:
    """The version that holds exactly the rows `new`, which come from `parent` by any change; ids match the rows.

    `manifest`: the parent's with other packs or roles. INVALID if no row is left. A column of the parent goes with the
    last part that has it, unless it is an input.
    """
    wanted = manifest or parent
    if not new.num_rows:
        raise SpeciateError(
            Code.INVALID,
            f"Nothing of {parent.ref} would be left.",
            "Call again with a condition that keeps some rows; query_dataset(where=...) shows which.",
        )
    new = _by_id(new)
    ids = version_rows.read_placed(folders, parent, ["id"])["id"]
    gone_or_new = sum(pc.sum(_not_in(a, b)).as_py() or 0 for a, b in ((ids, new["id"]), (new["id"], ids)))
    if gone_or_new > _WORTH_A_PART * new.num_rows:  # then the other cells need not be compared
        return seal_first(folders, new, wanted, parent.hashing)
    old = version_rows.read_placed(folders, parent)
    if not _same_shape(old, new):
        return seal_first(folders, new, wanted, parent.hashing)
    old, new = _align_columns(old, new)
    place = _index(old, new)
    kept = place >= 0
    changed = np.zeros(old.num_rows, bool)
    changed[kept] = _differs(_take(old, np.flatnonzero(kept)), _take(new, place[kept]))
    gone = ~kept | changed
    fresh = np.ones(new.num_rows, bool)
    fresh[place[kept & ~changed]] = False
    if gone.sum() + fresh.sum() > _WORTH_A_PART * max(new.num_rows, 1):
        return seal_first(folders, new, wanted, parent.hashing)
    added = new.filter(pa.array(fresh))
    left = old.filter(pa.array(gone)).drop_columns([PART, PLACE])
    after = total - lanes(row_digests(left), parent.hashing) + lanes(row_digests(added), parent.hashing)
    parts = _parts_without(folders, parent, old, gone)
    if added.num_rows:
        parts = (*parts, _part(folders, parent, added))
    manifest = _complete_manifest(folders, wanted, new, _compact(folders, parent, parts), after)
    lost = user_columns(new).keys() - manifest.columns.keys()  # no row is left that has a value there
    if lost - (parent.columns.keys() - {*wanted.inputs}):
        return seal_first(folders, new, wanted, parent.hashing)
    return SealedVersion(manifest, after)


def seal_without(
    folders: Folders,
    parent: Manifest,
    total: Lanes,
    gone: pa.Table,
    manifest: Manifest | None = None,
    left: pa.Table | None = None,
) -> SealedVersion:
    """`parent` without the rows `gone`, at the cost of those. `gone`: with all of their columns, but for provenance.

    `manifest` and INVALID: as of `seal_changed`. `left`: all other rows, if the caller has them at hand.
    """
    wanted = manifest or parent
    if not gone.num_rows:
        same = {"columns": _columns_of(folders, parent.parts), "splits": parent.splits, "labels": parent.labels}
        return SealedVersion(wanted.model_copy(update={"version": 0, **same}), total)

    def seal_rest() -> SealedVersion:
        if left is None:
            rows = version_rows.read(folders, parent)
            return seal_changed(folders, parent, total, rows.filter(_not_in(rows["id"], gone["id"])), manifest)
        return seal_changed(folders, parent, total, left, manifest)

    if gone.num_rows > _WORTH_A_PART * (parent.rows - gone.num_rows) or len(parent.labels) >= MOST_LABELS:
        return seal_rest()
    after = total - lanes(row_digests(gone), parent.hashing)
    old = version_rows.read_placed(folders, parent, ["id"])
    there = pc.invert(_not_in(old["id"], gone["id"]))
    parts = _compact(folders, parent, _parts_without(folders, parent, old, np.asarray(there.combine_chunks())))
    columns = _columns_of(folders, parts)
    if (parent.columns.keys() - columns.keys()) & {*wanted.inputs}:
        return seal_rest()
    manifest = wanted.model_copy(
        update={
            "version": 0,
            "id": version_id(after),
            "parts": parts,
            "columns": columns,
            "splits": _difference(parent.splits, count_values(gone, "split")),
            "labels": _difference(parent.labels, {} if wanted.numeric else count_values(gone, "label")),
            "rows": parent.rows - gone.num_rows,
        }
    )
    return SealedVersion(manifest, after)


def _not_in(ids: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.invert(pc.is_in(ids, value_set=others.combine_chunks()))


def count_values(table: pa.Table, column: str) -> dict[str, int]:
    """How often each value occurs among rows of quality ok, most frequent first."""
    usable = table[column].filter(pc.equal(table["quality"], "ok"))
    found = pc.value_counts(usable.drop_null().cast(pa.string()).combine_chunks())
    return dict(Counter({row["values"]: row["counts"] for row in found.to_pylist()}).most_common())


def user_columns(table: pa.Table) -> dict[str, str]:
    """Name -> type of the columns that are the user's."""
    return _users(table.schema)


def _users(schema: pa.Schema) -> dict[str, str]:
    return {field.name: type_name(field.type) for field in schema if field.name not in (*FIXED, *HIDDEN, PART, PLACE)}


def _columns_of(folders: Folders, parts: tuple[Part, ...]) -> dict[str, str]:
    """Name -> type of the user's columns, as they are read."""
    return _users(version_rows.schema(folders, parts))


def _complete_manifest(
    folders: Folders, manifest: Manifest, rows: pa.Table, parts: tuple[Part, ...], total: Lanes
) -> Manifest:
    """`manifest` with all fields that follow from the rows."""
    follows: Mapping[str, object] = {
        "version": 0,
        "id": version_id(total),
        "parts": parts,
        "columns": _columns_of(folders, parts),
        "splits": count_values(rows, "split"),
        "labels": {} if manifest.numeric else _most_frequent(count_values(rows, "label")),
        "rows": rows.num_rows,
    }
    return manifest.model_copy(update=follows)


def _by_id(rows: pa.Table) -> pa.Table:
    """The rows sorted by id. Refuses duplicate ids: they would make one row of two, sooner or later."""
    rows = sort_by_id(rows)
    ids = rows["id"].combine_chunks()
    if pc.any(pc.equal(ids[:-1], ids[1:]), min_count=0).as_py():
        raise SpeciateError(
            Code.INTERNAL,
            "Two rows of the new version have the same id, so it was not made.",
            "If an operation of a package made the rows, it must give each a new id.",
        )
    return rows


def _seal(folders: Folders, manifest: Manifest, rows: pa.Table, hashing: int) -> tuple[Part, Lanes]:
    """A file with these rows and their lanes, at once: compression needs no interpreter."""
    with ThreadPoolExecutor(1, thread_name_prefix="seal") as beside:
        part = beside.submit(_part, folders, manifest, rows)
        total = lanes(row_digests(rows), hashing)
        return part.result(), total


def _part(folders: Folders, manifest: Manifest, rows: pa.Table) -> Part:
    file = seal_rows(rows, folders.datasets / manifest.name)
    return Part(file=file.relative_to(folders.root).as_posix(), rows=rows.num_rows)


def _parts_without(folders: Folders, parent: Manifest, old: pa.Table, gone: Mask) -> tuple[Part, ...]:
    """The parent's parts without the rows of `old` that are `gone`; empty parts are left out."""
    parts = []
    number, place = old[PART].to_numpy(), old[PLACE].to_numpy()
    for index, part in enumerate(parent.parts):
        now = place[(number == index) & gone]
        if part.gone + len(now) < part.rows:
            parts.append(_reduce_part(folders, parent, part, now) if len(now) else part)
    return tuple(parts)


def _reduce_part(folders: Folders, parent: Manifest, part: Part, now: Places) -> Part:
    removed = np.union1d(version_rows.positions(folders, part), now)
    file = seal_rows(pa.table({"position": removed}), folders.datasets / parent.name)
    return part.model_copy(update={"removed": file.relative_to(folders.root).as_posix(), "gone": len(removed)})


def _compact(folders: Folders, parent: Manifest, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts, at most MOST_PARTS: beyond that, all after the base become one; with the base if that is not much
    bigger."""
    if len(parts) <= MOST_PARTS:
        return parts
    later = sum(part.rows - part.gone for part in parts[1:])
    keep = 0 if later > _WORTH_A_PART * parts[0].rows or parts[0].gone > _WORTH_A_PART * parts[0].rows else 1
    rows = version_rows.read(folders, parent.model_copy(update={"parts": parts[keep:]}))
    return (*parts[:keep], _part(folders, parent, rows))


def _same_shape(old: pa.Table, new: pa.Table) -> bool:
    """Whether rows of both may stand in one chain: no column is missing, none has another type."""
    types = {field.name: field.type for field in new.schema}
    return all(types.get(field.name) == field.type for field in old.schema if field.name not in (PART, PLACE))


def _align_columns(old: pa.Table, new: pa.Table) -> tuple[pa.Table, pa.Table]:
    """A column that only `new` has is empty in `old`."""
    for field in new.schema:
        if field.name not in old.column_names:
            old = old.append_column(field, pa.nulls(old.num_rows, field.type))
    return old, new


def _index(old: pa.Table, new: pa.Table) -> Places:
    """For each row of `old` the position of its id in `new`; -1 if it is missing."""
    there = pc.index_in(old["id"], value_set=new["id"].combine_chunks())
    return np.asarray(pc.fill_null(there.combine_chunks(), -1)).astype(np.int64)


def _take(rows: pa.Table, places: Places) -> pa.Table:
    """The rows at these places; the table itself where they are all of it, in order."""
    if len(places) == rows.num_rows and np.array_equal(places, np.arange(len(places))):
        return rows
    return rows.take(pa.array(places))


def _differs(old: pa.Table, new: pa.Table) -> Mask:
    """Which rows of two tables, paired by place, differ in any cell."""
    differs = np.zeros(new.num_rows, bool)
    for name in new.column_names:
        if not old[name].equals(new[name]):  # NaN is no NaN here, and other chunks are no difference
            differs |= _cells_differ(old[name].combine_chunks(), new[name].combine_chunks())
    return differs


def _cells_differ(a: pa.Array, b: pa.Array) -> Mask:
    if pa.types.is_nested(a.type):
        return np.array([x != y for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True)], bool)
    one_missing = np.asarray(pc.xor(a.is_null(), b.is_null()))
    unequal = np.asarray(pc.fill_null(pc.not_equal(a, b), False))
    if pa.types.is_floating(a.type):  # NaN is NaN
        unequal &= ~np.asarray(pc.fill_null(pc.and_(pc.is_nan(a), pc.is_nan(b)), False))
    return np.asarray(one_missing | unequal, dtype=bool)


def _most_frequent(labels: dict[str, int]) -> dict[str, int]:
    return dict(islice(labels.items(), MOST_LABELS))


def _difference(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return dict((Counter(a) - Counter(b)).most_common())


def _sum(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return dict((Counter(a) + Counter(b)).most_common())


class NewVersion(NamedTuple):
    """A sealed version with all fields of its row in the catalog."""

    manifest: Manifest
    lanes: Lanes
    parents: tuple[str, ...]
    operation: Mapping[str, object]
    report: Mapping[str, object]
    onto: int | None
    """The version that must still be the newest; None where any may be."""
    result: Mapping[str, object]
    """The job's result beside `dataset`."""


class PackedVersion(TypedDict):
    """A NewVersion as JSON: what a run returns that makes one."""

    manifest: Mapping[str, object]
    lanes: str
    """Lanes in hexadecimal."""
    parents: list[str]
    operation: Mapping[str, object]
    report: Mapping[str, object]
    onto: int | None
    result: Mapping[str, object]


def pack_version(
    sealed: SealedVersion,
    *,
    operation: Mapping[str, object],
    report: Mapping[str, object],
    result: Mapping[str, object],
    parents: Sequence[str] = (),
    onto: int | None = None,
) -> PackedVersion:
    """The return value of `run`. `operation`: `op`, and what it was called with; all of it JSON."""
    return {
        "manifest": sealed.manifest.model_dump(mode="json"),
        "lanes": pack_lanes(sealed.lanes).hex(),
        "parents": list(parents),
        "operation": operation,
        "report": report,
        "onto": onto,
        "result": result,
    }


def collect(folder: RunFolder) -> NewVersion:
    """Reads back the return value of `pack_version`."""
    found = folder.result()
    if found is None:
        raise SpeciateError(
            Code.INTERNAL, f"{folder.run_id} left no result.", next=[Call("control_job", {"action": "retry"})]
        )
    return unpack_version(found)


def unpack_version(found: Mapping[str, Any]) -> NewVersion:
    """The return value of `pack_version`, from JSON."""
    return NewVersion(
        Manifest.model_validate(found["manifest"]),
        unpack_lanes(bytes.fromhex(found["lanes"])),
        tuple(found["parents"]),
        found["operation"],
        found["report"],
        found["onto"],
        found["result"],
    )


def commit(tx: Transaction, job: Job, version: NewVersion) -> dict[str, object]:
    """The job's result: the `dataset` and the run's own result."""
    return {"dataset": register_version(tx, job, version).ref, **version.result}


def register_version(tx: Transaction, job: Job, version: NewVersion) -> Manifest:
    """Registers a version by `versions.register`; returns its manifest with its number."""
    return register(
        tx,
        version.manifest,
        version.lanes,
        parents=version.parents,
        operation=version.operation,
        report=version.report,
        job=job.id,
        onto=version.onto,
    )
