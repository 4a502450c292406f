"""One look of a watch, as a pure function: what fires, what is begun, what never happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speciate.loop.watch.decide import decide
from speciate.loop.watch.definition import DAY, PATIENCE_SECONDS, Policy, Trigger, TriggerKind, Watch
from speciate.loop.watch.facts import (
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
    WatchFacts,
    Window,
    key_of,
)
from speciate.settings import WatchCaps

NOW = 1_800_000_000.0
SHIFT = Window(3, (Signal("inputs", alarm=True, onset=NOW - 9 * DAY, log_evidence=7.0),))
EVERY: tuple[TriggerKind, ...] = (
    "now", "new_labels", "data_shift", "quality_regression", "limit_breach", "requirement_change", "new_base_model",
    "provider_change", "label_disagreement", "recall",
)  # fmt: skip


def watch(*kinds: TriggerKind, **policy: object) -> Watch:
    return Watch(
        use_case="triage", triggers=tuple(Trigger(on=kind) for kind in kinds or EVERY),
        policy=Policy.model_validate({"action": "auto", **policy}),
    )  # fmt: skip


def memory(**changes: object) -> Memory:
    first = Memory(model="m@v1", generation=1, moved=NOW - 30 * DAY, requirement=1, learned_until=NOW - 30 * DAY)
    return first.model_copy(update=changes)


def seen(**changes: object) -> WatchFacts:
    base = WatchFacts(production="m@v1", generation=1, moved=NOW - 30 * DAY, requirement=Requirement(1, None))
    return replace(base, **changes)  # type: ignore[arg-type]  # fields of WatchFacts


def test_a_quiet_look_says_that_no_trigger_fired() -> None:
    found = decide(watch(), memory(), seen(), NOW)
    assert (found.because, found.memory.state, found.start) == ("no trigger fired", "idle", ())


def test_a_shift_is_a_reason_to_ask_for_labels_from_its_onset_on_not_to_train() -> None:
    found = decide(watch(), memory(), seen(windows=(SHIFT,)), NOW)
    assert found.memory.state == "mining"
    [start] = found.start
    assert (start.step, start.n, start.since) == ("mine", 100, NOW - 9 * DAY)
    assert [cause.kind for cause in found.taken] == ["data_shift"]
    assert found.taken[0].evidence["signals"] == ["inputs"]
    assert [told.type for told in found.told] == ["watch.begun"]


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"production": None, "generation": 0}, "nothing is in production"),
        ({"bake": "provisional"}, "still bakes"),
        ({"question": "approval-1"}, "a question waits for a person: approval-1"),
        ({"busy": "other"}, "one trains at a time"),
        ({"spent": Spent(minutes=119.5)}, "this month's budget does not hold an episode"),
        ({"spent": Spent(labels=390)}, "this month's labels are spent"),
    ],
)
def test_what_fired_is_held_back_for_a_reason(changes: dict[str, object], because: str) -> None:
    found = decide(watch(), memory(), seen(asked=NOW, **changes), NOW)
    assert because in found.because
    assert found.memory.state == "idle"
    assert found.fired
    assert not found.start


def test_a_cool_down_holds_back_everything_but_what_somebody_asks_for() -> None:
    cooling = memory(quiet_until=NOW + DAY)
    assert "cool-down until" in decide(watch(), cooling, seen(windows=(SHIFT,)), NOW).because
    assert decide(watch(), cooling, seen(asked=NOW), NOW).memory.state == "mining"


def test_labels_at_hand_are_learned_from_without_asking_for_more() -> None:
    found = decide(watch(), memory(), seen(labels_new=300), NOW)
    assert (found.memory.state, found.start[0].step) == ("learning", "relearn")
    assert [cause.kind for cause in found.taken] == ["new_labels"]
    assert not decide(watch(), memory(), seen(labels_new=299), NOW).start


@pytest.mark.parametrize(("kind", "changes"), [("now", {"asked": NOW}), ("data_shift", {"windows": (SHIFT,)})])
def test_labels_that_nobody_drew_teach_and_the_episode_asks_for_those_that_judge(
    kind: TriggerKind, changes: dict[str, object]
) -> None:
    users = seen(labels_new=300, labels_judging=3, **changes)
    found = decide(watch(kind), memory(), users, NOW)
    assert (found.memory.state, found.start[0].step, found.start[0].n) == ("mining", "mine", 100)
    both = decide(watch(kind), memory(), replace(users, labels_judging=30), NOW)
    assert (both.memory.state, both.start[0].step) == ("learning", "relearn")
    mute = decide(watch(kind, labels=0), memory(), users, NOW)
    assert mute.start[0].step == "relearn", "with what is there"


def test_what_began_yesterday_waits_a_week_at_most_for_answers_to_ask_about() -> None:
    few = seen(windows=(SHIFT,), pool=40)
    onset = NOW - 9 * DAY
    waits = decide(watch(), memory(), few, onset + 2 * DAY)
    assert (waits.memory.state, waits.start) == ("idle", ())
    assert "fewer answers came since it began than the 100 to ask about" in waits.because
    assert decide(watch(), waits.memory, seen(pool=100), onset + 3 * DAY).memory.state == "mining"
    assert decide(watch(), waits.memory, seen(pool=40), onset + 7 * DAY).memory.state == "mining", "with what is there"


def test_a_requirement_that_is_met_is_nothing_to_do_and_an_unknown_one_is_evaluated_first() -> None:
    met = decide(watch(), memory(), seen(requirement=Requirement(2, meets=True)), NOW)
    assert (met.memory.state, met.memory.requirement) == ("idle", 2)
    unknown = decide(watch(), memory(), seen(requirement=Requirement(2, meets=None)), NOW)
    assert (unknown.memory.state, unknown.start[0].step) == ("checking", "check")
    missed = decide(watch(), memory(), seen(requirement=Requirement(2, meets=False, failing=("accuracy",))), NOW)
    assert (missed.memory.state, missed.start[0].fresh) == ("learning", False)
    checked = EndedJob("job-1", Checked(meets=True))
    done = decide(watch(), unknown.memory, seen(requirement=Requirement(2, None), jobs={"check": checked}), NOW)
    assert done.ended is not None
    assert (done.ended.outcome, done.memory.fruitless) == ("met", 0)


def test_a_requirement_beyond_reach_is_tried_once_told_once_and_met_by_a_later_base_model() -> None:
    beyond = Requirement(2, False, ("accuracy is 0.9, and 0.95 is asked",))
    begun = decide(watch(), memory(), seen(requirement=beyond, labels_new=80, bases=("pkg:minilm",)), NOW)
    assert (begun.memory.state, begun.memory.causes) == ("learning", ("requirement_change",))
    hold = {"relearn": EndedJob("job-1", Learned(verdict="hold", why="nothing to gain", smallest_gain=0.03))}
    ended = decide(watch(), begun.memory, seen(requirement=beyond, jobs=hold, bases=("pkg:minilm",)), NOW + DAY)
    assert [told.type for told in ended.told] == ["watch.unresolved"]
    memory_, told = ended.memory, list(ended.told)
    for day in range(2, 200):
        quiet = decide(watch(), memory_, seen(requirement=beyond, bases=("pkg:minilm",)), NOW + day * DAY)
        memory_, told = quiet.memory, [*told, *quiet.told]
        assert quiet.because == "no trigger fired"
    assert len(told) == 1
    came = decide(watch(), memory_, seen(requirement=beyond, bases=("pkg:minilm", "pkg:better")), NOW + 200 * DAY)
    assert (came.memory.state, came.start[0].bases) == ("learning", ("pkg:better",))


BASE = seen(bases=("pkg:minilm", "org--new@v1"))


def test_new_base_models_that_cannot_be_better_cost_no_label_and_hold_nothing_back() -> None:
    known = memory(looked_up=True, bases=("pkg:minilm",), fruitless=1, quiet_until=NOW - DAY)
    begun = decide(watch(), known, BASE, NOW)
    assert (begun.memory.state, begun.start[0].bases) == ("learning", ("org--new@v1",))
    out = EndedJob("job-1", Learned(verdict="hold", why="none may be better", used_labels=False, bases=()))
    ended = decide(watch(), begun.memory, replace(BASE, jobs={"relearn": out}), NOW + 60)
    assert (ended.ended and ended.ended.outcome, ended.memory.fruitless) == ("hold", 1)
    assert ended.memory.learned_until == known.learned_until
    assert decide(watch(), ended.memory, BASE, NOW + 120).because == "no trigger fired"
    shifted = decide(watch(), ended.memory, replace(BASE, windows=(SHIFT,)), NOW + 180)
    assert shifted.memory.state == "mining", "no cool-down"
    assert shifted.memory.new_bases == ()


def test_a_promising_base_model_is_tried_with_the_labels_that_it_is_asked_for() -> None:
    known = memory(looked_up=True, bases=("pkg:minilm",))
    both = seen(bases=("pkg:minilm", "org--a@v1", "org--b@v1"))
    begun = decide(watch(), known, both, NOW)
    assert set(begun.start[0].bases) == {"org--a@v1", "org--b@v1"}
    lacks = Learned(verdict="inconclusive", why="no answers to judge by", bases=("org--b@v1",))
    mining = decide(watch(), begun.memory, replace(both, jobs={"relearn": EndedJob("job-1", lacks)}), NOW + 60)
    mined = {"mine": EndedJob("job-2", Mined(asked=100, pool=300))}
    labelling = decide(watch(), mining.memory, replace(both, jobs=mined), NOW + 120)
    learning = decide(watch(), labelling.memory, replace(both, labels_of_episode=90), NOW + DAY)
    assert (learning.start[0].step, learning.start[0].bases) == ("relearn", ("org--b@v1",))


def test_a_base_model_that_comes_while_labels_are_waited_for_is_tried_with_them() -> None:
    waiting = memory(state="labelling", since=NOW, mined=100, looked_up=True, bases=("pkg:minilm",), episode=4,
                     causes=("data_shift",))  # fmt: skip
    joined = decide(watch(), waiting, BASE, NOW + DAY)
    assert joined.memory.causes == ("data_shift", "new_base_model")
    learning = decide(watch(), joined.memory, replace(BASE, labels_of_episode=90), NOW + 2 * DAY)
    assert learning.start[0].bases == ("org--new@v1",)


def test_a_base_model_of_which_nothing_could_be_said_fires_again_and_no_more_often_than_the_cool_down_lets_it() -> None:
    begun = decide(watch(), memory(looked_up=True), BASE, NOW)
    assert begun.start[0].bases == BASE.bases, "the first that ever came, too"
    unknown = Learned(verdict="hold", why="none could be compared", used_labels=False)
    for job in (EndedJob("job-1", None, "job-1 failed"), EndedJob("job-1", unknown)):
        ended = decide(watch(), begun.memory, replace(BASE, jobs={"relearn": job}), NOW + 60)
        assert (ended.ended and ended.ended.outcome, ended.memory.bases) == ("failed", ())
    assert decide(watch(), ended.memory, BASE, NOW + DAY).because == "no trigger fired"
    again = decide(watch(), ended.memory, BASE, NOW + 60 * DAY)
    assert (again.memory.state, again.start[0].bases) == ("learning", BASE.bases)


def test_what_is_there_when_a_watch_first_looks_is_no_news() -> None:
    first = decide(watch(), memory(), BASE, NOW)
    assert first.because == "no trigger fired"
    assert first.memory.bases == BASE.bases


def test_a_schedule_that_came_without_a_new_label_changes_nothing_and_says_so() -> None:
    weekly = Watch(use_case="triage", triggers=(Trigger(on="schedule", cron="0 3 * * 1"),))
    found = decide(weekly, memory(), seen(due=NOW - 60), NOW)
    assert "training again would change nothing" in found.because
    assert found.memory.scheduled == NOW - 60
    assert decide(weekly, memory(), seen(due=NOW - 60, labels_new=40), NOW).memory.state == "learning"


def test_an_endpoint_that_changed_is_a_reason_to_evaluate() -> None:
    found = decide(watch(), memory(), seen(provider=17), NOW)
    assert (found.memory.state, found.memory.provider) == ("checking", 17)


def test_people_who_do_not_agree_are_told_and_nothing_is_learned() -> None:
    found = decide(watch(), memory(), seen(alpha=0.3, doubly_labelled=120, labels_new=400), NOW)
    assert [told.type for told in found.told] == ["watch.disagreement"]
    assert not found.start
    assert not decide(watch("label_disagreement"), memory(), seen(alpha=0.3, doubly_labelled=10), NOW).told


def _labelling(asked: int = 100) -> Memory:
    begun = decide(watch(), memory(), seen(windows=(SHIFT,)), NOW).memory
    jobs = {"mine": EndedJob("job-1", Mined(asked=asked, pool=500))}
    found = decide(watch(), begun, seen(jobs=jobs), NOW)
    assert found.memory.state == "labelling"
    return found.memory


def test_labels_are_waited_for_and_begin_late_with_what_came_or_end_with_a_reason() -> None:
    waiting = _labelling()
    assert decide(watch(), waiting, seen(labels_of_episode=79), NOW + DAY).because == "waits for labels: 79 of 100 came"
    assert decide(watch(), waiting, seen(labels_of_episode=80), NOW + DAY).memory.state == "learning"
    late = NOW + PATIENCE_SECONDS
    assert decide(watch(), waiting, seen(labels_of_episode=60), late).memory.state == "learning"
    ended = decide(watch(), waiting, seen(labels_of_episode=59), late)
    assert ended.ended is not None
    assert ended.ended.outcome == "no_labels"
    assert "only 59 of 100 labels came within 21 days" in ended.ended.because


def test_what_a_purge_took_is_not_waited_for() -> None:
    found = decide(watch(), _labelling(), seen(labels_of_episode=40, requested=50), NOW + DAY)
    assert (found.memory.state, found.because) == ("learning", "40 of 50 labels came")


def test_few_answers_to_ask_about_end_an_episode() -> None:
    begun = decide(watch(), memory(), seen(windows=(SHIFT,)), NOW).memory
    found = decide(watch(), begun, seen(jobs={"mine": EndedJob("j", Mined(asked=3, pool=3))}), NOW)
    assert found.ended is not None
    assert found.ended.outcome == "no_labels"
    unkept = Mined(asked=0, pool=0, not_kept=250)
    found = decide(watch(), begun, seen(jobs={"mine": EndedJob("j", unkept)}), NOW)
    assert found.because.endswith("of 0 since it began; the inputs of 250 were not kept ([log] of settings.toml)")


def _learned(verdict: Learned) -> tuple[Memory, WatchFacts]:
    learning = decide(watch(), _labelling(), seen(labels_of_episode=90), NOW + DAY).memory
    return learning, seen(jobs={"relearn": EndedJob("job-2", verdict)})


def test_inconclusive_asks_for_more_labels_once_and_hold_backs_off() -> None:
    unclear = Learned(verdict="inconclusive", why="+3 points", needed_labels=60, smallest_gain=0.07)
    learning, facts = _learned(unclear)
    again = decide(watch(), learning, facts, NOW + 2 * DAY)
    assert (again.memory.state, again.memory.round, again.start[0].n) == ("mining", 2, 60)
    assert key_of("triage", again.memory, "mine") == "watch/triage/1/mine.2"
    second = again.memory.model_copy(update={"state": "learning"})
    ended = decide(watch(), second, facts, NOW + 3 * DAY)
    assert ended.ended is not None
    assert (ended.ended.outcome, ended.ended.smallest_gain) == ("inconclusive", 0.07)
    assert (ended.memory.fruitless, ended.memory.undecided) == (0, 1)
    assert ended.memory.quiet_until == ended.memory.begun + 7 * DAY, "it was not tried in vain"


def test_what_could_not_be_told_waits_for_labels_and_not_for_the_back_off() -> None:
    learning, facts = _learned(Learned(verdict="inconclusive", why="+3 points", needed_labels=60))
    spent = replace(facts, spent=Spent(labels=390))
    ended = decide(watch(), learning.model_copy(update={"round": 2}), spent, NOW + 4 * DAY)
    assert [each.signal for each in ended.memory.alarms] == ["inputs"], "its cause stands"
    waits = decide(watch(), ended.memory, replace(spent, jobs={}), NOW + 8 * DAY)
    assert waits.because == "this month's labels are spent: 390 were asked for"
    again = decide(watch(), waits.memory, replace(facts, jobs={}), NOW + 9 * DAY)
    assert (again.memory.state, again.memory.episode) == ("mining", 2)
    came = decide(watch(), waits.memory, replace(spent, jobs={}, labels_new=60), NOW + 9 * DAY)
    assert came.memory.state == "learning", "labels that came by themselves do as well"


def test_the_third_that_could_not_be_told_counts_as_in_vain_and_is_told_once() -> None:
    learning, facts = _learned(Learned(verdict="inconclusive", why="+3 points"))
    learning = learning.model_copy(update={"round": 2, "undecided": 2})
    ended = decide(watch(), learning, facts, NOW + 4 * DAY)
    assert [told.type for told in ended.told] == ["watch.unresolved"]
    assert (ended.memory.fruitless, ended.memory.alarms) == (1, ())
    assert ended.memory.quiet_until == ended.memory.begun + 2 * 7 * DAY


@pytest.mark.parametrize("settled", [True, False])
def test_an_alarm_about_which_nothing_was_done_fires_again_later_and_one_that_is_settled_does_not(
    settled: bool,
) -> None:
    """Its detector has taken in what came since: it would be silent, and the model wrong for ever."""
    why = "nothing to gain" if settled else "its gates do not hold on the core suite"
    learning, facts = _learned(Learned(verdict="hold", why=why, settled=settled))
    ended = decide(watch(), learning, facts, NOW + 4 * DAY)
    assert (ended.memory.fruitless, bool(ended.memory.alarms)) == (1, not settled)
    quiet = replace(facts, jobs={})
    begun = [day for day in range(5, 60) if decide(watch(), ended.memory, quiet, NOW + day * DAY).start]
    assert begun == ([] if settled else list(range(32, 60))), "twice a cool-down that doubled"


def test_a_candidate_that_is_short_of_the_target_serves_and_more_labels_are_asked_for_once() -> None:
    found = Learned(verdict="promote", why="+50", model="m@v2", promotion="applied", short=True)
    learning, facts = _learned(found)
    baking = decide(watch(), learning, facts, NOW + 2 * DAY)
    serves = seen(production="m@v2", generation=2, moved=NOW + 2 * DAY)
    more = decide(watch(), baking.memory, serves, NOW + 3 * DAY)
    assert (more.memory.state, more.memory.round, more.memory.first) == ("mining", 2, "m@v2")
    assert "short of the target" in more.because
    assert more.memory.before == "m@v1", "what the second candidate is compared with"
    second = more.memory.model_copy(update={"state": "learning"})
    hold = Learned(verdict="hold", why="no better", smallest_gain=0.1)
    ended = decide(watch(), second, replace(serves, jobs={"relearn": EndedJob("job-3", hold)}), NOW + 6 * DAY)
    assert ended.ended is not None
    assert (ended.ended.outcome, ended.ended.model) == ("promoted", "m@v2")
    better = found.model_copy(update={"model": "m@v3"})
    again = decide(watch(), second, replace(serves, jobs={"relearn": EndedJob("job-3", better)}), NOW + 6 * DAY)
    last = decide(watch(), again.memory, seen(production="m@v3", generation=3), NOW + 7 * DAY)
    assert last.ended is not None
    assert (last.ended.outcome, last.ended.model, last.memory.state) == ("promoted", "m@v3", "idle")
    poor = decide(watch(), baking.memory, replace(serves, spent=Spent(labels=395)), NOW + 3 * DAY)
    assert poor.ended is not None, "no labels are left to ask for"


def test_a_cause_that_was_tried_in_vain_fires_again_later() -> None:
    learning, facts = _learned(Learned(verdict="hold", why="nothing to gain", smallest_gain=0.04))
    ended = decide(watch(), learning, facts, NOW + 2 * DAY).memory
    alarm = replace(facts, jobs={}, windows=(replace(SHIFT, number=4),))
    assert decide(watch(), ended, alarm, NOW + 15 * DAY).because == "no trigger fired"
    later = decide(watch(), ended, alarm, NOW + 31 * DAY)
    assert later.memory.state == "mining"


def _with_a_share() -> Memory:
    """Where a deployment runs: the candidate serves a share of its requests."""
    share = Learned(verdict="promote", why="+30", model="m@v2", promotion="applied", canary=True)
    learning, facts = _learned(share)
    return decide(watch(), learning, facts, NOW + 2 * DAY).memory


def test_a_canary_that_survives_is_given_all_requests() -> None:
    stands = seen(canary="m@v2")
    waits = decide(watch(), _with_a_share(), stands, NOW + 3 * DAY)
    assert (waits.memory.state, waits.because) == ("baking", "m@v2 bakes with a share of the requests")
    held = decide(watch(), waits.memory, replace(stands, canary_bake="survived"), NOW + 4 * DAY)
    assert [(each.step, each.model) for each in held.start] == [("promote", "m@v2")]
    applied = replace(stands, jobs={"promote": EndedJob("job-3", Promoted(state="applied"))})
    served = decide(watch(), held.memory, applied, NOW + 4 * DAY)
    moved = seen(production="m@v2", generation=2, moved=NOW + 4 * DAY, bake="provisional")
    baking = decide(watch(), served.memory, moved, NOW + 5 * DAY)
    assert (baking.memory.state, baking.because) == ("baking", "m@v2 bakes")
    ended = decide(watch(), baking.memory, replace(moved, bake="survived"), NOW + 9 * DAY)
    assert ended.ended is not None
    assert (ended.ended.outcome, ended.memory.canary) == ("promoted", False)


def test_all_requests_may_need_a_person_again() -> None:
    wants = EndedJob("job-3", Promoted(state="needs_approval", approval="approval-8"))
    asking = decide(watch(), _with_a_share(), seen(canary="m@v2", jobs={"promote": wants}), NOW + 4 * DAY)
    assert (asking.memory.state, asking.memory.approval) == ("asking", "approval-8")
    refused = EndedJob("job-3", Promoted(state="refused"), "it was refused")
    held = decide(watch(), _with_a_share(), seen(canary="m@v2", jobs={"promote": refused}), NOW + 4 * DAY)
    assert held.ended is not None
    assert held.ended.outcome == "hold"


@pytest.mark.parametrize("facts", [{"canary": None}, {"canary": "m@v2", "canary_bake": "broken"}])
def test_a_canary_that_is_taken_back_ends_the_episode(facts: dict[str, object]) -> None:
    ended = decide(watch(), _with_a_share(), seen(**facts), NOW + 3 * DAY)
    assert ended.ended is not None
    assert ended.ended.outcome == "taken_back"


def test_a_promotion_is_asked_for_baked_and_survives() -> None:
    asked = Learned(verdict="promote", why="+30", model="m@v2", promotion="needs_approval", approval="approval-7")
    learning, facts = _learned(asked)
    asking = decide(watch(), learning, facts, NOW + 2 * DAY)
    assert (asking.memory.state, asking.memory.approval) == ("asking", "approval-7")
    waits = decide(watch(), asking.memory, seen(approval="pending"), NOW + 3 * DAY)
    assert waits.because == "waits for a person: approval-7"
    moved = seen(production="m@v2", generation=2, moved=NOW + 3 * DAY, approval="approved", bake="provisional")
    baking = decide(watch(), waits.memory, moved, NOW + 3 * DAY)
    assert baking.memory.state == "baking"
    assert decide(watch(), baking.memory, moved, NOW + 3.5 * DAY).because == "m@v2 bakes"
    ended = decide(watch(), baking.memory, replace(moved, bake="survived"), NOW + 5 * DAY)
    assert ended.ended is not None
    assert (ended.ended.outcome, ended.memory.fruitless, ended.memory.alarms) == ("promoted", 0, ())


def test_a_version_that_the_bake_took_back_ends_its_episode_as_that() -> None:
    learning, facts = _learned(Learned(verdict="promote", why="+30", model="m@v2", promotion="applied"))
    baking = decide(watch(), learning, facts, NOW + 2 * DAY).memory
    back = seen(production="m@v1", generation=3, taken_back=("m@v2",))
    ended = decide(watch(), baking, back, NOW + 3 * DAY)
    assert ended.ended is not None
    assert ended.ended.outcome == "taken_back"
    assert ended.memory.fruitless == 1


@pytest.mark.parametrize("answer", ["denied", "expired"])
def test_a_question_that_is_not_granted_ends_the_episode(answer: str) -> None:
    asked = Learned(verdict="promote", why="+30", model="m@v2", promotion="needs_approval", approval="approval-7")
    learning, facts = _learned(asked)
    asking = decide(watch(), learning, facts, NOW + 2 * DAY).memory
    ended = decide(watch(), asking, seen(approval=answer), NOW + 3 * DAY)
    assert ended.ended is not None
    assert ended.ended.outcome == "denied"


def test_a_question_that_was_withdrawn_ends_the_episode_too() -> None:
    asked = Learned(verdict="promote", why="+30", model="m@v2", promotion="needs_approval", approval="approval-7")
    learning, facts = _learned(asked)
    asking = decide(watch(), learning, facts, NOW + 2 * DAY).memory
    assert decide(watch(), asking, seen(approval="pending"), NOW + 3 * DAY).ended is None
    ended = decide(watch(), asking, seen(approval="void"), NOW + 3 * DAY).ended
    assert ended is not None
    assert ended.outcome == "stopped"


def test_own_acts_are_no_news() -> None:
    """A version that the watch brought into production begins with detectors that know nothing."""
    alarmed = decide(watch("data_shift"), memory(quiet_until=NOW + DAY), seen(windows=(SHIFT,)), NOW).memory
    assert alarmed.alarms
    moved = seen(production="m@v2", generation=2)
    found = decide(watch("data_shift"), alarmed, moved, NOW)
    assert (found.memory.alarms, found.memory.window, found.because) == ((), -1, "no trigger fired")


def test_causes_that_fire_while_labels_are_waited_for_join_the_episode() -> None:
    found = decide(watch(), _labelling(), seen(labels_of_episode=10, labels_new=300), NOW + DAY)
    assert found.memory.causes == ("data_shift", "new_labels")
    assert [cause.kind for cause in found.taken] == ["new_labels"]
    assert not decide(watch(), found.memory, seen(labels_of_episode=10, labels_new=300), NOW + DAY).taken


def test_a_job_that_failed_ends_its_episode_with_the_reason() -> None:
    begun = decide(watch(), memory(), seen(windows=(SHIFT,)), NOW).memory
    found = decide(watch(), begun, seen(jobs={"mine": EndedJob("job-1", None, "job-1 failed")}), NOW)
    assert found.ended is not None
    assert found.ended.because == "mine failed: job-1 failed"


class Months(RuleBasedStateMachine):
    """Any sequence of facts: never two episodes at once, never over budget, never without a reason."""

    @initialize(minutes=st.floats(1, 300), labels=st.integers(0, 300), action=st.sampled_from(["auto", "propose"]))
    def begin(self, minutes: float, labels: int, action: str) -> None:
        self.watch = watch(budget_minutes=minutes, labels=labels, action=action)
        self.memory, self.now = memory(), NOW
        self.minutes, self.labels, self.month = 0.0, 0, 0
        self.open, self.last = 0, Decision(self.memory, "begins")
        self.production, self.generation = "m@v1", 1

    def _look(self, **facts: object) -> None:
        spent = Spent(self.minutes, 0.0, self.labels)
        state = seen(production=self.production, generation=self.generation, spent=spent, **facts)
        found = decide(self.watch, self.memory, state, self.now)
        assert found == decide(self.watch, self.memory, state, self.now)
        begun = found.memory.episode - self.memory.episode
        assert begun in (0, 1)
        self.open += begun - (found.ended is not None)
        if begun:
            assert self.memory.state == "idle"
        for start in found.start:
            if start.step == "relearn":
                assert self.minutes + start.minutes <= self.watch.policy.budget_minutes + 1e-6
                self.granted = start.minutes
            if start.step == "mine":
                assert self.labels + start.n <= self.watch.policy.labels
                self.labels += start.n
        self.memory, self.last = found.memory, found

    @rule(days=st.floats(0, 20))
    def wait(self, days: float) -> None:
        self.now += days * DAY
        if int(self.now // (30 * DAY)) != self.month:
            self.month, self.minutes, self.labels = int(self.now // (30 * DAY)), 0.0, 0
        self._look()

    @rule(name=st.sampled_from(["inputs", "quality", "slow"]), number=st.integers(0, 60))
    def alarm(self, name: str, number: int) -> None:
        self._look(windows=(Window(number, (Signal(name, alarm=True, onset=self.now - DAY),)),))

    @rule(labels=st.integers(0, 500), alpha=st.none() | st.floats(-1, 1), version=st.integers(1, 9),
          meets=st.sampled_from([True, False, None]), event=st.integers(0, 99), asked=st.booleans(),
          bake=st.sampled_from(["provisional", "survived", "broken"]), busy=st.none() | st.just("other"),
          judging=st.integers(0, 500), pool=st.none() | st.integers(0, 500))  # fmt: skip
    def happen(
        self, labels: int, alpha: float | None, version: int, meets: bool | None, event: int, asked: bool, bake: str,
        busy: str | None, judging: int, pool: int | None,
    ) -> None:  # fmt: skip
        self._look(
            labels_judging=min(labels, judging), pool=pool, labels_new=labels,
            labels_of_episode=min(labels, self.memory.mined), alpha=alpha, doubly_labelled=80,
            requirement=Requirement(version, meets), provider=event, asked=self.now if asked else 0.0, bake=bake,
            busy=busy,
        )  # fmt: skip

    @precondition(lambda self: self.memory.state == "mining")
    @rule(asked=st.integers(0, 100))
    def mined(self, asked: int) -> None:
        self._look(jobs={"mine": EndedJob("job", Mined(asked=asked, pool=asked))})

    @precondition(lambda self: self.memory.state == "checking")
    @rule(meets=st.sampled_from([True, False, None]))
    def checked(self, meets: bool | None) -> None:
        self._look(jobs={"check": EndedJob("job", Checked(meets=meets))})

    @precondition(lambda self: self.memory.state == "learning")
    @rule(verdict=st.sampled_from(["promote", "hold", "inconclusive"]), share=st.floats(0, 1), asked=st.booleans(),
          failed=st.booleans(), short=st.booleans())  # fmt: skip
    def learned(self, verdict: str, share: float, asked: bool, failed: bool, short: bool) -> None:
        self.minutes += share * self.granted
        state = "needs_approval" if asked else "applied"
        found = Learned.model_validate(
            {
                "verdict": verdict,
                "why": "so",
                "model": "m@v2",
                "promotion": state,
                "approval": "approval-1",
                "short": short,
            }
        )
        if not failed and verdict == "promote" and not asked:
            self.production, self.generation = "m@v2", self.generation + 1
        self._look(jobs={"relearn": EndedJob("job", None if failed else found, "it failed")})

    @precondition(lambda self: self.memory.state == "asking")
    @rule(answer=st.sampled_from(["pending", "approved", "denied", "expired", "void"]))
    def answer(self, answer: str) -> None:
        if answer == "approved":
            self.production, self.generation = "m@v2", self.generation + 1
        self._look(approval=answer)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "memory"):
            return
        assert self.open == (self.memory.state != "idle")
        assert self.last.because
        assert self.minutes <= self.watch.policy.budget_minutes + 1e-6
        assert self.labels <= self.watch.policy.labels
        assert Memory.model_validate_json(self.memory.model_dump_json()) == self.memory


TestMonths = Months.TestCase


@given(st.floats(0, 1000), st.integers(0, 1000))
def test_a_persons_caps_hold_whatever_a_watch_asks_for(minutes: float, labels: int) -> None:

    capped = Policy(budget_minutes=500, labels=900).capped(WatchCaps(minutes=minutes, labels=labels))
    assert capped.budget_minutes <= minutes
    assert capped.labels <= labels


def test_a_base_model_that_came_is_tried_and_those_that_were_there_are_not() -> None:
    first = decide(watch("new_base_model"), memory(), seen(bases=("pkg:a", "pkg:b")), NOW)
    assert (first.because, first.memory.bases) == ("no trigger fired", ("pkg:a", "pkg:b"))
    came = decide(watch("new_base_model"), first.memory, seen(bases=("pkg:a", "pkg:b", "hf-c@v1")), NOW)
    assert (came.memory.state, came.start[0].bases, came.start[0].fresh) == ("learning", ("hf-c@v1",), False)
    assert came.taken[0].evidence == {"bases": ["hf-c@v1"]}
