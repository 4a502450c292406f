"""The ledger of a real workspace: what is read, and what is spent."""

from __future__ import annotations

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.executors import Alive, Ended
from speciate.jobs.folder import Outcome
from speciate.jobs.kinds import Kind, Kinds, Plan
from speciate.loop.effort import CallCounter, effort
from speciate.loop.ledger import Span, history_of, ledger, quantile, survival_curve, typical
from speciate.loop.time_to_model import TimeToModel
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.jobs.test_reconcile import Stage
from tests.jobs.work import ENTRY, Work
from tests.promotion import world

_USE_CASE = "use_case:digits"


def _planned(spec: Work, workspace: Workspace) -> Plan:
    return Plan(use_case="digits")


def _refuse(function: object) -> None:
    raise SpeciateError(Code.UNAVAILABLE, "The disk is full.")


def _insert(row: list[object], tx: Transaction) -> None:
    tx.execute("INSERT INTO model_versions VALUES (?, ?, ?, ?, ?, ?)", row)


def _event(workspace: Workspace, kind: str, **data: object) -> None:
    workspace.database.transact(lambda tx: tx.event(_USE_CASE, kind, dict(data)))


def test_a_model_is_counted_once_its_bake_is_over_and_its_time_goes_back_to_the_first_answer(
    workspace: Workspace, clock: ManualClock
) -> None:
    world.define(workspace)
    clock.advance(600)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    _event(workspace, "production.answered", model="m@v1")
    clock.advance(50_000)
    before = ledger(workspace)
    assert before.counts == {"done": 0, "provisional": 1, "open": 0}
    assert (before.baked.median_seconds, before.answered.median_seconds) == (None, 600.0)
    assert (before.deliveries.models_deployed_30d, before.deliveries.models_baking_30d) == (0, 1)
    _event(workspace, "promotion.survived", model="m@v1", alias="production")
    after = ledger(workspace)
    assert (after.counts["done"], after.baked.median_seconds) == (1, 600.0)
    assert (after.deliveries.models_deployed_30d, after.deliveries.models_baking_30d) == (1, 0)


def test_runs_of_a_use_case_are_stages_and_minutes(workspace: Workspace, clock: ManualClock) -> None:
    world.define(workspace)
    stage = Stage()
    work = Kind(name="train", spec=Work, plan=_planned, run=ENTRY)
    engine = Engine(workspace, Kinds(extra=[work]), executor=stage)
    job = engine.submit("train", {})
    clock.advance(30)
    engine.tick()
    stage.truth[f"{job.id}.1"] = Alive()
    engine.tick()
    clock.advance(120)
    stage.truth[f"{job.id}.1"] = Ended(Outcome(1, "user", "the label has one value"))
    engine.tick()
    (line,) = ledger(workspace).lines
    assert line.time_to_model.stages == pytest.approx({"queue": 30.0, "train": 120.0})
    assert line.in_all.compute_minutes == pytest.approx(2.0)


def test_exports_are_known_by_their_cards(workspace: Workspace) -> None:
    cards = [("m", {"method": "full"}), ("m-int8", {"method": "export", "parents": ["m@v1"]})]
    for name, card in cards:
        row = [name, 1, name, json.dumps({"name": name, **card}), None, 0.0]
        workspace.database.transact(partial(_insert, row))
    assert history_of(workspace, 0.0).exports == {}, "nobody asks where a version came from that never served"
    world.define(workspace)
    moved = {"alias": "production", "generation": 1, "action": "promote", "before": None, "after": "m-int8@v1"}
    _event(workspace, "alias.moved", **moved)
    assert history_of(workspace, workspace.clock.now()).exports == {"m-int8@v1": "m@v1"}


