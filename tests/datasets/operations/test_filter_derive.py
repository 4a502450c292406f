"""filter keeps exactly the rows for which a condition is true; derive computes a column by SQL."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets.inspect.query import query
from speciate.datasets.inspect.sql_sandbox import select
from speciate.datasets.operations.context import Context
from speciate.datasets.versions import Manifest, names, resolve
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import apply, context_of, curate, read
from tests.drawn import drawn

cells = st.lists(
    st.tuples(st.none() | st.integers(-3, 3), st.none() | st.sampled_from(["a", "b", "it's", ""])),
    min_size=1, max_size=12,
)  # fmt: skip
atoms = st.sampled_from(
    ["x > 0", "x = y2", "kind = 'a'", "kind LIKE 'it%'", "x IS NULL", "length(kind) < 2", "x + y2 > 1"]
)
conditions = st.recursive(
    atoms,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["AND", "OR"]), inner)
        | st.builds("(NOT {})".format, inner)
    ),
    max_leaves=5,
)


class Unsandboxed(Pool):
    """Asks in this process: for a law that is tried many times."""

    def ask_for_file(self, service: str, payload: dict[str, Any], read: Any, *_: Any, **__: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            return read(Path(folder) / "selected.parquet", select(payload))


@pytest.fixture(scope="module")
def context(shared: Workspace, reviews: Manifest) -> Context:
    manifest = reviews.model_copy(update={"columns": {"x": "BIGINT", "y2": "BIGINT", "kind": "VARCHAR"}})
    return context_of(shared, manifest, Unsandboxed(shared.folders, shared.settings), "job-filter")


@pytest.fixture(scope="module")
def sized(shared: Workspace) -> Manifest:
    return data.ingest(shared, "sized", rows=({"text": "a short one", "length": 3}, {"text": "another", "length": 4}))


@given(cells, conditions)
@settings(max_examples=drawn(20, 4), deadline=None)
def test_a_condition_and_what_does_not_fulfil_it_share_out_the_rows(
    context: Context, rows: list[tuple[int | None, str | None]], where: str
) -> None:
    table = pa.table(
        {
            "id": [f"ex-{i:02}" for i in range(len(rows))],
            "x": pa.array([x for x, _ in rows], pa.int64()),
            "y2": pa.array([x and -x for x, _ in rows], pa.int64()),
            "kind": pa.array([kind for _, kind in rows], pa.string()),
        }
    )
    yes = apply(table, context, op="filter", where=where)["id"].to_pylist()
    no = apply(table, context, op="filter", where=f"NOT ({where}) OR ({where}) IS NULL")["id"].to_pylist()
    assert sorted(yes + no) == table["id"].to_pylist()


def test_it_keeps_the_rows_of_the_query_whatever_their_quality(workspace: Workspace) -> None:
    rows = [{"text": f"a text about the number {i}", "kind": "ab"[i % 2], "n": i} for i in range(20)]
    rows[3]["text"] = None
    data.ingest(workspace, "set", rows=tuple(rows), label="kind")
    where = "n < 8 AND n <> 2"
    made = curate(workspace, "set", {"op": "filter", "where": where})
    pool = Pool(workspace.folders, workspace.settings, size=1)
    shown = query(
        pool,
        workspace.folders,
        resolve(workspace.database, "set@v1"),
        sql=f"SELECT id FROM examples WHERE {where}",
    )
    pool.close()
    assert sorted(row[0] for row in shown.rows) == made.rows["id"].to_pylist()
    assert made.rows["quality"].to_pylist().count("error") == 1
    assert made.steps == [{"op": "filter", "before": 20, "after": 7}]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("lenght > 3", "no column 'lenght'; did you mean 'length'"),
        ("length >", "Not one SELECT"),
        ("true) ; DROP TABLE examples; SELECT (1", "is not allowed"),
        ("text IN (SELECT a FROM read_csv('/etc/passwd'))", "read_csv"),
    ],
)
def test_a_faulty_condition_is_refused_before_a_job_exists(
    shared: Workspace, sized: Manifest, where: str, message: str
) -> None:
    before = len(list(shared.folders.runs.iterdir()))
    with pytest.raises(SpeciateError) as raised:
        data.run_job(shared, "curate", dataset=sized.name, steps=[{"op": "filter", "where": where}])
    assert message in raised.value.message
    assert raised.value.message.startswith("Step 1 (filter)")
    assert raised.value.recovery
    assert len(list(shared.folders.runs.iterdir())) == before


@pytest.mark.parametrize(
    "where", ["random() < 0.5", "current_date > DATE '2020-01-01'", "uuid() <> text", "localtimestamp IS NOT NULL"]
)
def test_chance_and_time_are_refused(shared: Workspace, reviews: Manifest, where: str) -> None:
    with pytest.raises(SpeciateError, match="at another time") as raised:
        curate(shared, "reviews", {"op": "filter", "where": where})
    assert raised.value.code is Code.INVALID
    assert names(shared.database)


def test_columns_may_be_called_like_functions_of_chance_and_time(workspace: Workspace) -> None:
    rows = [{"text": f"a text about the number {i}", "age": i, "uuid": str(i), "now": i % 2} for i in range(20)]
    data.ingest(workspace, "set", rows=tuple({**row, "today": 1, "current_date": row["age"]} for row in rows))
    made = curate(
        workspace,
        "set",
        {"op": "filter", "where": "age > 3 AND now = 1 AND today = 1 AND examples.current_date < 18 AND uuid <> '9'"},
        {"op": "derive", "column": "twice", "sql": "age * 2"},
    )
    assert sorted(made.rows["twice"].to_pylist()) == [10, 14, 22, 26, 30, 34]
    with pytest.raises(SpeciateError, match="at another time") as raised:
        curate(workspace, "set", {"op": "filter", "where": "current_date < 18"})
    assert "examples.NAME" in raised.value.recovery


@pytest.mark.parametrize(
    ("without", "ordered"),
    [
        ("SELECT id FROM examples LIMIT 3", "SELECT id FROM examples ORDER BY id LIMIT 3"),
        ("SELECT DISTINCT ON (film) id FROM examples", "SELECT DISTINCT ON (film) id FROM examples ORDER BY film, id"),
    ],
)
def test_results_that_depend_on_an_order_must_name_one(
    shared: Workspace, reviews: Manifest, pool: Pool, without: str, ordered: str
) -> None:
    with pytest.raises(SpeciateError, match="without ORDER BY"):
        curate(shared, "reviews", {"op": "filter", "where": f"id IN ({without})"})
    rows, context = read(shared, "reviews"), context_of(shared, reviews, pool, f"job-ordered-{len(ordered)}")
    assert apply(rows, context, op="filter", where=f"id IN ({ordered})").num_rows in (3, 20)


def test_sums_of_fractions_repeat(tmp_path: Path) -> None:
    """Of many row groups, which several threads would add up in another order each time."""
    fractions = np.random.default_rng(0).lognormal(0, 20, 300_000)
    pq.write_table(pa.table({"x": fractions}), tmp_path / "rows.parquet", row_group_size=2048)
    sums = set()
    with contextlib.chdir(tmp_path):
        for _ in range(5):
            select({"file": str(tmp_path / "rows.parquet"), "sql": "SELECT sum(x) AS s FROM examples"})
            sums.add(pq.read_table("selected.parquet")["s"][0].as_py())
    assert len(sums) == 1


def test_hidden_columns_are_not_visible(shared: Workspace, reviews: Manifest) -> None:
    with pytest.raises(SpeciateError, match="no column '_content'"):
        curate(shared, "reviews", {"op": "filter", "where": "_content IS NOT NULL"})


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
    ("column", "sql", "message"),
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
def test_an_impossible_column_is_refused(
    shared: Workspace, reviews: Manifest, column: str, sql: str, message: str
) -> None:
    with pytest.raises(SpeciateError) as raised:
        curate(shared, "reviews", {"op": "derive", "column": column, "sql": sql})
    assert message in raised.value.message
    assert raised.value.recovery
