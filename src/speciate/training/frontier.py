"""A student beside its teachers: how good, how large, how quick, and which of them another one beats in all of it.
Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from speciate.vocabulary import Metric

_NEAR = 1.5
"""Few answers, on a machine that does other things beside: two models of one form were 1.4 times apart."""


class Measured(NamedTuple):
    """`value`: of the metric on held-out examples; None where there are none. `p50_ms`: of one example at a time, on
    this machine."""

    model: str
    role: Literal["student", "control", "teacher"]
    value: float | None
    parameters: int | None
    p50_ms: float | None


def compared(found: Sequence[Measured], metric: Metric) -> dict[str, Any]:
    """The table, and the student beside the best teacher. The first is the student."""
    student, best = found[0], max(
        (each for each in found if each.role == "teacher"), key=lambda each: _signed(each.value, metric)
    )  # fmt: skip
    quicker = best.p50_ms / max(student.p50_ms, 1e-6) if best.p50_ms and student.p50_ms else None
    return {
        "metric": metric.name,
        "frontier": [_row(each, found, metric) for each in found],
        "teacher": best.model,
        "times_smaller": round((best.parameters or 0) / max(1, student.parameters or 0), 2),
        "times_faster": None if quicker is None else round(quicker, 2),
        "kept": _finite(student.value / best.value) if metric.sign > 0 and best.value and student.value is not None
        else None,
    }  # fmt: skip


def _row(each: Measured, found: Sequence[Measured], metric: Metric) -> dict[str, Any]:
    return {
        "model": each.model, "role": each.role, "value": _finite(each.value), "parameters": each.parameters,
        "p50_ms": None if each.p50_ms is None else round(each.p50_ms, 3),
        "dominated": any(_beats(other, each, metric) for other in found),
    }  # fmt: skip


def _beats(other: Measured, row: Measured, metric: Metric) -> bool:
    """As good in everything, and better in something; latencies that are `_NEAR` one another count as the same."""
    counted = 2 if _near(other.p50_ms, row.p50_ms) else 3
    mine, theirs = _standing(row, metric)[:counted], _standing(other, metric)[:counted]
    return other is not row and all(a >= b for a, b in zip(theirs, mine, strict=True)) and theirs != mine


def _near(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and max(one, other) <= _NEAR * min(one, other)


def _standing(row: Measured, metric: Metric) -> tuple[float, float, float]:
    return (_signed(row.value, metric), -(row.parameters or 0), -(row.p50_ms or math.inf))


def _signed(value: float | None, metric: Metric) -> float:
    return -math.inf if value is None or not math.isfinite(value) else metric.sign * value


def _finite(value: float | None) -> float | None:
    return round(float(value), 4) if value is not None and math.isfinite(value) else None
