"""Rows that come to a dataset: those that it has already add nothing, the others get ids and splits beside the old
ones, which stay as they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.datasets import scan, succession
from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, SKETCH, type_name
from speciate.datasets.intake.rows import MADE, Draft, finish, quality_report
from speciate.datasets.lthash import Lanes
from speciate.datasets.succession import Sealed
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.workspace.workspace import Folders

_NEEDED = ("id", "split", "label", "group_key", "quality", "reason", "source", CONTENT, FINGERPRINT, KEY, SKETCH)


class Parent(NamedTuple):
    """The version that rows come to."""

    manifest: Manifest
    lanes: Lanes
    report: dict[str, Any]


class Extended(NamedTuple):
    sealed: Sealed
    report: dict[str, Any]
    added: int
    already_there: int


def extend(folders: Folders, parent: Parent, drafted: Draft, seed: int, packs: list[str]) -> Extended:
    """The next version. INVALID where a column holds what the dataset's column of that name cannot."""
    schema = _schema(folders, parent.manifest)
    old = scan.read(folders, parent.manifest, [name for name in _NEEDED if name in schema.names])
    fresh = drafted.table.filter(pc.invert(pc.is_in(_identities(drafted.table), _identities(old))))
    there = drafted.table.num_rows - fresh.num_rows
    if not fresh.num_rows:
        return Extended(Sealed(parent.manifest, parent.lanes), parent.report, 0, there)
    fresh, promoted = _fitting(fresh, schema, parent.manifest.ref)
    kept = _kept(old)
    done = finish(drafted._replace(table=fresh), seed, kept, beside=old, taken=frozenset(old["id"].to_pylist()))
    if promoted:
        whole = pa.concat_tables([scan.read(folders, parent.manifest), done.table], promote_options="permissive")
        manifest = parent.manifest.model_copy(update={"packs": tuple(dict.fromkeys((*parent.manifest.packs, *packs)))})
        sealed = succession.found(folders, whole, manifest)
    else:
        sealed = succession.append(folders, parent.manifest, parent.lanes, done.table, packs)
    both = pa.concat_tables([table.select(["quality", "reason"]) for table in (old, done.table)])
    was, now = str(parent.report.get("split", {}).get("made_by", MADE)), done.split["made_by"]
    by = was if was.startswith(now) else f"{was.partition(';')[0]}; of added rows: {now}"
    report = parent.report | quality_report(both) | {"split": done.split | {"made_by": by}}
    return Extended(sealed, report, done.table.num_rows, there)


def splits_of(folders: Folders, manifest: Manifest) -> dict[str, str]:
    """Key -> split of every usable row."""
    return _kept(scan.read(folders, manifest, [KEY, "split", "quality"]))


def _kept(rows: pa.Table) -> dict[str, str]:
    usable = rows.filter(pc.and_(pc.equal(rows["quality"], "ok"), pc.is_valid(rows["split"])))
    return dict(zip(usable[KEY].to_pylist(), usable["split"].to_pylist(), strict=True))


def _identities(rows: pa.Table) -> pa.Array:
    """What makes a row the same one again: its cells (of media, the bytes) and its label; of what could not be read,
    where it lies and why."""
    known = pc.and_(pc.is_valid(rows[KEY]), pc.not_equal(rows["quality"], "error"))
    label = pc.fill_null(rows["label"].cast(pa.string()), "")
    whole = pc.binary_join_element_wise(pc.fill_null(rows[KEY], ""), label, "/")
    place = pc.binary_join_element_wise(rows["source"], pc.fill_null(rows["reason"], ""), "/")
    return pc.if_else(known, whole, place).combine_chunks()


def _schema(folders: Folders, manifest: Manifest) -> pa.Schema:
    schemas = [pq.read_schema(folders.root / part.file).remove_metadata() for part in manifest.parts]
    return pa.unify_schemas(schemas, promote_options="permissive")


def _fitting(rows: pa.Table, schema: pa.Schema, ref: str) -> tuple[pa.Table, bool]:
    """The rows with the types that the dataset's columns have, and whether those must become wider for them."""
    promoted = False
    for place, field in enumerate(rows.schema):
        if field.name not in schema.names or field.type == (wanted := schema.field(field.name).type):
            continue
        try:
            rows = rows.set_column(place, field.name, rows[field.name].cast(wanted))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            if not (pa.types.is_integer(wanted) and pa.types.is_floating(field.type)):
                raise SpeciateError(
                    Code.INVALID,
                    f"Column {field.name!r} holds {type_name(wanted)} in {ref} and {type_name(field.type)} here.",
                    "Give the column the same type in both, then call add_examples again.",
                ) from None
            promoted = True
    return rows, promoted
