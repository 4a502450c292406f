"""The job kind `label`: new labels for single examples, by a person, an agent or a model, as the next version.

The column `label_source` says who gave a label. An example that was excluded for lack of a label becomes usable again
and joins the split of its group and near-duplicates; an example whose label is removed is excluded. The labels lie in a
blob and not in the job's spec, so that they can be purged with their examples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from speciate.datasets import next_version, split_warnings, version_rows
from speciate.datasets.columns import FINGERPRINT, class_name, with_column
from speciate.datasets.content_hash import unpack_lanes
from speciate.datasets.ingest.draft import MISSING, WITHOUT_LABEL, carry_report, quality_report, split_report
from speciate.datasets.leaks import leak_warnings
from speciate.datasets.next_version import PackedVersion, collect, commit, pack_version
from speciate.datasets.roles import label_column
from speciate.datasets.splits import FRACTIONS, append_rows
from speciate.datasets.version_report import Dealing, SplitReport, VersionReport
from speciate.datasets.versions import Manifest, packed_lanes, version
from speciate.errors import Call, Code, SpeciateError
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run
from speciate.refs import dataset_ref
from speciate.workspace.blobs import Blobs
from speciate.workspace.workspace import Workspace

SOURCE = "label_source"
_UNREADABLE = "It could not be read, whatever its label is."
_SHOWN = 5

Labels = Mapping[str, str | int | float | None]
"""Id -> its label; None takes it away."""


def check_labels(labels: Mapping[str, Any]) -> None:
    """INVALID for a label that would be stored empty: only None removes a label."""
    is_nothing = [label is not None and (label != label or not class_name(label)) for label in labels.values()]  # noqa: PLR0124 - NaN
    empty = [name for name, nothing in zip(labels, is_nothing, strict=True) if nothing]
    if empty:
        raise SpeciateError(
            Code.INVALID,
            f"{len(empty)} of the labels are empty, such as that of {empty[0][:64]!r}.",
            "Call label_examples again with a label, or with null to take it away.",
        )


class LabelSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    labels: str
    """sha256 of the blob: JSON, id -> label or null."""
    source: Literal["human", "agent", "model"]


class Payload(BaseModel):
    """What the plan found out for the run."""

    model_config = ConfigDict(frozen=True)
    manifest: Manifest
    lanes: str
    report: Mapping[str, Any]
    """As the catalog keeps it."""
    deals: bool
    """Whether newly usable rows get a split: only if the split was made here."""
    labels: str
    source: Literal["human", "agent", "model"]
    onto: int | None


def plan(spec: LabelSpec, workspace: Workspace) -> Plan:
    found = version(workspace.database, spec.dataset)
    ref = dataset_ref(spec.dataset)
    payload = Payload(
        manifest=found.manifest,
        lanes=packed_lanes(workspace.database, found.manifest).hex(),
        report=dict(found.report),
        deals="speciate" in str(found.report.get("split", {}).get("made_by", "speciate")),
        labels=spec.labels,
        source=spec.source,
        onto=found.manifest.version if ref.version is None and ref.tag is None else None,
    )
    return Plan(
        payload=payload.model_dump(mode="json"),
        resources=Resources(cpu=1, memory_mb=1024),
        resolved={"dataset": found.manifest.ref},
    )


def run(run: Run) -> PackedVersion:
    """Seals the next version."""
    payload = Payload.model_validate(run.payload)
    parent, labels = payload.manifest, json.loads(Blobs(run.folders.blobs).get(payload.labels))
    old = version_rows.read(run.folders, parent)
    _check_ids(parent, labels, old)
    rows, numeric, changed, removed = apply_labels(
        old, labels, payload.source, numeric=parent.numeric, had=parent.label
    )
    split = payload.report.get("split", {})
    if payload.deals:
        shares, seed = split.get("fractions", FRACTIONS), split.get("seed", 0)
        rows = append_rows(
            rows, parent.modality, _usable_now(old, rows), fractions=shares, seed=seed, folders=run.folders
        )
    roles = parent.model_copy(update={"label": parent.label or "label_examples", "numeric": numeric})
    sealed = next_version.seal_changed(run.folders, parent, unpack_lanes(bytes.fromhex(payload.lanes)), rows, roles)
    how = cast(Dealing, {name: split[name] for name in ("made_by", "fractions", "seed") if name in split})
    before = carry_report(payload.report)
    found = quality_report(rows)
    audit: SplitReport = {
        **split_report(rows, parent.modality, made=payload.deals, inputs=parent.inputs, folders=run.folders), **how,
    }  # fmt: skip
    report: VersionReport = {
        **before,
        **found,
        "untrusted": {**before.get("untrusted", {}), **found["untrusted"]},
        "set_aside": found["refused"],
        "split": audit,
        "warnings": [*split_warnings.missing_label_warnings(audit["missing_labels"]), *leak_warnings(audit)],
    }
    return pack_version(
        sealed,
        parents=(parent.ref,),
        operation={"op": "label", "source": payload.source, "changed": changed},
        report=report,
        result={"changed": changed, "removed": removed, "parent": parent.ref},
        onto=payload.onto,
    )


class LabelledRows(NamedTuple):
    rows: pa.Table
    numeric: bool
    changed: int
    removed: int
    """How many of the changed ones lost their label."""


def apply_labels(rows: pa.Table, labels: Labels, source: str, *, numeric: bool, had: str | None) -> LabelledRows:
    """`rows` with other labels.

    `had`: where labels came from so far; None: these decide whether labels are numbers. INVALID if a label is no number
    though those of the dataset are.
    """
    values, is_number = label_column(list(labels.values()))
    if had is None:
        numeric = is_number
    elif numeric:
        values = [_number(value) for value in labels.values()]
    elif is_number:
        values = [None if value is None else class_name(value) for value in values]
    new = dict(zip(labels, values, strict=True))
    ids, before = rows["id"].to_pylist(), rows["label"].to_pylist()
    after = [new.get(name, label) for name, label in zip(ids, before, strict=True)]
    moved = [a != b for a, b in zip(before, after, strict=True)]
    sources = rows[SOURCE].to_pylist() if SOURCE in rows.column_names else [None] * len(ids)
    qualities, reasons = rows["quality"].to_pylist(), rows["reason"].to_pylist()
    fingerprints = rows[FINGERPRINT].to_pylist()
    for place, label in enumerate(after):
        if moved[place]:
            sources[place] = source
        if label is None and qualities[place] == "ok":
            qualities[place], reasons[place] = "partial", MISSING
        elif label is not None and reasons[place] in WITHOUT_LABEL:
            readable = fingerprints[place] is not None
            qualities[place], reasons[place] = ("ok", None) if readable else ("error", _UNREADABLE)
    columns = {
        "label": pa.array(after, pa.float64() if numeric else pa.string()),
        "quality": pa.array(qualities, pa.string()),
        "reason": pa.array(reasons, pa.string()),
        SOURCE: pa.array(sources, pa.string()),
    }
    for name, column in columns.items():
        rows = with_column(rows, name, column)
    removed = sum(a is not None and b is None for a, b in zip(before, after, strict=True))
    return LabelledRows(rows, numeric, sum(moved), removed)


def _usable_now(old: pa.Table, rows: pa.Table) -> npt.NDArray[np.bool_]:
    """(N,) which rows became usable: their group may have joined another split meanwhile."""
    return np.asarray((np.asarray(rows["quality"]) == "ok") & (np.asarray(old["quality"]) != "ok"), bool)


def _check_ids(parent: Manifest, labels: Labels, rows: pa.Table) -> None:
    unknown = sorted(labels.keys() - set(rows["id"].to_pylist()))
    if unknown:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{len(unknown)} of the ids are not in {parent.ref}, such as {', '.join(map(repr, unknown[:_SHOWN]))}.",
            next=[Call("query_dataset", {"dataset": parent.ref}, "for ids")],
        )


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise SpeciateError(
            Code.INVALID,
            f"{str(value)[:64]!r} is no number, and the labels of this dataset are numbers.",
            "Call label_examples again with numbers.",
        ) from None


KIND = Kind(
    name="label", spec=LabelSpec, plan=plan, run="speciate.datasets.label:run", collect=collect, commit=commit,
    preload="classical",
)  # fmt: skip
