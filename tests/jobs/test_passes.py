"""What one pass of the reconciler tells, starts and stops, over rows in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speciate.errors import Call, Code, SpeciateError
from speciate.jobs import allowances, egress, reconcile
from speciate.jobs.allowances import Ledger, Spend
from speciate.jobs.egress import Departure
from speciate.jobs.executors import Abandoned, Alive, Ended, Gone, Pending, Unreachable
from speciate.jobs.folder import Outcome, RunFolder
from speciate.jobs.job import Job, Limits, Resources, State
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run
from speciate.jobs.schedule import USUAL_BYTES
from speciate.settings import Capacity, Settings, safety
from speciate.workspace.disk_space import GB, DiskSpace
from speciate.workspace.workspace import Workspace
from tests.jobs.memory import ROOMY, MemoryPlaces, World, a_plan
from tests.jobs.work import ENTRY, Work

FULL = DiskSpace(total=400 * GB, free=GB // 2, floor=GB)
Q, S, R, P, OK, F, D = (
    State.QUEUED, State.STARTING, State.RUNNING, State.PAUSED, State.SUCCEEDED, State.FAILED, State.DEAD,
)  # fmt: skip
PLANNED: list[str] = []


def plan(spec: Work, workspace: Workspace) -> Plan[Any]:
    assert isinstance(spec, Work)
    assert workspace.folders.runs.name == "runs"
    PLANNED.append("plain")
    return Plan(payload={"planned": True})


def refuse(spec: Work, workspace: Workspace) -> Plan[Any]:
    raise SpeciateError(Code.NOT_FOUND, "It is gone.", "Bring it back.", next=[Call("list_datasets", {})])


def break_down(spec: Work, workspace: Workspace) -> Plan[Any]:
    raise ZeroDivisionError("by nothing")


PLAIN = Kind(name="plain", spec=Work, plan=plan, run=ENTRY, preload="data")
TIMED = replace(PLAIN, name="timed", limits=Limits(run_seconds=50, silence_seconds=20, grace_seconds=10))
HASTY = replace(PLAIN, name="hasty", limits=Limits(queue_seconds=100))
SWEEPS = replace(PLAIN, name="sweeps", gives_room=True)
REFUSED = replace(PLAIN, name="refused", plan=refuse)
BROKEN = replace(PLAIN, name="broken", plan=break_down)
KINDS = [PLAIN, TIMED, HASTY, SWEEPS, REFUSED, BROKEN]


@pytest.fixture
def world(tmp_path: Path) -> World:
    PLANNED.clear()
    return World(tmp_path, KINDS)


def ended(kind: str, **given: Any) -> Ended:
    return Ended(Outcome(0 if kind == "ok" else 1, kind, "said so", **given))


# A pass


def test_a_pass_counts_what_lives_or_may_start_and_saves_the_clock(world: World) -> None:
    world.live()
    world.live()
    world.add()
    world.add(not_before=world.clock.now() + 5)
    world.add(state=State.WAITING)
    assert world.tick() == 4
    assert world.saved == 1
    world.disk = FULL
    assert world.tick() == 3, "who waits for the disk is not among them"


def test_rows_are_read_only_after_a_commit(world: World) -> None:
    world.live()
    world.tick()
    reads = len(world.catalog.asked)
    world.tick()
    assert len(world.catalog.asked) == reads
    job = world.add()
    world.tick()
    assert world.job(job).state is S


def test_what_ends_makes_room_in_the_same_pass_and_commit(world: World) -> None:
    ends, lives, waits = world.live(), world.live(), world.add(plan=a_plan())
    world.tick()
    assert world.states(waits) == [Q]
    world.is_true(ends, ended("user"))
    commits = world.catalog.commits
    world.tick()
    assert world.states(ends, lives, waits) == [F, R, S]
    assert world.catalog.commits == commits + 1


def test_an_end_is_committed_before_a_plan_is_made(world: World) -> None:
    seen = list[State]()

    def look(spec: Work, workspace: Workspace) -> Plan[Any]:
        seen.append(world.job(ends).state)
        return Plan()

    world.kinds.add(replace(PLAIN, name="looks", plan=look))
    ends, lives = world.live(), world.live()
    world.add("looks")
    world.is_true(ends, ended("user"))
    world.tick()
    assert seen == [F]
    assert world.job(lives).state is R


def test_while_draining_nothing_starts_and_ends_are_told(world: World) -> None:
    ends, waits, late = world.live(), world.add(), world.add("hasty")
    world.is_true(ends, ended("ok"))
    world.reconciler.draining = True
    assert world.tick(101) == 2
    assert world.states(ends, waits, late) == [OK, Q, D]


def test_what_is_not_due_is_neither_planned_nor_started(world: World) -> None:
    job = world.add(not_before=world.clock.now() + 5)
    world.tick(4)
    assert (world.states(job), PLANNED) == ([Q], [])
    world.tick(1)
    assert (world.states(job), PLANNED) == ([S], ["plain"])


# Runs that live


def test_a_run_is_seen_alive_and_judged_at_once(world: World) -> None:
    job = world.add("timed", S, attempt=1, started=world.clock.now())
    world.stage.truth[f"{job}.1"] = Alive()
    world.tick(51)
    assert (world.job(job).state, world.job(job).request) == (R, "stop")
    assert world.stage.cancelled == [(f"{job}.1", False)]
    assert world.job(job).reason == "timed_out: its limit of 50 s (run) passed"


def test_a_limit_is_passed_only_when_it_is(world: World) -> None:
    job = world.live("timed")
    for seconds in (10, 10, 10, 10, 10):
        world.progress(job, 1)
        world.tick(seconds)
    assert (world.job(job).request, world.stage.cancelled) == (None, []), "50 s are allowed, and 10 of silence"
    world.progress(job, 1)
    world.tick(1)
    assert world.job(job).request == "stop"
    silent = world.live("timed")
    world.tick(20)
    assert world.job(silent).request is None
    world.tick(1)
    assert world.job(silent).reason == "timed_out: its limit of 20 s (silence) passed"
    assert (f"{silent}.1", False) in world.stage.cancelled


def test_a_request_is_passed_on_once_and_forced_after_its_grace_until_it_ends(world: World) -> None:
    job = world.live("timed", request="cancel", request_at=world.clock.now())
    other = world.live(request="pause")  # from before requests had a time
    for _ in range(2):
        world.tick(5)
    assert world.stage.cancelled == [(f"{job}.1", False)], "10 s of grace have not passed"
    world.tick(1)
    world.tick()
    assert world.stage.cancelled[1:] == [(f"{job}.1", True)] * 2
    assert world.states(job, other) == [R, R]
    world.is_true(job, ended("killed"))
    world.tick()
    assert world.states(job) == [State.CANCELLED]
    assert world.places.forgotten == [f"{job}.1"]


@pytest.mark.parametrize("truth", [Pending(), Unreachable("away"), Abandoned("gone")])
def test_a_request_reaches_a_run_that_is_not_seen(world: World, truth: Any) -> None:
    job = world.live("timed", request="pause", request_at=world.clock.now())
    world.is_true(job, truth)
    world.tick()
    world.tick(11)
    assert world.stage.cancelled == [(f"{job}.1", False), (f"{job}.1", True)]
    assert (world.states(job), world.stage.submitted) == ([R], [])


def test_a_run_that_cannot_be_seen_is_left_alone(world: World) -> None:
    jobs = [world.live("timed"), world.live("timed")]
    for job, truth in zip(jobs, (Unreachable("away"), Abandoned("gone")), strict=True):
        world.is_true(job, truth)
    world.tick(1000)
    assert (world.states(), world.stage.submitted, world.stage.cancelled) == ([R, R], [], [])


def test_a_start_that_nobody_saw_is_repeated_after_five_seconds(world: World) -> None:
    job = world.add(plan=a_plan())
    world.tick()
    world.tick(5)
    assert world.stage.submitted == [f"{job}.1"]
    world.tick(1)
    assert world.stage.submitted == [f"{job}.1"] * 2
    world.tick(1)
    world.reconciler = world.restarted()
    world.tick()
    assert world.stage.submitted == [f"{job}.1"] * 3, "another daemon knows of no launch"
    assert world.stage.specs[f"{job}.1"]["attempt"] == 1


def test_a_start_without_a_plan_is_called_off(world: World) -> None:
    job, far = world.add("refused", S), world.add("refused", S, resources=Resources(place="far"))
    world.change(job, handle=None)
    world.tick()
    assert (world.stage.cancelled, world.places.stage.cancelled) == ([(f"{job}.1", False)], [(f"{far}.1", False)])
    assert world.states() == [S, S]
    world.is_true(job, Gone())
    world.tick()
    world.tick()
    assert world.states(job) == [F]


def test_a_loss_after_progress_is_the_first_one_again(world: World) -> None:
    for steps, losses in (((3, 5), 1), ((5, 5), 5), ((5, 3), 5), ((2, None), 5), ((None, None), 5), ((None, 1), 1)):
        job = world.live(attempt=2, losses=4)
        for attempt, done in enumerate(steps, start=1):
            if done is not None:
                world.progress(job, done, attempt)
        world.is_true(job, Gone())
        world.tick(2)
        assert (world.job(job).state, world.job(job).losses) == (Q, losses), steps
        assert world.job(job).run_seconds == 2
        world.change(job, state=State.CANCELLED)
    assert world.places.forgotten == [f"job-{number:02}.2" for number in range(6)]
    first = world.live(losses=4)
    world.progress(first, 1)
    world.is_true(first, Gone())
    world.tick()
    assert world.job(first).losses == 1


def test_the_time_of_a_run_is_measured_where_its_beginning_is_known(world: World) -> None:
    known, unknown = world.live(), world.live()
    world.change(unknown, started=None)
    lost = world.live()
    for job in (known, unknown):
        world.is_true(job, ended("transient"))
    world.is_true(lost, Gone())
    world.jump(1000)
    world.tick(7)
    assert [world.job(job).run_seconds for job in (known, unknown, lost)] == [7, 0, 7], "not by the clock"
    assert world.job(known).losses == 0


def test_a_run_that_is_given_up_counts_until_it_was_last_heard(world: World) -> None:
    heard: dict[str, float | None] = {"early": 3.0, "late": 999.0, "before": -5.0, "never": None}
    jobs = {name: world.live(request="cancel", request_at=world.clock.now()) for name in heard}
    nowhere = world.live(request="cancel", request_at=world.clock.now())
    world.change(nowhere, started=None)
    began = world.clock.now()
    for name, at in heard.items():
        if at is not None:
            world.progress(jobs[name], 1)
            os.utime(world.folder(jobs[name]).path / "progress.jsonl", (began + at, began + at))
    for job in (*jobs.values(), nowhere):
        world.is_true(job, Abandoned("nobody knows"))
    world.tick(10)
    assert {name: world.job(job).run_seconds for name, job in jobs.items()} == {
        "early": 3.0, "late": 10.0, "before": 0.0, "never": 0.0,
    }  # fmt: skip
    assert set(world.states()) == {State.CANCELLED}
    assert world.job(jobs["never"]).reason == "cancelled on request; nobody knows"
    assert len(world.places.forgotten) == 5


# What a run leaves


def test_an_end_is_told_with_its_progress_time_and_result(world: World) -> None:
    fails, full, ends = world.live(), world.live(losses=4, attempt=2), world.live()
    for job, truth in ((fails, ended("user", recovery="Mend it.")), (full, ended("full")), (ends, ended("ok"))):
        world.is_true(job, truth)
    world.progress(full, 1, 1)
    world.progress(full, 2, 2)
    (world.folder(ends).outputs / "result.json").write_text('{"value": 7}')
    world.tick(3)
    assert world.states(fails, full, ends) == [F, Q, OK]
    assert world.job(fails).error == {"class": "user", "message": "said so", "recovery": "Mend it."}
    assert (world.job(full).losses, world.job(full).run_seconds) == (1, 3)
    assert (world.job(ends).result, world.job(ends).run_seconds) == ({"value": 7}, 3)
    assert sorted(world.places.forgotten) == [f"{fails}.1", f"{full}.2", f"{ends}.1"]


@pytest.mark.parametrize("truth", [ended("stopped"), Gone()])
@pytest.mark.parametrize(
    ("request_made", "kept", "state", "value"),
    [("stop", (1, 2), OK, 2), ("stop", (1,), OK, 1), ("stop", (), D, None), ("cancel", (1, 2), State.CANCELLED, None),
     (None, (1, 2), Q, None)],
)  # fmt: skip
def test_a_limit_ends_in_the_newest_result_that_was_kept(
    world: World, truth: Any, request_made: str | None, kept: tuple[int, ...], state: State, value: int | None
) -> None:
    job = world.live("timed", attempt=2, request=request_made)
    for attempt in kept:
        world.folder(job, attempt).create({"job": job, "workspace": "/w", "payload": {}})
        Run(world.folder(job, attempt)).keep_best(lambda outputs, attempt=attempt: {"value": attempt})  # type: ignore[misc]
    world.is_true(job, truth)
    world.tick()
    assert (world.job(job).state, (world.job(job).result or {}).get("value")) == (state, value)


def test_a_whole_result_stands_before_one_that_was_kept(world: World) -> None:
    job = world.live(request="stop")
    world.folder(job).create({"job": job, "workspace": "/w", "payload": {}})
    Run(world.folder(job)).keep_best(lambda outputs: {"value": 1})
    (world.folder(job).outputs / "result.json").write_text('{"value": 2}')
    world.is_true(job, ended("ok"))
    world.tick()
    assert world.job(job).result == {"value": 2}


def _collects(error: Exception) -> Kind:
    def collect(folder: RunFolder) -> Any:
        raise error

    return replace(PLAIN, name="collects", collect=collect)


def _commits(*errors: Exception | None) -> Kind:
    """The last one again and again."""
    left = list(errors)

    def commit(tx: Any, job: Job, collected: Any) -> Mapping[str, object]:
        error = left.pop(0) if len(left) > 1 else left[0]
        if error is not None:
            raise error
        return {"value": 5}

    return replace(PLAIN, name="commits", commit=commit)


REFUSAL = SpeciateError(
    Code.CONFLICT, "It is there.", "Take another name.", foreign="quoted", next=[Call("get_job", {"job": "a"})]
)
AS_ERROR = {
    "class": "user", "recovery": "Take another name. Call get_job(job='a').", "detail": "quoted",
    "next": ({"tool": "get_job", "arguments": {"job": "a"}},),
}  # fmt: skip


def test_outputs_that_cannot_be_used_fail_the_job_with_why(world: World) -> None:
    for error, said in (
        (REFUSAL, AS_ERROR | {"message": "its outputs cannot be used: It is there.", "recovery": REFUSAL.recovery}),
        (
            ValueError("torn"),
            {"class": "user", "message": "its outputs cannot be used: ValueError", "detail": "torn",
             "recovery": "The daemon's log has the traceback."},
        ),
    ):  # fmt: skip
        world.kinds.add(_collects(error))
        job = world.live("collects")
        world.is_true(job, ended("ok"))
        world.tick()
        assert (world.job(job).state, world.job(job).reason) == (F, said["message"])
        found = dict(world.job(job).error or {})
        assert [dict(call) for call in found.pop("next", ())] == [dict(call) for call in said.pop("next", ())]  # type: ignore[attr-defined,call-overload]
        assert found == said


def test_what_was_collected_is_registered_in_the_transaction_that_ends_the_job(
    world: World, recorded: list[tuple[object, ...]]
) -> None:
    seen = list[tuple[object, ...]]()

    def commit(tx: Any, job: Job, collected: Any) -> Mapping[str, object]:
        seen.append((tx, job.state, collected))
        return {"value": 5}

    kind = replace(PLAIN, name="commits", collect=lambda folder: folder.run_id, commit=commit)
    world.kinds.add(replace(kind, paid=lambda folder: {("a", "host"): 2.0}))
    job = world.live("commits")
    (world.folder(job).path / "supervisor").touch()
    world.is_true(job, ended("ok"))
    world.tick()
    assert seen == [(world.catalog, OK, f"{job}.1")]
    assert world.job(job).result == {"value": 5}
    assert recorded == [("a", "host", 2.0, job)]


def test_a_registration_that_is_refused_is_the_jobs_error(world: World) -> None:
    world.kinds.add(_commits(REFUSAL))
    job = world.live("commits")
    world.is_true(job, ended("ok"))
    world.jump(1000)
    world.tick(4)
    found = world.job(job)
    assert (found.state, found.reason, found.run_seconds) == (F, "It is there.", 4)
    assert found.error is not None
    assert (found.error["class"], found.error["recovery"]) == ("user", REFUSAL.recovery)
    assert (found.error["detail"], len(found.error["next"])) == ("quoted", 1)
    assert world.places.forgotten == [f"{job}.1"]


def test_a_registration_without_room_waits_for_as_long_as_it_takes(world: World) -> None:
    full = SpeciateError(Code.UNAVAILABLE, "The disk is full.", "Free some space.")
    world.kinds.add(_commits(*[full] * 12, None))
    job = world.live("commits")
    world.is_true(job, ended("ok"))
    for _ in range(12):
        world.tick(61)
        assert (world.job(job).state, world.reconciler.trouble(job)) == (R, str(full))
    world.tick(61)
    assert (world.job(job).state, world.job(job).result) == (OK, {"value": 5})
    world.tick()
    assert world.reconciler.trouble(job) is None


def test_a_registration_that_breaks_is_tried_again_after_growing_pauses_and_then_fails(
    world: World, recorded: list[tuple[object, ...]]
) -> None:
    world.kinds.add(replace(_commits(OSError("read-only")), paid=lambda folder: {("a", "host"): 2.0}))
    job = world.live("commits")
    (world.folder(job).path / "supervisor").touch()
    world.is_true(job, ended("ok"))
    world.jump(1000)
    world.tick()
    assert world.reconciler.trouble(job) == "read-only"
    for n in range(8):
        pause = 0.1 * 2**n
        for seconds, times in ((pause / 2, n + 1), (pause / 2 + 0.001, n + 2)):
            assert world.job(job).state is R
            world.tick(seconds)
            assert world.reconciler._troubles.get(job, reconcile.Trouble(n + 2)).times == times
    found = world.job(job)
    assert (found.state, found.reason) == (F, "its outputs could not be registered: OSError")
    assert found.error == {
        "class": "user", "message": found.reason, "detail": "read-only",
        "recovery": "The daemon's log has the traceback.",
    }  # fmt: skip
    assert found.run_seconds == pytest.approx(25.508)
    assert recorded == [("a", "host", 2.0, job)]


def test_one_job_in_trouble_stops_no_other_and_is_looked_at_after_a_pause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good, looks = world.live(), world.live(), list[float]()
    poll = world.stage.poll

    def troubled(handle: Any) -> Any:
        if handle["run"] == f"{bad}.1":
            looks.append(world.clock.now())
            raise OSError("its folder cannot be read")
        return poll(handle)

    monkeypatch.setattr(world.stage, "poll", troubled)
    world.is_true(good, ended("user"))
    world.tick()
    world.tick(0.05)
    assert len(looks) == 1
    assert (world.states(bad, good), world.reconciler.trouble(bad)) == ([R, F], "its folder cannot be read")
    world.tick(0.1)
    assert len(looks) == 2
    world.tick(0.2)
    assert len(looks) == 3, "at the end of the pause"
    for n in range(2, 12):
        pause = min(60.0, 0.1 * 2**n)  # a minute at most
        world.tick(pause / 2)
        assert len(looks) == n + 1
        world.tick(pause / 2 + 0.001)
        assert len(looks) == n + 2
    monkeypatch.undo()
    world.tick(61)
    assert world.reconciler.trouble(bad) is None


def test_a_pass_goes_by_each_point_at_which_a_daemon_is_killed_in_tests(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = list[str]()
    monkeypatch.setattr(reconcile, "fault", points.append)
    job = world.add(plan=a_plan())
    world.tick()
    world.is_true(job, Gone())
    world.tick()
    world.tick(10)
    world.is_true(job, ended("ok"))
    world.tick()
    start = ["claim_after_commit", "launched"]
    assert points == [*start, "lost_before_commit", *start, "finish_before_commit", "finish_after_commit"]


# Money


@pytest.fixture
def recorded(world: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Dataset, host, USD and job of what was recorded as paid."""
    monkeypatch.setattr(allowances, "record", lambda tx, *row: tx.paid.append(row))
    return world.catalog.paid


