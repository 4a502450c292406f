"""A range of versions shows what changed, row by row, through the tool that an agent calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from speciate.datasets import version_rows
from speciate.errors import SpeciateError
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App
from speciate.tools.datasets import query_dataset
from speciate.workspace.workspace import Workspace
from tests import data


@pytest.fixture
def ask(shared: Workspace, pool: Pool) -> Any:
    app = cast(App, SimpleNamespace(workspace=shared, pool=pool))

    def rows(dataset: str, sql: str) -> list[list[Any]]:
        return query_dataset(app, dataset, sql=sql).untrusted.rows

    return rows


@pytest.fixture(scope="module")
def three_versions(shared: Workspace) -> None:
    """Forty reviews; two relabelled and one without label; then five more and one removed."""
    rows = data.review_rows(45)
    first = data.ingest(shared, "changing", rows=tuple(rows[:40]), label="label")
    ids = version_rows.read(shared.folders, first, ["id", "text"]).to_pylist()
    named = {row["text"]: row["id"] for row in ids}
    labels = {named[rows[0]["text"]]: "bad", named[rows[2]["text"]]: "bad", named[rows[1]["text"]]: None}
    data.label(shared, "changing", labels)
    data.ingest(shared, "changing", rows=tuple(rows[1:]), label="label")


def test_changed_rows_come_with_their_former_label(three_versions: None, ask: Any) -> None:
    found = ask(
        "changing@v1..v2", "SELECT change, label_before, label, count(*) FROM examples GROUP BY ALL ORDER BY ALL"
    )
    assert found == [["changed", "bad", None, 1], ["changed", "good", "bad", 2]]
    assert ask("changing@v2..v3", "SELECT change, count(*) FROM examples GROUP BY 1 ORDER BY 1") == [
        ["added", 5],
        ["changed", 2],  # their labels come from the source again
        ["removed", 1],
    ]


def test_a_split_and_a_tag_narrow_a_range(three_versions: None, ask: Any, shared: Workspace) -> None:
    data.run_job(shared, "tag", action="tag", ref="changing@v1", tag="gold")
    everything = ask("changing@gold..v3", "SELECT id FROM examples WHERE change = 'added'")
    parts = [ask(f"changing@gold..v3:{name}", "SELECT id FROM examples WHERE change = 'added'")
             for name in ("train", "validation", "test")]  # fmt: skip
    assert sorted(row for part in parts for row in part) == sorted(everything)
    assert len(everything) == 5


def test_a_version_has_no_changes_to_itself(three_versions: None, ask: Any) -> None:
    assert ask("changing@v2..v2", "SELECT count(*) FROM examples") == [[0]]


def test_whole_numbers_that_become_fractions_are_no_change(ask: Any, shared: Workspace) -> None:
    rows = [{"x": i, "counts": [i, 2 * i], "kind": "ab"[i % 2]} for i in range(12)]
    further = {"x": 0.5, "counts": [0.5, 1.0], "kind": "a"}
    for given in (rows, [*rows, further]):
        data.ingest(shared, "counts", rows=given, label="kind", inputs=("x",))
    assert ask("counts@v1..v2", "SELECT change, count(*) FROM examples GROUP BY 1 ORDER BY 1") == [["added", 1]]


def test_a_range_that_does_not_exist_is_named(three_versions: None, ask: Any) -> None:
    for dataset, message in (
        ("changing@v1..v9", "no version 9"),
        ("changing@silver..v2", "no tag 'silver'"),
        ("changing..v2", "is not a dataset"),
    ):
        with pytest.raises(SpeciateError, match=message):
            ask(dataset, "SELECT 1 FROM examples")
