"""Rows that are appended to a dataset: rows that it holds already add nothing, rows that it had and dropped stay out.

The others get ids and splits beside the old ones, which stay as they are (splits.py).

A dataset is grouped if somebody named its groups. Groups that the medium itself has (a header's patient, a molecule's
scaffold) come with new rows, too; groups that curation made from ids (windows and variants of one example) say nothing
of other rows. Into a grouped dataset only rows with a group come: a row without one might lie in another split than the
rest of its group, and a patient in both train and test makes the test too easy. A log holds what callers sent, so its
rows have a group only if callers sent one. Rows without a group are left out and counted in a warning; they may be
added once they have one. If no row has a group, the call is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.datasets import next_version, version_rows
from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, ORIGIN, SKETCH, type_name
from speciate.datasets.content_hash import Lanes
from speciate.datasets.ingest.draft import MADE, Draft, carry_report, finish_draft, quality_report
from speciate.datasets.next_version import SealedVersion
from speciate.datasets.splits import FRACTIONS
from speciate.datasets.version_report import Dealing, VersionReport
from speciate.datasets.version_rows import read_former_rows
from speciate.datasets.versions import Manifest, Part
from speciate.errors import Code, SpeciateError
from speciate.modalities import find
from speciate.refs import ALPHABET, LENGTH
from speciate.workspace.workspace import Folders

_NEEDED = (
    *("id", "split", "label", "group_key", "quality", "reason", "source"),
    *(CONTENT, FINGERPRINT, KEY, SKETCH, ORIGIN),
)

_ALONE = (
    "make a dataset of the log alone by create_dataset; if none of its rows belongs to a group of {ref}, "
    "curate_dataset(steps=[{{'op': 'merge', 'dataset': ..., 'ungrouped': 'take'}}]) takes them in."
)
_EXAMPLE_ID = f"^ex-[{re.escape(ALPHABET)}]{{{LENGTH}}}$"
Mask = npt.NDArray[np.bool_]  # (N,)


class ParentVersion(NamedTuple):
    """The version that rows are appended to."""

    manifest: Manifest
    lanes: Lanes
    report: Mapping[str, Any]
    """As the catalog keeps it."""
    before: tuple[Part, ...] = ()
    """The parts of its ancestors."""


class AppendCounts(NamedTuple):
    """Counts of the new rows."""

    added: int
    already_there: int
    dropped_before: int
    """An earlier version had them, and curation left them out."""
    label_conflicts: int
    """Already there with another label; the dataset's label stands."""


class AppendedVersion(NamedTuple):
    sealed: SealedVersion
    report: VersionReport
    counts: AppendCounts
    refused: int
    """How many of the added rows were refused."""
    warnings: tuple[str, ...] = ()
    """Warnings about the split."""


