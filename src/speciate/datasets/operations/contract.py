"""What an operation is: a name, parameters, and a pure function from the rows of a version to other rows.

An operation is given the whole table, rows of every quality, sorted by id. What it leaves out of its result leaves the
version. It is repeatable: the same rows and parameters give the same result, and chance comes from a seed among the
parameters. It reads nothing but its arguments; what else it needs, the context does for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.allowances import Spend
from speciate.secrets import Named

if TYPE_CHECKING:  # only workers have one
    from speciate.datasets.operations.context import Context

Others = Mapping[str, Manifest]
"""Ref -> the dataset versions that parameters name."""
Reference = Literal["dataset", "model", "extractor"]


class Parameters(BaseModel):
    """What a step may say beside `op`. Anything else is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Outcome(NamedTuple):
    rows: pa.Table
    audit: Mapping[str, Any] = MappingProxyType({})
    """What a person should know of it: JSON, short."""
    flagged_column: str | None = None
    """The boolean column, where it marks rows instead of leaving them out."""
    manifest: Manifest | None = None
    """The version's, where packs or roles are others now. What follows from the rows need not be right."""
    split_made_by: str | None = None
    """How, where it dealt out a new split."""
    dealing: Mapping[str, Any] = MappingProxyType({})
    """`fractions` and `seed` of that split, for rows that come later."""


class Outside(NamedTuple):
    """What a step that asks models needs, settled before there is a job: consent, keys, money."""

    names: Mapping[str, Any]
    """Parameters with full names in the place of what the caller wrote."""
    payload: Mapping[str, Any]
    """JSON for the run's part of it (`Context.answers`)."""
    secrets: tuple[Named, ...] = ()
    usd: float | None = 0.0
    """About what it costs; None where that is not known."""
    spends: tuple[Spend, ...] = ()
    """Money of what a person allowed."""
    resolved: Mapping[str, Any] = MappingProxyType({})
    """For `dry_run`."""


def _nothing_foreseen(parameters: Any, manifest: Manifest, others: Others) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Operation:
    name: str
    what: str
    """One line, for people who choose."""
    parameters: type[BaseModel]
    apply: Callable[[pa.Table, Any, Context], Outcome]
    """Raises SpeciateError for what only the rows can tell."""
    foresee: Callable[[Any, Manifest, Others], Manifest | None] = _nothing_foreseen
    """Refuses before anything is read, and says what the version will be like: its columns, packs and roles, and at
    least the labels that it will have. None where that cannot be known: then later steps are checked when they run."""
    refers: Mapping[str, Reference] = field(default_factory=dict)
    """Which parameters name something of the workspace. They are resolved before the run: `more` becomes `more@v3`."""
    needs: tuple[str, ...] = ()
    """Libraries that it imports."""
    outside: str = ""
    """Of an operation that asks models: `module:function` of (parameters, manifest, others, workspace) -> Outside, or
    None where this step asks none. It stands above this floor, so it is named by string."""


def refusal(message: str, recovery: str = "Call curate_dataset again with another step.") -> SpeciateError:
    return SpeciateError(Code.INVALID, message, recovery)