def test_a_clock_that_has_stopped_is_read_once_and_stays_what_it_was(
    workspace: Workspace, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.define(workspace)
    clock.advance(600)
    moved = {"alias": "production", "generation": 1, "action": "promote", "before": None, "after": "m@v1"}
    _event(workspace, "alias.moved", **moved)
    _event(workspace, "production.answered", model="m@v1")
    provisional = ledger(workspace).lines[0].time_to_model
    asked: list[str] = []
    read = Database.read
    monkeypatch.setattr(Database, "read", lambda self, sql, given=(): asked.append(sql) or read(self, sql, given))
    clock.advance(3600)
    assert ledger(workspace).lines[0].time_to_model == provisional
    assert not any("model.created" in sql for sql in asked), "events of all use cases are not read again"
    _event(workspace, "promotion.survived", model="m@v1", alias="production")
    done = ledger(workspace).lines[0].time_to_model
    assert (provisional.state, done.state) == ("provisional", "done")
    assert done.seconds == provisional.seconds == 600.0


def test_calls_are_counted_by_name_for_the_use_case_that_they_are_about(
    workspace: Workspace, clock: ManualClock
) -> None:
    world.define(workspace)
    calls = CallCounter(workspace)
    for tool, arguments in (
        ("define_use_case", {"name": "digits", "task": "x"}),
        ("predict", {"use_case": "digits", "inputs": ["a secret"]}),
        ("predict", {"use_case": "digits", "inputs": ["another"]}),
        ("predict", {"use_case": "no-such-name"}),
        ("list_jobs", {}),
        ("get_job", {"job": "job-unknown"}),
    ):
        calls.count(tool, arguments)
    calls.close()
    rows = workspace.database.read("SELECT use_case, tool, calls FROM tool_calls ORDER BY ALL")
    assert rows == [
        ("", "get_job", 1), ("", "list_jobs", 1), ("", "predict", 1), ("digits", "define_use_case", 1),
        ("digits", "predict", 2),
    ]  # fmt: skip
    clock.advance(7200)
    calls.count("predict", {"use_case": "digits"})
    calls.close()
    early = effort(workspace.database, "digits", clock.now() - 7200)
    assert (early.tool_calls, effort(workspace.database, "digits", clock.now()).tool_calls) == (3, 4)


def test_calls_that_cannot_be_written_now_are_written_later(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = CallCounter(workspace)
    calls.count("list_jobs", {})
    with monkeypatch.context() as full:
        full.setattr(workspace.database, "transact", _refuse)
        calls.write()
    calls.close()
    assert workspace.database.read("SELECT sum(calls) FROM tool_calls") == [(1,)]


def test_what_is_unfinished_is_longer_than_it_is_so_far() -> None:
    done = TimeToModel("done", 10.0, {}, "m@v1")
    clocks = [done, TimeToModel("provisional", 20.0, {}, "m@v1"), TimeToModel("open", 90.0, {}, None)]
    assert typical(clocks, "done").median_seconds is None
    assert typical(clocks, "done", "provisional").median_seconds == 20.0
    assert typical(clocks, "done", "provisional").p90_seconds is None


# The product-limit estimator against SciPy's, and what holds of it.


_spans = st.lists(st.builds(Span, st.integers(1, 20).map(float), st.booleans()), min_size=1, max_size=30)


@given(_spans.filter(lambda spans: any(span.finished for span in spans)))
def test_it_is_scipys(spans: list[Span]) -> None:
    data = stats.CensoredData(
        uncensored=[span.seconds for span in spans if span.finished],
        right=[span.seconds for span in spans if not span.finished],
    )
    ours = {step.seconds: step.longer for step in survival_curve(spans)}
    for seconds, longer in ours.items():
        assert stats.ecdf(data).sf.evaluate(seconds) == pytest.approx(longer)
    assert set(ours) == {span.seconds for span in spans if span.finished}


def test_of_what_is_all_over_it_is_the_usual_median() -> None:
    steps = survival_curve(Span(float(seconds), True) for seconds in (5, 1, 3, 2, 4))
    assert quantile(steps, 0.5) == 3.0
    assert quantile(steps, 0.9) == 5.0


def test_what_is_unfinished_makes_it_longer_and_never_shorter() -> None:
    over = [Span(float(seconds), True) for seconds in (1, 2, 3, 4)]
    assert quantile(survival_curve(over), 0.5) == 2.0
    assert quantile(survival_curve([*over, Span(3.5, False)]), 0.5) == 3.0


def test_where_too_few_are_over_nobody_knows_the_median() -> None:
    assert quantile(survival_curve([Span(1.0, True), Span(2.0, False), Span(9.0, False)]), 0.5) is None
    assert quantile(survival_curve([]), 0.5) is None
