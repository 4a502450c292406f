"""What makes two requests the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def fingerprint(kind: str, spec: Mapping[str, Any]) -> str:
    """sha256 over kind and spec, whatever the order of keys. `actor` is left out: who asks is not what is asked."""
    asked = {name: value for name, value in spec.items() if name != "actor"}
    return hashlib.sha256(json.dumps([kind, asked], sort_keys=True, default=str).encode()).hexdigest()
