"""A page of a grid: the cells that are read, and of which columns they are."""

from __future__ import annotations

from speciate.datasets.inspect.example_pages import ExampleFilter, example_page
from speciate.jobs.pool import Pool
from speciate.server.web.pages.data import tile_of
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset


def test_a_grid_of_table_rows_names_the_column_of_each_cell(shared: Workspace, pool: Pool) -> None:
    columns = {"age": [31, None], "smokes": ["no", "yes"]}
    manifest = make_dataset(
        shared, "births", "tabular", columns, labels=["a", "b"], splits=["train"] * 2, inputs=list(columns)
    )
    page = example_page(pool, shared.folders, manifest, ExampleFilter(), 10)
    assert page.read == ["age", "smokes"]
    shown = {tile_of(row, page.read).preview for row in page.rows}
    assert shown == {"age: 31\nsmokes: no", "smokes: yes"}, "a missing cell has no line"
    assert {tile_of(row).preview for row in page.rows} == {"31\nno", "yes"}
