"""Charts of the pages as inline SVG, drawn at the size at which they are shown; a table beside each has its numbers.

Marks take their colour from the class of their role, so that themes and hosts may set it. Text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from speciate.evaluation.pages.formatting import format_number
from speciate.evaluation.pages.svg_charts import Scale

_DOT = 5.0


def tag(name: str, text: object = "", **attributes: object) -> Markup:
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{escape(text)}</{name}>")


def _short(value: object) -> object:
    return f"{value:.5g}" if isinstance(value, float) else value


def join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def svg(
    parts: Iterable[Markup], width: int, height: int, label: str | None, *, wide: bool = False, role: str = "img",
    **attributes: object,
) -> Markup:  # fmt: skip
    """`role`: `group` where there are links in it, which an image has none of."""
    told = {"role": role, "aria_label": label} if label else {"aria_hidden": "true"}
    size = {"width": None if wide else width, "height": None if wide else height}
    return tag(
        "svg", join(parts), viewBox=f"0 0 {width} {height}", class_="drawn wide" if wide else "drawn", **size, **told,
        **attributes,
    )  # fmt: skip


def bar(share: float, label: str | None = None) -> Markup:
    """A share of 1 as a filled line."""
    share = min(1.0, max(0.0, share if math.isfinite(share) else 0.0))
    told: dict[str, object] = (
        {"role": "progressbar", "aria_label": label, "aria_valuenow": round(100 * share), "aria_valuemin": 0,
         "aria_valuemax": 100}
        if label
        else {"aria_hidden": "true"}
    )  # fmt: skip
    inside = tag("rect", width=f"{100 * share:.1f}%", height=6, rx=3)
    return tag("svg", inside, class_="bar", width="100%", height=6, **told)


class Whisker(NamedTuple):
    value: float | None
    interval: tuple[float, float] | None


def whisker_scale(rows: Sequence[Whisker], target: float | None = None) -> Scale:
    return Scale.of([*(end for row in rows for end in (row.value, *(row.interval or ()))), target])


def whisker(row: Whisker, scale: Scale, role: str, target: float | None = None) -> Markup:
    """A dot with its interval on a line; the target is dashed."""
    width, height = 140, 20

    def across(value: float) -> float:
        return 6 + (width - 12) * scale.place(value)

    parts = list[Markup]()
    if target is not None:
        parts.append(tag("line", x1=across(target), x2=across(target), y1=0, y2=height, class_="target"))
    if row.interval:
        low, high = map(across, row.interval)
        parts.append(tag("line", x1=low, x2=high, y1=height / 2, y2=height / 2, class_="whisker"))
    if row.value is not None:
        parts.append(tag("circle", cx=across(row.value), cy=height / 2, r=_DOT, class_="dot"))
    return Markup(f'<span class="{escape(role)}">') + svg(parts, width, height, None) + Markup("</span>")


class Place(NamedTuple):
    """A model in the plane of cost and quality."""

    name: str
    x: float
    y: float
    role: str
    dominated: bool


def _grid(scale: Scale, up: Callable[[float], float], left: float, right: float) -> list[Markup]:
    """Lines across at the scale's ticks, each with its number before it. `up`: value -> place from the top."""
    return [
        part
        for tick in scale.ticks(4)
        for part in (
            tag("line", x1=left, x2=right, y1=up(tick), y2=up(tick), class_="grid"),
            tag("text", format_number(tick), x=left - 8, y=up(tick) + 4, text_anchor="end"),
        )
    ]


def pareto(places: Sequence[Place], across: str, target: float | None = None) -> Markup:
    """Quality over cost. Hollow: another is at least as good and cheaper."""
    width, height, left, top, bottom = 380, 250, 44, 14, 42
    x = Scale.of_costs([place.x for place in places])
    y = Scale.of([*(place.y for place in places), target])

    def at(value: float) -> float:
        return left + (width - left - 14) * x.place(value)

    def up(value: float) -> float:
        return height - bottom - (height - top - bottom) * y.place(value)

    parts = _grid(y, up, left, width - 8)
    parts += [tag("text", format_number(t), x=at(t), y=height - bottom + 18, text_anchor="middle") for t in x.ticks(4)]
    parts.append(tag("text", across, x=(left + width) / 2, y=height - 4, text_anchor="middle"))
    if target is not None:
        parts.append(tag("line", x1=left, x2=width - 8, y1=up(target), y2=up(target), class_="target"))
    front, best = list[str](), -math.inf
    for place in sorted(places, key=lambda each: (each.x, -each.y)):
        if place.dominated or place.y <= best:
            continue
        if front:
            front.append(f"{at(place.x):.1f},{up(best):.1f}")
        front.append(f"{at(place.x):.1f},{up(place.y):.1f}")
        best = place.y
    parts.append(tag("polyline", points=" ".join(front), class_="front"))
    for place in sorted(places, key=lambda each: each.role != "other"):
        named = []
        if place.role in ("candidate", "baseline"):
            end = at(place.x) > width * 0.6
            above = -9.0 if place.role == "candidate" else 18.0
            shown = place.name if len(place.name) <= 26 else place.name[:12] + "…" + place.name[-12:]
            named = [tag("text", shown, x=at(place.x) + (6 if end else -4), y=up(place.y) + above,
                          text_anchor="end" if end else "start", class_="name")]  # fmt: skip
        dot = tag("circle", cx=at(place.x), cy=up(place.y), r=6, class_="dot hollow" if place.dominated else "dot")
        inside = join([dot, *named, tag("title", place.name)])
        parts.append(tag("g", inside, class_=f"point {place.role}", data_model=place.name))
    return svg(parts, width, height, f"Quality over cost of {len(places)} models", wide=True)


