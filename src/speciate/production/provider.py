"""What is known of an endpoint's constancy: when it was last asked the pinned questions, and which evaluations rest on
what it served before a change."""

from __future__ import annotations

from typing import NamedTuple

from speciate.evaluation.endpoints import history
from speciate.models import registry
from speciate.models.endpoints import Endpoint
from speciate.workspace.database import Database

_EVALUATIONS = "SELECT id, models, created FROM evaluations ORDER BY created DESC"


class Provider(NamedTuple):
    served: tuple[str, ...]
    """What it says that it serves, as it was heard last."""
    checked: float | None
    """When it was asked the pinned questions last; None: never."""
    self_disagreement: float | None
    """The share of them that it then answered in two ways."""
    changed: float | None
    """When it was last seen to be another model."""
    why: tuple[str, ...]
    may_not_hold: tuple[str, ...]
    """Evaluations from before, the newest first."""
    check: str
    """How it is asked again."""


def provider(database: Database, endpoint: Endpoint, ref: str) -> Provider:
    """Of the endpoint behind the model `ref`."""
    known = history.of(database, endpoint)
    change = known.changes[0] if known.changes else None
    rows = database.read(_EVALUATIONS) if change else []
    return Provider(
        served=known.served,
        checked=known.fingerprint.asked if known.fingerprint else None,
        self_disagreement=round(known.fingerprint.disagreement, 3) if known.fingerprint else None,
        changed=change.at if change else None,
        why=change.why if change else (),
        may_not_hold=tuple(
            name for name, models, created in rows if change and created < change.at and ref in models.split(",")
        ),
        check=f"speciate fingerprint {ref}",
    )


def alerts(database: Database) -> list[str]:
    """Of changes since which no evaluation has asked the endpoint: a line for each model that was judged before."""
    newest: dict[str, history.Change] = {}
    for change in history.changes(database):
        newest.setdefault(change.identity, change)
    if not newest:
        return []
    judged: dict[str, float] = {}
    for _, models, created in database.read(_EVALUATIONS):
        for ref in models.split(","):
            judged.setdefault(ref, created)
    refs = _served(database, judged)
    return [
        f"{ref}: what {each.host} serves as {each.model!r} changed: {'; '.join(each.why)}. Evaluations from before may "
        f"not hold: evaluate_models(models=[{ref!r}], ...) asks it again."
        for ref, identity in refs.items()
        if (each := newest.get(identity)) is not None and judged[ref] < each.at
    ]


def _served(database: Database, judged: dict[str, float]) -> dict[str, str]:
    """Of these refs those of endpoints, with what each endpoint is known by."""
    found = {}
    for ref in judged:
        endpoint = registry.endpoint_of(database, ref)
        if endpoint is not None:
            found[ref] = endpoint.identity
    return found