def append_draft(folders: Folders, parent: ParentVersion, draft: Draft, seed: int, packs: list[str]) -> AppendedVersion:
    """The next version. INVALID if a column holds values that the dataset's column of that name cannot."""
    schema = _schema(folders, parent.manifest)
    texts = [name for name in parent.manifest.inputs if parent.manifest.columns.get(name) == "VARCHAR"]
    wanted = (*_NEEDED, *(texts if len(parent.manifest.inputs) > 1 else ()))
    old = version_rows.read(folders, parent.manifest, [name for name in wanted if name in schema.names])
    identities = _identities(draft.table)
    there = _known(identities, _identities(old))
    dropped = pc.and_not(_known(identities, _former_identities(folders, parent.before, identities)), there)
    fresh = draft.table.filter(pc.invert(pc.or_(there, dropped)))
    conflicts = _label_conflicts(draft.table.filter(there), old)
    counts = AppendCounts(fresh.num_rows, there.true_count, dropped.true_count, conflicts)
    if not fresh.num_rows:
        return AppendedVersion(SealedVersion(parent.manifest, parent.lanes), carry_report(parent.report), counts, 0)
    fresh, promoted = _cast_to_schema(fresh, schema, parent.manifest.ref)
    split = parent.report.get("split", {})
    done = finish_draft(
        draft._replace(table=fresh),
        split.get("seed", seed),
        existing=old,
        fractions=split.get("fractions", FRACTIONS),
        folders=folders,
    )
    if promoted:
        whole = pa.concat_tables(
            [version_rows.read(folders, parent.manifest), done.table], promote_options="permissive"
        )
        manifest = parent.manifest.model_copy(update={"packs": tuple(dict.fromkeys((*parent.manifest.packs, *packs)))})
        sealed = next_version.seal_first(folders, whole, manifest, manifest.hashing)
    else:
        sealed = next_version.seal_appended(folders, parent.manifest, parent.lanes, done.table, packs)
    both = pa.concat_tables([table.select(["quality", "reason"]) for table in (old, done.table)])
    was, now = str(parent.report.get("split", {}).get("made_by", MADE)), done.split["made_by"]
    same = was.startswith(now) or (now == MADE and was.startswith("speciate"))
    by = was if same else f"{was.partition(';')[0]}; of added rows: {now}"
    how = cast(Dealing, {name: split[name] for name in ("fractions", "seed") if name in split})
    quality = quality_report(both)
    report: VersionReport = {
        **carry_report(parent.report),
        **quality,
        "set_aside": quality["refused"],
        "split": {**how, **done.split, "made_by": by},
    }
    refused = _count_refused(done.table) - _count_refused(fresh)
    return AppendedVersion(sealed, report, counts, refused, done.warnings)


def splits_of(folders: Folders, manifest: Manifest) -> pa.Table:
    """`key` and `split` of every usable row with a split."""
    rows = version_rows.read(folders, manifest, [KEY, "split", "quality"])
    usable = rows.filter(pc.and_(pc.equal(rows["quality"], "ok"), pc.is_valid(rows["split"])))
    return pa.table({"key": usable[KEY], "split": usable["split"]})


def _identities(rows: pa.Table) -> pa.Array:
    """The identity of a row, whatever labels it got since: its cells (of media: the bytes).

    For a row that could not be read: its source and the reason.
    """
    known = pc.and_(pc.is_valid(rows[KEY]), pc.not_equal(rows["quality"], "error"))
    place = pc.binary_join_element_wise(rows["source"], pc.fill_null(rows["reason"].cast(pa.string()), ""), "/")
    return pc.if_else(known, rows[KEY], place).combine_chunks()


def _known(identities: pa.Array, others: pa.Array) -> pa.Array:
    """(N,) which of them are among the others, of which there may be many more."""
    return pc.is_in(identities, others.filter(pc.is_in(others, identities)))


def _former_identities(folders: Folders, before: Sequence[Part], like: pa.Array) -> pa.Array:
    rows = read_former_rows(folders, before, [KEY, "quality", "source", "reason"])
    return like.slice(0, 0) if rows is None else _identities(rows)


def _label_conflicts(rows: pa.Table, old: pa.Table) -> int:
    """How many of `rows` have a label that no row of the dataset with the same identity has."""
    labelled = rows.filter(pc.is_valid(rows["label"]))
    if not labelled.num_rows:
        return 0
    same = old.filter(pc.is_in(_identities(old), _identities(labelled)))
    known = set(zip(_identities(same).to_pylist(), _texts(same), strict=True))
    return sum(pair not in known for pair in zip(_identities(labelled).to_pylist(), _texts(labelled), strict=True))


def _texts(rows: pa.Table) -> list[str | None]:
    return list(rows["label"].cast(pa.string()).to_pylist())


def _count_refused(rows: pa.Table) -> int:
    return pc.sum(pc.equal(rows["quality"], "refused")).as_py() or 0


