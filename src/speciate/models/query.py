"""What is asked of the world's models: words, and constraints as SQL conditions on a row of the catalogue.

A constraint holds or it does not; it is NULL where what it asks for is not known of a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat


class AtLeast(BaseModel):
    """A published value that a model must have: on this benchmark, by this metric, and at least (or most) so much."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    benchmark: str = Field(description="As published, such as 'ImageNet-1K'; letters and digits count.")
    metric: str = Field(description="Such as 'acc@1', in the publisher's unit, usually percent.")
    above: FiniteFloat | None = None
    below: FiniteFloat | None = None

    @property
    def name(self) -> str:
        return f"{letters(self.benchmark)} {letters(self.metric)}"


class Query(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str = ""
    task: str | None = None
    modality: str | None = None
    sources: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    """SPDX ids."""
    max_parameters: int | None = None
    max_usd_per_1m_tokens: float | None = None
    """Of input and output each."""
    released_after: str | None = None
    published: tuple[AtLeast, ...] = ()
    weights: bool = False
    """Only models whose weights one can have."""
    installed: bool = False
    """Only those that can be used with nothing fetched or allowed first."""
    children_of: str | None = None
    """The ref of a model: only it and its near-identical children, each a row of its own."""


class Constraint(NamedTuple):
    """`holds` is an SQL condition on a row, which is NULL where what it asks for is not known."""

    name: str
    holds: str
    parameters: tuple[Any, ...] = ()


def constraints(query: Query) -> list[Constraint]:
    """Each condition of a query by the name of its argument, as far as a row alone decides it. No two names are the
    same: of two published values of one metric the second is `... (2)`."""
    found: dict[str, Constraint] = {}
    for each in _constraints(query):
        name, number = each.name, 1
        while name in found:
            number += 1
            name = f"{each.name} ({number})"
        found[name] = each._replace(name=name)
    return list(found.values())


def _constraints(query: Query) -> Iterator[Constraint]:
    if query.task is not None:
        yield Constraint("task", "list_contains(tasks, ?)", (query.task,))
    if query.modality is not None:
        yield Constraint("modality", "list_contains(modalities, ?)", (query.modality,))
    if query.sources:
        yield Constraint("sources", "list_has_any(sources, ?::VARCHAR[])", (list(query.sources),))
    if query.licenses:
        yield Constraint("licenses", "list_contains(?::VARCHAR[], license)", (list(query.licenses),))
    if query.max_parameters is not None:
        yield Constraint("max_parameters", "parameters <= ?", (query.max_parameters,))
    if query.max_usd_per_1m_tokens is not None:
        yield Constraint(
            "max_usd_per_1m_tokens",
            "CASE WHEN access = 'weights' THEN true ELSE greatest(usd_per_1m_input, usd_per_1m_output) <= ? END",
            (query.max_usd_per_1m_tokens,),
        )
    if query.released_after is not None:
        yield Constraint("released_after", "released > ?", (query.released_after,))
    for wanted in query.published:
        yield _figure(wanted)
    if query.weights:
        yield Constraint("weights", "access = 'weights'")


def _figure(wanted: AtLeast) -> Constraint:
    """NULL where nobody published such a value."""
    bounds = [(sign, bound) for sign, bound in ((">", wanted.above), ("<", wanted.below)) if bound is not None]
    inside = " AND ".join(f"value {sign} ?" for sign, _ in bounds) or "true"
    holds = f"(SELECT bool_or({inside}) FROM figures f WHERE f.place = models.place AND f.name = ?)"
    return Constraint(
        f"published {wanted.benchmark} {wanted.metric}", holds, (*(bound for _, bound in bounds), wanted.name)
    )


def letters(name: str) -> str:
    """What two spellings of a benchmark or a metric share."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
