"""Datasets: the list, a version with its histograms, the grid of its examples, and one example with its viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from speciate.datasets import versions
from speciate.datasets.inspect import describe as describing
from speciate.datasets.inspect.example_pages import (
    AS_TEXT,
    QUALITIES,
    ExampleFilter,
    Neighbours,
    example_page,
    neighbours,
    one_example,
)
from speciate.datasets.similarity.nearest_neighbours import NeighbourQuery, neighbours_at_hand
from speciate.datasets.versions import Manifest, Version
from speciate.errors import Code, SpeciateError
from speciate.evaluation.pages.inline_charts import Bin
from speciate.evaluation.reports.answer_rows import SHOWN
from speciate.evaluation.reports.describe_evaluation import Inspection
from speciate.evaluation.reports.shown_media import Cell
from speciate.server.web.media import manifest_of
from speciate.server.web.visit import Visit

TILES = 48
_EVALUATIONS = """
SELECT id, use_case, created FROM evaluations WHERE dataset = ? OR dataset LIKE ? ORDER BY created DESC LIMIT 10
"""


def listed(visit: Visit) -> Mapping[str, object]:
    names = versions.names(visit.database)
    return {
        "title": "Data",
        "datasets": [(found, describing.quality(found)) for found in describing.newest_versions(visit.database, names)],
    }


def newest(visit: Visit) -> str:
    """Where the newest version of a name is."""
    found = versions.newest(visit.database, visit.path["name"])
    return f"/data/{quote(found.name)}/v{found.version}"


def version(visit: Visit) -> Mapping[str, object]:
    found = versions.version(visit.database, f"{visit.path['name']}@v{visit.path['version']}")
    manifest = found.manifest
    other = visit.asked("compare")
    return {
        "title": manifest.ref,
        "found": found,
        "manifest": manifest,
        "quality": describing.quality(found),
        "usable": describing.usable(found),
        "history": versions.history(visit.database, manifest.name, 30),
        "tags": versions.tags(visit.database, manifest.name),
        "audit": found.report.get("split"),
        "warnings": found.report.get("warnings", ()),
        "difference": _difference(visit, found, other) if other else None,
        "compare": other,
        "evaluations": visit.database.read(_EVALUATIONS, [manifest.ref, f"{manifest.ref}:%"]),
    }


def _difference(visit: Visit, found: Version, other: str) -> describing.Difference:
    old = versions.resolve(visit.database, f"{found.manifest.name}@v{other.removeprefix('v')}")
    return describing.ask_for_difference(visit.app.pool, visit.app.workspace.folders, old, found.manifest)


class Column(NamedTuple):
    name: str
    bins: tuple[Bin, ...]
    missing: int
    others: int


def histograms(visit: Visit) -> Mapping[str, object]:
    """Asked for apart: the sandbox reads the rows."""
    manifest = manifest_of(visit)
    found = visit.parts.media.histograms(manifest)
    grid = f"/data/{manifest.name}/v{manifest.version}/examples"
    return {
        "title": manifest.ref, "left_out": found["left_out"],
        "columns": [
            Column(each["column"], tuple(_bin(grid, each["column"], bar) for bar in each["bars"]), each["missing"],
                   each["others"])
            for each in found["columns"]
        ],
    }  # fmt: skip


def _bin(grid: str, column: str, bar: Mapping[str, Any]) -> Bin:
    if "value" in bar:
        value = str(bar["value"])
        where = {"column": column, "is": value} if column not in ("label", "split") else {column: value}
        return Bin(value, bar["count"], grid + _encoded(where))
    low, high = bar["low"], bar["high"]
    where = {"column": column, "from": repr(low), "to": repr(high)}
    return Bin(f"{low:.4g} to {high:.4g}", bar["count"], grid + _encoded(where), low, high)


def _encoded(where: Mapping[str, str]) -> str:
    return f"?{urlencode(where)}"


class Tile(NamedTuple):
    """An example in a grid. `preview`: its cells, where it is read."""

    id: str
    label: str | None
    split: str | None
    quality: str
    preview: str | None
    answers: tuple[tuple[str, Mapping[str, Any] | None], ...] = ()
    """Answers of models in an evaluation: a short name and what it said."""


def grid(visit: Visit) -> Mapping[str, object]:
    manifest = manifest_of(visit)
    wanted = _filter(visit)
    after = visit.asked("after")
    page = example_page(visit.app.pool, visit.app.workspace.folders, manifest, wanted, TILES, after)
    tiles = [tile_of(row, page.read if manifest.modality == "tabular" else ()) for row in page.rows]
    return {
        "title": f"Examples of {manifest.ref}", "manifest": manifest, "tiles": tiles,
        "cells": cells_of(visit, manifest, [tile.id for tile in tiles if tile.quality == "ok"]),
        "next": tiles[-1].id if page.more else None, "shown": wanted.words(), "after": after,
        "label": wanted.label, "split": wanted.split, "quality": wanted.quality, "words": wanted.contains,
        "evaluation": None, "total": _total(manifest, wanted), "follow": follow_of(visit),
        "labels": list(manifest.labels)[:60], "splits": list(manifest.splits),
    }  # fmt: skip


_FOLLOWED = ("label", "split", "quality", "column", "is", "from", "to", "q", "show", "answered", "baseline")


def follow_of(visit: Visit) -> Mapping[str, str]:
    """What an example keeps of the grid that it was opened from, so that it has a next one."""
    return {name: value for name in _FOLLOWED if (value := visit.asked(name))}


def cells_of(visit: Visit, manifest: Manifest | None, ids: Sequence[str]) -> Mapping[str, Cell]:
    """Where the thumbnails of examples are; none of what is read, not looked at."""
    if manifest is None or manifest.modality in AS_TEXT:
        return {}
    return visit.parts.media.draw(manifest, ids)


def _total(manifest: Manifest, wanted: ExampleFilter) -> int | None:
    """How many fit, where the manifest knows it."""
    if wanted == ExampleFilter() and manifest.splits:
        return sum(manifest.splits.values())
    if wanted == ExampleFilter(split=wanted.split):
        return manifest.splits.get(wanted.split or "")
    return manifest.labels.get(wanted.label or "") if wanted == ExampleFilter(label=wanted.label) else None


def _filter(visit: Visit) -> ExampleFilter:
    return ExampleFilter(
        visit.asked("label"), visit.asked("split"), visit.one_of("quality", QUALITIES, "ok"), visit.asked("column"),
        visit.asked("is"), visit.number("from"), visit.number("to"), visit.asked("q"),
    )  # fmt: skip


def tile_of(row: Sequence[Any], named: Sequence[str] = ()) -> Tile:
    """`named`: the columns of its last cells, where a cell says little without its column's name."""
    name, label, split, quality, *cells = row
    names = [*[""] * (len(cells) - len(named)), *(f"{each}: " for each in named)]
    lines = [f"{each}{cell}" for each, cell in zip(names, cells, strict=True) if cell is not None]
    text = "\n".join(lines)[:400] or None
    return Tile(name, None if label is None else str(label), split, quality, text)


