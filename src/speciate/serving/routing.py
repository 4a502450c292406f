"""Which version answers a request, and which one a deployment loads next. Pure.

A canary's requests follow from their keys: the same key gets the same version. A key is hashed to a place in [0, 100);
the canary has the places below its percentage, so raising it only adds keys. Use case and version are part of the hash;
without them the same people would try every canary of every use case.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from speciate.serving.deployment_folder import State, Target, Wanted

PRODUCTION, CANARY = "production", "canary"
HEADER = "x-request-key"
LONGEST_KEY = 256


def hash_percent(use_case: str, canary: str, key: str) -> float:
    """Place of a key, uniform in [0, 100)."""
    digest = hashlib.sha256(json.dumps([use_case, canary, key]).encode()).digest()
    return 100 * int.from_bytes(digest[:6], "big") / (1 << 48)


def to_canary(use_case: str, canary: str, key: str, percent: float) -> bool:
    return hash_percent(use_case, canary, key) < percent


def request_key(headers: Mapping[str, str], body: Any) -> str | None:
    """What a request is known by: its header, its body's `key` (OpenAI's `user` in a chat), or the `id` of its only
    input. None where it says nothing: an id that is the input's place in its request is none."""
    if key := headers.get(HEADER):
        return key[:LONGEST_KEY]
    if not isinstance(body, dict):
        return None
    for name in ("key", "user"):
        if isinstance(key := body.get(name), str) and key:
            return key[:LONGEST_KEY]
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        return None
    identifier = inputs[0].get("id")
    return identifier if isinstance(identifier, str) and identifier not in ("", "0") else None


def current_target(target: Target, role: str, wanted: Wanted) -> Target:
    """What the version serves for by now: it may have been promoted again since it was loaded."""
    now = wanted.canary if role == CANARY else wanted.target
    return now if now and now.model == target.model else target


def canary_of(wanted: Wanted) -> str | None:
    return wanted.canary.model if wanted.canary else None


def is_for_canary(key: str, canary: str, wanted: Wanted) -> bool:
    """Whether a request of this key is for the canary that is loaded: nothing is for one that is wanted no more."""
    return canary_of(wanted) == canary and to_canary(wanted.use_case, canary, key, wanted.percent)


def is_unwanted(loading: str, wanted: Wanted, *, before: Wanted, as_canary: bool) -> bool:
    """Whether the version that is being loaded is not the next one to load, now that something else is wanted."""
    if not as_canary:
        return wanted.target is not None and loading != wanted.target.model
    was = before.target.model if before.target else None
    return (wanted.target is not None and wanted.target.model != was) or canary_of(wanted) != loading


def empty_reason(state: State, use_case: str) -> str:
    """Why no version serves."""
    if state.loading:
        return f"{state.loading} is being loaded."
    if state.refused:
        return f"{state.refused.model} was not let serve: {state.refused.why}."
    return f"No model is in production for {use_case}."
