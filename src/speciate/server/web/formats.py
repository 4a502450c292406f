"""Numbers, times and names as the pages show them; the templates use these as filters."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from speciate.evaluation.pages import formatting
from speciate.server.web.charts import Whisker

_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))
_DAY = 86_400.0


class NavItem(NamedTuple):
    name: str
    path: str
    also: tuple[str, ...] = ()
    """Beginnings of further addresses that belong to it."""
    act: str = "LOOK"


NAV = (
    NavItem("Use cases", "/", ("/use-cases",)),
    NavItem("Data", "/data", ("/examples",)),
    NavItem("Runs", "/runs"),
    NavItem("Models", "/models", ("/evaluations",)),
    NavItem("Approvals", "/approvals"),
    NavItem("Audit", "/audit", ("/requests",)),
    NavItem("Signing keys", "/keys", act="ENROLL"),
    NavItem("Settings", "/settings", act="INSPECT"),
)


def duration(seconds: float | None) -> str:
    """In the two largest units that fit: `2 h 38 min`, `41 s`, `0.3 s`."""
    if seconds is None:
        return formatting.NO_NUMBER
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    for (size, unit), (lesser, small) in zip(_UNITS, (*_UNITS[1:], (1.0, "s")), strict=True):
        if seconds >= size:
            rest = int((seconds % size) / lesser)
            return f"{int(seconds / size)} {unit}" + (f" {rest} {small}" if rest else "")
    return formatting.NO_NUMBER


def ago(stamp: float | None, now: float) -> str:
    """How long before now, in one unit; the day for what is older than a week."""
    if stamp is None:
        return formatting.NO_NUMBER
    passed = now - stamp
    if passed < 0:
        return f"in {duration(-passed)}"
    if passed > 7 * _DAY:
        return time.strftime("%-d %b" if passed < 300 * _DAY else "%-d %b %Y", time.gmtime(stamp))
    if passed < 60:
        return "now" if passed < 5 else f"{passed:.0f} s ago"
    size, unit = next(each for each in _UNITS if passed >= each[0])
    return f"{int(passed / size)} {unit} ago"


def count_bytes(size: float | None) -> str:
    if size is None:
        return formatting.NO_NUMBER
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def ms(value: float | None) -> str:
    return formatting.NO_NUMBER if value is None else f"{formatting.format_number(value)} ms"


def words(name: str) -> str:
    """A name of code as words."""
    return name.replace("_", " ").replace("-", " ")


def short(ref: str, most: int = 40) -> str:
    """A reference in little room: its end tells the versions apart."""
    return ref if len(ref) <= most else f"{ref[: most // 2 - 1]}…{ref[-(most // 2) :]}"


def cell(value: Any, most: int = 300) -> str:
    """Any cell as text."""
    if value is None:
        return formatting.NO_NUMBER
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return formatting.format_number(value, 5)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def sentence(text: str) -> str:
    """With a capital and a full stop: reasons are stored without."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…")) else ".")


def pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def as_whisker(row: Any) -> Whisker:
    """A difference with its interval, of a comparison or of a slice."""
    delta, interval = (row["delta"], row["interval"]) if isinstance(row, dict) else (row.delta, row.interval)
    return Whisker(delta, (interval[0], interval[1]) if interval else None)


def state_class(state: str) -> str:
    """How a job's or an approval's state is coloured; the word stands there, too."""
    good, bad = ("succeeded", "approved", "serving", "survived"), ("failed", "dead", "denied", "broken", "refused")
    if state in good:
        return "good"
    if state in bad:
        return "bad"
    return "busy" if state in ("running", "starting", "loading", "pending", "provisional") else "still"


FILTERS = {
    "duration": duration, "ago": ago, "bytes": count_bytes, "ms": ms, "words": words, "short": short, "cell": cell,
    "pretty": pretty, "sentence": sentence, "state_class": state_class, "as_whisker": as_whisker,
    "number": formatting.format_number,
    "difference": formatting.format_difference, "interval": formatting.format_interval, "usd": formatting.format_usd,
    "count": formatting.format_count, "percent": formatting.format_percent, "minute": formatting.format_minute,
    "answer": formatting.format_answer, "p_value": formatting.format_p_value,
}  # fmt: skip
