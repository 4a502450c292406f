"""Resources of lineage: charts, and which models and answers came of data or of a model."""

from __future__ import annotations

from speciate.lineage import chart, trace
from speciate.server.tool_api import App, Result, resource


@resource("speciate://predictions/{prediction}/lineage", mime="image/svg+xml")
def prediction_lineage(app: App, prediction: str) -> str:
    """All that one logged answer rests on, as a chart."""
    found = trace.trace_answer(app.workspace, prediction)
    return chart.svg(found.graph, found.start)


@resource("speciate://models/{name}/{version}/lineage", mime="image/svg+xml")
def model_lineage(app: App, name: str, version: str) -> str:
    """What a model version (v3) came from and what came of it, as a chart."""
    found = trace.trace_model(app.workspace, f"{name}@{version}")
    return chart.svg(found.graph, found.start)


class ReachView(Result):
    """What came of data or of a model: `answers` of `USE_CASE/model` that are still logged, `predictions` the newest
    of them."""

    models: tuple[str, ...]
    answers: dict[str, int]
    predictions: tuple[str, ...]
    lineage: str


@resource("speciate://datasets/{name}/{version}/reach{?example,group}")
def dataset_reach(app: App, name: str, version: str, example: str = "", group: str = "") -> ReachView:
    """Which models learned from a dataset version (or an example or a group of it), and which answers they gave."""
    found = trace.trace_impact(
        app.workspace, app.pool, f"{name}@{version}", example=example or None, group=group or None
    )
    return _reach(found)


@resource("speciate://models/{name}/{version}/reach")
def model_reach(app: App, name: str, version: str) -> ReachView:
    """Which models were made from a model version, and which answers they and it gave."""
    return _reach(trace.trace_impact(app.workspace, app.pool, f"{name}@{version}"))


def _reach(found: trace.Impact) -> ReachView:
    return ReachView(models=found.models, answers=found.answers, predictions=found.ids, lineage=found.traced.text)
