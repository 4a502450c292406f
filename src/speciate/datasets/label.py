"""The job kind `label`: new labels for single examples, by a person, an agent or a model, as the next version.

Who said so stands in the column `label_source`. An example that had no label and was set aside for that becomes usable
again; one whose label is taken away is set aside. The labels lie in a blob and not in the job's spec, so that they can
be forgotten with their examples.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from speciate.datasets import scan, succession
from speciate.datasets.intake.roles import label_column
from speciate.datasets.lthash import unpacked
from speciate.datasets.registration import collect, commit, made
from speciate.datasets.splitting import split_rows
from speciate.datasets.versions import Manifest, packed_lanes, version
from speciate.errors import Code, SpeciateError
from speciate.jobs.job import Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run
from speciate.refs import dataset_ref
from speciate.workspace.blobs import Blobs
from speciate.workspace.workspace import Workspace

SOURCE = "label_source"
MISSING = "The label is missing."
_SHOWN = 5


class LabelSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    labels: str
    """sha256 of the blob: JSON, id -> label or null."""
    source: Literal["human", "agent", "model"]


def plan(spec: LabelSpec, workspace: Workspace) -> Plan:
    found = version(workspace.database, spec.dataset)
    bare = dataset_ref(spec.dataset)
    payload = {
        "manifest": found.manifest.model_dump(mode="json"),
        "lanes": packed_lanes(workspace.database, found.manifest).hex(),
        "report": found.report,
        "resplit": not str(found.report.get("split", {}).get("made_by", "")).startswith("the source"),
        "labels": spec.labels,
        "source": spec.source,
        "onto": found.manifest.version if bare.version is None and bare.tag is None else None,
    }
    return Plan(payload=payload, resources=Resources(cpu=1, memory_mb=1024), resolved={"dataset": found.manifest.ref})


def run(run: Run) -> dict[str, Any]:
    """Seals the next version."""
    payload, parent = run.payload, Manifest.model_validate(run.payload["manifest"])
    labels = json.loads(Blobs(run.folders.blobs).get(payload["labels"]))
    old = scan.read(run.folders, parent)
    _check_ids(parent, labels, old)
    rows, numeric, changed = relabelled(old, labels, payload["source"], numeric=parent.numeric, had=parent.label)
    if payload["resplit"]:
        rows = _dealt(rows, parent)
    roles = parent.model_copy(update={"label": parent.label or "label_examples", "numeric": numeric})
    sealed = succession.succeed(run.folders, parent, unpacked(bytes.fromhex(payload["lanes"])), rows, roles)
    quality = {name: rows["quality"].to_pylist().count(name) for name in ("ok", "partial", "refused", "error")}
    return made(
        sealed,
        parents=(parent.ref,),
        operation={"op": "label", "source": payload["source"], "changed": changed},
        report=payload["report"] | quality,
        result={"changed": changed},
        onto=payload["onto"],
    )


class Relabelled(NamedTuple):
    rows: pa.Table
    numeric: bool
    changed: int


def relabelled(rows: pa.Table, labels: dict[str, Any], source: str, *, numeric: bool, had: str | None) -> Relabelled:
    """`rows` with other labels. `had`: where labels came from so far; None: the first ones decide what labels are.

    INVALID where a label is no number though those of the dataset are.
    """
    values, is_number = label_column(list(labels.values()))
    if had is None:
        numeric = is_number
    elif numeric:
        values = [_number(value) for value in labels.values()]
    elif is_number:
        values = [None if value is None else f"{value:g}" for value in values]
    new = dict(zip(labels, values, strict=True))
    ids, before = rows["id"].to_pylist(), rows["label"].to_pylist()
    after = [new.get(name, label) for name, label in zip(ids, before, strict=True)]
    moved = [a != b for a, b in zip(before, after, strict=True)]
    sources = rows[SOURCE].to_pylist() if SOURCE in rows.column_names else [None] * len(ids)
    qualities, reasons = rows["quality"].to_pylist(), rows["reason"].to_pylist()
    for place, label in enumerate(after):
        if moved[place]:
            sources[place] = source
        if label is None and qualities[place] == "ok":
            qualities[place], reasons[place] = "partial", MISSING
        elif label is not None and reasons[place] == MISSING:
            qualities[place], reasons[place] = "ok", None
    columns = {
        "label": pa.array(after, pa.float64() if numeric else pa.string()),
        "quality": pa.array(qualities, pa.string()),
        "reason": pa.array(reasons, pa.string()),
        SOURCE: pa.array(sources, pa.string()),
    }
    for name, column in columns.items():
        place = rows.schema.get_field_index(name)
        rows = rows.append_column(name, column) if place < 0 else rows.set_column(place, name, column)
    return Relabelled(rows, numeric, sum(moved))


def _dealt(rows: pa.Table, parent: Manifest) -> pa.Table:
    """A split for the rows that can be used now and had none."""
    without = [
        quality == "ok" and split is None
        for quality, split in zip(rows["quality"].to_pylist(), rows["split"].to_pylist(), strict=True)
    ]
    if not any(without):
        return rows
    dealt = split_rows(rows, parent.modality).splits
    old = rows["split"].to_pylist()
    splits = [new if lacks else before for new, before, lacks in zip(dealt, old, without, strict=True)]
    return rows.set_column(rows.schema.get_field_index("split"), "split", pa.array(splits, pa.string()))


def _check_ids(parent: Manifest, labels: dict[str, Any], rows: pa.Table) -> None:
    unknown = sorted(labels.keys() - set(rows["id"].to_pylist()))
    if unknown:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{len(unknown)} of the ids are not in {parent.ref}, such as {', '.join(map(repr, unknown[:_SHOWN]))}.",
            f"Call query_dataset(dataset={parent.ref!r}) for ids.",
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
