"""What makes two requests the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_NOT_ASKED = ("actor", "ways", "shortlist")
"""Who asks; and what could be tried when it was asked: the answer to a repeated call may have changed that."""


def fingerprint(kind: str, spec: Mapping[str, Any]) -> str:
    """sha256 over kind and spec, whatever the order of keys, without what is no part of the question."""
    asked = {name: value for name, value in spec.items() if name not in _NOT_ASKED}
    return hashlib.sha256(json.dumps([kind, asked], sort_keys=True, default=str).encode()).hexdigest()
