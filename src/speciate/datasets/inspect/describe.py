"""A version described: counts from the catalog, a chart of quality, labels and numbers, and what differs between two.

`draw_charts` runs in a service process, all else in the daemon."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from speciate.datasets import version_rows
from speciate.datasets.columns import FIXED, HIDDEN, QUALITIES
from speciate.datasets.inspect.changes import ComparisonRequest
from speciate.datasets.versions import Manifest, Version, version
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import ImageAnswer, Pool
from speciate.refs import DatasetRef
from speciate.workspace.database import Database
from speciate.workspace.workspace import Folders

_CHART = "speciate.datasets.inspect.describe:draw_charts"
_DIFFERENCE = "speciate.datasets.inspect.changes:compare_versions"
WIDTH, HEIGHT = 480, 260
"""Width and height of one panel, in pixels."""
_MARGIN, _TOP, _BOTTOM = 12, 30, 34
_MOST_BARS = 12
_MOST_NUMBERS = 4
_BINS = 24
_HEAD = 1_000
"""Cells that are looked at first."""
_QUALITIES = {"ok": "#2ca02c", "partial": "#ff9f1c", "refused": "#d62728", "error": "#7f1d1d"}
_SPLITS = {"train": "#1f77b4", "validation": "#9467bd", "test": "#ff7f0e"}
_OTHER = "#8c8c8c"
Panel = Callable[[Any, int, int], None]
"""Draws itself at (x, y)."""


class Difference(NamedTuple):
    """Examples by id: only in one of the two, or in both with another label, split, group or cell."""

    added: int
    removed: int
    changed: int
    label_moves: list[tuple[str | None, str | None, int]]
    """Before, after, how many; most frequent first, at most 50."""


class ChartRequest(BaseModel):
    model_config = ConfigDict(frozen=True)
    root: Path
    manifest: Manifest


class Chart(NamedTuple):
    """`png`, or None with the reason in `missing`."""

    png: bytes | None
    missing: str = ""


def newest_versions(database: Database, chosen: Sequence[str]) -> list[Version]:
    """The newest version of each of these datasets."""
    return [version(database, DatasetRef(name)) for name in chosen]


def ask_for_charts(pool: Pool, folders: Folders, manifest: Manifest) -> Chart:
    """Quality, labels by split and the spread of numbers.

    A chart is the least of a description: if it takes too long, as on a busy machine, the reason stands in its place.
    Other errors are raised.
    """
    request = ChartRequest(root=folders.root, manifest=manifest)
    try:
        return Chart(base64.b64decode(pool.ask(_CHART, request.model_dump(mode="json"))["png"]))
    except SpeciateError as error:
        if error.code is not Code.UNAVAILABLE:
            raise
        why = f"The chart was not drawn: {error.message} All else is complete; call again for the chart."
        return Chart(None, why)


def quality(found: Version) -> dict[str, int]:
    return {name: found.report.get(name, 0) for name in QUALITIES}


def usable(found: Version) -> int:
    """How many examples are ok or partial."""
    return sum(quality(found)[name] for name in ("ok", "partial"))


def ask_for_difference(pool: Pool, folders: Folders, old: Manifest, new: Manifest) -> Difference:
    """How `new` differs from `old`."""
    request = ComparisonRequest(root=folders.root, old=old, new=new)
    return Difference(**pool.ask(_DIFFERENCE, request.model_dump(mode="json")))


class Bar(NamedTuple):
    name: str
    parts: tuple[tuple[str, int], ...]
    """Colour and size of each piece of the bar."""

    @property
    def total(self) -> int:
        return sum(size for _, size in self.parts)


def draw_charts(payload: Mapping[str, object]) -> ImageAnswer:
    """The service: a PNG at most 960 pixels wide. `payload`: a ChartRequest."""
    request = ChartRequest.model_validate(payload)
    folders, manifest = Folders(request.root), request.manifest
    numbers = _numbers(folders, manifest)
    rows = version_rows.read(folders, manifest, ["quality", "split", "label", *numbers])
    return {"png": base64.b64encode(draw_panels(panels(rows, manifest, numbers))).decode()}


def panels(rows: pa.Table, manifest: Manifest, numbers: Sequence[str]) -> list[Panel]:
    """Quality, then labels or splits, then the spread of some numbers among usable rows."""
    usable = rows.filter(pc.equal(rows["quality"], "ok"))
    found = [_bars("quality of all items", _bars_of_values(rows["quality"], _QUALITIES))]
    if manifest.numeric:
        found.append(_histogram("label", usable["label"]))
    elif manifest.labels:
        found.append(_bars(f"labels by split ({_legend(manifest)})", _labels_by_split(usable)))
    else:
        found.append(_bars("splits", _bars_of_values(usable["split"], _SPLITS)))
    return found + [_histogram(name, usable[name]) for name in numbers]


def draw_panels(panels: Sequence[Panel]) -> bytes:
    """PNG of the panels, two in a row."""
    from PIL import Image, ImageDraw

    rows = (len(panels) + 1) // 2
    canvas = Image.new("RGB", (2 * WIDTH, rows * HEIGHT), "white")
    pen = ImageDraw.Draw(canvas)
    for place, panel in enumerate(panels):
        panel(pen, place % 2 * WIDTH, place // 2 * HEIGHT)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _bars(title: str, bars: Sequence[Bar]) -> Panel:
    """Horizontal bars, the longest first; the last one sums up those that do not fit."""

    def panel(pen: Any, x: int, y: int) -> None:
        _title(pen, x, y, title)
        shown = _with_rest(bars)
        longest = max((bar.total for bar in shown), default=1) or 1
        step = (HEIGHT - _TOP - 8) / max(len(shown), 4)
        left, room = x + 130, WIDTH - 130 - 70
        for place, bar in enumerate(shown):
            top = y + _TOP + place * step
            pen.text((x + _MARGIN, top + step / 2 - 7), _shorten_text(bar.name, 18), fill="black", font=_font(12))
            at = float(left)
            for colour, size in bar.parts:
                end = at + room * size / longest
                pen.rectangle((at, top + 2, max(end, at), top + step - 3), fill=colour)
                at = end
            pen.text((at + 5, top + step / 2 - 7), f"{bar.total:,}", fill="black", font=_font(12))

    return panel


def _histogram(name: str, column: pa.ChunkedArray) -> Panel:
    values = np.asarray(column.drop_null().cast(pa.float64(), safe=False), dtype=np.float64)
    values = values[np.isfinite(values)]

    def panel(pen: Any, x: int, y: int) -> None:
        _title(pen, x, y, f"{_shorten_text(name, 40)} ({len(values):,} values)")
        if not len(values):
            pen.text((x + _MARGIN, y + HEIGHT // 2), "no values", fill=_OTHER, font=_font(12))
            return
        counts, edges = _counts(values)
        width, height = (WIDTH - 2 * _MARGIN) / len(counts), HEIGHT - _TOP - _BOTTOM
        floor = y + HEIGHT - _BOTTOM
        for place, count in enumerate(counts.tolist()):
            left = x + _MARGIN + place * width
            pen.rectangle((left, floor - height * count / counts.max(), left + width - 2, floor), fill="#1f77b4")
        median = float(np.median(values))
        for value, where in ((edges[0], "l"), (median, "m"), (edges[-1], "r")):
            at = {"l": x + _MARGIN, "m": x + WIDTH // 2, "r": x + WIDTH - _MARGIN}[where]
            text = f"median {_format_number(value)}" if where == "m" else _format_number(value)
            pen.text((at, floor + 6), text, fill="black", font=_font(12), anchor=f"{where}a")

    return panel


def _counts(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(B,) and (B + 1,); one bin if the values lie closer together, or further apart, than floats can separate."""
    try:
        return np.histogram(values, bins=min(_BINS, max(1, len(np.unique(values[:10_000])))))
    except ValueError:
        return np.array([len(values)]), np.array([values.min(), values.max()])


