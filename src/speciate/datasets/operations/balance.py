"""Make all values of a column equally frequent, by leaving out rows of the more frequent ones within a split.

Rows leave group by group in an order of hashes, so that of a group rather all or nothing stays. Rows where the column
is empty stay.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
from pydantic import Field

from speciate.datasets.columns import clean
from speciate.datasets.operations.chance import place
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.contract import Operation, Others, Outcome, Parameters, refusal
from speciate.datasets.operations.foresight import check_classes, check_column, is_number
from speciate.datasets.operations.masks import SPLITS, Splits, keep, within
from speciate.datasets.versions import Manifest


class BalanceParameters(Parameters):
    column: str = Field("label", description="label, or any column of classes.")
    splits: Splits = SPLITS
    seed: int = 0


def foresee(parameters: BalanceParameters, manifest: Manifest, others: Others) -> Manifest:
    if parameters.column == "label":
        check_classes(manifest, "balance by label")
    if is_number(manifest, check_column(manifest, parameters.column)):
        raise refusal(
            f"The column {parameters.column!r} holds numbers, and balance is about classes.",
            "First derive a column of classes, such as CASE WHEN x < 1 THEN 'low' ELSE 'high' END.",
        )
    return manifest


def apply(rows: pa.Table, parameters: BalanceParameters, context: Context) -> Outcome:
    values, splits = rows[parameters.column].to_pylist(), rows["split"].to_pylist()
    ids, groups = rows["id"].to_pylist(), rows["group_key"].to_pylist()
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i in np.flatnonzero(within(rows, parameters.splits)).tolist():
        if values[i] is not None:
            found[splits[i] or "train"][str(values[i])].append(i)
    kept = np.ones(rows.num_rows, bool)
    for classes in found.values():
        fewest = min(map(len, classes.values()))
        for places in classes.values():
            order = sorted(
                places, key=lambda i: (place(parameters.seed, groups[i] or ids[i]), place(parameters.seed, ids[i]))
            )
            kept[order[fewest:]] = False
    per_class = {split: _fewest(classes) for split, classes in sorted(found.items())}
    return Outcome(keep(rows, kept), {"per_class": per_class})


def _fewest(classes: dict[str, list[int]]) -> dict[str, int | str]:
    """How many of each class stay, and which class is so rare."""
    rarest = min(sorted(classes), key=lambda name: len(classes[name]))
    return {"kept": len(classes[rarest]), "rarest": clean(rarest), "classes": len(classes)}


BALANCE = Operation(
    name="balance",
    what="make classes equally frequent by leaving out rows of the frequent ones",
    parameters=BalanceParameters,
    foresee=foresee,
    apply=apply,
)
