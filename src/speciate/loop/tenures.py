"""Who served a use case when, from its events: one tenure for each move of `production`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from speciate.workspace.database import Event

MOVED, SURVIVED, BROKEN, TAKEN_BACK = "alias.moved", "promotion.survived", "bake.broken", "bake.rolled_back"
SERVING = "slot.serving"
ANSWERED = frozenset({"production.answered", "canary.answered"})


class Tenure(NamedTuple):
    model: str
    begun: float
    action: str
    """`promote` or `rollback`: how it came."""
    answered: float | None = None
    """Its first answer in this tenure; its begin where the version had answered before (as a canary, say)."""
    survived: float | None = None
    """When its bake was over, in this tenure."""
    noticed: float | None = None
    """When the bake found a limit broken, whoever took it back then."""
    served: float | None = None
    """When a slot began to serve it in this tenure; None where no slot said so."""
    ended: float | None = None
    ended_by: str | None = None

    @property
    def taken_back(self) -> bool:
        return self.ended_by == "rollback"


def tenures(own: Iterable[Event], now: float) -> list[Tenure]:
    """Oldest first. `own`: events of one use case, in order; those after `now` have not happened yet."""
    found: list[Tenure] = []
    first_answers: dict[str, float] = {}
    for event in own:
        if event.at > now:
            break
        if event.type == MOVED:
            if _of_production(event):
                _move(found, event, first_answers)
            continue
        model = event.data.get("model")
        if event.type in ANSWERED and model is not None:
            first_answers.setdefault(model, event.at)
        if event.type == TAKEN_BACK and len(found) > 1 and found[-2].model == model and _of_production(event):
            found[-2] = found[-2]._replace(noticed=found[-2].noticed or event.at)
        elif found and found[-1].model == model:
            found[-1] = _told(found[-1], event)
    return found


def _of_production(event: Event) -> bool:
    return bool(event.data.get("alias", "production") == "production")


def _move(found: list[Tenure], event: Event, first_answers: dict[str, float]) -> None:
    action, model = event.data["action"], event.data["after"]
    if found:
        found[-1] = found[-1]._replace(ended=event.at, ended_by=action)
    found.append(Tenure(model, event.at, action, answered=event.at if model in first_answers else None))


def _told(tenure: Tenure, event: Event) -> Tenure:
    """What an event says of the version that serves."""
    happened = max(tenure.begun, min(event.at, event.data.get("at", event.at)))  # a slot tells what it noted before
    if event.type in ANSWERED and tenure.answered is None:
        return tenure._replace(answered=happened)
    if event.type == SERVING and tenure.served is None:
        return tenure._replace(served=happened)
    if event.type == SURVIVED and tenure.survived is None:
        return tenure._replace(survived=event.at)
    if event.type == BROKEN and _of_production(event):
        return tenure._replace(noticed=tenure.noticed or event.at)
    return tenure
