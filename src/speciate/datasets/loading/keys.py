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
    if isinstance(medium, np.ndarray):
        content = f"{medium.dtype} {medium.shape} ".encode() + np.ascontiguousarray(medium).tobytes()
    else:
        content = repr(medium).encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()[:32]
