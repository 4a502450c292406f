"""describe_dataset stays short, however wide a dataset is."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from speciate.datasets.inspect import describe
from speciate.datasets.versions import Manifest, resolve
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App
from speciate.settings import Settings
from speciate.tools.datasets import DatasetList, DatasetView, describe_dataset
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.training.world import make_dataset


@pytest.fixture
def app(shared: Workspace, pool: Pool) -> App:
    return cast(App, SimpleNamespace(workspace=shared, pool=pool))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Of a workspace with the datasets a, b and c and no others."""
    workspace = Workspace(tmp_path_factory.mktemp("three") / "workspace", ManualClock(), Settings(policy="auto"))
    for name in ("a", "b", "c"):
        make_dataset(workspace, name, "text", {"text": ["one", "two"]}, labels=["x", "y"], splits=["train", "test"])
    pool = Pool(workspace.folders, workspace.settings)
    yield cast(App, SimpleNamespace(workspace=workspace, pool=pool))
    pool.close()
    workspace.close()


def test_many_columns_and_labels_are_counted_rather_than_listed(shared: Workspace, app: App) -> None:
    rows = [{f"c{i}": float(n) for i in range(70)} | {"label": f"l{n}"} for n in range(80)]
    data.ingest(shared, "wide", rows=tuple(rows), label="label", modality="tabular")
    view, chart = cast(Any, describe_dataset(app, "wide"))
    assert chart.data.startswith(b"\x89PNG")
    assert isinstance(view, DatasetView)
    assert (len(view.columns or ()), len(view.inputs or ()), len(view.labels)) == (60, 60, 50)
    assert view.not_shown is not None
    assert "30 more labels" in view.not_shown
    assert "more columns" in view.not_shown


def test_numbers_that_floats_cannot_hold_are_drawn(shared: Workspace, app: App) -> None:
    rows = [{"x": 9007199254740993 + i, "wide": (-1.7e308, 1.7e308)[i % 2], "label": "ab"[i % 2]} for i in range(20)]
    data.ingest(shared, "large", rows=tuple(rows), label="label", modality="tabular")
    _, chart = cast(Any, describe_dataset(app, "large"))
    assert chart.data.startswith(b"\x89PNG")


def test_a_label_of_numbers_is_drawn_once(shared: Workspace) -> None:
    rows = [{"weight": 20.5 + i, "feed": 1.5 * i} for i in range(30)]
    data.ingest(shared, "weighed", rows=tuple(rows), label="weight", modality="tabular")
    manifest = resolve(shared.database, "weighed")
    assert manifest.numeric
    assert describe._numbers(shared.folders, manifest) == ["feed"]


def test_the_list_of_all_datasets_has_no_columns(three: App) -> None:
    (listed,) = cast(Any, describe_dataset(three))
    assert isinstance(listed, DatasetList)
    assert [(view.version, view.columns) for view in listed.datasets] == [(f"{name}@v1", None) for name in "abc"]


def test_the_list_comes_in_pages(three: App) -> None:
    (first,) = cast(Any, describe_dataset(three, limit=2))
    (second,) = cast(Any, describe_dataset(three, limit=2, cursor=first.next_cursor))
    assert [view.version for view in (*first.datasets, *second.datasets)] == ["a@v1", "b@v1", "c@v1"]
    assert second.next_cursor is None


def test_history_tags_and_the_difference_of_two_versions(shared: Workspace, app: App) -> None:
    rows = data.review_rows(40)
    data.ingest(shared, "told", rows=tuple(rows), label="label", group_by="film")
    moved = [row | {"label": "good"} if row["label"] == "bad" and i < 10 else row for i, row in enumerate(rows)]
    data.ingest(shared, "told", rows=tuple(moved[1:]), label="label", group_by="film")
    data.run_job(shared, "tag", action="tag", ref="told@v1", tag="gold")
    view, _ = cast(Any, describe_dataset(app, "told", compare_to="told@gold"))
    assert [(step.version, step.operation, step.rows) for step in view.history] == [
        (2, "ingest", 39),
        (1, "ingest", 40),
    ]
    assert view.tags == {"gold": 1}
    between = view.difference
    assert (between.added, between.removed, between.changed) == (0, 1, 5)
    assert between.label_moves == (("bad", "good", 5),)


class Late(Pool):
    """Draws no chart in time; asks as ever."""

    code = Code.UNAVAILABLE

    def ask(self, service: str, payload: dict[str, Any], timeout: float = 20.0, **message: Any) -> dict[str, Any]:
        if service.endswith("draw_charts"):
            raise SpeciateError(self.code, "'draw_charts' did not finish within 20 s and was stopped.", "Ask for less.")
        return super().ask(service, payload, timeout, **message)


def test_a_chart_that_is_late_costs_no_more_than_the_chart(shared: Workspace, reviews: Manifest) -> None:
    pool = Late(shared.folders, shared.settings)
    app = cast(App, SimpleNamespace(workspace=shared, pool=pool))
    (view,) = cast(Any, describe_dataset(app, "reviews"))
    assert (view.version, view.examples) == ("reviews@v1", 80)
    assert "The chart was not drawn: 'draw_charts' did not finish within 20 s" in view.warnings[-1]
    pool.code = Code.INVALID  # other errors are raised
    with pytest.raises(SpeciateError):
        describe_dataset(app, "reviews")
    pool.close()