def _schema(folders: Folders, manifest: Manifest) -> pa.Schema:
    schemas = [pq.read_schema(folders.root / part.file).remove_metadata() for part in manifest.parts]
    return pa.unify_schemas(schemas, promote_options="permissive")


def _cast_to_schema(rows: pa.Table, schema: pa.Schema, ref: str) -> tuple[pa.Table, bool]:
    """The rows cast to the dataset's column types, and whether those types must become wider."""
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


class Grouping(NamedTuple):
    """How the dataset that rows of a log are appended to is grouped."""

    ref: str
    column: str | None
    """The column with the group, so that callers can send it; None if paths or something else gave it."""
    inputs: Sequence[str]
    """The dataset's input columns, by their stored names."""


def is_log(source: Path | str | None) -> bool:
    return str(source).startswith("log:")


def has_user_groups(folders: Folders, manifest: Manifest) -> bool:
    """Whether the rows of a version have groups that somebody named."""
    there = {"quality", "group_key", *manifest.columns}
    rows = version_rows.read(folders, manifest, [name for name in group_columns(manifest.modality) if name in there])
    return is_grouped(rows, manifest.modality)


def require_groups(draft: Draft, grouping: Grouping) -> Draft:
    """Leaves out rows without a group, with a warning that counts them. INVALID if no row has a group."""
    lacks = rows_without_group(draft.table)
    if not lacks.any():
        return draft
    if not draft.table["group_key"].null_count < draft.table.num_rows:
        raise no_groups_error(grouping)
    warning = (
        f"{lacks.sum()} of the answers do not say {_group_name(grouping)}, by which {grouping.ref} is grouped, and "
        f"were left out: a group might lie in two splits. {_group_advice(grouping)}"
    )
    return draft._replace(table=draft.table.filter(pa.array(~lacks)), warnings=(*draft.warnings, warning))


def no_groups_error(grouping: Grouping) -> SpeciateError:
    """The refusal of rows none of which has a group."""
    return SpeciateError(
        Code.INVALID,
        f"{grouping.ref} is grouped by {_group_name(grouping)}, and nobody sent that with the inputs: a group might "
        "lie in two splits.",
        _group_advice(grouping),
    )


def _group_name(grouping: Grouping) -> str:
    return repr(grouping.column) if grouping.column else "what a log does not hold"


def _group_advice(grouping: Grouping) -> str:
    alone = _ALONE.format(ref=grouping.ref)
    if grouping.column is None:
        return alone[0].upper() + alone[1:]
    sent = ", ".join(f"{name!r}: ..." for name in dict.fromkeys((*grouping.inputs, grouping.column)))
    return (
        f"Ask with it from now on, as {{'row': {{{sent}}}}}: the model does not see it, and the log keeps it. Or "
        f"{alone}"
    )


def is_grouped(rows: pa.Table, modality: str) -> bool:
    """Whether somebody named a group of a usable row. `rows`: quality and group_key, and the medium's own group."""
    group = rows.filter(pc.equal(rows["quality"], "ok"))
    keys, own = group["group_key"].cast(pa.string()), find(modality).default_group
    named = pc.and_(pc.is_valid(keys), pc.invert(pc.match_substring_regex(keys, _EXAMPLE_ID)))
    if own in group.column_names:
        named = pc.and_(named, pc.fill_null(pc.not_equal(keys, group[own].cast(pa.string())), True))
    return bool(pc.any(named).as_py())


def group_columns(modality: str) -> tuple[str, ...]:
    """The columns that `is_grouped` reads, if they exist."""
    own = find(modality).default_group
    return ("quality", "group_key", *((own,) if own else ()))


def rows_without_group(rows: pa.Table) -> Mask:
    """(N,) rows without a group that are usable, or would be once they are labelled."""
    whole = pc.is_in(rows["quality"], pa.array(["ok", "partial"]))
    return np.asarray(pc.and_(pc.is_null(rows["group_key"]), whole), bool)