@pytest.mark.parametrize("truth", [ended("ok"), ended("user"), Gone(), Abandoned("gone")])
def test_what_a_run_paid_is_recorded_however_it_ends(
    world: World, recorded: list[tuple[object, ...]], truth: Any
) -> None:
    world.kinds.add(replace(PLAIN, name="pays", paid=lambda folder: {(folder.run_id, "host"): 2.0, ("b", "host"): 0.0}))
    job = world.live("pays", request="cancel", request_at=world.clock.now())
    unbegun = world.live("pays", request="cancel", request_at=world.clock.now())
    (world.folder(job).path / "supervisor").touch()
    for each in (job, unbegun):
        world.is_true(each, truth)
    world.tick()
    assert recorded == [(f"{job}.1", "host", 2.0, job)]


def test_a_refused_registration_records_what_was_paid_and_damaged_journals_spend_the_whole_share(
    world: World, recorded: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(folder: RunFolder) -> Mapping[tuple[str, str], float]:
        raise ValueError("torn")

    ledger = Ledger({("a", "host"): 3.0}, {("a", "host"): {"job-01": 2.5}}, {})
    monkeypatch.setattr(allowances, "ledger", lambda database: ledger if database is world.catalog else None)
    world.kinds.add(replace(_commits(REFUSAL), paid=lambda folder: {("b", "host"): 1.0}))
    world.kinds.add(replace(PLAIN, name="damaged", paid=damaged))
    refused = world.live("commits")
    torn = world.live("damaged", plan=a_plan(spends=(Spend(dataset="a", host="host", usd=2.0),)))
    free = world.live("damaged")
    for each in (refused, torn, free):
        (world.folder(each).path / "supervisor").touch()
        world.is_true(each, ended("ok"))
    world.tick()
    assert sorted(recorded) == [("a", "host", 2.0, torn), ("b", "host", 1.0, refused)]
    assert world.states(refused, torn, free) == [F, OK, OK]


@pytest.fixture
def ledgers(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A person allowed 5 USD for "a". Grows with each look at what is spent; runs that live hold their share."""
    looks = list[int]()

    def look(database: object) -> Ledger:
        assert database is world.catalog
        looks.append(world.catalog.commits)
        plans = {job: Plan.model_validate_json(text) for job, text in world.catalog.plans.items()}
        live = {job: plan.spends for job, plan in plans.items() if world.job(job).state in {S, R}}
        return Ledger({("a", "host"): 5.0}, {}, live)

    monkeypatch.setattr(allowances, "ledger", look)
    monkeypatch.setattr(egress, "append_row", lambda tx, **row: SimpleNamespace(hash="h"))
    world.catalog.given = [("a", "host", "grace", 0.0, None), ("b", "host", "grace", 0.0, None)]
    world.capacity = Capacity(cpu=20, memory_mb=1000)
    world.reconciler = world.restarted()
    return looks


def _spends(usd: float, dataset: str = "a") -> Plan[Any]:
    return a_plan(spends=(Spend(dataset=dataset, host="host", usd=usd),))


def test_money_is_shared_in_the_order_in_which_jobs_start(world: World, ledgers: list[int]) -> None:
    never = world.add(plan=_spends(1, "b"))
    late, second = world.add(plan=_spends(3), priority=-1), world.add(plan=_spends(3))
    first, small = world.add(plan=_spends(4), priority=1), world.add(plan=_spends(1), priority=-2)
    free = world.add(plan=a_plan(), priority=-3)
    assert world.tick() == 3
    assert world.states(never, late, second, first, small, free) == [F, Q, Q, S, Q, S]
    error = world.job(never).error or {}
    assert error["message"].startswith("No example of 'b' may be sent to host: what a person allowed")
    assert f"control_job(job='{never}', action='retry')" in error["recovery"]
    assert (world.reconciler.trouble(second) or "").startswith(f"It waits for money: {first} may spend what is left")
    assert f"{first} and {second} and {late} may spend" in (world.reconciler.trouble(small) or "")
    world.is_true(first, ended("user"))
    world.tick()
    world.tick()
    assert world.states(late, second, small) == [Q, S, Q], "who waits holds its share against those behind it"


def test_what_is_held_is_looked_at_once_for_each_commit(world: World, ledgers: list[int]) -> None:
    first, second = world.add(plan=_spends(4)), world.add(plan=_spends(4))
    world.tick()
    world.is_true(first, Alive())
    for _ in range(2):
        world.tick()
    before = len(ledgers)
    asked = sum(sql == egress._GIVEN for sql in world.catalog.asked)
    for _ in range(3):
        world.tick()
    assert len(ledgers) == before
    assert sum(sql == egress._GIVEN for sql in world.catalog.asked) == asked
    world.is_true(first, ended("user"))
    world.tick()
    world.tick()
    assert world.states(second) == [S]


def test_what_no_person_allows_any_more_is_not_started(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "append_row", lambda tx, **row: SimpleNamespace(hash="h"))
    world.catalog.given = [("a", "host", "grace", 0.0, None), ("b", "host", "grace", 0.0, world.clock.now() + 10)]
    sends = {name: (Departure(dataset=name, host="host"),) for name in "abc"}
    allowed, never = world.add(plan=a_plan(departures=sends["a"])), world.add(plan=a_plan(departures=sends["c"]))
    world.tick()
    assert world.states(allowed, never) == [S, F]
    assert world.stage.specs[f"{allowed}.1"]["permits"] == {"host": ["a"]}
    told = {"job": allowed, "attempt": 1, "host": "host", "datasets": ["a"], "audit": "h"}
    assert world.catalog.events == [("host:host", "data.sent", told)]
    assert (world.job(never).error or {})["message"].startswith("No example of 'c' may be sent to host")
    assert f"control_job(job='{never}', action='retry')" in (world.job(never).error or {})["recovery"]
    late = world.add(plan=a_plan(departures=sends["b"]), not_before=world.clock.now() + 11)
    other = world.add(plan=a_plan(departures=sends["b"]))
    world.tick()
    asked = len(world.catalog.asked)
    assert world.states(late, other) == [Q, S]
    world.is_true(allowed, Alive())
    world.is_true(other, Alive())
    world.tick(11)
    assert world.states(late) == [F], "it was over before it could start"
    assert sum(sql == egress._GIVEN for sql in world.catalog.asked[asked:]) == 1


# The disk


def test_the_disk_is_told_once_as_it_changes_also_by_the_next_daemon(world: World) -> None:
    world.tick()
    assert world.catalog.events == []
    world.disk = FULL
    world.tick()
    shown = {"free": FULL.free, "floor": FULL.floor, "used": None, "quota": None}
    assert world.catalog.events == [("workspace:disk", "disk.low", shown)]
    world.tick()
    world.reconciler = world.restarted()
    world.tick()
    between = world.disk = FULL._replace(free=GB + 1)
    assert not between.low
    assert not between.enough
    world.tick()
    assert len(world.catalog.events) == 1
    world.disk = ROOMY
    world.tick()
    assert world.catalog.events[1][:2] == ("workspace:disk", "disk.enough")
    world.disk = between
    world.tick()
    assert len(world.catalog.events) == 2


def test_a_disk_that_has_no_room_for_that_event_stops_nothing(world: World) -> None:
    job = world.live()
    world.catalog.refuses = SpeciateError(Code.UNAVAILABLE, "The disk is full.", "Free some space.")
    world.disk = FULL
    world.tick()
    assert world.job(job).request == "hold"
    world.catalog.refuses = None
    world.tick()
    assert world.catalog.events == [], "it is tried once"


def test_who_writes_stops_when_the_disk_is_low(world: World) -> None:
    plain, asked, sweeps = world.live(), world.live(request="pause", request_at=world.clock.now()), world.live("sweeps")
    world.live("plain")
    unknown = world.live()
    world.change(unknown, kind="of a plug-in")
    world.disk = FULL
    world.tick()
    assert [world.job(job).request for job in (plain, asked, sweeps, unknown)] == ["hold", "pause", None, None]
    assert world.job(plain).reason == (
        f"Stopped at a checkpoint for want of room ({FULL.short()}); with room it resumes by itself."
    )
    assert (f"{plain}.1", False) in world.stage.cancelled, "in the same pass"


def test_a_job_that_cannot_be_told_to_stop_is_told_by_the_next_pass(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **named: object) -> Any:
        raise SpeciateError(Code.UNAVAILABLE, "The disk is full.", "Free some space.")

    job = world.live()
    world.disk = FULL
    monkeypatch.setattr(world.catalog, "submit", full)
    world.tick()
    assert world.job(job).request is None
    monkeypatch.undo()
    world.tick()
    assert world.job(job).request == "hold"


def test_a_job_waits_for_the_bytes_that_it_may_write(world: World) -> None:
    world.disk = DiskSpace(total=400 * GB, free=6 * GB, floor=GB)
    world.live()
    large, small = world.add(plan=a_plan(bytes=6 * GB)), world.add(plan=a_plan(bytes=GB))
    assert world.tick() == 2
    assert world.states(large, small) == [Q, S]
    said = world.reconciler.trouble(large) or ""
    assert "it may write 6.0 GB" in said or "it may write 6 GB" in said
    assert world.reconciler.trouble(small) is None


def test_what_starts_is_expected_to_write_what_its_plan_or_earlier_runs_say(world: World) -> None:
    world.reconciler._capacity = Capacity(cpu=9, memory_mb=1000)
    for number, size in enumerate((10, 3_000_000, 20)):
        before = world.add(state=OK, attempt=1, ended=float(number))
        with (world.folder(before).path / "big").open("wb") as file:
            file.write(b"x" * size)
    jobs = {
        "usual": world.add("hasty"), "planned": world.add("hasty", plan=a_plan(bytes=5)), "earlier": world.add(),
        "more": world.add(plan=a_plan(bytes=4 * GB)), "sweeps": world.add("sweeps", plan=a_plan(bytes=900 * GB)),
    }  # fmt: skip
    world.tick()
    known = {name: world.reconciler._bytes.get(job) for name, job in jobs.items()}
    assert 3_000_000 <= (known["earlier"] or 0) < 4_000_000, "the most of the last three"
    assert (known["usual"], known["planned"], known["more"], known["sweeps"]) == (USUAL_BYTES, 5, 4 * GB, None)
    assert world.states(*jobs.values()) == [S] * 5
    world.change(jobs["usual"], state=State.CANCELLED)
    world.tick()
    assert jobs["usual"] not in world.reconciler._bytes, "nothing is kept of a job that is over"


def test_what_earlier_runs_left_is_looked_at_once_a_minute(world: World) -> None:
    done = world.add(state=OK, attempt=1, ended=1.0)
    with (world.folder(done).path / "big").open("wb") as file:
        file.truncate(3000)
    world.add("hasty")
    world.tick()
    expected = [world.reconciler._left_by("plain")]
    for seconds in (1, 58.5, 0.5):
        with (world.folder(done).path / f"more{seconds}").open("wb") as file:
            file.write(b"x" * 3_000_000)
        world.tick(seconds)
        expected.append(world.reconciler._left_by("plain"))
    assert expected[0] == expected[1] == expected[2] < expected[3]


def test_live_runs_hold_the_bytes_that_they_may_still_write(world: World) -> None:
    world.disk = DiskSpace(total=400 * GB, free=10 * GB, floor=GB)
    first, second = world.add(plan=a_plan(bytes=6 * GB)), world.add(plan=a_plan(bytes=6 * GB))
    world.tick()
    world.is_true(first, Alive())
    world.tick()
    assert world.states(first, second) == [R, Q]
    assert "less what runs may still write" in (world.reconciler.trouble(second) or "")


# The queue


def test_a_job_waits_in_the_queue_as_long_as_it_may(world: World) -> None:
    jobs = [world.add("hasty", state) for state in (State.WAITING, Q)] + [world.add()]
    world.reconciler.draining = True
    world.tick(100)
    assert world.states(*jobs) == [State.WAITING, Q, Q]
    world.tick(1)
    assert world.states(*jobs) == [D, D, Q]
    assert [world.reconciler.trouble(job) for job in jobs] == [None] * 3
    assert world.job(jobs[0]).reason == "timed_out: its limit of 100 s (queue) passed"


def test_a_plan_that_refuses_fails_its_job_alone(world: World) -> None:
    refused, broken, good = world.add("refused"), world.add("broken"), world.add()
    world.tick()
    assert world.states(refused, broken, good) == [F, F, S]
    assert [world.reconciler.trouble(job) for job in (refused, broken, good)] == [None] * 3
    error = dict(world.job(refused).error or {})
    assert [each["tool"] for each in error.pop("next")] == ["list_datasets"]  # type: ignore[attr-defined]
    assert (error["class"], error["message"]) == ("user", "It is gone.")
    assert str(error["recovery"]).startswith("Bring it back.")
    assert world.job(broken).error == {
        "class": "internal", "message": "ZeroDivisionError in its plan", "detail": "by nothing",
    }  # fmt: skip


def test_what_can_never_run_is_refused_and_says_where(world: World) -> None:
    cores = world.add("sweeps", plan=a_plan(bytes=900 * GB, place="far", cpu=9))
    disk = world.add(plan=a_plan(bytes=900 * GB))
    memory = world.add(plan=Plan(resources=Resources(memory_mb=2000)))
    world.tick()
    advice = "Ask for less, or change [capacity] or [disk] in settings.toml."
    said = [world.job(job).error or {} for job in (cores, disk, memory)]
    assert [error["class"] for error in said] == ["user"] * 3
    assert [error["recovery"] for error in said] == [advice] * 3
    assert said[0]["message"] == "far can never run it: 9 of cpu asked, 8 there"
    assert said[1]["message"].startswith("this machine can never run it: it may write 900")
    assert said[2]["message"] == "this machine can never run it: 2000 of memory asked, 1000 there"


def test_a_place_that_is_named_no_more_is_waited_for(world: World) -> None:
    lost, here = world.add(plan=a_plan(place="lost")), world.add(plan=a_plan())
    assert world.tick() == 1
    assert world.states(lost, here) == [Q, S]
    assert world.reconciler.trouble(lost) == "It waits for the place 'lost', which settings.toml names no more."


def test_a_place_takes_so_many_runs_at_once_and_this_machine_its_own(world: World) -> None:
    far = [world.add(plan=a_plan(place="far")) for _ in range(3)]
    here = [world.add(plan=a_plan()) for _ in range(3)]
    assert world.tick() == 6
    assert world.states() == [S, S, Q, S, S, Q]
    assert world.places.stage.submitted == [f"{job}.1" for job in far[:2]]
    assert world.stage.submitted == [f"{job}.1" for job in here[:2]]
    assert world.reconciler.waits(far[2]) == "It waits for its turn: far takes 2 runs at once."
    assert (world.reconciler.waits(here[2]) or "").startswith("It waits for 1 CPU core (0 free)")
    assert (world.reconciler.waits(far[0]), world.reconciler.waits("job-x")) == (None, None)
    assert world.reconciler.trouble(far[2]) == f"{far[2]}: nobody answers"
    assert world.reconciler.trouble(here[2]) is None
    world.tick()
    assert world.reconciler.waits(far[2]) == "It waits for its turn: far takes 2 runs at once."
    assert world.states() == [S, S, Q, S, S, Q]
    world.places.stage.truth[f"{far[0]}.1"] = ended("user")
    world.tick()
    assert world.states(*far) == [F, S, S]


def test_a_place_has_its_own_capacity(tmp_path: Path) -> None:
    world = World(tmp_path, KINDS, places=MemoryPlaces(runs=9, capacity=Capacity(cpu=2, memory_mb=100)))
    far = [world.add(plan=a_plan(place="far")) for _ in range(3)]
    world.tick()
    assert world.states(*far) == [S, S, Q]
    assert (world.reconciler.waits(far[2]) or "").startswith("It waits for 1 CPU core (0 free)")


def test_a_run_in_the_background_makes_way_and_says_so(world: World) -> None:
    back, other = world.live(priority=-1), world.live()
    waits, far = world.add(plan=a_plan()), world.add(plan=a_plan(place="far"))
    world.live(resources=Resources(place="far"), priority=-1)
    world.tick()
    assert world.states(far) == [S]
    world.add(plan=a_plan(place="far"))
    assert world.job(back).request is None, "a few seconds it is left alone"
    world.tick(6)
    assert (world.job(back).request, world.job(other).request) == ("hold", None)
    assert world.job(back).reason == (
        "Stopped at a checkpoint for a job that somebody waits for; it resumes by itself."
    )
    world.is_true(back, ended("stopped"))
    world.tick()
    assert world.states(back, waits) == [Q, S]


# Starts


def test_a_plan_is_made_once_kept_with_the_claim_and_used_by_every_attempt(world: World) -> None:
    job = world.add()
    world.tick()
    assert PLANNED == ["plain"]
    assert Plan.model_validate_json(world.catalog.plans[job]).payload == {"planned": True}
    world.catalog.plans[job] = a_plan(payload={"planned": "before"}).model_dump_json(by_alias=True)
    world.is_true(job, Gone())
    world.tick()
    world.reconciler = world.restarted()
    world.tick(10)
    assert world.stage.specs[f"{job}.2"]["payload"] == {"planned": "before"}
    world.catalog.plans[job] = a_plan(payload={"planned": "again"}).model_dump_json(by_alias=True)
    world.is_true(job, Gone())
    world.tick()
    world.tick(10)
    assert world.stage.specs[f"{job}.3"]["payload"] == {"planned": "again"}, "nothing is kept of an end"
    assert PLANNED == ["plain"]


def test_plans_of_many_jobs_are_read_together_and_each_once(world: World) -> None:
    for _ in range(4):
        world.add(plan=a_plan())
    for _ in range(3):
        world.tick()
    assert sum("job_plans" in sql for sql in world.catalog.asked) == 1
    assert PLANNED == []


def test_a_plan_for_more_cores_than_are_left_gets_those(tmp_path: Path) -> None:
    world = World(tmp_path, KINDS, cpu=3)
    more, fewer, far = (
        world.add(plan=a_plan(cpu=8)),
        world.add(plan=a_plan(cpu=3)),
        world.add(plan=a_plan(cpu=8, place="far")),
    )
    for job, cores in ((more, 3), (fewer, 3), (far, 8)):
        if job != far:
            world.tick()
        assert (world.job(job).state, world.job(job).resources.cpu) == (S, cores)
        world.is_true(job, ended("user"))
        world.places.stage.truth[f"{job}.1"] = ended("user")
    world.tick()
    assert world.states(more, fewer, far) == [F, F, F]


def test_a_claim_names_the_next_attempt_where_it_will_run(world: World) -> None:
    here, far = world.add(plan=a_plan(cpu=2)), world.add(plan=a_plan(place="far"), attempt=4)
    world.change(here, resources=Resources())
    world.tick()
    assert [world.job(job).handle for job in (here, far)] == [{"run": f"{here}.1"}, {"run": f"{far}.5"}]
    assert (world.job(here).resources.cpu, world.job(far).attempt) == (2, 5)


def test_a_job_that_is_stopped_while_it_is_claimed_is_not_launched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pause(spec: Work, workspace: Workspace) -> Plan[Any]:
        world.change(before, state=P)
        return Plan()

    world.kinds.add(replace(PLAIN, name="paused", plan=pause))
    before = world.add("paused")
    world.tick()
    assert (world.states(before), world.stage.submitted) == ([P], [])
    together, submit_all = world.add(plan=a_plan()), world.catalog.submit_all

    def with_request(tell: object, events: Any) -> Any:
        answers = submit_all(tell, events)
        if world.job(together).state is S:
            world.change(together, request="pause", request_at=world.clock.now())
            answers[-1] = Future()
            answers[-1].set_result(world.job(together))
        return answers

    monkeypatch.setattr(world.catalog, "submit_all", with_request)
    world.tick()
    assert (world.states(together), world.stage.submitted) == ([S], [])


def test_a_launch_says_all_that_its_run_needs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = world.add(plan=a_plan(payload={"a": 1}, secrets=(("KEY", "host"),)), attempt=5, shrinks=2)
    for attempt in (1, 2, 4, 5, 6):
        world.folder(job, attempt)
    world.tick()
    row = world.job(job).model_dump(mode="json", exclude={"result", "error"})
    assert world.stage.specs[f"{job}.6"] == {
        "job": job, "kind": "plain", "attempt": 6, "entry": ENTRY, "payload": {"a": 1}, "secrets": (("KEY", "host"),),
        "workspace": str(world.runs.parent), "settings": safety(Settings()), "resources": Resources().model_dump(),
        "preload": "data", "memory_retries": 2, "row": row,
        "resume_from": [str(world.runs / f"{job}.{attempt}") for attempt in (5, 4, 2, 1)],
    }  # fmt: skip
    assert world.stage.preloads == {f"{job}.6": "data"}


def test_a_launch_names_what_is_moved_and_spent_and_forks_nothing_for_a_gpu(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger({("a", "host"): 3.0}, {("a", "host"): {"job-00": 2.5}}, {})
    monkeypatch.setattr(allowances, "ledger", lambda database: ledger if database is world.catalog else None)
    monkeypatch.setattr(egress, "append_row", lambda tx, **row: SimpleNamespace(hash="h"))
    world.catalog.given.append(("a", "host", "grace", 0.0, None))
    world.capacity = Capacity(cpu=2, memory_mb=1000, gpu=1)
    world.reconciler = world.restarted()
    spends = (Spend(dataset="a", host="host", usd=2.0),)
    rich = world.add(plan=a_plan(inputs=("in",), sources=("/out",), preload="torch", spends=spends))
    gpu = world.add(plan=Plan(resources=Resources(gpu=1), preload=""))
    world.tick()
    spec = world.stage.specs[f"{rich}.1"]
    assert (spec["inputs"], spec["sources"], spec["preload"]) == (("in",), ("/out",), "torch")
    assert spec["allowances"] == {"host": 2.0}
    assert spec["permits"] == {"host": ["a"]}
    assert not {"inputs", "sources", "allowances", "permits"} & world.stage.specs[f"{gpu}.1"].keys()
    assert world.stage.preloads == {f"{rich}.1": "torch", f"{gpu}.1": ""}
    assert world.stage.specs[f"{gpu}.1"]["preload"] == ""
    data = world.add(plan=Plan(resources=Resources(gpu=1)))
    for each in (rich, gpu):
        world.is_true(each, ended("user"))
    world.tick()
    assert (world.stage.preloads[f"{data}.1"], world.stage.specs[f"{data}.1"]["preload"]) == ("", "data")
