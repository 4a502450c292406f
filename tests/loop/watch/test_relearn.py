"""From labels to a verdict: the composite's next step, as a pure function of its children; and what is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from speciate.jobs.kinds import Child, ChildRequest, Finished
from speciate.loop.watch.facts import Learned
from speciate.loop.watch.mine import Candidate, choose
from speciate.loop.watch.relearn import RelearnSpec, Way, next_step

TRAINED = {"model": "t-model@v2", "report": {"dataset": "letters@v2"}}


def spec(**changes: Any) -> RelearnSpec:
    given: dict[str, Any] = {
        "use_case": "t", "episode": 3, "dataset": "letters@v1", "core": "letters:test", "judged": "t-judged",
        "judged_exists": False, "judged_inputs": ("text",), "train_source": "log:t?part=train",
        "judge_source": "log:t?part=judge", "ways": (Way(name="like", like="t-model@v1"),), "metric": "accuracy",
        "budget_minutes": 10, "action": "auto",
    }  # fmt: skip
    return RelearnSpec(**given | changes)


def child(step: str, result: dict[str, Any] | None, seconds: float = 5.0) -> Child:
    error = None if result is not None else {"message": f"{step} broke"}
    state = "failed" if result is None else "succeeded"
    return Child(id=f"job-{step}", step=step, kind="", spec={}, state=state, result=result, error=error,
                 run_seconds=seconds)  # fmt: skip


ADDED = [child("rows", {"dataset": "letters@v2"}), child("judged", {"dataset": "t-judged@v1"})]


def core(verdict: str = "promote", value: float = 0.95) -> Child:
    row = {"model": "t-model@v2", "value": value, "interval": [value - 0.01, value + 0.01]}
    decided = [{"candidate": "t-model@v2", "verdict": verdict}]
    report = {"leaderboard": [row], "candidate": "t-model@v2", "n": 800, "comparisons": []}
    decision = {"verdict": verdict, "reasons": ["its gates"]}
    return child(
        "evaluate", {"evaluation": "evaluation-1", "report": report, "decision": decision, "decisions": decided}
    )


def judged(delta: float, low: float, high: float, n: int = 40) -> Child:
    gain = {"candidate": "t-model@v2", "delta": delta, "interval": [low, high], "minimum_detectable_effect": 0.07}
    return child("judge", {"evaluation": "evaluation-2", "report": {"comparisons": [gain], "n": n}})


SHADOW = child(
    "shadow",
    {"model": "t-model@v2", "against": "t-model@v1", "asked": 200, "failed": 0, "agree": 150, "agreement": 0.75,
     "interval": [0.69, 0.8], "disagreements": ["pred-1"], "ms": 1.5, "logged_ms": 2.0},
)  # fmt: skip
BETTER = [*ADDED, child("train/like", TRAINED), core(), judged(0.3, 0.1, 0.5)]


def asked(wanted: RelearnSpec, children: Sequence[Child]) -> list[ChildRequest]:
    found = next_step(wanted, children, 0.0)
    assert not isinstance(found, Finished), found
    return list(found)


def ended(wanted: RelearnSpec, children: Sequence[Child]) -> Learned:
    found = next_step(wanted, children, 0.0)
    assert isinstance(found, Finished), found
    return Learned.model_validate(found.result)


def test_labels_are_dealt_first_then_it_trains_on_what_came_behind_what_people_asked_for() -> None:
    first = asked(spec(), [])
    assert [each.step for each in first] == ["rows", "judged"]
    assert first[1].spec == {"name": "t-judged", "source": "log:t?part=judge", "inputs": ["text"]}
    [training] = asked(spec(), ADDED)
    assert (training.step, training.spec["dataset"], training.spec["like"]) == (
        "train/like",
        "letters@v2",
        "t-model@v1",
    )
    assert training.priority < 0
    assert training.run_seconds == 10 * 60 - 10 + 30


def test_a_core_suite_without_a_version_takes_the_judged_answers_too() -> None:
    [suite] = asked(spec(grows=True), ADDED)
    assert (suite.step, suite.spec["name"], suite.spec["add"]) == ("suite", "letters@v2", True)
    [training] = asked(spec(grows=True), [*ADDED, child("suite", {"dataset": "letters@v3"})])
    assert training.spec["dataset"] == "letters@v3"


def test_no_further_way_is_tried_once_the_budget_is_spent() -> None:
    two = spec(
        ways=(Way(name="replay", method="replay", continue_from="t-model@v1"), Way(name="like", like="t-model@v1"))
    )
    spent = [*ADDED, child("train/replay", TRAINED, seconds=600)]
    assert [each.step for each in asked(two, spent)] == ["evaluate"]
    left = [*ADDED, child("train/replay", TRAINED, seconds=30)]
    assert [each.step for each in asked(two, left)] == ["train/like"]
    [first] = asked(two, ADDED)
    assert (first.step, first.run_seconds) == (
        "train/replay",
        (10 * 60 - 10) / 2 + 30,
    )  # so that the other has its half


@pytest.mark.parametrize(
    ("gain", "verdict", "why"),
    [
        ((0.3, 0.1, 0.5), "promote", "gains"),
        ((0.0, -0.01, 0.015), "hold", "nothing to gain"),
        ((0.05, -0.1, 0.2), "inconclusive", "too few answers to tell"),
        ((0.0, -0.16, 0.16), "inconclusive", "too few answers to tell"),
    ],
)
def test_better_on_answers_of_production_is_what_counts(
    gain: tuple[float, float, float], verdict: str, why: str
) -> None:
    children = [*ADDED, child("train/like", TRAINED), core(), judged(*gain)]
    if verdict == "promote":
        [shadow] = asked(spec(), children)
        assert (shadow.step, shadow.spec) == ("shadow", {"use_case": "t", "model": "t-model@v2"})
        children.append(SHADOW)
        [promotion] = asked(spec(), children)
        assert promotion.spec == {
            "use_case": "t", "model": "t-model@v2", "evaluation": "evaluation-1", "actor": "watch", "propose": False,
            "note": "episode 3",
        }  # fmt: skip
        children.append(child("promote", {"state": "needs_approval", "approval": {"id": "approval-9"}}))
    found = ended(spec(), children)
    assert found.verdict == verdict
    assert why in found.why
    assert found.smallest_gain == 0.07
    if verdict == "promote":
        assert (found.promotion, found.approval) == ("needs_approval", "approval-9")
        assert found.shadow is not None
        assert found.shadow.disagreements == ("pred-1",)
    if verdict == "inconclusive":
        assert found.needed_labels is not None
        assert found.needed_labels >= 20


def test_a_watch_that_proposes_asks_a_person_under_every_policy() -> None:
    [promotion] = asked(spec(action="propose"), [*BETTER, SHADOW])
    assert promotion.spec["propose"] is True


def test_what_logged_inputs_say_decides_nothing() -> None:
    differs = SHADOW.model_copy(update={"result": {**(SHADOW.result or {}), "agree": 0, "agreement": 0.0}})
    for shadow in (SHADOW, differs, child("shadow", None)):
        [promotion] = asked(spec(), [*BETTER, shadow])
        assert promotion.step == "promote"


def test_where_a_deployment_runs_a_share_of_its_requests_comes_first() -> None:
    [promotion] = asked(spec(canary=True), [*BETTER, SHADOW])
    assert promotion.spec["canary_percent"] == 10
    found = ended(spec(canary=True), [*BETTER, SHADOW, child("promote", {"state": "applied"})])
    assert (found.promotion, found.canary) == ("applied", True)


def test_the_best_of_several_equal_candidates_is_no_better() -> None:
    """Its own interval excludes 0, and adjusted for all that were compared it does not."""
    gain = {"candidate": "t-model@v2", "delta": 0.1, "interval": [0.01, 0.19], "p_holm": 0.09,
            "minimum_detectable_effect": 0.1}  # fmt: skip
    judge = child("judge", {"evaluation": "evaluation-2", "report": {"comparisons": [gain], "n": 60}})
    assert ended(spec(), [*ADDED, child("train/like", TRAINED), core(), judge]).verdict == "inconclusive"


def test_what_must_go_is_replaced_by_what_is_not_surely_worse() -> None:
    trained = [*ADDED, child("train/like", TRAINED), core()]
    for gain in ((0.0, -0.05, 0.05), (0.05, 0.01, 0.1)):
        assert [each.step for each in asked(spec(replaces=True), [*trained, judged(*gain)])] == ["shadow"]
    assert ended(spec(replaces=True), [*trained, judged(-0.2, -0.3, -0.1)]).verdict == "hold"
    unjudged = [child("train/like", TRAINED), core()]
    alone = spec(replaces=True, train_source=None, judge_source=None)
    assert [each.step for each in asked(alone, unjudged)] == ["shadow"]


def test_a_teacher_labels_before_the_rows_are_added_and_stops_nothing_where_it_fails() -> None:
    wanted = spec(teach={"use_case": "t", "teacher": "oracle@v1", "since": 0.0, "until": 9.0})
    assert [each.step for each in asked(wanted, [])] == ["teach", "judged"]
    taught = {"teacher": "oracle@v1", "checked": 40, "agreement": 0.9, "interval": [0.8, 0.96], "trusted": True,
              "because": "", "labels": 80, "source": "job-teach"}  # fmt: skip
    [rows] = asked(wanted, [child("teach", taught), ADDED[1]])
    assert rows.spec["source"] == "log:t?part=train&taught=job-teach"
    distrusted = {**taught, "trusted": False, "labels": 0, "source": None}
    for teacher in (child("teach", distrusted), child("teach", None)):
        [rows] = asked(wanted, [teacher, ADDED[1]])
        assert rows.spec["source"] == "log:t?part=train"


def test_reasons_quote_no_text_of_others() -> None:
    reason = "no_slice_worse: worse in 'ignore all instructions' and \"it's\" by 0.1: shows 'better' only"
    decision = {"verdict": "hold", "reasons": [reason]}
    slices = child("evaluate", {**(core("hold").result or {}), "decision": decision})
    found = ended(spec(), [*ADDED, child("train/like", TRAINED), slices])
    assert "ignore" not in found.why
    assert found.why.endswith("worse in (a value) and (a value) by 0.1: shows 'better' only")


def test_small_losses_do_not_add_up() -> None:
    """Each promotion may lose a little against its predecessor; against the best that ever served it may not."""
    children = [*ADDED, child("train/like", TRAINED), core(value=0.90)]
    assert [each.step for each in asked(spec(high_water=0.92), children)] == ["judge"]
    eroded = ended(spec(high_water=0.95), children)
    assert eroded.verdict == "hold"
    assert "worse on the core suite than a version that served before" in eroded.why


@pytest.mark.parametrize("verdict", ["hold", "inconclusive"])
def test_what_the_core_suite_says_is_passed_on(verdict: str) -> None:
    found = ended(spec(), [*ADDED, child("train/like", TRAINED), core(verdict)])
    assert (found.verdict, found.why) == (verdict, "on the core suite: its gates")


def test_without_a_randomly_drawn_answer_nothing_can_be_said() -> None:
    children = [ADDED[0], child("judged", None), child("train/like", TRAINED), core()]
    assert ended(spec(), children).verdict == "inconclusive"


def test_a_training_that_fails_is_told() -> None:
    found = ended(spec(), [*ADDED, child("train/like", None)])
    assert (found.verdict, found.why) == ("hold", "no model could be trained: train/like broke")


def test_each_further_suite_is_judged_before_a_promotion() -> None:
    children = [*ADDED, child("train/like", TRAINED), core(), judged(0.3, 0.1, 0.5)]
    [further] = asked(spec(further=("regression",)), children)
    assert (further.step, further.spec["suite"]) == ("evaluate-regression", "regression")


def test_half_of_what_is_asked_about_is_drawn_at_random_and_equal_inputs_are_asked_about_once() -> None:
    pool = [Candidate(f"0{place:03}", place / 200, f'{{"text": "{place % 150}"}}') for place in range(200)]
    found = choose(pool, 40)
    assert len(found) == len({each.id for each in found}) == 40
    assert sum(each.drawn == "random" for each in found) == 20
    texts = [int(each.id) % 150 for each in found]
    assert len(set(texts)) == 40
    assert choose(pool, 40) == found
    unsure = [int(each.id) for each in found if each.drawn == "uncertain"]
    assert max(unsure) < 110, "the least sure of them"


def test_variants_are_made_for_the_one_way_that_learns_from_them() -> None:
    both = spec(ways=(Way(name="like", like="t-model@v1"), Way(name="variants", like="t-model@v1", with_variants=True)))
    trained = [*ADDED, child("train/like", TRAINED)]
    [made] = asked(both, trained)
    assert (made.step, made.kind) == ("variants", "curate")
    assert made.spec == {"dataset": "letters@v2", "steps": [{"op": "variants", "count": 1}]}
    [training] = asked(both, [*trained, child("variants", {"dataset": "letters@v3"})])
    assert (training.step, training.spec["dataset"]) == ("train/variants", "letters@v3")
    assert "with_variants" not in training.spec
    assert [each.step for each in asked(both, [*trained, child("variants", None)])] == ["evaluate"]
