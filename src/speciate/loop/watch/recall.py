"""Why what serves must go: by a licence, a signature or a purge, its own or of what it was made from.

Its licence is no longer allowed; its signature is no longer trusted; or examples it learned from were purged. Reads
the catalog and, where signatures are required, the seals of the versions; decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.refs import model_ref
from speciate.use_cases import UseCase
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

LICENCE = "the licence of what serves is not among those that the use case allows"
LICENCE_OF_LINE = "the licence of a model that what serves was made from is not among those that the use case allows"
TRUST = "what serves, or a model that it was made from, has no signature that is trusted"
PURGE = "examples that what serves had learned from were purged"
_PURGED = "SELECT data FROM events WHERE type = 'model.recalled' ORDER BY seq"
_MOST = 50


class Recalled(NamedTuple):
    why: str
    made_from: bool
    """Whether its base or a parent is at fault, so that the same recipe cannot be repeated."""


def purged_models(database: Database) -> frozenset[str]:
    """Versions that learned from examples which were purged since."""
    return frozenset(str(json.loads(text).get("model")) for (text,) in database.read(_PURGED))


def find(workspace: Workspace, model: str, definition: UseCase, purged: frozenset[str]) -> Recalled | None:
    """None where nothing is wrong with what serves, or it is gone."""
    try:
        cards = line(workspace, model)
    except SpeciateError:
        return None
    allowed = definition.limits.licenses
    if allowed and cards and cards[0].license is not None and cards[0].license not in allowed:
        return Recalled(LICENCE, any(_refused(each, allowed) for each in cards[1:]))
    if allowed and any(_refused(each, allowed) for each in cards[1:]):
        return Recalled(LICENCE_OF_LINE, True)
    for place, card in enumerate(cards):
        if not _trusted(workspace, card):
            return Recalled(TRUST, any(not _trusted(workspace, each) for each in cards[max(1, place) :]))
    return Recalled(PURGE, False) if model in purged else None


def line(workspace: Workspace, model: str) -> list[ModelCard]:
    """The card of what serves, then those of what it was made from, as far as they are here."""
    found: dict[str, ModelCard] = {}
    left = [model]
    while left and len(found) < _MOST:
        ref = left.pop(0)
        if ref in found:
            continue
        try:
            found[ref] = registry.resolve(workspace.database, workspace.folders, ref).card
        except SpeciateError:
            if not found:
                raise
            continue  # deleted since, or others serve it
        card = found[ref]
        left += [each for each in (*card.parents, card.base_model) if each is not None]
    return list(found.values())


def _refused(card: ModelCard, allowed: tuple[str, ...]) -> bool:
    return card.license is not None and card.license not in allowed


def _trusted(workspace: Workspace, card: ModelCard) -> bool:
    if card.endpoint is not None or model_ref(card.ref).source == "pkg":
        return True
    try:
        _ = registry.resolve(workspace.database, workspace.folders, card.ref).path
    except SpeciateError as error:
        return error.code is not Code.REFUSED
    return True


def everyone(
    workspace: Workspace, serving: Mapping[str, str], definitions: Mapping[str, UseCase]
) -> dict[str, Recalled]:  # fmt: skip
    """Use case -> why its model must go, of those that are given."""
    if not serving:
        return {}
    purged = purged_models(workspace.database)
    found = {
        name: find(workspace, model, definitions[name], purged)
        for name, model in serving.items()
        if name in definitions
    }
    return {name: each for name, each in found.items() if each is not None}
