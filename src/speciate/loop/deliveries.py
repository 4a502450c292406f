"""What came into production, and what it cost in failures: DORA's figures, for models. Pure, over tenures.

After the definitions of DORA (dora.dev/guides/dora-metrics, five metrics since 2024): change failure rate, failed
deployment recovery time and deployment rework rate. A deployment is a promotion; a rollback is none. Where DORA counts
what a person calls a failure, this counts rollbacks, by the bake or by people, and versions that were replaced after
the bake had found a limit broken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from speciate.loop.tenures import Tenure

MONTH = 30 * 86_400.0


class Deliveries(NamedTuple):
    """Of promotions in the last 30 days, over all use cases."""

    models_deployed_30d: int
    """Distinct (use case, version) that survived their bake; an export is the version that it was made from."""
    models_baking_30d: int
    """Those that serve, and whose bake is not over."""
    change_failure_rate: float | None
    """Promotions that failed, as a share; None where there were none."""
    seconds_to_recover: float | None
    """Median, from the moment that a failure was noticed until another version served; None where nothing failed. A
    rollback that nobody announced is counted from when the version came: the most that it can have been."""
    rework_rate: float | None
    """Promotions that had to follow a failed one, as a share of all."""


def failed(tenure: Tenure) -> bool:
    return tenure.taken_back or tenure.noticed is not None


def deliveries(
    by_use_case: Mapping[str, Sequence[Tenure]], now: float, exports: Mapping[str, str] | None = None
) -> Deliveries:
    """`exports`: version -> the one that it is only another form of (quantised, say)."""
    survived, baking, recoveries = set[tuple[str, str]](), set[tuple[str, str]](), list[float]()
    promoted = broke = reworked = 0
    for use_case, tenures in by_use_case.items():
        mending = False
        for place, tenure in enumerate(tenures):
            if tenure.action != "promote":
                continue
            if tenure.begun > now - MONTH:
                promoted += 1
                broke += failed(tenure)
                reworked += mending
                if tenure.survived is not None:
                    survived.add((use_case, _original(tenure.model, exports or {})))
                elif tenure.ended is None and not failed(tenure):
                    baking.add((use_case, _original(tenure.model, exports or {})))
                if failed(tenure) and tenure.ended is not None:
                    after = tenures[place + 1]
                    recoveries.append((after.served or after.begun) - (tenure.noticed or tenure.begun))
            mending = failed(tenure)
    return Deliveries(
        len(survived),
        len(baking - survived),
        broke / promoted if promoted else None,
        median(recoveries) if recoveries else None,
        reworked / promoted if promoted else None,
    )


def _original(model: str, exports: Mapping[str, str]) -> str:
    seen = set[str]()
    while model in exports and model not in seen:
        seen.add(model)
        model = exports[model]
    return model
