"""Which version served a use case when, from its events, and what came of the deployments: DORA's figures, for models.
Pure.

There is one period for each move of `production`. The figures follow DORA (dora.dev/guides/dora-metrics, five metrics
since 2024): change failure rate, failed deployment recovery time and deployment rework rate. A promotion is a
deployment; a rollback is not. Where DORA counts what a person calls a failure, this counts rollbacks, by the bake or
by people, and versions that were replaced after the bake found a limit broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from speciate.workspace.database import Event

MOVED, SURVIVED, BROKEN, TAKEN_BACK = "alias.moved", "promotion.survived", "bake.broken", "bake.rolled_back"
SERVING = "slot.serving"
MONTH = 30 * 86_400.0
ANSWERED = frozenset({"production.answered", "canary.answered"})


class DeploymentPeriod(NamedTuple):
    model: str
    begun: float
    action: str
    """`promote` or `rollback`: how it came."""
    answered: float | None = None
    """Its first answer in this period; its begin where the version had answered before (as a canary, say)."""
    survived: float | None = None
    """When its bake was over, in this period."""
    noticed: float | None = None
    """When the bake found a limit broken, whoever took it back then."""
    served: float | None = None
    """When a deployment began to serve it in this period; None where no deployment said so."""
    ended: float | None = None
    ended_by: str | None = None

    @property
    def taken_back(self) -> bool:
        return self.ended_by == "rollback"


def deployment_periods(own: Iterable[Event], now: float) -> list[DeploymentPeriod]:
    """Oldest first. `own`: events of one use case, in order; those after `now` have not happened yet."""
    found: list[DeploymentPeriod] = []
    first_answers: dict[str, float] = {}
    for event in own:
        if event.at > now:
            break
        if event.type == MOVED:
            if _is_about_production(event):
                _move(found, event, first_answers)
            continue
        model = event.data.get("model")
        if event.type in ANSWERED and model is not None:
            first_answers.setdefault(model, event.at)
        if event.type == TAKEN_BACK and len(found) > 1 and found[-2].model == model and _is_about_production(event):
            found[-2] = found[-2]._replace(noticed=found[-2].noticed or event.at)
        elif found and found[-1].model == model:
            found[-1] = _apply_event(found[-1], event)
    return found


def _is_about_production(event: Event) -> bool:
    return bool(event.data.get("alias", "production") == "production")


def _move(found: list[DeploymentPeriod], event: Event, first_answers: dict[str, float]) -> None:
    action, model = event.data["action"], event.data["after"]
    if found:
        found[-1] = found[-1]._replace(ended=event.at, ended_by=action)
    found.append(DeploymentPeriod(model, event.at, action, answered=event.at if model in first_answers else None))


def _apply_event(period: DeploymentPeriod, event: Event) -> DeploymentPeriod:
    """What an event says of the version that serves."""
    happened = max(
        period.begun, min(event.at, event.data.get("at", event.at))
    )  # a deployment tells what it noted before
    if event.type in ANSWERED and period.answered is None:
        return period._replace(answered=happened)
    if event.type == SERVING and period.served is None:
        return period._replace(served=happened)
    if event.type == SURVIVED and period.survived is None:
        return period._replace(survived=event.at)
    if event.type == BROKEN and _is_about_production(event):
        return period._replace(noticed=period.noticed or event.at)
    return period


class DeploymentMetrics(NamedTuple):
    """Promotion figures of the last 30 days, over all use cases."""

    models_deployed_30d: int
    """Distinct (use case, version) that survived their bake; an export is the version that it was made from."""
    models_baking_30d: int
    """Distinct (use case, version) that serve now and whose bake is not over."""
    change_failure_rate: float | None
    """Promotions that failed, as a share; None where there were none."""
    seconds_to_recover: float | None
    """Median, from the moment that a failure was noticed until another version served; None where nothing failed. A
    rollback that nobody announced is counted from when the version came: the most that it can have been."""
    rework_rate: float | None
    """Promotions that had to follow a failed one, as a share of all."""


def has_failed(period: DeploymentPeriod) -> bool:
    return period.taken_back or period.noticed is not None


def deployment_metrics(
    by_use_case: Mapping[str, Sequence[DeploymentPeriod]], now: float, exports: Mapping[str, str] | None = None
) -> DeploymentMetrics:
    """`exports`: version -> the one that it is only another form of (quantised, say)."""
    survived, baking, recoveries = set[tuple[str, str]](), set[tuple[str, str]](), list[float]()
    promoted = broke = reworked = 0
    for use_case, periods in by_use_case.items():
        mending = False
        for place, period in enumerate(periods):
            if period.action != "promote":
                continue
            if period.begun > now - MONTH:
                promoted += 1
                broke += has_failed(period)
                reworked += mending
                if period.survived is not None:
                    survived.add((use_case, _exported_from(period.model, exports or {})))
                elif period.ended is None and not has_failed(period):
                    baking.add((use_case, _exported_from(period.model, exports or {})))
                if has_failed(period) and period.ended is not None:
                    after = periods[place + 1]
                    recovered = (after.served or after.begun) - (period.noticed or period.begun)
                    recoveries.append(max(0.0, recovered))  # what followed may have served before it was noticed
            mending = has_failed(period)
    return DeploymentMetrics(
        len(survived),
        len(baking - survived),
        broke / promoted if promoted else None,
        median(recoveries) if recoveries else None,
        reworked / promoted if promoted else None,
    )


def _exported_from(model: str, exports: Mapping[str, str]) -> str:
    seen = set[str]()
    while model in exports and model not in seen:
        seen.add(model)
        model = exports[model]
    return model
