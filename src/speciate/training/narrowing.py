"""Which base models the cascade of `specialize` tries, once a shortlist has compared them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speciate.jobs.kinds import Child, ChildRequest
from speciate.training.pruning import comparable, kept
from speciate.training.way import Way

SHORTLIST = "shortlist"
"""The step."""
_SHARE = 1 / 3
"""Of the budget that is left: at most so much goes into comparing base models. Their vectors stay for the probes."""


def compared(ways: Sequence[Way]) -> list[str]:
    """Base models that a shortlist compares: each once, in their order."""
    found = (way.base_model for way in ways if not way.continue_from and not way.like)
    return list(dict.fromkeys(base for base in found if base is not None and comparable(base)))


def comparison(
    ways: Sequence[Way], *, use_case: str, dataset: str, seed: int, seconds_left: float, grace: float
) -> ChildRequest:
    seconds = _SHARE * seconds_left
    return ChildRequest(
        step=SHORTLIST,
        kind="shortlist",
        spec={
            "dataset": dataset,
            "use_case": use_case,
            "base_models": compared(ways),
            "budget_minutes": seconds / 60,
            "seed": seed,
        },
        run_seconds=seconds + grace,
    )


def shortlisted(children: Sequence[Child]) -> dict[str, Any] | None:
    """The shortlist's report; None where there is none, and nothing is left out."""
    return next((child.result["report"] for child in children if child.step == SHORTLIST and child.result), None)


def narrowed(ways: Sequence[Way], report: Mapping[str, Any] | None) -> list[Way]:
    """Without the base models that the shortlist left out; of each method the most promising ones first."""
    if report is None:
        return list(ways)
    order = kept(report)
    left = [way for way in ways if not compared([way]) or way.base_model in order]
    for method in {way.method for way in left}:
        places = [place for place, way in enumerate(left) if way.method == method and compared([way])]
        best_first = sorted((left[place] for place in places), key=lambda way: order.index(way.base_model or ""))
        for place, way in zip(places, best_first, strict=True):
            left[place] = way
    return left