def example(visit: Visit) -> Mapping[str, object]:
    """`?in=DATASET@v3`, and where it was judged `&evaluation=ID`."""
    ref, name = visit.asked("in"), visit.path["id"]
    if ref is None:
        raise SpeciateError(
            Code.INVALID, "An example is shown in a version of a dataset.", "Open it from the grid of its dataset."
        )
    manifest = versions.resolve(visit.database, ref.partition(":")[0])
    cells = one_example(visit.app.pool, visit.app.workspace.folders, manifest, name)
    evaluation = visit.asked("evaluation")
    judged = (
        Inspection(visit.app.workspace, visit.app.pool, evaluation, visit.asked("baseline")) if evaluation else None
    )
    return {
        "title": f"Example {name[:24]}",
        "manifest": manifest,
        "id": name,
        "cells": cells,
        "view": visit.parts.media.describe(manifest, name),
        "base": f"/media/{manifest.name}/v{manifest.version}/{name}",
        "answers": _answers(judged, name) if judged else None,
        "evaluation": evaluation,
        "follow": follow_of(visit),
        "beside": _judged_beside(visit, judged, name)
        if judged
        else neighbours(visit.app.pool, visit.app.workspace.folders, manifest, _filter(visit), name),
        "evaluations": visit.database.read(_EVALUATIONS, [manifest.ref, f"{manifest.ref}:%"]),
    }


def _judged_beside(visit: Visit, found: Inspection, name: str) -> Neighbours:
    show = visit.one_of("show", SHOWN, "all")
    told = found.ask(
        "answer_rows:judged_neighbours", show=show, label=visit.asked("label"), answered=visit.asked("answered"),
        after=name,
    )  # fmt: skip
    return Neighbours(told["before"], told["after"])


def _answers(found: Inspection, name: str) -> Mapping[str, Any]:
    told = found.ask("answer_rows:answers_to_one", after=name)
    order = [row.model for row in found.report.leaderboard]
    known = sorted(told["answers"].items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))
    return {"label": told["label"], "given": known, "candidate": found.candidate, "baseline": found.baseline}


def near(visit: Visit) -> Mapping[str, object]:
    """The nearest other examples; none where they have no vectors yet: who looks starts no job."""
    ref = visit.asked("in") or ""
    manifest = versions.resolve(visit.database, ref.partition(":")[0])
    query = NeighbourQuery(visit.path["id"], None, None, None, 6)
    found = neighbours_at_hand(visit.app.engine, visit.app.pool, manifest, query)
    if found is None:
        return {"title": "", "tiles": [], "missing": True, "manifest": manifest, "id": query.id, "cells": {}}
    places = {column: at for at, column in enumerate(found.columns)}
    rows = {row[places["id"]]: row for row in found.rows} if "id" in places else {}
    tiles = [
        (name, distance, rows[name][places["label"]] if name in rows and "label" in places else None)
        for name, distance in found.nearest if name != query.id
    ]  # fmt: skip
    cells = cells_of(visit, manifest, [name for name, *_ in tiles])
    return {"title": "", "tiles": tiles, "missing": False, "manifest": manifest, "cells": cells}
