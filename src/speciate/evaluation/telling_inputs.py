"""Inputs that tell the answer by themselves: often a copy of the label, or what is known only after it. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

FEWEST = 20
"""Examples below which a column tells the answer by chance."""
_ROWS_PER_VALUE = 3
"""On average, so that a column of identifiers, which tells every answer by heart, is none that tells."""
_CORRELATED = 0.9999


def telling_inputs(names: Sequence[str], rows: Sequence[Mapping[str, Any]], targets: Sequence[Any]) -> list[str]:
    """The columns of which each alone gives the target of every row: by its value, by order, or on a line."""
    if len(rows) < FEWEST or len({str(target) for target in targets}) < 2:
        return []
    numeric = all(_is_number(target) for target in targets)
    found = []
    for name in names:
        values = [row.get(name) for row in rows]
        by_order = all(map(_is_number, values)) and (
            _on_a_line(values, targets) if numeric else _in_runs(values, targets)
        )
        if by_order or (not numeric and _by_value(values, targets)):
            found.append(name)
    return found


def repeating_inputs(names: Sequence[str], rows: Sequence[Mapping[str, Any]], answers: Sequence[Any]) -> list[str]:
    """The columns that hold these answers, perhaps in other words: one value for each answer, and the other way."""
    if len(rows) < FEWEST or len({str(answer) for answer in answers}) < 2:
        return []
    values = {name: [row.get(name) for row in rows] for name in names}
    return [name for name in names if _by_value(values[name], answers) and _by_value(answers, values[name])]


def _by_value(values: Sequence[Any], targets: Sequence[Any]) -> bool:
    """Whether equal values always have equal targets."""
    told: dict[Hashable, str] = {}
    if any(
        told.setdefault(str(value), str(target)) != str(target) for value, target in zip(values, targets, strict=True)
    ):
        return False
    return len(told) * _ROWS_PER_VALUE <= len(values)


def _in_runs(values: Sequence[Any], targets: Sequence[Any]) -> bool:
    """Whether each label has a range of values to itself."""
    ranges: dict[str, tuple[float, float]] = {}
    for value, target in zip(values, targets, strict=True):
        low, high = ranges.get(str(target), (math.inf, -math.inf))
        ranges[str(target)] = min(low, float(value)), max(high, float(value))
    ordered = sorted(ranges.values())
    return all(before[1] < after[0] for before, after in pairwise(ordered))


def _on_a_line(values: Sequence[Any], targets: Sequence[Any]) -> bool:
    x, y = np.array(values, float), np.array(targets, float)
    if x.std() == 0 or y.std() == 0:
        return False
    return abs(float(np.corrcoef(x, y)[0, 1])) >= _CORRELATED


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
