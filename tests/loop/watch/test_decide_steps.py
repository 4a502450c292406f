"""Each step of an episode, whole: what is remembered, begun, told, and how it ends."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from speciate.loop.watch.decide import decide
from speciate.loop.watch.definition import DAY, Policy, Trigger, TriggerKind, Watch
from speciate.loop.watch.facts import (
    Alarm,
    Checked,
    Decision,
    EndedJob,
    Learned,
    Memory,
    Mined,
    Promoted,
    Requirement,
    Signal,
    Spent,
    Start,
    WatchFacts,
    WatchNotice,
    Window,
)
from tests.loop.watch.test_decide import EVERY, NOW, memory, seen, watch

HOUR = 3600.0
ALARM = Alarm(signal="inputs", onset=NOW - 9 * DAY, log_evidence=7.0, window=3)
OPEN = 1e18
"""Of a cause whose episode runs."""
QUIET = watch("schedule")
"""Nothing fires."""


def running(state: str, **more: Any) -> Memory:
    """The third episode, begun five days ago for a shift."""
    return memory(
        **{
            "state": state, "since": NOW - 2 * DAY, "episode": 3, "begun": NOW - 5 * DAY, "causes": ("data_shift",),
            "fingerprints": ("f",), "tried": {"f": OPEN, "later": NOW + DAY, "over": NOW}, "alarms": (ALARM,),
            "mined": 40, "onset": NOW - 9 * DAY, "before": "m@v1", "fruitless": 0, "window": 3, **more,
        }
    )  # fmt: skip


def ended(was: Memory, outcome: str, **more: Any) -> Memory:
    """Idle again: an episode in vain, of which nothing stands, unless `more` says otherwise."""
    pause = more.pop("pause", 2 * 168 * HOUR)
    kept = {"later": NOW + DAY, "f": NOW + 2 * pause} if more.pop("waits", True) else {"later": NOW + DAY}
    return was.model_copy(
        update={
            "state": "idle", "since": NOW, "causes": (), "fingerprints": (), "alarms": (), "tried": kept,
            "quiet_until": was.begun + pause, "fruitless": 1, "undecided": 0, "approval": None, "new_bases": (),
            "mined": 0, "onset": None, "model_found": None, "before": None, "first": None, "short": False, "told": NOW,
            "canary": False, **more,
        }
    )  # fmt: skip


def step(was: Memory, outcome: Any, why: str = "", *, by: Watch = QUIET, **facts: Any) -> Decision:
    names = {"mining": "mine", "checking": "check", "learning": "relearn", "baking": "promote"}
    return decide(by, was, seen(jobs={names[was.state]: EndedJob("job-1", outcome, why)}, **facts), NOW)


# Mining and checking


@pytest.mark.parametrize(
    ("asked", "labels", "goes_on"), [(20, 400, True), (19, 400, False), (5, 5, True), (4, 5, False)]
)
def test_an_episode_goes_on_with_twenty_answers_to_ask_about(asked: int, labels: int, goes_on: bool) -> None:
    was = running("mining", mined=7)
    found = step(was, Mined(asked=asked, pool=50, not_kept=3, near_suites=2), by=watch("schedule", labels=labels))
    if goes_on:
        assert found.memory == was.model_copy(update={"state": "labelling", "since": NOW, "mined": 7 + asked})
        assert found.told == (WatchNotice("watch.labels", f"{asked} answers wait for a label"),)
    else:
        assert found.memory == ended(was, "no_labels", alarms=(ALARM,))
        assert found.ended is not None
        assert (found.ended.outcome, found.ended.because) == (
            "no_labels", f"only {asked} answers could be asked about, of 50 since it began; the inputs of 3 were not "
            "kept ([log] of settings.toml); 2 are near-copies of rows of the suites",
        )  # fmt: skip
        assert found.told == (WatchNotice("watch.ended", "episode 3 ended: no labels"),)


@pytest.mark.parametrize("labels_new", [0, 1])
def test_what_does_not_meet_the_use_case_is_learned_anew_with_what_is_left_of_the_month(labels_new: int) -> None:
    was = running("checking", new_bases=("b",))
    spent = Spent(minutes=20.0, usd=1.5)
    by = watch("schedule", budget_usd=4.0)
    found = step(was, Checked(meets=False, failing=("latency", "license")), by=by, spent=spent, labels_new=labels_new)
    assert found.memory == was.model_copy(update={"state": "learning", "since": NOW})
    assert found.start == (Start("relearn", minutes=100.0, usd=2.5, bases=("b",), fresh=labels_new > 0),)
    assert found.because == "what serves does not meet the use case: latency, license"
    assert step(was, Checked(meets=None)).because.endswith("it is not known")


@pytest.mark.parametrize(("spent", "goes_on"), [(118.0, True), (118.5, False), (0.0, True)])
def test_no_training_begins_with_less_than_two_minutes_left(spent: float, goes_on: bool) -> None:
    was = running("checking")
    found = step(was, Checked(meets=False), spent=Spent(minutes=spent, usd=9.0))
    assert [each.usd for each in found.start] == ([0.0] if goes_on else [])
    if not goes_on:
        assert found.memory == ended(was, "failed", alarms=(ALARM,))
        assert found.ended is not None
        assert found.ended.outcome == "failed"
    labelled = running("labelling")
    waits = decide(QUIET, labelled, seen(labels_of_episode=40, spent=Spent(minutes=spent)), NOW)
    assert bool(waits.start) == goes_on
    assert (waits.memory == labelled) != goes_on


def test_what_meets_the_use_case_ends_the_episode_well() -> None:
    was = running("checking", fruitless=2, undecided=1)
    found = step(was, Checked(meets=True))
    assert found.memory == ended(was, "met", fruitless=0, pause=168 * HOUR, waits=False)
    assert found.ended is not None
    assert found.ended.outcome == "met"
    assert found.told == (WatchNotice("watch.ended", "episode 3 ended: met"),)


# Learning


def test_an_inconclusive_round_asks_for_more_labels_once() -> None:
    was = running("learning", learned_until=0.0, new_bases=("b",))
    found = step(was, Learned(verdict="inconclusive", why="so", needed_labels=30), spent=Spent(labels=300))
    assert found.memory == was.model_copy(
        update={"state": "mining", "since": NOW, "learned_until": was.since, "round": 2}
    )
    assert found.start == (Start("mine", n=30, since=NOW - 9 * DAY),)
    assert found.because == "inconclusive: so; 30 more labels are asked for, once"


@pytest.mark.parametrize(("needed", "spent", "more"), [(None, 0, 100), (500, 0, 100), (50, 380, 20), (50, 381, None)])
def test_no_more_labels_are_asked_for_than_the_month_holds(needed: int | None, spent: int, more: int | None) -> None:
    found = step(
        running("learning"), Learned(verdict="inconclusive", why="so", needed_labels=needed), spent=Spent(labels=spent)
    )
    assert [each.n for each in found.start] == ([] if more is None else [more])
    if more is None:
        assert found.ended is not None
        assert found.ended.because == "so; about 50 more labels would tell, and 19 of this month's are left"


@pytest.mark.parametrize(
    ("more", "judged", "rounds"), [({"mined": 0}, 0, 3), ({"mined": 0}, 5, 2), ({}, 0, 2),
     ({"mined": 0, "round": 2, "rounds": 3}, 0, 3)]
)  # fmt: skip
def test_where_nothing_judged_the_first_round_there_is_one_more(more: dict[str, Any], judged: int, rounds: int) -> None:
    was = running("learning", **more)
    found = step(was, Learned(verdict="inconclusive", why="so", judged=judged))
    assert found.memory.rounds == rounds
    assert found.because.endswith("asked for, once") == (found.memory.round == rounds)
    assert found.because.endswith("asked for") != (found.memory.round == rounds)
    last = step(
        found.memory.model_copy(update={"state": "learning", "round": rounds}),
        Learned(verdict="inconclusive", why="so"),
    )
    assert last.ended is not None


@pytest.mark.parametrize(
    ("learned", "outcome", "stands", "waits", "quiet"),
    [
        ({"verdict": "hold"}, "hold", True, True, True),
        ({"verdict": "hold", "settled": True}, "hold", False, True, True),
        ({"verdict": "hold", "used_labels": False}, "failed", True, True, False),
        ({"verdict": "hold", "used_labels": False, "bases": ()}, "hold", True, True, False),
    ],
)
def test_a_candidate_that_is_no_better_ends_the_episode(
    learned: dict[str, Any], outcome: str, stands: bool, waits: bool, quiet: bool
) -> None:
    was = running("learning", learned_until=5.0, quiet_until=77.0, undecided=1)
    found = step(was, Learned(why="no", model="m@v2", smallest_gain=0.1, **learned))
    used = learned.get("used_labels", True)
    assert found.ended is not None
    assert (found.ended.outcome, found.ended.model, found.ended.smallest_gain) == (outcome, "m@v2", 0.1)
    assert found.ended.because == "no"
    pause = (2 if used else 1) * 168 * HOUR
    assert found.memory == ended(
        was, outcome, alarms=(ALARM,) if stands else (), pause=pause, fruitless=1 if used else 0,
        learned_until=was.since if used else 5.0, undecided=0 if used else 1,
        **({} if quiet else {"quiet_until": 77.0}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("bases", "known", "outcome", "left"),
    [
        (None, True, "hold", ("a", "b")), (None, False, "failed", ("a",)), (("b",), False, "hold", ("a", "b")),
    ],
)  # fmt: skip
def test_base_models_of_which_nothing_is_known_are_as_new_as_before(
    bases: tuple[str, ...] | None, known: bool, outcome: str, left: tuple[str, ...]
) -> None:
    was = running("learning", bases=("a", "b"), new_bases=("b",), looked_up=True)
    found = step(was, Learned(verdict="hold", why="no", bases=bases, used_labels=known))
    assert found.ended is not None
    assert (found.ended.outcome, found.memory.bases, found.memory.new_bases) == (outcome, left, ())


@pytest.mark.parametrize(("undecided", "open_"), [(0, True), (1, True), (2, False)])
def test_the_third_episode_in_a_row_that_labels_could_not_decide_was_in_vain(undecided: int, open_: bool) -> None:
    was = running("learning", round=2, undecided=undecided, fruitless=1)
    found = step(was, Learned(verdict="inconclusive", why="few"))
    more: dict[str, Any] = (
        {"alarms": (ALARM,), "waits": False, "pause": 168 * HOUR, "fruitless": 1} if open_
        else {"pause": 4 * 168 * HOUR, "fruitless": 2}
    )  # fmt: skip
    assert found.memory == ended(was, "inconclusive", learned_until=was.since, undecided=undecided + 1, **more)
    assert [each.type for each in found.told] == ["watch.ended" if open_ else "watch.unresolved"]


@pytest.mark.parametrize(("before", "doublings"), [(0, 1), (2, 3), (3, 4), (4, 4), (9, 4)])
def test_the_pause_doubles_with_each_episode_in_vain_four_times_at_most(before: int, doublings: int) -> None:
    was = running("learning", fruitless=before)
    found = step(was, Learned(verdict="hold", why="no"))
    assert found.memory.quiet_until == was.begun + 168 * HOUR * 2**doublings
    assert found.memory.tried["f"] == NOW + 2 * 168 * HOUR * 2**doublings
    assert found.memory.fruitless == before + 1
    third = before + 1 == 3
    assert [each.type for each in found.told] == ["watch.unresolved" if third else "watch.ended"]


@pytest.mark.parametrize(("verdict", "told"), [("hold", "watch.unresolved"), ("inconclusive", "watch.unresolved")])
def test_what_the_use_case_asks_and_nothing_reaches_is_told(verdict: Any, told: str) -> None:
    was = running("learning", causes=("requirement_change",), round=2)
    assert [each.type for each in step(was, Learned(verdict=verdict, why="no")).told] == [told]
    failed = step(was, None, "it broke")
    assert failed.told == (WatchNotice("watch.ended", "episode 3 ended: failed"),)
    assert failed.memory == ended(was, "failed", alarms=(ALARM,))
    assert failed.ended is not None
    assert failed.ended.because == "relearn failed: it broke"


def test_after_a_first_candidate_that_serves_a_second_that_is_no_better_ends_well() -> None:
    was = running("learning", first="m@v2", round=2)
    found = step(was, Learned(verdict="hold", why="no better", smallest_gain=0.1))
    assert found.ended is not None
    assert (found.ended.outcome, found.ended.model, found.ended.smallest_gain) == ("promoted", "m@v2", 0.1)
    assert found.memory == ended(was, "promoted", fruitless=0, pause=168 * HOUR, waits=False, learned_until=was.since)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(
    ("promotion", "canary", "state", "because"),
    [
        ("needs_approval", False, "asking", "a person is asked whether m@v2 may serve"),
        ("applied", False, "baking", "m@v2 serves, and bakes"),
        ("applied", True, "baking", "m@v2 serves a share of the requests, and bakes"),
    ],
)
def test_a_candidate_that_may_serve_is_asked_for_or_bakes(
    promotion: Any, canary: bool, state: str, because: str, short: bool
) -> None:
    was = running("learning")
    approval = "approval-7" if promotion == "needs_approval" else None
    found = step(was, Learned(
        verdict="promote", why="+", model="m@v2", promotion=promotion, approval=approval, canary=canary, short=short
    ))  # fmt: skip
    assert found == Decision(
        was.model_copy(
            update={
                "state": state, "since": NOW, "learned_until": was.since, "short": short, "canary": canary,
                "model_found": "m@v2", "approval": approval,
            }
        ), because,
    )  # fmt: skip


@pytest.mark.parametrize("promotion", ["refused", None])
def test_a_candidate_that_is_refused_though_it_is_better_is_held(promotion: Any) -> None:
    was = running("learning")
    found = step(
        was, Learned(verdict="promote", why="+", model="m@v2", promotion=promotion, smallest_gain=0.1, canary=True)
    )
    assert found.ended is not None
    assert (found.ended.outcome, found.ended.because) == ("hold", "+")
    assert (found.ended.model, found.ended.smallest_gain) == ("m@v2", 0.1)
    assert found.memory == ended(was, "hold", alarms=(ALARM,), learned_until=was.since)


# Labelling


@pytest.mark.parametrize(
    ("came", "days", "state"),
    [
        (32, 0, "learning"), (31, 0, "labelling"), (24, 21, "learning"), (23, 21, "idle"), (24, 20.9, "labelling"),
        (0, 21, "idle"),
    ],
)  # fmt: skip
def test_an_episode_goes_on_with_most_of_its_labels(came: int, days: float, state: str) -> None:
    was = running("labelling", since=NOW - days * DAY)
    found = decide(QUIET, was, seen(labels_of_episode=came), NOW)
    assert found.memory.state == state
    if state == "learning":
        assert found.memory == was.model_copy(update={"state": "learning", "since": NOW})
        assert found.start == (Start("relearn", minutes=120.0, usd=0.0, fresh=True),)
        assert found.because == f"{came} of 40 labels came" + (", and its patience is over" if days >= 21 else "")
    elif state == "labelling":
        assert (found.memory, found.because) == (was, f"waits for labels: {came} of 40 came")
    else:
        assert found.memory == ended(was, "no_labels", alarms=(ALARM,))
        assert found.ended is not None
        assert (found.ended.outcome, found.ended.because) == (
            "no_labels",
            f"only {came} of 40 labels came within 21 days",
        )


@pytest.mark.parametrize(
    ("mined", "requested", "came", "goes_on"),
    [
        (40, 20, 16, True),
        (40, 20, 15, False),
        (40, 60, 32, True),
        (0, None, 1, True),
        (0, None, 0, False),
        (1, 0, 1, True),
    ],
)
def test_a_purge_takes_questions_with_it(mined: int, requested: int | None, came: int, goes_on: bool) -> None:
    found = decide(QUIET, running("labelling", mined=mined), seen(labels_of_episode=came, requested=requested), NOW)
    assert (found.memory.state == "learning") == goes_on


def test_labels_wait_while_another_watch_trains() -> None:
    was = running("labelling")
    found = decide(QUIET, was, seen(labels_of_episode=40, busy="other"), NOW)
    assert (found.memory, found.because) == (was, "40 of 40 labels came; the watch of other trains now")


# Asking and baking


def asking(**more: Any) -> Memory:
    return running("asking", model_found="m@v2", approval="approval-7", **more)


@pytest.mark.parametrize(
    ("facts", "state", "outcome"),
    [
        ({"approval": "approved"}, "baking", None), ({"approval": "pending"}, "asking", None),
        ({"approval": "pending", "production": "m@v2", "generation": 2}, "baking", None),
        ({"approval": "denied"}, "idle", "denied"), ({"approval": "expired"}, "idle", "denied"),
        ({"approval": None}, "idle", "denied"), ({"approval": "void"}, "idle", "stopped"),
    ],
)  # fmt: skip
def test_a_question_is_waited_for(facts: dict[str, Any], state: str, outcome: str | None) -> None:
    was = asking()
    found = decide(QUIET, was, seen(**facts), NOW)
    if state == "baking":
        assert (found.memory.state, found.memory.since) == ("baking", NOW)
        assert found.because == "a person agreed: m@v2 serves, and bakes"
    elif state == "idle":
        assert found.ended is not None
        assert found.ended.outcome == outcome
        assert found.memory == ended(was, str(outcome))
        said = "nobody answered in time" if facts["approval"] == "expired" else "a person said no"
        assert outcome == "stopped" or found.ended.because == f"m@v2 was not promoted: {said}"
    else:
        assert (found.memory, found.because) == (was, "waits for a person: approval-7")


def baking(**more: Any) -> Memory:
    return running("baking", model_found="m@v2", **more)


SHARE: dict[str, Any] = {"canary": "m@v2"}


@pytest.mark.parametrize(
    ("facts", "promoted", "outcome", "because"),
    [
        ({"canary": None}, None, "taken_back", "m@v2 serves no share of the requests any more"),
        ({**SHARE, "canary_bake": "broken"}, None, "taken_back", "m@v2 broke a limit with its share"),
        (SHARE, EndedJob("job", Promoted(state="refused"), "no"), "hold", "m@v2 was not given all requests: no"),
        (SHARE, EndedJob("job", None, "it broke"), "hold", "m@v2 was not given all requests: it broke"),
        (SHARE, EndedJob("job", Checked(meets=True), "odd"), "hold", "m@v2 was not given all requests: odd"),
    ],
)
def test_a_canary_that_fails_ends_the_episode(
    facts: dict[str, Any], promoted: EndedJob | None, outcome: str, because: str
) -> None:
    was = baking(canary=True)
    found = decide(QUIET, was, seen(jobs={"promote": promoted} if promoted else {}, **facts), NOW)
    assert found.ended is not None
    assert (found.ended.outcome, found.ended.because, found.ended.model) == (outcome, because, "m@v2")
    assert found.memory == ended(was, outcome, alarms=(ALARM,) if outcome == "hold" else ())


@pytest.mark.parametrize(("state", "approval"), [("applied", None), ("needs_approval", "approval-9")])
def test_a_canary_that_survived_serves_all_or_waits_for_a_person(state: Any, approval: str | None) -> None:
    was = baking(canary=True)
    found = decide(
        QUIET, was, seen(jobs={"promote": EndedJob("j", Promoted(state=state, approval=approval))}, **SHARE), NOW
    )
    after = {"state": "baking" if approval is None else "asking", "since": NOW, "canary": False, "approval": approval}
    assert found.memory == was.model_copy(update=after)
    survived = decide(QUIET, was, seen(canary_bake="survived", **SHARE), NOW)
    assert (survived.memory, survived.start) == (was, (Start("promote", model="m@v2"),))
    assert decide(QUIET, was, seen(**SHARE), NOW) == Decision(was, "m@v2 bakes with a share of the requests")
    serves = decide(QUIET, was, seen(production="m@v2", generation=2, bake="provisional"), NOW)
    assert serves.because == "m@v2 bakes", "what serves all is no canary any more"


@pytest.mark.parametrize(
    ("facts", "outcome", "because"),
    [
        ({"taken_back": ("m@v2",)}, "taken_back", "the bake took m@v2 back"),
        ({}, "stopped", "somebody else moved production from m@v2"),
        ({"production": "m@v2", "bake": "broken"}, "taken_back", "m@v2 broke a limit of its bake"),
        ({"production": "m@v2"}, "promoted", "m@v2 survived its bake"),
    ],
)
def test_a_bake_ends_the_episode(facts: dict[str, Any], outcome: str, because: str) -> None:
    was = baking(model=facts.get("production", "m@v1"))
    found = decide(QUIET, was, seen(**facts), NOW)
    assert found.ended is not None
    assert (found.ended.outcome, found.ended.because, found.ended.model) == (outcome, because, "m@v2")
    good = {"fruitless": 0, "pause": 168 * HOUR, "waits": False} if outcome == "promoted" else {}
    assert found.memory == ended(was, outcome, **good)
    assert found.told == (WatchNotice("watch.ended", f"episode 3 ended: {outcome.replace('_', ' ')}"),)


@pytest.mark.parametrize(
    ("more", "spent", "goes_on"),
    [
        ({}, Spent(), True), ({"short": False}, Spent(), False), ({"round": 2}, Spent(), False),
        ({"first": "m@v1"}, Spent(), False), ({}, Spent(labels=380), True), ({}, Spent(labels=381), False),
        ({}, Spent(minutes=118.0), True), ({}, Spent(minutes=118.5), False), ({"round": 2, "rounds": 3}, Spent(), True),
    ],
)  # fmt: skip
def test_a_candidate_that_is_short_of_the_target_is_followed_by_another_round(
    more: dict[str, Any], spent: Spent, goes_on: bool
) -> None:
    was = baking(model="m@v2", new_bases=("b",), **{"short": True, **more})
    found = decide(QUIET, was, seen(production="m@v2", spent=spent), NOW)
    if goes_on:
        assert found.memory == was.model_copy(
            update={"state": "mining", "since": NOW, "round": was.round + 1, "first": "m@v2", "new_bases": ()}
        )
        assert found.start == (Start("mine", n=min(100, 400 - spent.labels), since=NOW - 9 * DAY),)
    else:
        assert found.ended is not None
        assert (found.ended.outcome, found.start) == ("promoted", ())


# Idle: what begins


def idle(**more: Any) -> Memory:
    return memory(**{"episode": 2, "tried": {"old": NOW + DAY}, "rounds": 3, "round": 2, "short": True, "first": "m@v0",
                     "approval": "a", "mined": 7, "model_found": "m@v0", "window": 2, **more})  # fmt: skip


def begun(was: Memory, kind: TriggerKind, fingerprint: str, **more: Any) -> Memory:
    return was.model_copy(
        update={
            "state": "learning", "since": NOW, "episode": 3, "round": 1, "rounds": 2, "begun": NOW, "causes": (kind,),
            "fingerprints": (fingerprint,), "tried": {"old": NOW + DAY, fingerprint: OPEN}, "approval": None,
            "mined": 0, "model_found": None, "first": None, "short": False, "before": "m@v1", "told": NOW, **more,
        }
    )  # fmt: skip


def test_a_shift_begins_an_episode_that_asks_about_answers_since_its_onset() -> None:
    was = idle()
    window = Window(3, (Signal("inputs", alarm=True, onset=NOW - 9 * DAY, log_evidence=7.0),))
    found = decide(watch(), was, seen(windows=(window,), spent=Spent(labels=350), asked=NOW - DAY), NOW)
    shift, now = found.fired[1], found.fired[0]
    assert (now.kind, shift.kind) == ("now", "data_shift")
    assert found.taken == found.fired
    assert found.memory == begun(
        was, "now", now.fingerprint, state="mining", causes=("now", "data_shift"), window=3, alarms=(ALARM,),
        fingerprints=(now.fingerprint, shift.fingerprint), onset=NOW - 9 * DAY, asked=NOW - DAY,
        tried={"old": NOW + DAY, now.fingerprint: OPEN, shift.fingerprint: OPEN},
    )  # fmt: skip
    assert found.start == (Start("mine", n=50, since=NOW - 9 * DAY),)
    assert found.told == (WatchNotice("watch.begun", "episode 3 begins: now, data_shift"),)
    assert found.because == "episode 3 begins: somebody asked for it; what is asked is no longer what was asked"


@pytest.mark.parametrize(
    ("facts", "kind", "state", "update"),
    [
        ({"provider": 4}, "provider_change", "checking", {"provider": 4}),
        ({"requirement": Requirement(2, None)}, "requirement_change", "checking", {"requirement": 2}),
        ({"requirement": Requirement(2, meets=False)}, "requirement_change", "learning", {"requirement": 2}),
        ({"recalled": "a licence"}, "recall", "learning", {}),
        ({"labels_new": 300}, "new_labels", "learning", {}),
        ({"labels_new": 300, "requirement": None}, "new_labels", "learning", {}),
    ],
)
def test_what_asks_for_no_label_is_checked_or_learned_at_once(
    facts: dict[str, Any], kind: TriggerKind, state: str, update: dict[str, Any]
) -> None:
    was = idle()
    found = decide(watch(kind), was, seen(spent=Spent(minutes=20.0), **facts), NOW)
    [cause] = found.fired
    assert (cause.kind, found.taken) == (kind, (cause,))
    assert found.memory == begun(was, kind, cause.fingerprint, state=state, **update)
    assert found.told == (WatchNotice("watch.begun", f"episode 3 begins: {kind}"),)
    learns = Start("relearn", minutes=100.0, usd=0.0, fresh=facts.get("labels_new", 0) > 0)
    assert found.start == ((Start("check"),) if state == "checking" else (learns,))


def test_a_changed_provider_and_a_requirement_that_may_be_met_are_checked_together() -> None:
    both = {"provider": 4, "requirement": Requirement(2, None)}
    assert decide(watch(), idle(), seen(**both), NOW).memory.state == "checking"
    assert decide(watch(), idle(), seen(labels_new=300, **both), NOW).memory.state == "learning"
    fails = {"provider": 4, "requirement": Requirement(2, meets=False)}
    assert decide(watch(), idle(), seen(**fails), NOW).memory.state == "learning"
    one = decide(watch(), idle(), seen(labels_new=1, recalled="x"), NOW)
    assert one.start[0].fresh, "one label is a fresh one"


def test_only_the_newest_two_hundred_causes_are_remembered() -> None:
    was = idle(tried={str(each): NOW + DAY for each in range(250)})
    found = decide(watch(), was, seen(recalled="x"), NOW)
    assert [*found.memory.tried] == [*map(str, range(51, 250)), found.fired[0].fingerprint]


@pytest.mark.parametrize(("last", "told"), [(NOW - DAY, True), (NOW - DAY + 1, False)])
@pytest.mark.parametrize("spent", [Spent(minutes=111.0), Spent(labels=381)])
def test_a_spent_budget_is_told_once_a_day(last: float, told: bool, spent: Spent) -> None:
    was = idle(told=last)
    found = decide(watch("now"), was, seen(asked=NOW, spent=spent), NOW)
    assert found.memory == (was.model_copy(update={"told": NOW}) if told else was)
    assert found.told == ((WatchNotice("watch.budget", found.because),) if told else ())


@pytest.mark.parametrize(("spent", "begins"), [(110.0, True), (110.1, False)])
def test_an_episode_begins_only_where_the_month_holds_it(spent: float, begins: bool) -> None:
    assert bool(decide(watch("now"), idle(), seen(asked=NOW, spent=Spent(minutes=spent)), NOW).start) == begins


@pytest.mark.parametrize(
    ("labels", "spent", "begins"), [(400, 380, True), (400, 381, False), (20, 0, True), (0, 0, False)]
)
def test_no_episode_begins_that_can_ask_for_fewer_than_twenty_labels(labels: int, spent: int, begins: bool) -> None:
    found = decide(watch("now", labels=labels), idle(told=NOW), seen(asked=NOW, spent=Spent(labels=spent)), NOW)
    assert bool(found.start) == begins


@pytest.mark.parametrize(
    ("new", "judging", "spent", "step_"),
    [(60, 30, 0, "relearn"), (60, 29, 0, "mine"), (59, 59, 0, "mine"), (60, 29, 381, "relearn"), (60, 29, 380, "mine")],
)
def test_labels_at_hand_suffice_where_half_of_them_can_judge(new: int, judging: int, spent: int, step_: str) -> None:
    facts = seen(asked=NOW, labels_new=new, labels_judging=judging, spent=Spent(labels=spent))
    assert [each.step for each in decide(watch("now"), idle(), facts, NOW).start] == [step_]


@pytest.mark.parametrize(
    ("days", "pool", "waits"), [(6.9, 99, True), (7.0, 99, False), (6.9, 100, False), (6.9, None, False)]
)
def test_a_shift_waits_a_week_at_most_for_enough_answers(days: float, pool: int | None, waits: bool) -> None:
    window = Window(3, (Signal("inputs", alarm=True, onset=NOW - days * DAY),))
    found = decide(watch("data_shift"), idle(), seen(windows=(window,), pool=pool), NOW)
    assert (not found.start) == waits
    assert ("at most until 2027-01-15" in found.because) == waits


def test_the_onset_is_the_latest_of_the_alarms_of_its_kind() -> None:
    alarms = [("inputs", 9.0), ("words", 8.0), ("latency", 1.0), ("confidence", None)]
    window = Window(3, tuple(Signal(name, alarm=True, onset=at and NOW - at * DAY) for name, at in alarms))
    found = decide(
        watch("data_shift"), idle(), seen(windows=(window, Window(2, (Signal("x", alarm=True, onset=NOW),)))), NOW
    )
    assert found.memory.onset == NOW - 8 * DAY


@pytest.mark.parametrize("kind", ["now", "recall"])
def test_what_is_urgent_does_not_wait_for_a_cool_down(kind: TriggerKind) -> None:
    facts: dict[str, Any] = {"asked": NOW} if kind == "now" else {"recalled": "x"}
    found = decide(watch(kind), idle(quiet_until=NOW + DAY), seen(**facts), NOW)
    assert found.start
    bakes = decide(watch(kind), idle(), seen(bake="provisional", **facts), NOW)
    assert bool(bakes.start) == (kind == "recall"), "what must go need not be known well"
    assert decide(watch("new_labels"), idle(quiet_until=NOW), seen(labels_new=300), NOW).start


def test_labels_that_disagree_are_told_and_silent_for_four_weeks() -> None:
    was = idle()
    found = decide(watch(), was, seen(alpha=0.0, doubly_labelled=400, asked=NOW), NOW)
    [noisy] = [each for each in found.fired if each.kind == "label_disagreement"]
    assert found.memory == was.model_copy(update={"tried": {"old": NOW + DAY, noisy.fingerprint: NOW + 28 * DAY}})
    assert [each.type for each in found.told] == ["watch.disagreement"]
    assert (found.start, found.because) == ((), "those who label do not agree")
    after = decide(watch(), found.memory, seen(alpha=0.0, doubly_labelled=400), NOW + 28 * DAY - 1)
    assert after.because == "no trigger fired"
    assert decide(watch(), found.memory, seen(alpha=0.0, doubly_labelled=400), NOW + 28 * DAY).told


# What is heard


def test_another_version_in_production_has_a_past_of_its_own() -> None:
    was = idle(alarms=(ALARM,))
    found = decide(QUIET, was, seen(production="m@v2", generation=5, moved=NOW - DAY), NOW)
    assert found.memory == was.model_copy(
        update={"model": "m@v2", "generation": 5, "moved": NOW - DAY, "window": -1, "alarms": ()}
    )


def test_windows_are_heard_once_and_in_order() -> None:
    old = Window(2, (Signal("old", alarm=True),))
    new = Window(4, (Signal("words", alarm=True, onset=NOW, log_evidence=3.0), Signal("calm", alarm=False)))
    found = decide(QUIET, idle(alarms=(ALARM,)), seen(windows=(old, new, replace(new, number=5))), NOW)
    heard = Alarm(signal="words", onset=NOW, log_evidence=3.0, window=5)
    assert (found.memory.window, found.memory.alarms) == (5, (ALARM, heard))


@pytest.mark.parametrize(
    ("known", "requirement", "after"),
    [
        (0, Requirement(4, meets=False), 4), (0, None, 0), (2, Requirement(4, meets=True), 4),
        (2, Requirement(4, meets=False), 2), (2, Requirement(4, None), 2), (2, Requirement(2, meets=True), 2),
        (2, Requirement(1, meets=True), 2),
    ],
)  # fmt: skip
def test_a_requirement_that_is_met_is_known(known: int, requirement: Requirement | None, after: int) -> None:
    assert decide(QUIET, idle(requirement=known), seen(requirement=requirement), NOW).memory.requirement == after


@pytest.mark.parametrize(
    ("was", "seen_", "bases", "looked_up"),
    [((), ("a",), ("a",), True), (("b",), ("a",), ("b",), True), ((), None, (), False), ((), (), (), True)],
)
def test_base_models_of_the_first_look_are_known(
    was: tuple[str, ...], seen_: tuple[str, ...] | None, bases: tuple[str, ...], looked_up: bool
) -> None:
    found = decide(
        QUIET, idle(bases=was, requirement=0), seen(bases=seen_, requirement=Requirement(3, None)), NOW
    ).memory
    assert (found.bases, found.looked_up, found.requirement) == (bases, looked_up, 3)


def test_a_schedule_is_looked_at_up_to_what_came() -> None:
    for scheduled, after in ((NOW - DAY, NOW - HOUR), (NOW, NOW)):
        assert decide(QUIET, idle(scheduled=scheduled), seen(due=NOW - HOUR), NOW).memory.scheduled == after
    assert decide(QUIET, running("labelling"), seen(due=NOW - HOUR), NOW).memory.scheduled == NOW - HOUR


def test_what_was_tried_fires_again_when_its_time_comes() -> None:
    first = decide(watch("recall"), idle(), seen(recalled="x", busy="other"), NOW).fired[0].fingerprint
    for until, fires in ((NOW, True), (NOW + 1, False)):
        assert bool(decide(watch("recall"), idle(tried={first: until}), seen(recalled="x"), NOW).start) == fires
    assert decide(watch("recall"), idle(), seen(recalled="x"), 0.5).fired, "also at the beginning of time"


@pytest.mark.parametrize(
    ("state", "joins"), [("mining", True), ("labelling", True), ("learning", False), ("baking", False)]
)
def test_causes_join_an_episode_that_waits_for_labels(state: str, joins: bool) -> None:
    was = running(
        state, looked_up=True, bases=("a",), new_bases=("n",), model_found="m@v1", canary=False, asked=NOW - DAY
    )
    by = Watch(use_case="triage", triggers=tuple(Trigger(on=kind) for kind in EVERY), policy=Policy(action="auto"))
    facts: WatchFacts = seen(
        asked=NOW, bases=("a", "b"), alpha=0.0, doubly_labelled=400, labels_of_episode=1, bake="provisional"
    )
    found = decide(by, was, facts, NOW)
    kinds = [each.kind for each in found.fired]
    assert kinds == ["now", "data_shift", "new_base_model", "label_disagreement"]
    assert bool(found.taken) == joins
    if joins:
        new = found.fired[:3]
        assert found.taken == new
        names = tuple(each.fingerprint for each in new)
        assert found.memory == was.model_copy(
            update={
                "causes": ("data_shift", "now", "new_base_model"), "fingerprints": ("f", *names),
                "tried": {**was.tried, **dict.fromkeys(names, OPEN)}, "asked": NOW, "bases": ("a", "b"),
                "new_bases": ("n", "b"),
            }
        )  # fmt: skip
    else:
        assert found.memory == was
    alone = decide(by, was.model_copy(update={"alarms": ()}), replace(facts, asked=0.0, bases=None), NOW)
    assert (alone.taken, alone.memory.fingerprints) == ((), ("f",)), "noisy labels join nothing"


@pytest.mark.parametrize(
    ("was", "facts", "outcome"),
    [
        (running("labelling", since=NOW - 21 * DAY), {}, "no_labels"),
        (running("asking", model_found="m@v2"), {"approval": "void"}, "stopped"),
        (running("learning", round=2), {"jobs": {"relearn": EndedJob("j", Learned(verdict="inconclusive", why="so"))}},
         "inconclusive"),
        (running("learning"), {"jobs": {"relearn": EndedJob("j", None)}}, "failed"),
    ],
)  # fmt: skip
def test_an_end_that_says_nothing_of_a_new_base_model_leaves_it_new(
    was: Memory, facts: dict[str, Any], outcome: str
) -> None:
    tried = was.model_copy(update={"bases": ("a", "b"), "new_bases": ("b",), "looked_up": True})
    found = decide(QUIET, tried, seen(**facts), NOW)
    assert found.ended is not None
    assert (found.ended.outcome, found.memory.bases, found.memory.new_bases) == (outcome, ("a",), ())


def test_an_end_forgets_that_its_candidate_was_short_of_the_target() -> None:
    found = decide(QUIET, baking(short=True, round=2, model="m@v2"), seen(production="m@v2"), NOW)
    assert (found.ended is not None, found.memory.short) == (True, False)


def test_only_labels_can_answer_a_quality_that_fell() -> None:
    window = Window(3, (Signal("quality", alarm=True, onset=NOW - 9 * DAY),))
    found = decide(watch("quality_regression"), idle(), seen(windows=(window,)), NOW)
    assert [(each.step, each.n) for each in found.start] == [("mine", 100)]
    mute = decide(watch("quality_regression", labels=0), idle(), seen(windows=(window,)), NOW)
    assert (mute.memory.state, mute.memory.episode, mute.start) == ("idle", 2, ())
    assert mute.because == "its policy lets it ask for no label, and too few came by themselves"


def test_a_day_is_told_in_universal_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    found = decide(watch("new_labels"), idle(quiet_until=NOW + DAY), seen(labels_new=300), NOW)
    monkeypatch.undo()
    time.tzset()
    assert found.because == "cool-down until 2027-01-16 08:00 UTC"


@pytest.mark.parametrize("meets", [True, False, None])
def test_a_changed_provider_alone_is_checked_first(meets: bool | None) -> None:
    found = decide(watch(), idle(), seen(provider=4, requirement=Requirement(1, meets)), NOW)
    assert found.memory.state == "checking"
