"""Numbers as a reader wants them."""

from __future__ import annotations

import math

from speciate.evaluation.report import Interval

NONE = "–"
"""What stands where there is no number."""


def show(value: float | None, digits: int = 3) -> str:
    """To so many digits; thousands in full, what is tiny or huge as a power of ten."""
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    if size and (size >= 1e7 or size < 1e-4):
        return f"{value:.{digits}g}".replace("-", "−")
    return (f"{value:,.0f}" if size >= 10**digits - 0.5 else f"{value:.{digits}g}").replace("-", "−")


def signed(value: float | None) -> str:
    """A difference: what is above zero says so."""
    return f"+{show(value)}" if value is not None and value > 0 else show(value)


def span(interval: Interval | None) -> str:
    return NONE if interval is None else f"{show(interval[0])} to {show(interval[1])}"


def chance(p_value: float | None) -> str:
    """A p-value, to where digits mean anything."""
    return "< 0.001" if p_value is not None and p_value < 0.001 else show(p_value, 2)


def usd(value: float | None) -> str:
    """Below a hundredth of a cent nobody counts."""
    return NONE if value is None else "< $0.0001" if 0 < value < 0.0001 else f"${show(value)}"


def count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.3g} %"
