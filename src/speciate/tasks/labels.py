"""A cell as a label: one rule for truths of every task that has labels, and for answers that stand in a column."""

from __future__ import annotations

import math
from typing import Any

from speciate.datasets.classes import class_name


def as_label(cell: Any) -> str | None:
    """As a dataset writes its classes: 1 and 1.0 are the same one. None where there is none."""
    if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return class_name(cell) or None
