"""Assign splits to all usable rows anew, without leaks: groups and near-duplicates stay together.

Variants that `variants` made follow their originals; those of validation and test examples are left out. `group_by`
fills the group of rows that have none, so that evaluations count them as one group, too.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from speciate.datasets import next_version, split_warnings, splits
from speciate.datasets.columns import FIXED, with_column
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.operation import (
    Operation,
    Others,
    Outcome,
    Parameters,
    check_column,
    refusal,
    without_generated_evaluation_rows,
)
from speciate.datasets.roles import groups, missing_group_warnings
from speciate.datasets.splits import FRACTIONS, readmit_refused, split_rows
from speciate.datasets.versions import Manifest


class SplitParameters(Parameters):
    fractions: dict[str, float] = Field(default=FRACTIONS, description="Of train, validation and test.")
    group_by: str | None = Field(None, description="Column, 'folder', or regex over the source; beside group_key.")
    stratify_by: str | None = Field(None, description="Column in the place of the label.")
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> SplitParameters:
        splits.checked_fractions(self.fractions)
        return self


def preflight(parameters: SplitParameters, manifest: Manifest, others: Others) -> Manifest:
    if parameters.stratify_by is not None:
        check_column(manifest, parameters.stratify_by)
    if parameters.group_by == "label":
        raise refusal("To group by the label would put each class into one split.", "Call again without group_by.")
    groups(parameters.group_by, pa.table(dict.fromkeys((*FIXED, *manifest.columns), pa.nulls(0))), [])
    return manifest


def apply(rows: pa.Table, parameters: SplitParameters, context: Context) -> Outcome:
    warnings: tuple[str, ...] = ()
    if parameters.group_by is not None:
        sources = rows["source"].to_pylist()
        named = groups(parameters.group_by, rows, sources)
        if parameters.group_by not in rows.column_names:
            warnings = missing_group_warnings(parameters.group_by, named, sources)
        further = pa.array(named, pa.string())
        rows = with_column(rows, "group_key", pc.coalesce(rows["group_key"], further))
    fractions = splits.checked_fractions(parameters.fractions)
    rows = readmit_refused(rows)
    dealt = split_rows(
        rows,
        context.manifest.modality,
        fractions=fractions,
        group_by=parameters.group_by,
        stratify_by=parameters.stratify_by,
        seed=parameters.seed,
        keep=False,
    )
    rows = with_column(rows, "split", dealt.splits)
    warnings += (
        *split_warnings.missing_label_warnings(dealt.audit["missing_labels"]),
        *split_warnings.uneven_split_warnings(next_version.count_values(rows, "split"), fractions),
    )
    rows, variants = without_generated_evaluation_rows(rows)
    return Outcome(
        rows,
        {
            **dealt.audit,
            **({"warnings": list(warnings)} if warnings else {}),
            **({"variants_left_out": variants} if variants else {}),
        },
        split_made_by=splits.made_by(fractions),
        dealing={"fractions": fractions, "seed": parameters.seed},
    )


SPLIT = Operation(
    name="split",
    what="split anew without leaks: groups and near-duplicates stay together, labels in proportion",
    parameters=SplitParameters,
    preflight=preflight,
    apply=apply,
    unchecked="whether the groups can be dealt so",
)
