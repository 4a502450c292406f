"""describe_dataset stays short, however wide a dataset is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from speciate.tools.datasets import DatasetList, DatasetView, describe_dataset

from speciate.server.surface import App
from speciate.workspace.workspace import Workspace
from tests import data


def test_many_columns_and_labels_are_counted_rather_than_listed(workspace: Workspace) -> None:
    rows = [{f"c{i}": float(n) for i in range(70)} | {"label": f"l{n}"} for n in range(80)]
    data.ingest(workspace, "wide", rows=tuple(rows), label="label", modality="tabular")
    app = cast(App, SimpleNamespace(workspace=workspace))
    view: Any = describe_dataset(app, "wide")
    assert isinstance(view, DatasetView)
    assert (len(view.columns or ()), len(view.inputs or ()), len(view.labels)) == (60, 60, 50)
    assert view.not_shown is not None
    assert "30 more labels" in view.not_shown
    assert "more columns" in view.not_shown


def test_the_list_of_all_datasets_has_no_columns(workspace: Workspace) -> None:
    data.ingest(workspace, "reviews", rows=tuple(data.review_rows()), label="label")
    listed: Any = describe_dataset(cast(App, SimpleNamespace(workspace=workspace)))
    assert isinstance(listed, DatasetList)
    assert [(view.version, view.columns) for view in listed.datasets] == [("reviews@v1", None)]
