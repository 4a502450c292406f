"""The steps by which the cascade tries published models as they are: screen, fetch, race. Pure.

screen -> fetch/org--one, fetch/org--two ... -> race -> (with own candidates) evaluate
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speciate.jobs.job import ENDED
from speciate.jobs.kinds import Child, ChildRequest

SCREEN, FETCH, RACE = "screen", "fetch/", "race"
_BUDGET_SHARE = 1 / 3
"""Share of the budget left that goes into the race, at most."""


def next_published(
    children: Sequence[Child], models: Sequence[str], *, use_case: str, dataset: str, max_bytes: int | None, seed: int,
    seconds_left: float, grace: float,
) -> list[ChildRequest]:  # fmt: skip
    """Empty where nothing more is to be done before trainings."""
    steps = {child.step: child for child in children}
    if SCREEN not in steps:
        screen: dict[str, Any] = {"use_case": use_case, "dataset": dataset, "models": list(models)}
        if max_bytes is not None:
            screen["max_bytes"] = max_bytes
        return [ChildRequest(step=SCREEN, kind="screen", spec=screen, run_seconds=max(seconds_left, 1.0) + grace)]
    candidates = _screened(steps)
    wanted = [each for each in candidates if each["version"] is None and f"{FETCH}{each['name']}" not in steps]
    if wanted:
        return [
            ChildRequest(
                step=f"{FETCH}{each['name']}", kind="fetch", spec={"name": each["name"], "source": each["ref"]},
                run_seconds=max(seconds_left, 1.0) + grace,
            )
            for each in wanted
        ]  # fmt: skip
    here = _here(steps, candidates)
    if not here or RACE in steps:
        return []
    seconds = max(_BUDGET_SHARE * seconds_left, 1.0)
    race = {"use_case": use_case, "dataset": dataset, "models": here, "budget_minutes": seconds / 60, "seed": seed}
    return [ChildRequest(step=RACE, kind="race", spec=race, run_seconds=seconds + grace)]


def race_survivors(children: Sequence[Child]) -> list[str]:
    """Published models that are worth an evaluation, best first."""
    return [
        str(model) for child in children if child.step == RACE and child.result for model in child.result["survivors"]
    ]


def published_report(children: Sequence[Child]) -> Mapping[str, object] | None:
    """What was raced, what survived, and why each of the others did not; None where none was tried."""
    steps = {child.step: child for child in children}
    if SCREEN not in steps:
        return None
    screen, race = steps[SCREEN], steps.get(RACE)
    dropped = [{"model": each["ref"], "why": each["why"]} for each in (screen.result or {}).get("dropped", ())]
    dropped += [_failure(child) for child in children if _failed(child) and child.step not in (SCREEN, RACE)]
    dropped += list((race.result or {}).get("out", ())) if race else []
    return {
        "rows": list((race.result or {}).get("rows", ())) if race else [],
        "survivors": race_survivors(children),
        "dropped": dropped,
    }


def _screened(steps: Mapping[str, Child]) -> list[Mapping[str, Any]]:
    return list((steps[SCREEN].result or {}).get("candidates", ()))


def _here(steps: Mapping[str, Child], candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Versions in the registry."""
    found = []
    for each in candidates:
        fetched = steps.get(f"{FETCH}{each['name']}")
        version = each["version"] or ((fetched.result or {}).get("model") if fetched else None)
        if version:
            found.append(str(version))
    return found


def _failed(child: Child) -> bool:
    return child.step.startswith(FETCH) and child.state in ENDED and child.result is None


def _failure(child: Child) -> dict[str, str]:
    return {"model": str(child.spec.get("source")), "why": str((child.error or {}).get("message") or child.state)}
