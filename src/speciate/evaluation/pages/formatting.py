"""Numbers, times, names and answers as a page's reader wants them. The templates use these functions as filters."""

from __future__ import annotations

import base64
import json
import math
import time
import unicodedata
from collections.abc import Mapping
from typing import Any

from speciate.evaluation.reports.report import Interval, Value
from speciate.vocabulary import METRICS

NO_NUMBER = "–"
"""Stands for a number that was not measured or is not known."""
_LONGEST_ANSWER = 200
_KEPT = "\n\t\N{ZERO WIDTH JOINER}"
_DAY = 86_400.0
_UNITS = ((_DAY, "d"), (3600.0, "h"), (60.0, "min"))


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


def format_duration(seconds: float | None) -> str:
    """A duration in the two largest units that fit: `2 h 38 min`, `41 s`, `0.3 s`."""
    if seconds is None:
        return NO_NUMBER
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    for (size, unit), (lesser, small) in zip(_UNITS, (*_UNITS[1:], (1.0, "s")), strict=True):
        if seconds >= size:
            rest = int((seconds % size) / lesser)
            return f"{int(seconds / size)} {unit}" + (f" {rest} {small}" if rest else "")
    return NO_NUMBER


def format_ago(stamp: float | None, now: float) -> str:
    """How long before now, in one unit; the day for what is older than a week."""
    if stamp is None:
        return NO_NUMBER
    passed = now - stamp
    if passed < 0:
        return f"in {format_duration(-passed)}"
    if passed > 7 * _DAY:
        return time.strftime("%-d %b" if passed < 300 * _DAY else "%-d %b %Y", time.gmtime(stamp))
    if passed < 60:
        return "now" if passed < 5 else f"{passed:.0f} s ago"
    size, unit = next(each for each in _UNITS if passed >= each[0])
    return f"{int(passed / size)} {unit} ago"


def format_bytes(size: float | None) -> str:
    if size is None:
        return NO_NUMBER
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_ms(value: float | None) -> str:
    return NO_NUMBER if value is None else f"{format_number(value)} ms"


def as_words(name: str) -> str:
    """A name of code as words."""
    return name.replace("_", " ").replace("-", " ")


def shorten(ref: str, most: int = 40) -> str:
    """A reference in little room: its end tells the versions apart."""
    return ref if len(ref) <= most else f"{ref[: most // 2 - 1]}…{ref[-(most // 2) :]}"


def format_cell(value: Any, most: int = 300) -> str:
    """Any cell as text."""
    if value is None:
        return NO_NUMBER
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format_number(value, 5)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[: most - 1]}…"


_LONGEST_ABBREVIATION = 5  # characters: auroc, smape


def as_sentence(text: str) -> str:
    """The text with a capital and a full stop: reasons are stored without. Metrics that are no word begin as they are
    written: mae, f1_macro."""
    text = text.strip()
    first = text.partition(" ")[0]
    is_name = first in METRICS and (len(first) <= _LONGEST_ABBREVIATION or "_" in first)
    return (text if is_name else text[:1].upper() + text[1:]) + ("" if text.endswith((".", "!", "?", "…")) else ".")


def format_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def without_controls(value: Any) -> Any:
    """What an expression of a template becomes before it is escaped. Markup, such as a macro's, stays."""
    if hasattr(value, "__html__"):
        return value
    text = str(value)
    if text.isprintable():  # without line breaks and all that follows
        return text
    return "".join(c for c in text if c in _KEPT or not unicodedata.category(c).startswith("C"))
