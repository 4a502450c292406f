"""Rows of a log and the groups of a dataset.

A log holds what callers sent, so which group a row belongs to is known only where they sent that, too; a row that does
not say might lie in another split than the rest of its group.

What says no group is left out and told, so that it may come again once it does; where nothing says one, all of it is
refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from speciate.datasets import scan
from speciate.datasets.intake.rows import Draft
from speciate.datasets.ungrouped import is_grouped, lacking, needed
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.workspace.workspace import Folders

_ALONE = (
    "make a dataset of the log alone by create_dataset; where none of its rows belongs to a group of {ref}, "
    "curate_dataset(steps=[{{'op': 'merge', 'dataset': ..., 'ungrouped': 'take'}}]) takes them in."
)


class Grouping(NamedTuple):
    """How the dataset is grouped that rows of a log come to."""

    ref: str
    column: str | None
    """That holds the group, so that callers can send it; None where paths or something else said it."""
    inputs: Sequence[str]
    """Columns that models see, by their names there."""


def is_log(source: Path | str | None) -> bool:
    return str(source).startswith("log:")


def is_grouped_by_somebody(folders: Folders, manifest: Manifest) -> bool:
    """Whether the rows of a version have groups that somebody said."""
    there = {"quality", "group_key", *manifest.columns}
    rows = scan.read(folders, manifest, [name for name in needed(manifest.modality) if name in there])
    return is_grouped(rows, manifest.modality)


def of_groups(drafted: Draft, grouping: Grouping) -> Draft:
    """Without the rows that say no group, and with a warning that counts them. INVALID where none says one."""
    lacks = lacking(drafted.table)
    if not lacks.any():
        return drafted
    if not drafted.table["group_key"].null_count < drafted.table.num_rows:
        raise nobody_sent(grouping)
    warning = (
        f"{lacks.sum()} of the answers do not say {_by(grouping)}, by which {grouping.ref} is grouped, and were left "
        f"out: a group might lie in two splits. {_way(grouping)}"
    )
    return drafted._replace(table=drafted.table.filter(pa.array(~lacks)), warnings=(*drafted.warnings, warning))


def nobody_sent(grouping: Grouping) -> SpeciateError:
    """The refusal of rows of which none says its group."""
    return SpeciateError(
        Code.INVALID,
        f"{grouping.ref} is grouped by {_by(grouping)}, and nobody sent that with what was asked: a group might lie in "
        "two splits.",
        _way(grouping),
    )


def _by(grouping: Grouping) -> str:
    return repr(grouping.column) if grouping.column else "what a log does not hold"


def _way(grouping: Grouping) -> str:
    alone = _ALONE.format(ref=grouping.ref)
    if grouping.column is None:
        return alone[0].upper() + alone[1:]
    sent = ", ".join(f"{name!r}: ..." for name in dict.fromkeys((*grouping.inputs, grouping.column)))
    return (
        f"Ask with it from now on, as {{'row': {{{sent}}}}}: the model does not look at it, and the log keeps it. Or "
        f"{alone}"
    )
