"""`.df()` of results: rows and lists as frames of the library that is there, and a refusal where there is no table."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest

from speciate.errors import SpeciateError
from speciate.server.client_results import Shown
from speciate.server.result_frames import table_of
from speciate.server.tool_api import DryRun, Estimate, Result
from speciate.tools.datasets import ForeignRows, QueryResult
from speciate.tools.predictions import Output, Prediction, Predictions

ROWS = QueryResult(columns=("id", "kind"), untrusted=ForeignRows(rows=[["a", 1], ["b", None]]))
ANSWERS = Predictions(
    predictions=(
        Prediction(id="0", confidence=0.5, untrusted=Output(output="good")),
        Prediction(id="1", error="unreadable", untrusted=Output(output={"label": "bad"})),
    ),
    model="reviews@v1",
    latency_ms=3.0,
)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The libraries for frames that are there."""
    there = set[str]()
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: (name in there or None) if name in ("pandas", "polars") else real(name, *more),
    )
    return there


def test_rows_are_a_table_by_their_columns(only: set[str]) -> None:
    table = ROWS.df()
    assert isinstance(table, pa.Table)
    assert table.to_pydict() == {"id": ["a", "b"], "kind": [1, None]}
    assert Shown(ROWS).df() == table


def test_answers_are_a_row_each_with_what_is_under_untrusted(only: set[str]) -> None:
    table = ANSWERS.df().to_pydict()
    assert table["id"] == ["0", "1"]
    assert table["output"] == ["good", '{"label": "bad"}']
    assert table["error"] == [None, "unreadable"]


def test_pandas_comes_before_polars(only: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    monkeypatch.setitem(sys.modules, "polars", SimpleNamespace(from_arrow=lambda table: ("polars", table)))  # type: ignore[arg-type]  # a stand-in
    only.add("polars")
    assert ROWS.df() == ("polars", table_of(ROWS.model_dump()))
    only.add("pandas")
    assert isinstance(ROWS.df(), pandas.DataFrame)
    assert list(ROWS.df().columns) == ["id", "kind"]


def test_values_of_several_types_are_json() -> None:
    found = table_of({"columns": ["box"], "untrusted": {"rows": [["none"], [[1, 2]], [None]]}})
    assert found is not None
    assert found.to_pydict() == {"box": ['"none"', "[1, 2]", None]}


@pytest.mark.parametrize("odd", [2**63 + 5, 2**70, "\ud800"])
def test_what_arrow_does_not_hold_is_json(odd: int | str) -> None:
    found = table_of({"columns": ["n"], "untrusted": {"rows": [[odd], ["a" if isinstance(odd, str) else 1], [None]]}})
    assert found is not None
    first, *_, last = found.to_pydict()["n"]
    assert (json.loads(first), last) == (odd, None)


def test_columns_of_one_name_are_numbered() -> None:
    found = table_of({"columns": ["a", "a", "a_2", "a"], "untrusted": {"rows": [[1, 2, 3, 4]]}})
    assert found is not None
    assert found.column_names == ["a", "a_3", "a_2", "a_4"]
    assert [column.to_pylist() for column in found.columns] == [[1], [2], [3], [4]]


@pytest.mark.parametrize("result", [DryRun(valid=True, estimate=Estimate(), resolved={}), ANSWERS.predictions[0]])
def test_a_result_without_a_table_says_what_it_has(result: Result) -> None:
    with pytest.raises(SpeciateError, match="has no table") as refused:
        result.df()
    assert next(iter(type(result).model_fields)) in refused.value.recovery
