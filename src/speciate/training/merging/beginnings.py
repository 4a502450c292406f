"""Where models began: the version, or the published weights, from which all of several were trained on.

Networks that began with the same weights stay in one valley, where a mean of them is as good as they are (Frankle et
al. 2020; Wortsman et al. 2022). Those that began with fresh weights do not, and the mean of their weights is noise,
so fresh weights count as no beginning, even from the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.models import registry
from speciate.models.card import Card
from speciate.models.registry import ModelVersion
from speciate.refs import model_ref
from speciate.workspace.workspace import Workspace

_FRESH = ("new", "timm")


class Line(NamedTuple):
    """A model and what it was trained on from, nearest first."""

    refs: tuple[str, ...]

    @property
    def root(self) -> str:
        return self.refs[-1]


def line(workspace: Workspace, card: Card) -> Line:
    """Ends at published or fresh weights, or where a version is gone."""
    found = [card.ref]
    while card.base_model is not None:
        ref = model_ref(card.base_model)
        found.append(card.base_model)
        if ref.source:
            break
        try:
            card = registry.resolve(workspace.database, workspace.folders, ref).card
        except SpeciateError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            break
    return Line(tuple(found))


def common(lines: Sequence[Line]) -> str | None:
    """The nearest that all of them began with; None where there is none, or only fresh weights."""
    return next(
        (
            ref
            for ref in lines[0].refs
            if model_ref(ref).source not in _FRESH and all(ref in other.refs for other in lines[1:])
        ),
        None,
    )


def find(workspace: Workspace, versions: Sequence[ModelVersion]) -> str:
    """Raises INVALID where they have no beginning in common."""
    lines = [line(workspace, version.card) for version in versions]
    if (found := common(lines)) is not None:
        return found
    roots = "; ".join(f"{each.refs[0]} with {each.root}" for each in lines[:4])
    fresh = all(model_ref(each.root).source in _FRESH for each in lines)
    why = ", and weights that begin at chance end in different valleys, whose middle is no solution" if fresh else ""
    raise SpeciateError(
        Code.INVALID,
        f"These models have no base in common: they began {roots}{why}.",
        "Merge versions that were trained from one model: train_model(..., base_model='pkg:NAME'), or "
        f"continue_from={versions[0].ref!r} on other data or with another seed.",
    )
