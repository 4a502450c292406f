"""Whether a model may be given away, by its licence and by those of what it was made from."""

from __future__ import annotations

from collections.abc import Iterator

from speciate.errors import Call, Code, SpeciateError
from speciate.models import registry
from speciate.models.licenses import forbids_sharing
from speciate.models.model_card import ModelCard
from speciate.workspace.workspace import Workspace

_DEEPEST = 16


def check_sharing(workspace: Workspace, card: ModelCard) -> None:
    """Raise REFUSED with the clause that forbids it."""
    adapted = card.method not in ("published", "packaged")
    for each in (card, *_made_from(workspace, card)):
        if (clause := forbids_sharing(each.license, adapted=adapted)) is None:
            continue
        whose = "Its licence" if each is card else f"The licence of {each.ref}, which it was made from,"
        raise SpeciateError(
            Code.REFUSED,
            f"{card.ref} may not be given away. {whose} ({each.license}) forbids it: {clause}.",
            "It serves here as before; export a model that was made from another base model.",
            next=[Call("describe_model", {"model": each.ref}, "what it was made from")],
        )


def _made_from(workspace: Workspace, card: ModelCard) -> Iterator[ModelCard]:
    """The versions of this registry that the model was made from, the nearest first; others are not known here."""
    left, seen = [*card.parents, *([card.base_model] if card.base_model else [])], set[str]()
    while left and len(seen) < _DEEPEST:
        name = left.pop(0)
        if name in seen:
            continue
        seen.add(name)
        try:
            found = registry.resolve(workspace.database, workspace.folders, name).card
        except SpeciateError:
            continue
        yield found
        left += [*found.parents, *([found.base_model] if found.base_model else [])]