def _title(pen: Any, x: int, y: int, text: str) -> None:
    pen.text((x + _MARGIN, y + 8), text, fill="black", font=_font(14))


def _bars_of_values(column: pa.ChunkedArray, colours: Mapping[str, str]) -> list[Bar]:
    counts = {row["values"]: row["counts"] for row in pc.value_counts(column.drop_null().combine_chunks()).to_pylist()}
    names = [*(name for name in colours if name in counts), *sorted(counts.keys() - colours.keys())]
    return [Bar(name, ((colours.get(name, _OTHER), counts[name]),)) for name in names]


def _labels_by_split(rows: pa.Table) -> list[Bar]:
    grouped = rows.select(["label", "split"]).group_by(["label", "split"]).aggregate([([], "count_all")]).to_pylist()
    counts: dict[str, dict[str, int]] = {}
    for row in grouped:
        if row["label"] is not None:
            counts.setdefault(str(row["label"]), {})[row["split"] or ""] = row["count_all"]
    bars = [
        Bar(label, tuple((_SPLITS.get(name, _OTHER), found[name]) for name in (*_SPLITS, *found.keys() - _SPLITS.keys())
                         if name in found))
        for label, found in counts.items()
    ]  # fmt: skip
    return sorted(bars, key=lambda bar: (-bar.total, bar.name))


def _with_rest(bars: Sequence[Bar]) -> list[Bar]:
    if len(bars) <= _MOST_BARS:
        return list(bars)
    rest = bars[_MOST_BARS - 1 :]
    return [*bars[: _MOST_BARS - 1], Bar(f"{len(rest)} others", ((_OTHER, sum(bar.total for bar in rest)),))]


def _legend(manifest: Manifest) -> str:
    named = {"#1f77b4": "blue", "#9467bd": "violet", "#ff7f0e": "orange"}
    return ", ".join(f"{name} {named[colour]}" for name, colour in _SPLITS.items() if name in manifest.splits) or "none"


def _numbers(folders: Folders, manifest: Manifest) -> list[str]:
    """The first columns of numbers that are no key, not the same everywhere, and not the label: it is drawn apart."""
    numbers = [name for name, kind in manifest.columns.items() if kind in ("DOUBLE", "BIGINT")]
    names = [name for name in numbers if name != manifest.label][: 4 * _MOST_NUMBERS]
    rows = version_rows.read(folders, manifest, names, usable=True) if names else pa.table({})
    varied = [name for name in names if _varies(rows[name].drop_null())]
    return [name for name in varied if name not in (*FIXED, *HIDDEN)][:_MOST_NUMBERS]


def _varies(column: pa.ChunkedArray) -> bool:
    """The first cells tell it nearly always, for a hundredth of the time."""
    return any(pc.count_distinct(some).as_py() > 1 for some in (column.slice(0, _HEAD), column))


def _format_number(value: float) -> str:
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e12 else f"{value:.4g}"


def _shorten_text(text: str, length: int) -> str:
    shown = "".join(c for c in text if c.isprintable())
    return (shown if len(shown) <= length else shown[: length - 1] + "…").encode("latin-1", "replace").decode("latin-1")


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
