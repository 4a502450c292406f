"""What a slot makes of what is wanted. Pure."""

from __future__ import annotations

from speciate.serving.folder import State, Target, Wanted
from speciate.serving.routing import to_canary

PRODUCTION, CANARY = "production", "canary"


def moved(target: Target, role: str, wanted: Wanted) -> Target:
    """What the version serves for by now: it may have been promoted again since it was loaded."""
    now = wanted.canary if role == CANARY else wanted.target
    return now if now and now.model == target.model else target


def canary_of(wanted: Wanted) -> str | None:
    return wanted.canary.model if wanted.canary else None


def is_for(key: str, canary: str, wanted: Wanted) -> bool:
    """Whether a request of this key is for the canary that is loaded: nothing is for one that is wanted no more."""
    return canary_of(wanted) == canary and to_canary(wanted.use_case, canary, key, wanted.percent)


def is_unwanted(loading: str, wanted: Wanted, *, before: Wanted, as_canary: bool) -> bool:
    """Whether the version that is being loaded is not the next one to load, now that something else is wanted."""
    if not as_canary:
        return wanted.target is not None and loading != wanted.target.model
    was = before.target.model if before.target else None
    return (wanted.target is not None and wanted.target.model != was) or canary_of(wanted) != loading


def why_empty(state: State, use_case: str) -> str:
    """Why no version serves."""
    if state.loading:
        return f"{state.loading} is being loaded."
    if state.refused:
        return f"{state.refused.model} was not let serve: {state.refused.why}."
    return f"No model is in production for {use_case}."
