"""Rename labels, join several under one name, or remove a label. Other labels stay as they are.

An example without a label is excluded, as at ingest.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import pyarrow as pa
from pydantic import AfterValidator, Field, StringConstraints

from speciate.datasets.columns import class_name, with_column
from speciate.datasets.ingest.draft import MISSING
from speciate.datasets.next_version import MOST_LABELS
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.operation import Operation, Others, Outcome, Parameters, check_classes
from speciate.datasets.versions import Manifest
from speciate.errors import Call, unknown

_SHOWN = 20
Old = Annotated[str, AfterValidator(class_name)]
"""As it is stored: a long one may be given in full."""


def _printable(label: str) -> str:
    if not (name := class_name(label)):
        raise ValueError("a label is a text that can be printed")
    return name


Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_printable)]


class RelabelParameters(Parameters):
    mapping: dict[Old, Label | None] = Field(min_length=1, description="Old label to new; null removes it.")


def preflight(parameters: RelabelParameters, manifest: Manifest, others: Others) -> Manifest:
    check_classes(manifest, "relabel")
    for old in parameters.mapping:
        if old not in manifest.labels and len(manifest.labels) < MOST_LABELS:  # else not all are listed
            raise unknown(
                "label",
                old,
                manifest.labels,
                next=[Call("describe_dataset", {"dataset": manifest.name}, "for its labels")],
            )
    labels = Counter[str]()
    for label, count in manifest.labels.items():
        if (new := _new_label(label, parameters)) is not None:
            labels[new] += count
    return manifest.model_copy(update={"labels": dict(labels.most_common())})


def apply(rows: pa.Table, parameters: RelabelParameters, context: Context) -> Outcome:
    before = rows["label"].to_pylist()
    after = [None if label is None else _new_label(label, parameters) for label in before]
    moved = Counter((a, b) for a, b in zip(before, after, strict=True) if a != b)
    qualities, reasons = rows["quality"].to_pylist(), rows["reason"].to_pylist()
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        if new is None and old is not None and qualities[place] == "ok":
            qualities[place], reasons[place] = "partial", MISSING
    rows = with_column(rows, "label", pa.array(after, pa.string()))
    rows = with_column(rows, "quality", pa.array(qualities, pa.string()))
    rows = with_column(rows, "reason", pa.array(reasons, pa.string()))
    moves = [{"from": old, "to": new, "rows": count} for (old, new), count in moved.most_common(_SHOWN)]
    return Outcome(rows, {"changed": sum(moved.values()), "moves": moves})


def _new_label(label: str, parameters: RelabelParameters) -> str | None:
    return parameters.mapping.get(label, label)


RELABEL = Operation(
    name="relabel",
    what="rename labels, join several, or take one away",
    parameters=RelabelParameters,
    preflight=preflight,
    apply=apply,
)
