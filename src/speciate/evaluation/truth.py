"""The true answer of an example: one rule for those that learn from it and those that judge by it."""

from __future__ import annotations

import math

from speciate.datasets.loading.loader import Example
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError


def is_label(manifest: Manifest, target: str | None) -> bool:
    """Whether the truth is the dataset's label, and not a column beside it."""
    return target in (None, manifest.label, "label")


def true_answer(example: Example, manifest: Manifest, target: str | None, *, numeric: bool) -> str | float | None:
    """None where there is none: no value, empty text, not a finite number. Raises INVALID for words as numbers."""
    found = example.label if is_label(manifest, target) else example.columns.get(target or "")
    if found is None or found == "":
        return None
    if not numeric:
        return None if isinstance(found, float) and math.isnan(found) else str(found)
    try:
        number = float(found)
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID,
            f"{target or manifest.label!r} of {manifest.ref} is not a number everywhere: {error}.",
            "Use a classification task, or another column.",
        ) from error
    return number if math.isfinite(number) else None
