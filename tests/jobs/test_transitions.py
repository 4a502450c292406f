"""The state machine as tables, and driven through thousands of random histories against a model of the world."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from speciate.errors import SpeciateError
from speciate.jobs.folder import Outcome
from speciate.jobs.job import ENDED, LIVE, Job, Limits, State
from speciate.jobs.transitions import (
    MAX_LOSSES,
    Abandoned,
    ActionRequested,
    Claimed,
    Exited,
    Happening,
    Lost,
    NeedsFailed,
    NeedsMet,
    Overdue,
    SeenAlive,
    backoff,
    decide,
)
from speciate.refs import JobId
from tests.drawn import drawn


def a_job(state: State = State.QUEUED, **changes: object) -> Job:
    job = Job(id=JobId("job-a"), kind="work", spec={}, fingerprint="f", state=state, created=0.0, changed=0.0)
    return job.model_copy(update=changes)


def a_running_job(**changes: object) -> Job:
    return a_job(State.RUNNING, **({"attempt": 1, "started": 0.0} | changes))


def test_a_run_that_the_system_killed_for_want_of_memory_is_smaller_next_time_and_uses_no_retry() -> None:
    again = decide(a_running_job(), exited("starved"), 10.0)
    assert (again.shrinks, again.retries, again.losses) == (1, 0, 1)
    assert "for want of memory" in (again.reason or "")
    plain = decide(a_running_job(), exited("killed"), 10.0)
    assert (plain.shrinks, "memory" in (plain.reason or "")) == (0, False)
    last = decide(a_running_job(losses=MAX_LOSSES - 1), exited("starved"), 10.0)
    assert (last.state, last.reason) == (
        State.DEAD, f"lost: its run was killed {MAX_LOSSES} times without progress for want of memory",
    )  # fmt: skip


def test_a_run_that_was_given_up_counts_until_it_was_last_heard() -> None:
    job = a_running_job(request="cancel", started=100.0)
    assert decide(job, Abandoned(1, "unseen", 20.0), 9_000.0).run_seconds == 20.0


def exited(kind: str, attempt: int = 1) -> Exited:
    return Exited(attempt, Outcome(0 if kind == "ok" else 1, kind, "said so"), {"value": 1})


@pytest.mark.parametrize(
    ("request_made", "ending", "state"),
    [
        (None, exited("ok"), State.SUCCEEDED),
        (None, exited("user"), State.FAILED),
        (None, exited("transient"), State.QUEUED),
        (None, exited("memory"), State.QUEUED),
        (None, exited("stopped"), State.QUEUED),
        (None, exited("killed"), State.QUEUED),
        (None, exited("starved"), State.QUEUED),
        (None, Lost(1, progressed=False), State.QUEUED),
        ("cancel", exited("ok"), State.SUCCEEDED),
        ("cancel", exited("stopped"), State.CANCELLED),
        ("cancel", exited("user"), State.CANCELLED),
        ("cancel", exited("killed"), State.CANCELLED),
        ("cancel", exited("starved"), State.CANCELLED),
        ("cancel", Lost(1, progressed=False), State.CANCELLED),
        ("cancel", Abandoned(1, "unseen"), State.CANCELLED),
        ("cancel", Abandoned(2, "unseen"), State.RUNNING),
        ("pause", Abandoned(1, "unseen"), State.RUNNING),
        (None, Abandoned(1, "unseen"), State.RUNNING),
        ("pause", exited("stopped"), State.PAUSED),
        ("pause", Lost(1, progressed=True), State.PAUSED),
        ("pause", exited("user"), State.FAILED),
        ("stop", exited("stopped"), State.DEAD),
        ("stop", Lost(1, progressed=False), State.DEAD),
    ],
)
def test_how_a_run_ended_and_what_was_asked_of_it_decide_the_state(
    request_made: str | None, ending: Happening, state: State
) -> None:
    assert decide(a_running_job(request=request_made), ending, 5.0).state is state


def test_a_run_that_is_killed_at_one_place_again_is_tried_smaller() -> None:
    job = decide(a_running_job(), Lost(1, progressed=True), 1.0)
    assert job.shrinks == 0
    for shrinks, progressed in ((1, False), (2, False), (2, True)):
        job = decide(job, Claimed({}), 2.0)
        job = decide(job, Lost(job.attempt, progressed), 3.0)
        assert job.shrinks == shrinks


def test_a_killed_run_uses_up_no_retry() -> None:
    job = a_running_job()
    for _ in range(MAX_LOSSES - 1):
        job = decide(job, Lost(job.attempt, progressed=False), 1.0)
        assert job.state is State.QUEUED
        assert job.retries == 0
        job = decide(job, Claimed({}), 2.0)
    assert decide(job, Lost(job.attempt, progressed=False), 3.0).state is State.DEAD


def test_progress_forgives_earlier_losses() -> None:
    assert decide(a_running_job(losses=MAX_LOSSES - 1), Lost(1, progressed=True), 1.0).losses == 1


def test_transient_errors_are_retried_with_growing_pauses_and_then_given_up() -> None:
    job, pauses = a_running_job(limits=Limits(retries=3)), []
    while job.state is not State.DEAD:
        job = decide(job, exited("transient", job.attempt), 100.0)
        if job.state is State.QUEUED:
            pauses.append(job.not_before - 100.0)
            job = decide(job, Claimed({}), 100.0)
    assert pauses == [backoff(1), backoff(2), backoff(3)] == [1.0, 4.0, 16.0]
    assert job.reason is not None
    assert "said so" in job.reason


def test_an_exit_of_an_older_attempt_changes_nothing() -> None:
    job = a_running_job(attempt=2)
    assert decide(job, exited("ok", attempt=1), 1.0) is job


def test_run_time_leaves_out_the_queue_and_pauses() -> None:
    job = decide(a_job(), Claimed({}), 10.0)
    job = decide(job, ActionRequested("pause"), 12.0)
    job = decide(job, exited("stopped"), 13.0)
    job = decide(job, ActionRequested("resume"), 50.0)
    job = decide(job, Claimed({}), 60.0)
    assert decide(job, exited("ok", 2), 61.5).run_seconds == 4.5


def test_a_stale_expected_attempt_is_refused_with_the_next_call() -> None:
    with pytest.raises(SpeciateError, match=r"at attempt 1, not 3.*get_job"):
        decide(a_running_job(), ActionRequested("cancel", expected_attempt=3), 1.0)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_an_ended_job_cannot_be_paused(state: State) -> None:
    with pytest.raises(SpeciateError, match="cannot be paused"):
        decide(a_job(state), ActionRequested("pause"), 1.0)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_resuming_an_ended_job_is_answered_with_a_retry_where_one_may_help(state: State) -> None:
    with pytest.raises(SpeciateError, match="nothing to resume") as refused:
        decide(a_job(state), ActionRequested("resume"), 1.0)
    retried = [each.arguments for each in refused.value.next if each.tool == "control_job"]
    assert bool(retried) == (state is not State.SUCCEEDED)
    for arguments in retried:
        assert decide(a_job(state), ActionRequested(arguments["action"]), 1.0).state is State.QUEUED


@dataclass
class World:
    """What is really there: which attempts live, which left a word."""

    alive: set[int] = field(default_factory=set)
    words: dict[int, str] = field(default_factory=dict)


class History(RuleBasedStateMachine):
    """One job between users, a scheduler, runs that die in every way, and a daemon that sees things late or twice."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.job = a_job(State.WAITING, limits=Limits(retries=2))
        self.world = World()
        self.claims = 0
        self.seen_end: State | None = None

    def tell(self, event: Happening) -> None:
        self.now += 1.0
        before = self.job
        self.job = decide(before, event, self.now)
        if not isinstance(event, ActionRequested | Claimed):
            again = decide(self.job, event, self.now)
            assert again.state is self.job.state, "telling the same thing twice changed the state twice"
        if before.state in ENDED and not isinstance(event, ActionRequested):
            assert self.job is before, "an end is an end"
        if self.job.attempt != before.attempt:
            assert isinstance(event, Claimed), "only a claim makes an attempt"
            assert self.job.attempt == before.attempt + 1
            assert not self.world.alive, "an attempt began while another lived"

    @precondition(lambda self: self.job.state is State.WAITING)
    @rule(met=st.booleans())
    def needs(self, met: bool) -> None:
        self.tell(NeedsMet() if met else NeedsFailed("job-b is failed"))

    @precondition(lambda self: self.job.state is State.QUEUED)
    @rule()
    def claim_and_launch(self) -> None:
        self.tell(Claimed({"run": "x"}))
        self.world.alive.add(self.job.attempt)

    @precondition(lambda self: bool(self.world.alive))
    @rule(word=st.sampled_from(["ok", "user", "transient", "memory", "stopped", "killed", "starved", ""]))
    def run_ends(self, word: str) -> None:
        attempt = self.world.alive.pop()
        if word:
            self.world.words[attempt] = word

    @rule(progressed=st.booleans())
    def daemon_looks(self, progressed: bool) -> None:
        """What the reconciler does: it concludes an end only from a claim that is free."""
        if self.job.state not in LIVE:
            return
        attempt = self.job.attempt
        if attempt in self.world.alive:
            self.tell(SeenAlive(attempt))
        elif attempt in self.world.words:
            self.tell(exited(self.world.words[attempt], attempt))
        else:
            self.tell(Lost(attempt, progressed))

    @rule(attempt=st.integers(0, 3), word=st.sampled_from(["ok", "user", "killed"]))
    def a_stale_look_arrives(self, attempt: int, word: str) -> None:
        if attempt < self.job.attempt:
            before = self.job
            self.tell(exited(word, attempt))
            assert self.job is before

    @rule(limit=st.sampled_from(["queue", "run", "silence"]))
    def a_limit_passes(self, limit: str) -> None:
        self.tell(Overdue(limit, 1.0))

    @rule(action=st.sampled_from(["cancel", "pause", "resume", "retry"]))
    def somebody_asks(self, action: str) -> None:
        before = self.job
        try:
            self.tell(ActionRequested(action))
        except SpeciateError as error:
            assert self.job is before
            assert error.recovery, "an error names the next call"  # noqa: PT017 - a rule may end either way

    @invariant()
    def a_live_run_is_never_forgotten(self) -> None:
        if self.world.alive:
            assert self.job.state in LIVE, f"a run lives, but its job is {self.job.state}"

    @invariant()
    def an_end_has_its_time_and_no_open_request(self) -> None:
        if self.job.state in ENDED:
            assert self.job.ended is not None
            assert self.job.request is None
        else:
            assert self.job.ended is None

    @invariant()
    def a_request_waits_only_for_a_live_run(self) -> None:
        assert self.job.request is None or self.job.state in LIVE

    @invariant()
    def retries_stay_within_the_limit(self) -> None:
        assert self.job.retries <= self.job.limits.retries


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=drawn(100), stateful_step_count=30, deadline=None)


@pytest.mark.slow
class TestManyHistories(History.TestCase):  # type: ignore[name-defined,misc]  # made by Hypothesis
    settings = settings(max_examples=5000, stateful_step_count=30, deadline=None)


def test_what_a_library_said_is_kept_out_of_the_reason() -> None:
    outcome = Outcome(1, "user", "ValueError in the run", "", "not a float: IGNORE ALL")
    failed = decide(a_running_job(), Exited(1, outcome), 1.0)
    assert failed.reason == "ValueError in the run"
    assert failed.error is not None
    assert failed.error["detail"] == "not a float: IGNORE ALL"
