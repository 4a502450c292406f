"""The state machine whole: each event in each state, and every sequence of events that leads to another state.

The grids are the contract. A column is a state, or what was asked of a run that lives; a row is an event; a cell is
the state afterwards (`Q/pause`: with that request), `.` where the very same job comes back, `!` where it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.jobs import transitions
from speciate.jobs.folder import Outcome
from speciate.jobs.job import ENDED, LIVE, Job, Limits, Resources, State
from speciate.jobs.transitions import (
    CANCELLED_REASON,
    COPIED_REASON,
    MAX_LOSSES,
    PAUSED_REASON,
    Abandoned,
    Acted,
    ActionRequested,
    ChildrenGone,
    Claimed,
    Exited,
    Failed,
    Happening,
    Lost,
    NeedsFailed,
    NeedsMet,
    NoRoom,
    Overdue,
    SeenAlive,
    Stepped,
    WorkspaceCopied,
    decide,
)
from speciate.refs import JobId

SAID, HELD, STALE = "said so", "no room for now", "retry 1: of an earlier attempt"
LETTERS = {
    "W": State.WAITING, "Q": State.QUEUED, "S": State.STARTING, "R": State.RUNNING, "P": State.PAUSED,
    "ok": State.SUCCEEDED, "F": State.FAILED, "X": State.CANCELLED, "D": State.DEAD,
}  # fmt: skip
REASONS = {
    None: STALE, "cancel": CANCELLED_REASON, "pause": PAUSED_REASON, "hold": HELD, "stop": "timed_out: its limit",
}  # fmt: skip
"""What a job says while this is asked of its run."""
FIRST = 100.0
"""When the job changed last; its run began at 90."""
NOW = 200.0


def a_job(state: State, request: str | None = None, executor: str = "local", **changes: object) -> Job:
    lives = {"attempt": 1, "started": 90.0, "handle": {"run": "job-a.1"}} if state in LIVE else {}
    asked = {"request": request, "request_at": 95.0 if request else None, "reason": REASONS[request]}
    over = {"attempt": 1, "started": 50.0, "ended": 90.0} if state in ENDED else {}
    paused = {"reason": PAUSED_REASON} if state is State.PAUSED else {}
    job = Job(id=JobId("job-a"), kind="work", spec={}, fingerprint="f", state=state, created=0.0, changed=FIRST)
    counts = {"retries": 1, "losses": 2, "shrinks": 1, "run_seconds": 7.0 if executor == "local" else 0.0}
    return job.model_copy(update={"executor": executor, **counts, **asked, **lives, **over, **paused, **changes})


def exited(kind: str, attempt: int = 1, **given: Any) -> Exited:
    return Exited(attempt, Outcome(0 if kind == "ok" else 1, kind, SAID), {"value": 1}, **given)


def asked(action: str) -> ActionRequested:
    return ActionRequested(action)


OUTCOMES = ["ok", "user", "transient", "memory", "full", "stopped", "killed", "starved"]
EVENTS: dict[str, Happening] = {
    **{kind: exited(kind) for kind in OUTCOMES},
    "full, on": exited("full", progressed=True),
    "killed, on": exited("killed", progressed=True),
    "lost": Lost(1, progressed=False),
    "lost, on": Lost(1, progressed=True),
    "abandoned": Abandoned(1, "unseen"),
    "claimed": Claimed({"run": "job-a.2"}),
    "alive": SeenAlive(1),
    "needs met": NeedsMet(),
    "needs failed": NeedsFailed("job-b is failed"),
    "late in the queue": Overdue("queue", 5),
    "late": Overdue("run", 5),
    "silent": Overdue("silence", 5),
    "no room": NoRoom(HELD),
    "refused": Failed({"class": "user", "message": SAID}),
    "acted": Acted({"value": 1}),
    "stepped": Stepped(),
    "children gone": ChildrenGone(),
    "copied": WorkspaceCopied(),
    **{action: asked(action) for action in ("cancel", "pause", "resume", "retry")},
}

RUNS = """
                  | W | Q | P | S      | R      | R/cancel | R/pause  | R/hold   | R/stop   | ok | F | X | D
