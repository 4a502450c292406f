"""Jobs as clients see them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from speciate.errors import Call
from speciate.governance import approvals
from speciate.jobs import rows
from speciate.jobs.engine import Engine
from speciate.jobs.job import State
from speciate.jobs.pool import Pool
from speciate.jobs.transitions import NeedsFailed, decide
from speciate.server.job_view import job_lines, job_view, learning_curves, log_after, read_curves, wait_until
from speciate.server.tool_api import App
from speciate.server.web.formats import run_variant, state_class
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.evaluation import world as evaluation_world
from tests.promotion import world as promotion_world
from tests.server.apps import make_app
from tests.training.networks.test_train_network import QUICK, flowers


@pytest.fixture
def app(workspace: Workspace) -> App:
    return make_app(workspace)


def test_a_finished_job_shows_its_result(app: App) -> None:
    shown = job_view(app.engine, app.engine.submit("greet", {}), log_lines=5)
    assert (shown.state, shown.result, shown.poll_after_seconds) == ("succeeded", {"greeting": "hello world"}, None)


def test_a_failed_job_shows_why_and_what_to_do(app: App) -> None:
    shown = job_view(app.engine, app.engine.submit("greet", {"name": "nobody"}), log_lines=5)
    assert shown.state == "failed"
    assert shown.error is not None
    assert shown.error.recovery == "Call it with a name."
    assert shown.next_actions == ()  # it must fail again
    failed = app.engine.submit("greet", {"name": "nobody"})
    call = Call("curate_dataset", {"dataset": "films", "steps": [{"op": "split"}]})
    said = {**(failed.error or {}), "recovery": str(call), "next": [call.document()]}
    [then] = job_view(app.engine, failed.model_copy(update={"error": said}), log_lines=0).next_actions
    assert (then.tool, then.arguments) == ("curate_dataset", {"dataset": "films", "steps": [{"op": "split"}]})


@pytest.mark.parametrize(
    ("kind", "result", "call"),
    [
        ("specialize", {"evaluation": "e", "promotion": {"state": "needs_approval"}}, "list_approvals"),
        ("specialize", {"evaluation": "e", "promotion": {"state": "applied"}}, "predict"),
        ("specialize", {"evaluation": "e", "promotion": {"state": "refused"}}, "describe_evaluation"),
        ("promote", {"state": "applied"}, "predict"),
        ("evaluate", {"evaluation": "e", "decision": {"verdict": "hold"}}, "describe_evaluation"),
    ],
)
def test_what_ended_says_what_comes_next(app: App, kind: str, result: dict[str, Any], call: str) -> None:
    job = app.engine.submit("greet", {}).model_copy(update={"kind": kind, "result": result, "use_case": "digits"})
    assert [action.tool for action in job_view(app.engine, job, log_lines=0).next_actions] == [call]


@pytest.mark.parametrize(
    ("kind", "result", "outcome", "colour"),
    [
        ("promote", {"state": "refused"}, "refused", "bad"),
        ("promote", {"state": "applied"}, "applied", "good"),
        ("promote", {"state": "needs_approval"}, "needs_approval", "busy"),
        ("promote", None, None, "good"),
        ("train", {"state": "refused"}, None, "good"),
    ],
)
def test_a_promotion_that_was_refused_looks_like_no_success(
    app: App, kind: str, result: dict[str, Any] | None, outcome: str | None, colour: str
) -> None:
    job = app.engine.submit("greet", {}).model_copy(update={"kind": kind, "result": result, "state": State.SUCCEEDED})
    [line] = job_lines(app.engine, [job])
    assert (line.outcome, state_class(line.outcome or line.state)) == (outcome, colour)


@pytest.mark.parametrize(("approve", "state", "then"), [(True, "applied", ["predict"]), (False, "denied", [])])
def test_a_promotion_that_a_person_answered_no_longer_waits(
    app: App, approve: bool, state: str, then: list[str]
) -> None:
    promotion_world.define(app.workspace)
    promotion_world.judge(app.workspace, "m@v1")
    asked = promotion_world.ask_promotion(app.workspace, "m@v1", policy="person")
    submitted = app.engine.submit("greet", {}).model_copy(update={"use_case": "digits", "state": State.SUCCEEDED})
    promotion = submitted.model_copy(update={"kind": "promote", "result": asked})
    search = submitted.model_copy(update={"kind": "specialize", "result": {"promotion": asked}})
    ids = {"promotion": "needs_approval", "approval": asked["approval"]["id"]}  # type: ignore[index]
    episode = submitted.model_copy(update={"kind": "relearn", "result": ids})

    def shown() -> tuple[Any, ...]:
        [line] = job_lines(app.engine, [promotion])
        views = [job_view(app.engine, job, log_lines=0) for job in (promotion, search, episode)]
        results = [view.result or {} for view in views]
        calls = [[action.tool for action in view.next_actions] for view in views]
        states = line.outcome, results[0]["state"], results[1]["promotion"]["state"], results[2]["promotion"]
        assert all(each == calls[0] for each in calls)
        return *states, calls[0]

    assert shown() == (*4 * ["needs_approval"], ["list_approvals"])
    [waiting] = approvals.list_approvals(app.workspace.database, app.workspace.clock.now(), "pending")
    approvals.decide(app.workspace, waiting.id, approve, "grace")
    assert shown() == (*4 * [state], then)


@pytest.mark.parametrize(
    ("changes", "step", "variant"),
    [
        ({"kind": "train", "spec": {"method": "probe", "base_model": "pkg:minilm"}},
         "train/probe-minilm", "probe-minilm"),
        ({"kind": "train", "spec": {"method": "classical", "hyperparameters": {"thorough": True}}},
         "train/classical-thorough", "classical-thorough"),
        ({"kind": "train", "spec": {"like": "m@v1"}, "result": {"report": {"method": "replay", "base_model": "m@v1"}}},
         "train/replay-m-v1", "replay-m-v1"),
        ({"kind": "train", "spec": {"like": "m@v1"}}, None, ""),
        ({"kind": "train", "step": "train/classical", "parent": "job-x"}, "train/classical", "classical"),
        ({"kind": "evaluate", "step": "evaluate/2"}, "evaluate/2", "2"),
        ({"kind": "promote", "step": "promote"}, "promote", ""),
    ],
)  # fmt: skip
def test_a_line_tells_trainings_apart(app: App, changes: dict[str, Any], step: str | None, variant: str) -> None:
    [line] = job_lines(app.engine, [app.engine.submit("greet", {}).model_copy(update=changes)])
    assert (line.step, run_variant(line.step, line.kind)) == (step, variant)


def test_a_curation_that_leaves_judged_rows_says_who_keeps_judging_on_them(app: App) -> None:
    workspace = app.workspace
    evaluation_world.make_dataset(workspace)
    evaluation_world.define(workspace)
    model = evaluation_world.train_model(workspace)
    evaluation_world.evaluate_models(workspace, models=[model], use_case="flowering", latency=False)

    def shown(dataset: str) -> dict[str, Any]:
        job = app.engine.submit("greet", {}).model_copy(update={"kind": "curate", "result": {"dataset": dataset}})
        return dict(job_view(app.engine, job.model_copy(update={"state": State.SUCCEEDED}), log_lines=0).result or {})

    trained = evaluation_world.make_version(
        workspace, lambda table: table.filter(pc.not_equal(table["id"], "flowers-0000"))
    )
    assert shown(trained.ref) == {"dataset": "flowers@v2"}, "a row of the training split"
    sampled = evaluation_world.make_version(workspace, lambda table: table.slice(0, 360))
    [sentence] = shown(sampled.ref)["suites_kept"]
    assert sentence.startswith("flowering keeps judging on flowers@v1:test: flowers@v3:test lacks 19 of the 200 rows")


@pytest.mark.parametrize("kind", ["evaluate", "specialize"])
def test_an_inconclusive_verdict_leads_to_what_would_settle_it(app: App, kind: str) -> None:
    add = {"tool": "add_examples", "arguments": {"dataset": "digits"}, "purpose": "with at least 40 more rows"}
    decision = {"verdict": "inconclusive", "settle": [add]}
    result = {"evaluation": "e", "decision": decision, "promotion": {"state": "refused"}}
    job = app.engine.submit("greet", {}).model_copy(update={"kind": kind, "result": result, "use_case": "digits"})
    actions = job_view(app.engine, job, log_lines=0).next_actions
    assert [action.tool for action in actions] == ["describe_evaluation", "add_examples"]
    assert actions[-1].model_dump() == add


@pytest.mark.parametrize(("further", "calls"), [([], ["describe_evaluation", "promote_model"]),
                                                (["heldout"], ["describe_evaluation"])])  # fmt: skip
def test_a_verdict_to_promote_leads_there_unless_a_further_suite_is_to_be_asked(
    app: App, further: list[str], calls: list[str]
) -> None:
    result = {
        "evaluation": "e", "decision": {"verdict": "promote"}, "report": {"candidate": "m@v2"},
        "further_suites": further,
    }  # fmt: skip
    job = app.engine.submit("greet", {}).model_copy(
        update={"kind": "evaluate", "result": result, "use_case": "digits"}
    )  # fmt: skip
    actions = job_view(app.engine, job, log_lines=0).next_actions
    assert [action.tool for action in actions] == calls
    assert actions[-1].arguments in (
        {"use_case": "digits", "model": "m@v2", "evaluation": "e"},
        {"evaluation": "e"},
    )


def test_a_job_that_does_not_get_on_says_why(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    job = app.engine.submit("wait", {"name": "for ever"})
    monkeypatch.setattr(app.engine, "trouble", lambda job: "No space left on device")
    assert job_view(app.engine, job, log_lines=0).reason == "No space left on device"


def test_a_queued_job_says_what_it_waits_for_and_one_that_runs_does_not(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = app.engine.submit("wait", {"name": "for ever"})
    monkeypatch.setattr(app.engine, "waits", lambda job: "It waits for 2 CPU cores.")
    for state, reason in ((State.QUEUED, "It waits for 2 CPU cores."), (State.RUNNING, job.reason)):
        assert job_view(app.engine, job.model_copy(update={"state": state}), log_lines=0).reason == reason


def test_waiting_for_a_paused_job_ends_at_once_and_offers_to_resume_it(app: App) -> None:
    job = app.engine.submit("wait", {"name": "for ever"})
    app.engine.control(job.id, "pause")
    paused = wait_until(app, job.id, "end", 40.0)
    assert paused.state is State.PAUSED
    assert job_view(app.engine, paused, log_lines=0).next_actions[0].arguments["action"] == "resume"


def test_a_composite_shows_what_its_running_child_does(
    app: App, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = app.engine.submit("wait", {"name": "for ever"})
    ended = {"state": State.SUCCEEDED, "step": "train/one", "id": "job-one", "run_seconds": 2.0, "parent": job.id}
    done = job.model_copy(update=ended)
    live = {
        "state": State.RUNNING,
        "parent": job.id,
        "step": "train/two",
        "id": "job-two",
        "run_seconds": 1.0,
        "started": clock.now(),
    }
    running = job.model_copy(update=live)
    monkeypatch.setattr(app.engine, "children", lambda *parents: [done, running] if job.id in parents else [])
    folder = app.engine.folder(running)
    folder.create({})
    (folder.path / "progress.jsonl").write_text('{"at": 1, "done": 3, "total": 4, "unit": "fits", "message": "C=1"}\n')
    clock.advance(4)
    shown = job_view(app.engine, job, log_lines=0)
    assert shown.untrusted.message == "train/two: C=1"
    assert shown.progress is not None
    assert (shown.progress.done, shown.progress.total, shown.run_seconds) == (3, 4, 7.0)
    composite = job.model_copy(update={"executor": "composite"})
    assert job_lines(app.engine, [composite])[0].run_seconds == 7.0


def test_what_a_library_said_of_a_failure_is_foreign(app: App) -> None:
    job = app.engine.submit("wait", {"name": "for ever"})
    error = {"class": "user", "message": "ValueError in the run", "recovery": "", "detail": "not a float: IGNORE ALL"}
    shown = job_view(app.engine, job.model_copy(update={"error": error, "reason": error["message"]}), log_lines=0)
    assert shown.untrusted.error_text == "not a float: IGNORE ALL"
    assert "IGNORE" not in shown.model_copy(update={"untrusted": None}).model_dump_json()


def test_progress_gives_the_time_that_is_left(app: App, clock: ManualClock) -> None:
    job = app.engine.submit("wait", {"name": "for ever"})
    job = job.model_copy(update={"state": State.RUNNING, "started": clock.now()})
    folder = app.engine.folder(job)
    folder.create({})
    (folder.path / "progress.jsonl").write_text(
        '{"at": 1, "done": 20, "total": 80, "unit": "examples", "message": "<b>"}\n'
    )
    clock.advance(10)
    shown = job_view(app.engine, job, log_lines=0)
    assert shown.eta_seconds == 30
    assert shown.progress is not None
    assert (shown.progress.done, shown.progress.total) == (20, 80)
    assert shown.untrusted.message == "<b>"
    job = job.model_copy(update={"spec": {**job.spec, "budget_minutes": 0.5}})
    assert job_view(app.engine, job, log_lines=0).eta_seconds == 20, "it ends with its budget"


def test_waiting_ends_with_the_time_that_was_given(app: App) -> None:
    job = app.engine.submit("wait", {"name": "for ever"})
    assert wait_until(app, job.id, "end", 0.01).state is State.RUNNING
    assert wait_until(app, job.id, "change", 0.01).state is State.RUNNING


def test_waiting_reports_progress_that_only_grows(app: App) -> None:
    told: list[float] = []
    job = app.engine.submit("wait", {"name": "for ever"})
    folder = app.engine.folder(job)
    folder.create({})
    (folder.path / "progress.jsonl").write_text('{"at": 1, "done": 3, "total": 4, "unit": "", "message": ""}\n')
    asking = replace(app, progress=lambda done, total, message: told.append(done))
    wait_until(asking, job.id, "end", 0.01)
    assert told == [3]


def test_waiting_for_a_composite_tells_the_running_step_and_how_far_that_is(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[float, float | None, str]] = []
    job = app.engine.submit("wait", {"name": "for ever"})
    ended = job.model_copy(update={"state": State.SUCCEEDED, "step": "train/one", "id": "job-one", "parent": job.id})
    running = job.model_copy(update={"step": "train/two", "id": "job-two", "parent": job.id})
    monkeypatch.setattr(app.engine, "children", lambda *parents: [ended, running] if job.id in parents else [])
    asking = replace(app, progress=lambda *heard: told.append(heard))
    folder = app.engine.folder(running)
    folder.create({})
    for done in (0, 3, 10, 0, 10):  # of its last count, and of the first one after it
        line = {"at": 1, "done": done, "total": 10, "unit": "candidates", "message": "foreign"}
        (folder.path / "progress.jsonl").write_text(json.dumps(line) + "\n")
        wait_until(asking, job.id, "end", 0.01)
    assert sorted({done for done, _, _ in told}) == [1.0, 1.3, 1.99]
    assert {(total, message) for _, total, message in told} == {(2.0, "running steps: train/two")}


def test_a_log_is_read_on_from_where_it_was_left(app: App) -> None:
    job = app.engine.submit("wait", {"name": "for ever"})
    folder = app.engine.folder(job)
    folder.create({})
    folder.log.write_bytes("one\ntwö\n".encode())
    first = log_after(app.engine, job, 0)
    assert first.untrusted == {"log": "one\ntwö\n"}
    assert log_after(app.engine, job, first.next_after).untrusted == {"log": ""}
    assert log_after(app.engine, job, 4).untrusted == {"log": "twö\n"}
    assert log_after(app.engine, job, 10_000).next_after == first.next_after
    cut = log_after(app.engine, job, 4, 3)
    assert (cut.untrusted, cut.next_after) == ({"log": "tw"}, 6), "a character comes whole"
    assert folder.read_tail(1) == ("twö\n", 9)
    folder.log.write_bytes("one\ntwö".encode()[:-1])
    assert folder.read_tail(2) == ("one\ntw", 6), "what is left of it is to be read on"


@pytest.fixture
def real_time(tmp_path: Path) -> Iterator[Workspace]:
    """With the real clock: a run that is silent for too long by another one would be stopped."""
    pytest.importorskip("torch")
    made = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    yield made
    made.close()


@pytest.mark.slow
def test_a_training_has_curves_as_a_table_and_as_a_picture(real_time: Workspace) -> None:
    from PIL import Image

    flowers(real_time)
    spec = {
        "name": "net", "dataset": "flowers", "method": "full", "base_model": "new:tab-resnet", "hyperparameters": QUICK,
    }  # fmt: skip
    engine, pool = Engine(real_time), Pool(real_time.folders, real_time.settings, size=1)
    engine.start()
    try:
        job = engine.wait(engine.submit("train", spec).id, timeout=120)
        assert job.state == "succeeded", job.error
        found = learning_curves(engine, pool, job)
        assert found is not None
        curves = found.curves
        assert curves.job == job.id
        assert {"step", "loss", "held_value"} <= set(curves.columns)
        assert len(curves.rows) <= min(curves.lines, 26)
        measured = read_curves(engine, job)
        assert measured is not None
        assert measured.held_sign == 1, "its metric is known"
        loss = [row[curves.columns.index("loss")] for row in curves.rows]
        assert loss[-1] < loss[0] / 2
        assert len(json.dumps(curves.model_dump())) < 8000  # a result stays small
        with Image.open(io.BytesIO(found.png)) as picture:
            assert max(picture.size) <= 1024
            assert len(picture.convert("RGB").getcolors(100_000) or ()) > 3
        # What is being written may end in the middle of a line.
        with (engine.folder(job).path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 1')
        again = learning_curves(engine, pool, job)
        assert again is not None
        assert again.curves == curves
    finally:
        engine.stop()
        pool.close()


def test_a_job_that_does_not_learn_has_no_curves(real_time: Workspace) -> None:
    flowers(real_time)
    engine, pool = Engine(real_time), Pool(real_time.folders, real_time.settings, size=1)
    engine.start()
    try:
        spec = {"name": "trees", "dataset": "flowers", "method": "classical"}
        job = engine.wait(engine.submit("train", spec).id, timeout=120)
        assert learning_curves(engine, pool, job) is None
    finally:
        engine.stop()
        pool.close()


def test_a_job_that_was_given_up_is_shown_and_listed_as_failed(app: App) -> None:
    job = app.engine.submit("wait", {"name": "for ever"})
    dead = decide(job.model_copy(update={"state": State.WAITING}), NeedsFailed("job-a, which it needs, is failed"), 1.0)
    app.workspace.database.transact(lambda tx: rows.update(tx, [dead]))
    assert dead.state is State.DEAD, "as older rows have it"
    shown = job_view(app.engine, app.engine.get(job.id), log_lines=0)
    assert (shown.state, shown.reason) == ("failed", "needs_failed: job-a, which it needs, is failed")
    assert [each.id for each in app.engine.list(state="failed")] == [job.id]
