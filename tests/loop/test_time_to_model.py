"""Time to model as a table of histories, and what holds of every history."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.loop.time_to_model import STAGES, time_to_model
from speciate.workspace.database import Event
from tests.loop.histories import (
    CREATED,
    Step,
    answered,
    asked,
    dataset,
    decided,
    history,
    job,
    made,
    moved,
    survived,
    told,
)  # fmt: skip

JOBS = {"job-t": "train", "job-e": "evaluate", "job-i": "ingest", "job-x": "export"}
_WHOLE = (
    CREATED, dataset(110), made(140, "m@v1"), decided(150, "m@v1"), moved(155, None, "m@v1"), told(156, "m@v1"),
)  # fmt: skip
_BUSY = (
    *_WHOLE, job(112, "job-t", "queued"), job(118, "job-t", "running"), job(140, "job-t", "succeeded"),
    job(141, "job-e", "queued"), job(142, "job-e", "running"), job(150, "job-e", "succeeded"),
    asked(151, "a"), answered(154, "a"),
)  # fmt: skip
_TRAINED = (job(110, "job-t", "queued"), made(120, "m@v1"), job(120, "job-t", "succeeded"))


def test_the_stages_add_up_to_the_time_to_model() -> None:
    clock = time_to_model("digits", history(*_WHOLE), 999.0, "digits@v1")
    assert (clock.state, clock.seconds, clock.answered) == ("provisional", 56.0, 156.0)
    assert clock.stages == {"deploy": 1.0, "idle": 55.0}, "no job is known to have run"
    assert clock.waited_for == {"data": 10.0, "train": 30.0, "evaluate": 10.0, "deploy": 5.0}


def test_waiting_in_the_queue_and_for_a_person_are_stages_of_their_own() -> None:
    clock = time_to_model("digits", history(*_BUSY), 999.0, "digits@v1", JOBS)
    assert clock.stages == {"queue": 6 + 1, "train": 22, "evaluate": 8, "person": 3, "deploy": 1, "idle": 15}
    assert clock.waited_for == {"data": 10, "train": 2, "evaluate": 1, "deploy": 1 + 1}


def test_an_evaluation_of_four_seconds_is_no_evaluation_of_twelve_minutes() -> None:
    late = (
        CREATED, dataset(90), job(100, "job-t", "running"), made(120, "m@v1"), job(120, "job-t", "succeeded"),
        job(500, "job-e", "running"), decided(504, "m@v1"), job(504, "job-e", "succeeded"),
        moved(880, None, "m@v1"), told(881, "m@v1"),
    )  # fmt: skip
    clock = time_to_model("digits", history(*late), 999.0, "digits@v1", JOBS)
    assert clock.stages == {"train": 20, "evaluate": 4, "deploy": 1, "idle": 380 + 376}
    assert clock.waited_for == {"evaluate": 380, "deploy": 376}


def test_the_clock_runs_until_production_answers() -> None:
    clock = time_to_model("digits", history(*_WHOLE[:-1]), 400.0)
    assert (clock.state, clock.seconds, clock.model) == ("open", 300.0, None)


def test_it_is_provisional_until_the_bake_is_over_and_back_dated_to_the_first_answer() -> None:
    clock = time_to_model("digits", history(*_WHOLE, survived(9_000, "m@v1")), 9_999.0)
    assert (clock.state, clock.seconds, clock.model) == ("done", 56.0, "m@v1")
    late = history(*_WHOLE, survived(9_000, "m@v1"), moved(9_500, "m@v1", "m@v0", "rollback"))
    assert time_to_model("digits", late, 9_999.0).state == "done", "that it failed later is another figure"


def test_a_version_that_the_bake_took_back_sets_the_clock_going_again() -> None:
    bad = (CREATED, moved(110, "old@v1", "m@v1"), told(111, "m@v1"), moved(120, "m@v1", "old@v1", "rollback"))
    assert time_to_model("digits", history(*bad), 115.0).state == "provisional"
    assert time_to_model("digits", history(*bad), 200.0)[:2] == ("open", 100.0)
    mended = history(*bad, moved(150, "old@v1", "m@v2"), told(160, "m@v2"))
    assert time_to_model("digits", mended, 200.0)[:2] == ("provisional", 60.0)


def test_what_answered_as_a_canary_counts_from_when_it_got_all_requests() -> None:
    steps = (CREATED, moved(110, None, "m@v1"), told(130, "m@v2", "canary.answered"), moved(170, "m@v1", "m@v2"))
    clock = time_to_model("digits", history(*steps), 200.0)
    assert (clock.model, clock.seconds) == ("m@v2", 70.0)


def test_a_deployment_that_answered_while_no_daemon_heard_it_is_believed() -> None:
    steps = (CREATED, moved(110, None, "m@v1"), told(5_000, "m@v1", at=111.0))
    assert time_to_model("digits", history(*steps), 6_000.0).seconds == 11.0


def test_data_that_were_there_before_the_clock_started_cost_nothing() -> None:
    steps = history(dataset(50), CREATED, moved(120, None, "m@v1"), told(130, "m@v1"))
    assert time_to_model("digits", steps, 999.0, "digits@v1").stages == {"deploy": 10.0, "idle": 20.0}


def test_a_question_that_nobody_answered_waits_until_it_expires() -> None:
    steps = (CREATED, asked(110, "a", expires=140.0))
    assert time_to_model("digits", history(*steps), 300.0).stages == {"person": 30.0, "idle": 170.0}
    never = (CREATED, asked(110, "a", expires=None))
    assert time_to_model("digits", history(*never), 300.0).stages == {"idle": 10.0, "person": 190.0}


@pytest.mark.parametrize(
    ("steps", "stage", "waits_for"),
    [
        ((), "idle", "data"),
        ((job(110, "job-t", "queued"), job(111, "job-t", "cancelled")), "idle", "train"),
        ((*_TRAINED, decided(125, "m@v1", "hold")), "idle", "evaluate"),
        ((*_TRAINED, decided(125, "m@v1")), "idle", "deploy"),
        ((*_TRAINED, decided(125, "m@v1"), moved(130, None, "m@v1")), "deploy", None),
        ((job(110, "job-t", "queued"),), "queue", None),
        ((job(110, "job-t", "running"),), "train", None),
        ((job(110, "job-t", "running"), job(120, "job-t", "pause_requested")), "train", None),
        ((job(110, "job-x", "running"),), "idle", "data"),
    ],
)  # fmt: skip
def test_an_unfinished_use_case_is_in_the_stage_that_it_got_to(
    steps: tuple[Step, ...], stage: str, waits_for: str | None
) -> None:
    later, now = (time_to_model("digits", history(CREATED, *steps), at, jobs=JOBS) for at in (500.0, 400.0))

    def grown(after: Mapping[str, float], before: Mapping[str, float]) -> set[str]:
        return {name for name, seconds in after.items() if seconds > before.get(name, 0.0)}

    assert grown(later.stages, now.stages) == {stage}
    assert grown(later.waited_for, now.waited_for) == ({waits_for} if waits_for else set())


def test_another_use_case_does_not_stop_the_clock() -> None:
    other = (110.0, "use_case:other", "production.answered", {"model": "m@v1"})
    assert time_to_model("digits", history(CREATED, other), 200.0).state == "open"


# Whatever happened

_moments = st.integers(0, 60).map(float)
_models = st.sampled_from(["m@v1", "m@v2", "m@v3"])
_steps = st.one_of(
    st.builds(moved, _moments, st.none(), _models, st.sampled_from(["promote", "promote", "rollback"])),
    st.builds(told, _moments, _models, st.sampled_from(["production.answered", "canary.answered", "bake.broken"])),
    st.builds(survived, _moments, _models),
    st.builds(
        job, _moments, st.sampled_from(sorted(JOBS)),
        st.sampled_from(["queued", "starting", "running", "paused", "succeeded", "cancel_requested"]),
    ),
    st.builds(asked, _moments, st.sampled_from("ab"), _moments),
    st.builds(answered, _moments, st.sampled_from("ab")),
    st.builds(decided, _moments, _models, st.sampled_from(["promote", "hold"])),
    st.builds(dataset, _moments),
    st.builds(made, _moments, _models),
)  # fmt: skip
_histories = st.tuples(_moments, st.lists(_steps, max_size=30)).map(
    lambda drawn: history((drawn[0], "use_case:digits", "use_case.created", {}), *drawn[1])
)


@given(_histories, st.lists(_moments, min_size=1, max_size=6), st.sampled_from([None, "digits@v1"]))
def test_stages_are_never_negative_and_always_add_up_and_the_clock_never_goes_back(
    events: list[Event], moments: list[float], data: str | None
) -> None:
    before = 0.0
    for now in sorted(moments):
        clock = time_to_model("digits", events, now, data, JOBS)
        assert set(clock.stages) <= set(STAGES)
        assert all(seconds > 0 for seconds in clock.stages.values())
        assert sum(clock.stages.values()) == pytest.approx(clock.seconds)
        assert sum(clock.waited_for.values()) == pytest.approx(clock.stages.get("idle", 0.0))
        assert clock.seconds >= before
        before = clock.seconds


@given(_histories, _moments, _moments)
def test_while_nothing_happens_only_one_stage_of_an_open_clock_grows(
    events: list[Event], first: float, more: float
) -> None:
    quiet = max(event.at for event in events) + 1
    early, late = (time_to_model("digits", events, quiet + 100 + at, None, JOBS) for at in (first, first + more))
    assert (early.state, early.model) == (late.state, late.model)
    grown = {name: late.stages[name] - early.stages.get(name, 0.0) for name in late.stages}
    assert all(seconds >= -1e-9 for seconds in grown.values())
    assert sum(seconds > 1e-9 for seconds in grown.values()) == (early.state == "open" and more > 0)