ok                | . | . | . | ok     | ok     | ok       | ok       | ok       | ok       | .  | . | . | .
user              | . | . | . | F      | F      | X        | F        | F        | D        | .  | . | . | .
transient         | . | . | . | Q      | Q      | X        | P        | Q        | D        | .  | . | . | .
memory            | . | . | . | Q      | Q      | X        | P        | Q        | D        | .  | . | . | .
full              | . | . | . | Q      | Q      | X        | P        | Q        | D        | .  | . | . | .
full, on          | . | . | . | Q      | Q      | X        | P        | Q        | D        | .  | . | . | .
stopped           | . | . | . | Q      | Q      | X        | P        | Q        | D        | .  | . | . | .
killed            | . | . | . | Q      | Q      | X        | P        | Q        | D        | .  | . | . | .
killed, on        | . | . | . | Q      | Q      | X        | P        | Q        | D        | .  | . | . | .
starved           | . | . | . | Q      | Q      | X        | P        | Q        | D        | .  | . | . | .
lost              | . | . | . | Q      | Q      | X        | P        | Q        | D        | .  | . | . | .
lost, on          | . | . | . | Q      | Q      | X        | P        | Q        | D        | .  | . | . | .
abandoned         | . | . | . | .      | .      | X        | .        | .        | .        | .  | . | . | .
claimed           | . | S | . | .      | .      | .        | .        | .        | .        | .  | . | . | .
alive             | . | . | . | R      | .      | .        | .        | .        | .        | .  | . | . | .
needs met         | Q | . | . | .      | .      | .        | .        | .        | .        | .  | . | . | .
needs failed      | D | . | . | .      | .      | .        | .        | .        | .        | .  | . | . | .
late in the queue | D | D | . | .      | .      | .        | .        | .        | .        | .  | . | . | .
late              | . | . | . | S/stop | R/stop | .        | .        | .        | .        | .  | . | . | .
silent            | . | . | . | S/stop | R/stop | .        | .        | .        | .        | .  | . | . | .
no room           | . | . | . | S/hold | R/hold | .        | .        | .        | .        | .  | . | . | .
refused           | . | F | . | F      | F      | X        | F        | F        | D        | .  | . | . | .
copied            | P | P | . | P      | P      | X        | P        | P        | D        | .  | . | . | .
cancel            | X | X | X | S/cancel | R/cancel | .      | R/cancel | R/cancel | R/cancel | .  | . | . | .
pause             | P | P | . | S/pause  | R/pause  | .      | .        | R/pause  | .      | !  | ! | ! | !
resume            | . | . | Q | .      | .      | .        | R        | .        | .        | !  | ! | ! | !
retry             | ! | ! | ! | !      | !      | R        | !        | !        | !        | !  | Q | Q | Q
"""
LAST = """
                  | S      | R      | R/cancel | R/pause  | R/hold   | R/stop
transient         | D      | D      | X        | D        | D        | D
memory            | D      | D      | X        | D        | D        | D
full              | D      | D      | X        | D        | D        | D
full, on          | Q      | Q      | X        | P        | Q        | D
killed            | D      | D      | X        | P        | Q        | D
killed, on        | Q      | Q      | X        | P        | Q        | D
starved           | D      | D      | X        | P        | Q        | D
lost              | D      | D      | X        | P        | Q        | D
lost, on          | Q      | Q      | X        | P        | Q        | D
"""
"""The last retry is used up, and the next loss is the last."""
COMPOSITES = """
                  | W | Q | P        | R        | R/cancel | ok | F | X | D
