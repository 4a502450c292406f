"""Which requests a canary answers: a pure function of their key, so that who asks again gets the same version.

A key is hashed to a place in [0, 100); the canary has the places below its percentage. Raising it only adds keys.
Use case and version go into the hash: else the same people would try every canary of every use case.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

HEADER = "x-request-key"
LONGEST_KEY = 256


def place(use_case: str, canary: str, key: str) -> float:
    """Of a key, uniform in [0, 100)."""
    digest = hashlib.sha256(json.dumps([use_case, canary, key]).encode()).digest()
    return 100 * int.from_bytes(digest[:6], "big") / (1 << 48)


def to_canary(use_case: str, canary: str, key: str, percent: float) -> bool:
    return place(use_case, canary, key) < percent


def key_of(headers: Mapping[str, str], body: Any) -> str | None:
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
