"""Rows that come to a dataset: those that it has already add nothing, and those that it had and dropped stay out; the
others get ids and splits beside the old ones, which stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.datasets import scan, succession
from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, ORIGIN, SKETCH, type_name
from speciate.datasets.intake.lineage import rows_ever
from speciate.datasets.intake.rows import MADE, Draft, carried, finish, quality_report
from speciate.datasets.lthash import Lanes
from speciate.datasets.split import FRACTIONS
from speciate.datasets.succession import Sealed
from speciate.datasets.versions import Manifest, Part
from speciate.errors import Code, SpeciateError
from speciate.workspace.workspace import Folders

_NEEDED = (
    *("id", "split", "label", "group_key", "quality", "reason", "source"),
    *(CONTENT, FINGERPRINT, KEY, SKETCH, ORIGIN),
)


class Parent(NamedTuple):
    """The version that rows come to."""

    manifest: Manifest
    lanes: Lanes
    report: dict[str, Any]
    before: tuple[Part, ...] = ()
    """Of the versions that it goes back to."""


class Counts(NamedTuple):
    """Of the rows that came."""

    added: int
    already_there: int
    dropped_before: int
    """An earlier version had them, and curation left them out."""
    label_conflicts: int
    """Already there, with another label; that of the dataset stands."""


class Extended(NamedTuple):
    sealed: Sealed
    report: dict[str, Any]
    counts: Counts
    refused: int
    """Of those that were added."""
    warnings: tuple[str, ...] = ()
    """Of the split."""


def extend(folders: Folders, parent: Parent, drafted: Draft, seed: int, packs: list[str]) -> Extended:
    """The next version. INVALID where a column holds what the dataset's column of that name cannot."""
    schema = _schema(folders, parent.manifest)
    old = scan.read(folders, parent.manifest, [name for name in _NEEDED if name in schema.names])
    identities = _identities(drafted.table)
    there = pc.is_in(identities, _identities(old))
    dropped = pc.and_not(pc.is_in(identities, _ever(folders, parent.before, identities)), there)
    fresh = drafted.table.filter(pc.invert(pc.or_(there, dropped)))
    conflicts = _label_conflicts(drafted.table.filter(there), old)
    counts = Counts(fresh.num_rows, there.true_count, dropped.true_count, conflicts)
    if not fresh.num_rows:
        return Extended(Sealed(parent.manifest, parent.lanes), carried(parent.report), counts, 0)
    fresh, promoted = _fitting(fresh, schema, parent.manifest.ref)
    dealing = parent.report.get("split", {})
    done = finish(
        drafted._replace(table=fresh),
        dealing.get("seed", seed),
        beside=old,
        taken=frozenset(old["id"].to_pylist()),
        fractions=dealing.get("fractions", FRACTIONS),
    )
    if promoted:
        whole = pa.concat_tables([scan.read(folders, parent.manifest), done.table], promote_options="permissive")
        manifest = parent.manifest.model_copy(update={"packs": tuple(dict.fromkeys((*parent.manifest.packs, *packs)))})
        sealed = succession.found(folders, whole, manifest)
    else:
        sealed = succession.append(folders, parent.manifest, parent.lanes, done.table, packs)
    both = pa.concat_tables([table.select(["quality", "reason"]) for table in (old, done.table)])
    was, now = str(parent.report.get("split", {}).get("made_by", MADE)), done.split["made_by"]
    same = was.startswith(now) or (now == MADE and was.startswith("speciate"))
    by = was if same else f"{was.partition(';')[0]}; of added rows: {now}"
    how = {name: dealing[name] for name in ("fractions", "seed") if name in dealing}
    report = carried(parent.report) | quality_report(both) | {"split": how | done.split | {"made_by": by}}
    refused = _refused(done.table) - _refused(fresh)
    return Extended(sealed, report, counts, refused, done.warnings)


def splits_of(folders: Folders, manifest: Manifest) -> dict[str, str]:
    """Key -> split of every usable row."""
    return _kept(scan.read(folders, manifest, [KEY, "split", "quality"]))


def _kept(rows: pa.Table) -> dict[str, str]:
    usable = rows.filter(pc.and_(pc.equal(rows["quality"], "ok"), pc.is_valid(rows["split"])))
    return dict(zip(usable[KEY].to_pylist(), usable["split"].to_pylist(), strict=True))


def _identities(rows: pa.Table) -> pa.Array:
    """What makes a row the same one again, whatever was said of it since: its cells (of media, the bytes); of what
    could not be read, where it lies and why."""
    known = pc.and_(pc.is_valid(rows[KEY]), pc.not_equal(rows["quality"], "error"))
    place = pc.binary_join_element_wise(rows["source"], pc.fill_null(rows["reason"].cast(pa.string()), ""), "/")
    return pc.if_else(known, rows[KEY], place).combine_chunks()


def _ever(folders: Folders, before: Sequence[Part], like: pa.Array) -> pa.Array:
    rows = rows_ever(folders, before, [KEY, "quality", "source", "reason"])
    return like.slice(0, 0) if rows is None else _identities(rows)


def _label_conflicts(rows: pa.Table, old: pa.Table) -> int:
    """How many of `rows` have a label that no row of the dataset with the same identity has."""
    labelled = rows.filter(pc.is_valid(rows["label"]))
    known = set(zip(_identities(old).to_pylist(), _texts(old), strict=True))
    return sum(pair not in known for pair in zip(_identities(labelled).to_pylist(), _texts(labelled), strict=True))


def _texts(rows: pa.Table) -> list[str | None]:
    return list(rows["label"].cast(pa.string()).to_pylist())


def _refused(rows: pa.Table) -> int:
    return pc.sum(pc.equal(rows["quality"], "refused")).as_py() or 0


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