stepped           | . | R | .        | .        | .        | .  | . | . | .
acted             | . | ok | .       | ok       | ok       | .  | . | . | .
refused           | . | F | .        | F        | X        | .  | . | . | .
children gone     | . | . | .        | .        | X        | .  | . | . | .
needs met         | Q | . | .        | .        | .        | .  | . | . | .
needs failed      | D | . | .        | .        | .        | .  | . | . | .
copied            | P | P | .        | P        | X        | .  | . | . | .
cancel            | X | X | R/cancel | R/cancel | .        | .  | . | . | .
pause             | P | P | .        | P        | .        | !  | ! | ! | !
resume            | . | . | R        | .        | .        | !  | ! | ! | !
retry             | ! | ! | !        | !        | R        | !  | R | R | R
"""
"""Of composites that have made their first step. Their children are paused and cancelled with them, by the store."""


def cells(grid: str) -> Iterator[tuple[str, str, str]]:
    """Event, column and cell of each."""
    head, *lines = [[cell.strip() for cell in line.split("|")] for line in grid.strip("\n").splitlines()]
    for event, *row in lines:
        yield from ((event, column, cell) for column, cell in zip(head[1:], row, strict=True))


def expect(job: Job, event: Happening, cell: str) -> None:
    if cell == "!":
        with pytest.raises(SpeciateError) as refused:
            decide(job, event, NOW)
        assert job.state in refused.value.message
        return
    after = decide(job, event, NOW)
    if cell == ".":
        assert after is job
        return
    state, _, request = cell.partition("/")
    assert (after.state, after.request) == (LETTERS[state], request or None)
    assert after.changed == NOW
    assert (after.request_at is not None) == (after.request is not None)


def column_job(column: str, executor: str = "local", **changes: object) -> Job:
    state, _, request = column.partition("/")
    return a_job(LETTERS[state], request or None, executor, **changes)


@pytest.mark.parametrize("place", [None, "cluster"])
def test_each_event_of_a_run_in_each_state(place: str | None) -> None:
    for event, column, cell in cells(RUNS):
        job = column_job(column, resources=Resources(place=place))
        expect(job, EVENTS[event], cell)
        if column.startswith("R/") and event != "alive":  # also before it was seen
            expect(job.model_copy(update={"state": State.STARTING}), EVENTS[event], cell.replace("R", "S"))


def test_each_event_of_a_run_that_may_not_fail_once_more() -> None:
    for event, column, cell in cells(LAST):
        expect(column_job(column, retries=3, losses=MAX_LOSSES - 1), EVENTS[event], cell)


def test_each_event_of_a_composite_in_each_state() -> None:
    for event, column, cell in cells(COMPOSITES):
        started = {} if column in {"W", "Q"} else {"started": 50.0}
        expect(column_job(column, "composite", attempt=1, **started), EVENTS[event], cell)
    for action, before, after in (("resume", "P", "Q"), ("cancel", "P", "X"), ("retry", "X", "Q")):
        expect(column_job(before, "composite", started=None), EVENTS[action], after)


def test_an_inline_job_is_done_where_it_is_queued_and_nowhere_else() -> None:
    for column, acted, refused in (("W", ".", "."), ("Q", "ok", "F"), ("P", ".", "."), ("X", ".", ".")):
        expect(column_job(column, "inline"), EVENTS["acted"], acted)
        expect(column_job(column, "inline"), EVENTS["refused"], refused)


def test_an_event_of_another_attempt_changes_nothing() -> None:
    lives = [column_job(column) for column in ("S", "R", "R/cancel", "R/pause", "R/hold", "R/stop")]
    assert decide(lives[1], exited("ok"), NOW).result == {"value": 1}
    assert decide(lives[1], Exited(1, Outcome(0, "ok")), NOW).result == {}
    for job, attempt, kind in product(lives, (0, 2), OUTCOMES):
        ends = exited(kind, attempt), Lost(attempt, progressed=True), Abandoned(attempt, "")
        for event in (*ends, SeenAlive(attempt)):
            assert decide(job, event, NOW) is job


# What else a run's end changes


@pytest.mark.parametrize("request_made", [None, "hold", "pause"])
def test_what_may_pass_counts_alike_whether_the_job_is_queued_or_paused(request_made: str | None) -> None:
    again = {
        kind: decide(a_job(State.RUNNING, request_made), exited(kind), NOW) for kind in ("transient", "memory", "full")
    }
    assert {kind: (job.retries, job.shrinks, job.losses) for kind, job in again.items()} == {
        "transient": (2, 1, 2), "memory": (2, 2, 2), "full": (1, 1, 3),
    }  # fmt: skip
    assert {kind: job.not_before - NOW for kind, job in again.items()} == {"transient": 4.0, "memory": 0.0, "full": 4.0}
    for kind, job in again.items():
        assert job.error == {"class": kind, "message": SAID, "recovery": ""}
        assert (job.run_seconds, job.handle, job.ended) == (7.0 + NOW - 90.0, None, None)
    told = {kind: job.reason for kind, job in again.items()}
    if request_made == "pause":
        assert set(told.values()) == {PAUSED_REASON}
    else:
        assert told == {
            "transient": f"retry 2: {SAID}", "memory": "ran out of memory; tried again smaller", "full": SAID,
        }  # fmt: skip


def test_a_loss_counts_only_where_nobody_may_have_killed_the_run() -> None:
    resumes = "; it resumes from its last checkpoint, or starts again if there is none yet"
    expected = {
        ("killed", False): (3, 2, 3.0, "its run was killed" + resumes),
        ("killed", True): (1, 1, 0.0, "its run was killed" + resumes),
        ("starved", False): (3, 2, 3.0, "the system ended its run for want of memory" + resumes),
        ("starved", True): (1, 2, 0.0, "the system ended its run for want of memory" + resumes),
    }
    for (kind, on), (losses, shrinks, pause, reason) in expected.items():
        after = decide(a_job(State.RUNNING), exited(kind, progressed=on), NOW)
        assert (after.losses, after.shrinks, after.retries) == (losses, shrinks, 1)
        assert (after.not_before - NOW, after.reason) == (pause, reason)
        assert (after.run_seconds, after.handle) == (7.0 + NOW - 90.0, None)
        for request in ("hold", "pause", "cancel", "stop"):
            job = a_job(State.RUNNING, request)
            after = decide(job, exited(kind, progressed=on), NOW)
            assert (after.losses, after.shrinks, after.retries) == (2, 1, 1)
            assert after.reason == job.reason
    full = decide(a_job(State.RUNNING), exited("full", progressed=True), NOW)
    assert (full.losses, full.not_before - NOW) == (1, 1.0)


def test_pauses_before_the_next_try_grow_to_a_limit() -> None:
    assert MAX_LOSSES == 20
    for request in (None, "hold"):
        at_once = decide(a_job(State.RUNNING, request, not_before=900.0), EVENTS["stopped"], NOW)
        assert at_once.not_before == NOW
    assert at_once.reason == HELD
    for losses, lost, full in ((0, 0.0, 1.0), (1, 1.0, 2.0), (5, 31.0, 32.0), (6, 60.0, 60.0), (18, 60.0, 60.0)):
        job = a_job(State.RUNNING, losses=losses)
        assert decide(job, EVENTS["lost"], NOW).not_before - NOW == lost
        assert decide(job, EVENTS["full"], NOW).not_before - NOW == full
    many = a_job(State.RUNNING, retries=8, limits=Limits(retries=9))
    assert decide(many, EVENTS["transient"], NOW).not_before - NOW == 300.0


def test_each_end_and_each_pause_has_its_reason() -> None:
    """None where it succeeded: what earlier attempts died of is in the events."""
    alone = {
        "ok": None, "user": SAID, "refused": SAID, "copied": COPIED_REASON,
        "stopped": "its run was stopped; it resumes from the last checkpoint",
    }  # fmt: skip
    for event, reason in alone.items():
        assert decide(a_job(State.RUNNING, error={"message": "old"}), EVENTS[event], NOW).reason == reason
    assert decide(a_job(State.RUNNING, error={"message": "old"}), EVENTS["ok"], NOW).error is None
    acted = decide(a_job(State.QUEUED, executor="inline", error={"message": "old"}), EVENTS["acted"], NOW)
    assert (acted.reason, acted.error) == (None, None)
    used_up = a_job(State.RUNNING, retries=3, losses=MAX_LOSSES - 1)
    for event, reason in {
        "transient": f"gave up after 3 retries: {SAID}",
        "memory": f"gave up after 3 retries: {SAID}",
        "full": f"lost: its run met a full disk {MAX_LOSSES} times without progress",
        "killed": f"lost: its run was killed {MAX_LOSSES} times without progress (see the log; out of memory?)",
        "lost": f"lost: its run was killed {MAX_LOSSES} times without progress (see the log; out of memory?)",
        "starved": f"lost: its run was killed {MAX_LOSSES} times without progress for want of memory",
    }.items():
        dead = decide(used_up, EVENTS[event], NOW)
        assert (dead.reason, dead.error is not None) == (reason, event in {"transient", "memory", "full"})
        assert dead.losses == (MAX_LOSSES if reason.startswith("lost") else MAX_LOSSES - 1)
    assert decide(a_job(State.WAITING), EVENTS["needs failed"], NOW).reason == "needs_failed: job-b is failed"
    assert decide(a_job(State.QUEUED), EVENTS["late in the queue"], NOW).reason == (
        "timed_out: its limit of 5 s (queue) passed"
    )
    assert decide(a_job(State.RUNNING), EVENTS["late"], NOW).reason == "timed_out: its limit of 5 s (run) passed"
    assert decide(a_job(State.RUNNING), EVENTS["no room"], NOW).reason == HELD
    assert decide(a_job(State.RUNNING, "cancel"), EVENTS["abandoned"], NOW).reason == f"{CANCELLED_REASON}; unseen"
    for state, action, reason in product(State, ("cancel", "pause"), ("", HELD, COPIED_REASON)):
        if state in ENDED:
            continue
        after = decide(a_job(state, reason=reason or None), asked(action), NOW)
        assert after.reason == (CANCELLED_REASON if action == "cancel" else PAUSED_REASON)
    silent = Exited(1, Outcome(9, "user"))
    assert decide(a_job(State.RUNNING), silent, NOW).reason == "its run ended with code 9"
    assert decide(a_job(State.QUEUED), Failed({"class": "user"}), NOW).reason == "it could not be run"


def test_what_a_run_said_is_kept_with_the_calls_that_it_names() -> None:
    outcome = Outcome(1, "user", SAID, "Do so.", "a detail", ({"tool": "get_job", "arguments": {}},))
    assert decide(a_job(State.RUNNING), Exited(1, outcome), NOW).error == {
        "class": "user", "message": SAID, "recovery": "Do so.", "detail": "a detail",
        "next": ({"tool": "get_job", "arguments": {}},),
    }  # fmt: skip


def test_resume_and_retry_start_anew_from_a_clean_row() -> None:
    before = a_job(State.PAUSED, attempt=3, started=90.0, handle={"run": "job-a.3"}, not_before=900.0)
    resumed = decide(before, asked("resume"), NOW)
    assert (resumed.state, resumed.reason, resumed.not_before) == (State.QUEUED, None, NOW)
    assert (resumed.attempt, resumed.retries, resumed.losses, resumed.shrinks) == (3, 1, 2, 1)
    dead = a_job(State.DEAD, attempt=3, handle={"run": "job-a.3"}, error={"message": "old"}, not_before=900.0)
    retried = decide(dead, asked("retry"), NOW)
    assert (retried.state, retried.reason, retried.error, retried.ended) == (State.QUEUED, None, None, None)
    assert (retried.retries, retried.losses, retried.not_before, retried.handle) == (0, 0, NOW, None)
    assert (retried.attempt, retried.shrinks, retried.run_seconds) == (3, 1, 7.0), "these it keeps"
    for action, request in (("resume", "pause"), ("retry", "cancel")):
        lives = decide(a_job(State.RUNNING, request), asked(action), NOW)
        assert (lives.request, lives.request_at, lives.reason, lives.changed) == (None, None, None, NOW)
        assert (lives.handle, lives.retries) == ({"run": "job-a.1"}, 1), "its run goes on until it has stopped"


def test_a_refused_action_names_one_that_is_not_refused() -> None:
    refusals = set(cells(RUNS))
    allowed = {State.PAUSED: "resume", **dict.fromkeys(ENDED - {State.SUCCEEDED}, "retry")}
    for column, action in product(["W", "Q", "P", "S", "R", "ok", "F", "X", "D"], ("resume", "retry", "pause")):
        if (action, column, "!") not in refusals:
            continue
        job = column_job(column)
        with pytest.raises(SpeciateError) as refused:
            decide(job, asked(action), NOW)
        assert refused.value.code is Code.CONFLICT
        assert {call.arguments["job"] for call in refused.value.next} == {"job-a"}
        offered = [call.arguments["action"] for call in refused.value.next if call.tool == "control_job"]
        assert offered == ([allowed[job.state]] if action != "pause" and job.state in allowed else [])
        assert [call.tool for call in refused.value.next if call.tool != "control_job"] == ["get_job"]
        for each in offered:
            assert decide(job, asked(each), NOW) is not job
    with pytest.raises(SpeciateError, match=r"no action 'stop'.*cancel, pause, resume or retry") as unknown:
        decide(a_job(State.RUNNING), asked("stop"), NOW)
    assert unknown.value.code is Code.INVALID
    with pytest.raises(SpeciateError, match="at attempt 1, not 2") as stale:
        decide(a_job(State.RUNNING), ActionRequested("cancel", expected_attempt=2), NOW)
    assert stale.value.code is Code.CONFLICT
    assert [(call.tool, call.arguments) for call in stale.value.next] == [("get_job", {"job": "job-a"})]
    assert decide(a_job(State.RUNNING), ActionRequested("cancel", expected_attempt=1), NOW).request == "cancel"


def test_a_request_is_dated_by_who_asked_last() -> None:
    for before, action in (("R", "pause"), ("R", "cancel"), ("R/hold", "pause"), ("R/pause", "cancel")):
        assert decide(column_job(before), asked(action), NOW).request_at == NOW, "its grace begins"
    assert decide(column_job("R"), EVENTS["no room"], NOW).request_at == NOW
    assert decide(column_job("R"), EVENTS["silent"], NOW).request_at == NOW


# Time


def test_a_claim_dates_the_run_and_a_turn_in_a_clusters_queue_is_no_run_time() -> None:
    asks = Resources(cpu=4)
    claimed = decide(a_job(State.QUEUED, attempt=4), Claimed({"run": "job-a.5"}, asks), NOW)
    assert (claimed.attempt, claimed.started, claimed.handle, claimed.resources) == (5, NOW, {"run": "job-a.5"}, asks)
    assert decide(a_job(State.STARTING), EVENTS["alive"], NOW).started == 90.0
    far = a_job(State.STARTING, resources=Resources(place="cluster"))
    assert decide(far, EVENTS["alive"], NOW).started == NOW
    stepped = decide(a_job(State.QUEUED, executor="composite"), EVENTS["stepped"], NOW)
    assert (stepped.attempt, stepped.started) == (1, NOW)
    again = decide(a_job(State.QUEUED, executor="composite", attempt=2, started=3.0), EVENTS["stepped"], NOW)
    assert (again.attempt, again.started) == (2, 3.0)
    acted = [decide(a_job(State.QUEUED, executor="inline", attempt=n), EVENTS["acted"], NOW) for n in (0, 4)]
    assert [(job.attempt, job.result, job.ended) for job in acted] == [(1, {"value": 1}, NOW), (4, {"value": 1}, NOW)]


def test_run_time_is_what_was_measured_else_by_the_clock_and_none_of_a_composite_or_a_copy() -> None:
    ends: list[Callable[[float | None], Happening]] = [
        lambda ran: exited("ok", ran=ran), lambda ran: exited("transient", ran=ran),
        lambda ran: Lost(1, progressed=False, ran=ran), lambda ran: Abandoned(1, "unseen", ran),
    ]  # fmt: skip
    job = a_job(State.RUNNING, "cancel")
    for end in ends:
        assert decide(job, end(None), NOW).run_seconds == 7.0 + NOW - 90.0
        assert decide(job, end(3.0), NOW).run_seconds == 10.0
        assert decide(job.model_copy(update={"started": None}), end(3.0), NOW).run_seconds == 7.0
        assert decide(job, end(None), 80.0).run_seconds == 7.0, "the clock went back"
        for old in (job.model_copy(update={"attempt": 2}), a_job(State.QUEUED, attempt=1), a_job(State.PAUSED)):
            assert decide(old, end(3.0), NOW) is old
    unwanted = a_job(State.RUNNING)
    assert decide(unwanted, ends[3](3.0), NOW) is unwanted
    assert decide(a_job(State.PAUSED, started=90.0), asked("cancel"), NOW).run_seconds == 7.0, "a pause is none"
    for event in ("refused", "children gone", "copied"):
        assert decide(a_job(State.RUNNING, "cancel", "composite"), EVENTS[event], NOW).run_seconds == 0.0
    for request in (None, "hold", "pause", "cancel", "stop"):
        copied = decide(a_job(State.RUNNING, request), EVENTS["copied"], NOW)
        assert (copied.run_seconds, copied.handle, copied.request, copied.request_at) == (7.0, None, None, None)
    assert decide(a_job(State.PAUSED, reason=HELD), EVENTS["copied"], NOW).reason == HELD


# Every sequence


OWNED = {"pause": "paused", "cancel": "cancelled", "resume": "nobody's", "retry": "nobody's"}


class History:
    """A job, and who stopped it last: `paused`, `cancelled` or nobody."""

    def __init__(self, job: Job, stopped: str = "nobody's") -> None:
        self.job, self.stopped = job, stopped

    def key(self) -> tuple[object, ...]:
        """Two histories with the same key go on alike."""
        job = self.job
        return (
            self.stopped, job.state, job.request, job.retries, job.losses, min(job.shrinks, 1), job.attempt > 0,
            job.started is not None, job.reason if job.reason in {PAUSED_REASON, COPIED_REASON} else None,
        )  # fmt: skip

    def then(self, event: Happening, now: float) -> History | None:
        """None where it is refused, which changes nothing."""
        try:
            after = decide(self.job, event, now)
        except SpeciateError:
            assert isinstance(event, ActionRequested)
            return None
        stopped = self.stopped
        if isinstance(event, ActionRequested) and after is not self.job:
            stopped = OWNED[event.action]
        check(self.job, event, after, now, stopped)
        return History(after, stopped)


def check(before: Job, event: Happening, after: Job, now: float, stopped: str) -> None:
    where = f"{before.state}/{before.request} {event} -> {after.state}/{after.request}"
    if stopped != "nobody's":
        assert after.state in ENDED | {State.PAUSED} or (after.state in LIVE and after.request), where
        assert after.attempt == before.attempt or isinstance(event, Acted), f"it starts: {where}"
    if stopped == "paused" and after.state in LIVE:
        assert after.request in {"pause", "cancel", "stop"}, where
    if stopped == "cancelled":
        assert after.state in ENDED or (after.state in LIVE and after.request == "cancel"), where
    told_retry = isinstance(event, ActionRequested) and event.action == "retry"
    for count in ("attempt", "shrinks", "run_seconds", *(() if told_retry else ("retries",))):
        assert getattr(after, count) >= getattr(before, count), f"{count} falls: {where}"
    on = isinstance(event, Exited | Lost) and event.progressed
    assert told_retry or on or after.losses >= before.losses, where
    assert after.retries <= after.limits.retries, where
    if (before.state, before.request) != (after.state, after.request):
        assert after.changed == now, where
    assert (after.changed == now) == (after is not before), where
    assert (after.request is None) == (after.request_at is None), where
    assert after.request is None or after.state in LIVE, where
    assert (after.ended is not None) == (after.state in ENDED), where
    if after.state in ENDED:
        assert before.state in ENDED or after.ended == now, where
        assert (after.reason is None) == (after.state is State.SUCCEEDED), where
        assert (after.error is not None) >= (after.state is State.FAILED), where
        assert (after.result is not None) == (after.state is State.SUCCEEDED), where
    if after.state is State.DEAD:
        assert (after.reason or "").startswith(("timed_out: ", "lost: ", "needs_failed: ", "gave up after ")), where
    if after.state is State.PAUSED:
        assert after.reason in {PAUSED_REASON, COPIED_REASON}, where
        assert (after.reason == PAUSED_REASON) == (stopped == "paused"), f"`speciate resume` would start it: {where}"
    if after.state not in LIVE | ENDED:
        assert after.handle is None or after.executor == "composite", where
    if after.handle is not None:
        assert after.handle["run"] == f"job-a.{after.attempt}", where
    if told_retry and after is not before and before.request != "cancel":
        with pytest.raises(SpeciateError, match="nothing to retry"):
            decide(after, event, now + 1.0)
    elif not (told_retry and before.request == "cancel"):
        assert decide(after, event, now + 1.0) is after, f"told twice: {where}"


def happenings(job: Job) -> Iterator[Happening]:
    """All that may be told of it now, and what may come late."""
    yield from (NeedsMet(), NeedsFailed("job-b is failed"), WorkspaceCopied(), EVENTS["refused"])
    yield from map(asked, OWNED)
    if job.executor == "composite":
        yield from (Stepped(), ChildrenGone())
    if job.executor != "local":
        yield Acted({})
        return
    yield from (Claimed({"run": f"job-a.{job.attempt + 1}"}), NoRoom(HELD))
    yield from (Overdue(limit, 1.0) for limit in ("queue", "run", "silence"))
    for attempt, on in product((job.attempt, job.attempt - 1), (False, True)):
        yield from (exited(kind, attempt, progressed=on) for kind in OUTCOMES)
        yield Lost(attempt, on)
    yield from (SeenAlive(job.attempt), Abandoned(job.attempt, "unseen"))


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize(
    ("executor", "place"), [("local", None), ("local", "cluster"), ("composite", None), ("inline", None)]
)
def test_every_sequence_of_events(
    executor: str, place: str | None, retries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every state that can be reached is: nothing that somebody stopped starts by itself, and no row contradicts
    itself."""
    monkeypatch.setattr(transitions, "MAX_LOSSES", 3)
    job = Job(
        id=JobId("job-a"), kind="work", spec={}, fingerprint="f", state=State.WAITING, created=0.0, changed=0.0,
        executor=executor, limits=Limits(retries=retries), resources=Resources(place=place),
    )  # fmt: skip
    known, new, now = {History(job).key()}, [History(job)], 1.0
    while new:
        history = new.pop()
        for event in happenings(history.job):
            now += 10.0
            after = history.then(event, now)
            if after is not None and after.key() not in known:
                known.add(after.key())
                new.append(after)
    reached = {key[1] for key in known}
    runs = {State.STARTING} if executor == "local" else set()
    assert reached >= ENDED | {State.WAITING, State.QUEUED, State.PAUSED} | runs
