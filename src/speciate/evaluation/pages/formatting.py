"""Numbers and answers as a page's reader wants them. The templates use these functions as filters."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Mapping
from typing import Any

from speciate.evaluation.reports.report import Interval, Value

NO_NUMBER = "–"
"""Stands for a number that was not measured or is not known."""
_LONGEST_ANSWER = 200


def format_number(value: float | None, digits: int = 3) -> str:
    """A number to so many digits; thousands in full, tiny and huge numbers as powers of ten."""
    if value is None or not math.isfinite(value):
        return NO_NUMBER
    size = abs(value)
    if size and (size >= 1e7 or size < 1e-4):
        return f"{value:.{digits}g}".replace("-", "−")
    return (f"{value:,.0f}" if size >= 10**digits - 0.5 else f"{value:.{digits}g}").replace("-", "−")


def format_difference(value: float | None) -> str:
    """A number with a sign, also above zero."""
    return f"+{format_number(value)}" if value is not None and value > 0 else format_number(value)


def format_interval(interval: Interval | None) -> str:
    return NO_NUMBER if interval is None else f"{format_number(interval[0])} to {format_number(interval[1])}"


def format_p_value(p_value: float | None) -> str:
    return "< 0.001" if p_value is not None and p_value < 0.001 else format_number(p_value, 2)


def format_usd(value: float | None) -> str:
    """An amount in US dollars. Below a hundredth of a cent, it says only that it is less."""
    return NO_NUMBER if value is None else "< $0.0001" if 0 < value < 0.0001 else f"${format_number(value)}"


def format_count(value: int | None) -> str:
    return NO_NUMBER if value is None else f"{value:,}"


def format_percent(value: float | None) -> str:
    return NO_NUMBER if value is None else f"{100 * value:.3g} %"


def in_brackets(confidence: float | None) -> str:
    """` (90 %)` after an answer; nothing if it has no confidence."""
    return "" if confidence is None else f" ({format_percent(confidence)})"


def with_interval(value: Value | None) -> str:
    """A metric's value with its interval."""
    if value is None or value.value is None:
        return NO_NUMBER
    return format_number(value.value) + (f" ({format_interval(value.interval)})" if value.interval else "")


def format_answer(value: Any) -> str:
    """An answer or a reference: numbers, which references hold as text, to a few digits; long text is cut."""
    try:
        return format_number(float(value), 4)
    except (TypeError, ValueError):
        text = str(value)
        return text if len(text) <= _LONGEST_ANSWER else f"{text[: _LONGEST_ANSWER - 1]}…"


def format_minute(seconds: float) -> str:
    """A time in seconds since 1970."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def png_source(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def shell_json(arguments: Mapping[str, Any]) -> str:
    """Arguments as JSON in single quotes of a shell."""
    return json.dumps(arguments, ensure_ascii=False).replace("'", "'\\''")