class Line(NamedTuple):
    name: str
    role: str
    points: Sequence[tuple[float, float]]
    thin: bool = False


def lines(drawn: Sequence[Line], label: str, *, width: int = 560, height: int = 190, across: str = "step") -> Markup:
    """Curves over one axis. Its attributes say what a script needs that draws them on (static/run.js)."""
    known = [point for line in drawn for point in line.points if math.isfinite(point[1])]
    if not known:
        return Markup("")
    left, bottom, top = 48, 26, 10
    x_low, x_high = min(p[0] for p in known), max(p[0] for p in known)
    y = Scale.of([p[1] for p in known])

    def at(value: float) -> float:
        return left + (width - left - 10) * ((value - x_low) / (x_high - x_low) if x_high > x_low else 0.5)

    def up(value: float) -> float:
        return height - bottom - (height - top - bottom) * y.place(value)

    parts = _grid(y, up, left, width - 8)
    parts += [
        tag("text", format_number(x_low), x=left, y=height - 6),
        tag("text", f"{across} {format_number(x_high, 6)}", x=width - 10, y=height - 6, text_anchor="end", data_end=""),
    ]
    for line in drawn:
        path = " ".join(f"{at(a):.1f},{up(b):.1f}" for a, b in line.points if math.isfinite(b))
        inside = [tag("polyline", points=path, class_="line thin" if line.thin else "line", data_line=line.name)]
        if len(line.points) == 1:
            inside.append(tag("circle", cx=at(line.points[0][0]), cy=up(line.points[0][1]), r=_DOT, class_="dot"))
        parts.append(tag("g", join([*inside, tag("title", line.name)]), class_=line.role))
    area = f"{left},{top},{width - 10},{height - bottom}"
    ends = {"data_x": f"{x_low!r},{x_high!r}", "data_y": f"{y.low!r},{y.high!r}"}
    return svg(parts, width, height, label, wide=True, data_area=area, **ends)


class Bin(NamedTuple):
    """A bar of a histogram. `low`, `high`: of its values; both None for a class, which `name` names."""

    name: str
    rows: int
    href: str
    low: float | None = None
    high: float | None = None


def histogram(bins: Sequence[Bin], label: str) -> Markup:
    """Bars that are links to the rows they stand for."""
    width, height, bottom = 300, 84, 16
    most = max((each.rows for each in bins), default=0) or 1
    wide = width / max(1, len(bins))
    parts = list[Markup]()
    for place, each in enumerate(bins):
        tall = (height - bottom - 4) * each.rows / most
        tall = max(tall, 1.5) if each.rows else 0.0
        left, top = place * wide, height - bottom - tall
        shape = [
            tag("rect", x=left, y=0.0, width=wide, height=float(height - bottom), class_="hit"),
            tag("rect", x=left + 0.5, y=top, width=max(1.0, wide - 1.5), height=tall, rx=1.5),
            tag("title", f"{each.name}: {each.rows:,}"),
        ]
        parts.append(tag("a", join(shape), href=each.href, aria_label=f"{each.name}: {each.rows:,}"))
    first, last = bins[0], bins[-1]
    if first.low is not None and last.high is not None:
        parts += [
            tag("text", format_number(first.low, 4), x=0, y=height - 2),
            tag("text", format_number(last.high, 4), x=width, y=height - 2, text_anchor="end"),
        ]
    body = join(parts)
    return tag("svg", body, viewBox=f"0 0 {width} {height}", class_="drawn wide bins", role="group", aria_label=label)


def series(channels: Sequence[Sequence[float]], names: Sequence[str]) -> Markup:
    """A series' channels over its steps."""
    drawn = [
        Line(names[place], f"hue-{place % 6}", list(enumerate(values)))
        for place, values in enumerate(channels)
    ]  # fmt: skip
    return lines(drawn, f"{len(channels)} channels", width=900, height=260)


CHARTS = {
    "bar": bar, "whisker": whisker, "pareto": pareto, "lines": lines, "histogram": histogram, "series": series,
}  # fmt: skip
