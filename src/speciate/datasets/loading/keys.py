"""What an example is known by in caches: its id, and what of it is shown to a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example


def keys(examples: Sequence[Example]) -> list[str]:
    """`ID:DIGEST` each: the same example may show more or fewer of its columns to another model."""
    return [f"{example.id}:{digest(example.media)}" for example in examples]


def digest(medium: Any) -> str:
    """32 hex digits of the sha256 of a medium as it is decoded."""
    return _sha256(medium)[:32]


def _sha256(medium: Any) -> str:
    """Of an array's type, shape and values, of a dict's names and parts, or of what a value prints as."""
    if isinstance(medium, np.ndarray):
        found = hashlib.sha256(f"{medium.dtype} {medium.shape} ".encode())
        found.update(np.ascontiguousarray(medium).data)
        return found.hexdigest()
    if isinstance(medium, dict) and any(isinstance(part, np.ndarray | dict) for part in medium.values()):
        content = "".join(f"{name} {_sha256(part)}\n" for name, part in medium.items())
    else:
        content = repr(medium)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
