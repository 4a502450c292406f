"""derive: a column computed from the others."""

from __future__ import annotations

import pytest

from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate


def test_a_new_column_is_computed_and_can_be_used_and_replaced(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=tuple(data.review_rows(20)), label="label")
    made = curate(
        workspace,
        "set",
        {"op": "derive", "column": "size", "sql": "length(text)"},
        {"op": "filter", "where": "size > 30"},
        {"op": "derive", "column": "size", "sql": "size * 2.5"},
        {"op": "derive", "column": "rank", "sql": "rank() OVER (ORDER BY text)"},
        {"op": "derive", "column": "total", "sql": "sum(length(text)) OVER ()"},
    )
    assert made.manifest.columns["size"] == "DOUBLE"
    assert made.manifest.columns["rank"] == made.manifest.columns["total"] == "BIGINT"
    assert made.manifest.inputs == ("text",)
    assert all(row["size"] == 2.5 * len(row["text"]) for row in made.rows.to_pylist())
    assert sorted(made.rows["rank"].to_pylist()) == list(range(1, made.rows.num_rows + 1))


@pytest.mark.parametrize(
    ("column", "sql", "said"),
    [
        ("label", "1", "cannot name a column of yours"),
        ("_content", "1", "cannot name a column of yours"),
        ("", "1", "cannot name a column of yours"),
        ("x" * 65, "1", "cannot name a column of yours"),
        ("text", "upper(text)", "is an input"),
        ("FILM", "1", "cannot tell 'FILM' from the column 'film'"),
        ("size", "lenght(text)", "lenght"),
        ("size", "length(txt)", "did you mean 'text'"),
        ("size", "1) AS a, (2", "not one expression"),
        ("size", "count(*)", "GROUP BY"),
        ("size", "random()", "at another time"),
        ("size", "row_number() OVER ()", "row_number() OVER without ORDER BY"),
        ("size", "lag(film) OVER (PARTITION BY label)", "lag() OVER without ORDER BY"),
        ("size", "sum(1) OVER (ROWS 2 PRECEDING)", "sum() OVER without ORDER BY"),
        ("size", "(SELECT min(film) FROM (SELECT film FROM examples OFFSET 3))", "LIMIT or OFFSET without ORDER BY"),
    ],
)
def test_what_cannot_become_a_column_is_refused(
    shared: Workspace, reviews: Manifest, column: str, sql: str, said: str
) -> None:
    with pytest.raises(SpeciateError) as raised:
        curate(shared, "reviews", {"op": "derive", "column": column, "sql": sql})
    assert said in raised.value.message
    assert raised.value.recovery
