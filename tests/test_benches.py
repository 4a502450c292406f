"""Each bench runs, with next to nothing, and its figures become a table that says what was kept and what changed."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_BENCH = Path(__file__).resolve().parent.parent / "evals" / "bench"
_QUICK = ("first_result", "jobs_per_second", "million_rows", "similar", "growth")
_OTHERS = ("job_start", "predicting", "ingest", "loader", "through_tools")


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(_BENCH))
    import table

    assert isinstance(table, ModuleType)
    return table


def figure(table: Any, *, ratio: float | None, low: float = 0.0, high: float = 0.0, **more: Any) -> Any:
    given = {"bench": "b", "what": "w", "unit": "ms", "ours": 2.0, "peer": "P", "theirs": 1.0, "goal": None}
    spread = {"ratio": ratio, "low": low, "high": high} if ratio is not None else {"ratio": None, "low": None}
    return table.Figure(**(given | {"high": None, "more": False} | spread | more))


@pytest.mark.parametrize("name", [*_QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in _OTHERS)])
def test_a_bench_runs_and_keeps_its_figures(table: Any, name: str) -> None:
    figures = table.run(name, smoke=True)
    assert figures, f"python evals/bench/{name}.py {' '.join(table.BENCHES[name].smoke)}"
    assert all(each.bench == name and each.ours >= 0 for each in figures)
    assert len({table._key(each) for each in figures}) == len(figures), "two figures of one name are one in the record"


def test_every_bench_of_the_table_is_tried_here(table: Any) -> None:
    assert set(table.BENCHES) == {*_QUICK, *_OTHERS}


def test_a_goal_is_kept_where_the_whole_interval_keeps_it(table: Any) -> None:
    assert figure(table, ratio=1.0, low=0.8, high=1.2, goal=1.2).reached is True
    assert figure(table, ratio=1.3, low=1.25, high=1.4, goal=1.2).reached is False
    assert figure(table, ratio=1.1, low=0.9, high=1.3, goal=1.2).reached is None
    assert figure(table, ratio=1.1, low=1.05, high=1.3, goal=1.0, more=True).reached is True
    assert figure(table, ratio=0.5, low=0.4, high=0.6, goal=1.0, more=True).reached is False
    assert figure(table, ratio=None, theirs=None, ours=30.0, goal=20.0, more=True).reached is True
    assert figure(table, ratio=1.0, low=0.8, high=1.2).reached is None


def test_a_figure_is_held_against_the_last_recorded_one(table: Any, tmp_path: Path) -> None:
    file = tmp_path / "recorded.jsonl"
    runs = [("old", 5.0), ("new", 1.0)]
    for commit, ratio in runs:
        before = figure(table, ratio=ratio, low=0.9 * ratio, high=1.1 * ratio)
        record = {"commit": commit, "when": "", "load": 0.0, "cores": 2, "figures": [before._asdict()]}
        with file.open("a") as out:
            out.write(json.dumps(record) + "\n")
    known = table.last_recorded(file)

    def shown(now: Any) -> str:
        return str(table.render(table.Record("c", "2026-01-01", 0.5, 2, [now]), known).splitlines()[-1])

    assert "1.00 (new)" in shown(figure(table, ratio=1.05, low=1.0, high=1.1))
    assert "**1.00: worse** (new)" in shown(figure(table, ratio=2.0, low=1.9, high=2.1))
    assert "**1.00: better** (new)" in shown(figure(table, ratio=2.0, low=1.9, high=2.1, more=True))
    assert shown(figure(table, ratio=2.0, low=1.9, high=2.1, what="other")).endswith("|  |")


def test_the_newest_table_stands_first_in_the_log(table: Any) -> None:
    log = "# Log\n\nNewest first.\n\n## old\n\ntext\n"
    assert table.with_section(log, "## new\n\nrows\n") == "# Log\n\nNewest first.\n\n## new\n\nrows\n\n## old\n\ntext\n"
