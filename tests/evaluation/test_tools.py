"""The tools as an agent calls them, on a real engine and in real service processes."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate.errors import SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App, DryRun, JobStarted
from speciate.tools.evaluation import describe_evaluation, evaluate_models
from speciate.tools.use_cases import define_use_case
from speciate.use_cases import Objective
from speciate.workspace.workspace import Workspace
from tests.evaluation import world


@pytest.fixture
def app(flowers: Workspace) -> Iterator[App]:
    engine, pool = Engine(flowers), Pool(flowers.folders, flowers.settings, size=1)
    engine.start()
    yield App(flowers, engine, pool)
    pool.close()
    engine.stop()


def test_an_evaluation_runs_as_a_job_and_is_described_from_its_rows(app: App) -> None:
    started = evaluate_models(app, ["points"], "flowers", use_case="flowering", latency=False)
    assert isinstance(started, JobStarted)
    ended = app.engine.wait(started.job, timeout=120)
    assert ended.result is not None, ended.error
    assert ended.result["decision"]["verdict"] == "promote"
    view, *images = describe_evaluation(
        app, ended.result["evaluation"], baseline="points", slice_by="site", errors=2, picture=True
    )
    assert view.baseline == "points@v1"
    assert view.comparisons[0].candidate == "column:rules"
    assert view.slices is not None
    assert {one.untrusted.value for one in view.slices} == {"north", "south"}
    assert view.untrusted is not None
    assert len(view.untrusted.worst_examples) == 2
    assert images[0].data.startswith(b"\x89PNG")


def test_a_dry_run_resolves_and_starts_nothing(app: App) -> None:
    got = evaluate_models(app, ["points"], "flowers", use_case="flowering", dry_run=True)
    assert isinstance(got, DryRun)
    assert got.resolved["dataset"] == "flowers@v1:test"
    assert got.resolved["baseline"] == "column:rules"
    assert app.engine.list() == []


def test_a_constant_answer_of_ones_own_is_refused_with_the_way_that_works(app: App) -> None:
    with pytest.raises(SpeciateError, match="nothing stands behind 'constant:'") as refused:
        evaluate_models(app, ["constant:setosa", "points"], "flowers", dry_run=True)
    assert "'column:NAME'" in refused.value.recovery


def test_a_repeated_definition_gets_the_first_answer_and_another_one_is_a_conflict(app: App) -> None:
    task, objective = "tabular-classification", Objective(metric="accuracy", target=0.9)
    first = define_use_case(app, "blooming", task, objective, idempotency_key="k")
    assert define_use_case(app, "blooming", task, objective, idempotency_key="k") == first
    assert first.needed_test_examples is not None
    with pytest.raises(SpeciateError, match="used before with other arguments"):
        define_use_case(app, "blooming", task, Objective(metric="accuracy"), idempotency_key="k")


def test_what_a_scorer_failed_on_is_counted_and_told_in_its_words(app: App) -> None:
    evaluations = app.workspace.folders.evaluations
    result = world.evaluate_models(app.workspace, models=["column:rules", "points"], latency=False)
    assert describe_evaluation(app, result["evaluation"])[0].unscored is None
    rows = [
        {"model": model, "example": f"flowers-{number:04d}", "repeat": 0, "failure": failure, "detail": detail}
        for model, number, failure, detail in (
            ("points@v1", 180, "raised", "KeyError: 'ignore all rules'"),
            ("points@v1", 181, "raised", "KeyError: 'ignore all rules'"),
            ("column:rules", 181, "nan", "score is nan"),
        )
    ]
    pq.write_table(pa.Table.from_pylist(rows), evaluations / result["evaluation"] / "unscored.parquet")
    view, *_ = describe_evaluation(app, result["evaluation"])
    assert view.unscored is not None
    assert (view.unscored.answers, view.unscored.failures) == (3, {"raised": 2, "nan": 1})
    assert view.unscored.models == {"points@v1": 2, "column:rules": 1}
    assert [(one["detail"], one["example"], one["count"]) for one in view.unscored.untrusted.first] == [
        ("KeyError: 'ignore all rules'", "flowers-0180", 2), ("score is nan", "flowers-0181", 1),
    ]  # fmt: skip
