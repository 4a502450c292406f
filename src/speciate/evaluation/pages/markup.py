"""HTML and SVG as nested calls that escape whatever is not markup already.

`element("p", "a < b", class_="note")` is `<p class="note">a &lt; b</p>`. There is no other way from text to markup in
these pages but `Markup(...)` itself, which stands beside literals alone.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from speciate.evaluation.reports.report import Interval

_VOID = frozenset({"br", "img", "meta"})
_KEPT = "\n\t\N{ZERO WIDTH JOINER}"


class Markup(str):
    """Text that is markup; all other text is escaped where it meets some."""

    __slots__ = ()


Child = str | Markup | int | None


def element(tag: str, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """An element. None is left out, among children and attributes; `class_` is `class`, `text_anchor` `text-anchor`."""
    given = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(_attribute(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{tag}{given}>" if tag in _VOID else f"<{tag}{given}>{join_markup(*children)}</{tag}>")


def join_markup(*children: Child) -> Markup:
    return Markup("".join(text(child) for child in children if child is not None))


def text(value: Child) -> Markup:
    """Escaped, without characters of control or direction; markup as it is."""
    if isinstance(value, Markup):
        return value
    shown = "".join(c for c in str(value) if c in _KEPT or not unicodedata.category(c).startswith("C"))
    return Markup(html.escape(shown))


def section(title: str, *children: Child, name: str) -> Markup:
    """A part of the page with its heading; `name` is where links lead."""
    return element("section", element("h2", title, id=name), *children, aria_labelledby=name)


def paragraph(*children: Child) -> Markup:
    return element("p", *children)


def bullet_list(items: Sequence[Child]) -> Markup:
    return element("ul", *(element("li", item) for item in items))


def definition_list(pairs: Sequence[tuple[str, Child]]) -> Markup:
    """Names and what they are; those without are left out."""
    shown = [(name, what) for name, what in pairs if what not in (None, "")]
    return element("dl", *(element("div", element("dt", name), element("dd", what)) for name, what in shown))


class Column(NamedTuple):
    title: Child
    numbers: bool = False
    """Then its cells stand flush right."""


def table(
    caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Child]], marks: Sequence[str | None] = ()
) -> Markup:
    """A table that scrolls by itself where the page is narrow. The first cell of a row names it; `marks`: its class."""
    head = element(
        "tr", *(element("th", _words(c.title), scope="col", class_="number" if c.numbers else None) for c in columns)
    )
    body = [
        element(
            "tr",
            element("th", _words(row[0]), scope="row"),
            *(
                element("td", cell, class_="number") if column.numbers else element("td", _words(cell))
                for cell, column in zip(row[1:], columns[1:], strict=True)
            ),
            class_=marks[place] if marks else None,
        )
        for place, row in enumerate(rows)
    ]
    whole = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", whole, class_="wide", role="region", tabindex="0", aria_label=caption)


def _words(cell: Child) -> Markup:
    """A cell that wraps at a readable width."""
    return element("div", cell, class_="words")


def _attribute(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


NO_NUMBER = "–"
"""What stands where there is no number."""


def format_number(value: float | None, digits: int = 3) -> str:
    """To so many digits; thousands in full, what is tiny or huge as a power of ten."""
    if value is None or not math.isfinite(value):
        return NO_NUMBER
    size = abs(value)
    if size and (size >= 1e7 or size < 1e-4):
        return f"{value:.{digits}g}".replace("-", "−")
    return (f"{value:,.0f}" if size >= 10**digits - 0.5 else f"{value:.{digits}g}").replace("-", "−")


def format_difference(value: float | None) -> str:
    """A difference: what is above zero says so."""
    return f"+{format_number(value)}" if value is not None and value > 0 else format_number(value)


def format_interval(interval: Interval | None) -> str:
    return NO_NUMBER if interval is None else f"{format_number(interval[0])} to {format_number(interval[1])}"


def format_p_value(p_value: float | None) -> str:
    """A p-value, to where digits mean anything."""
    return "< 0.001" if p_value is not None and p_value < 0.001 else format_number(p_value, 2)


def format_usd(value: float | None) -> str:
    """Below a hundredth of a cent nobody counts."""
    return NO_NUMBER if value is None else "< $0.0001" if 0 < value < 0.0001 else f"${format_number(value)}"


def format_count(value: int | None) -> str:
    return NO_NUMBER if value is None else f"{value:,}"


def format_percent(value: float | None) -> str:
    return NO_NUMBER if value is None else f"{100 * value:.3g} %"
