"""From labels to a verdict: the composite's next step, as a pure function of its children; and what is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from speciate.jobs.kinds import Child, ChildRequest, Finished
from speciate.loop.watch.facts import Learned
from speciate.loop.watch.mine import Candidate, choose
from speciate.loop.watch.random_answers import ServingShare
from speciate.loop.watch.relearn import RelearnSpec, next_step
from speciate.loop.watch.ways import Way
from speciate.training.planning.shortlist import ShortlistSpec

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


def row(model: str, value: float) -> dict[str, Any]:
    return {"model": model, "value": value, "interval": [value - 0.01, value + 0.01]}


def compared(loss: float = 0.0, best: float | None = None, doubt: float = 0.01) -> dict[str, Any]:
    """The candidate against what serves, with the best that ever served beside them."""
    rows = [row("t-model@v2", 0.95 - loss), row("t-model@v1", 0.95)] + ([row("t-model@v0", best)] if best else [])
    gain = {"candidate": "t-model@v2", "delta": -loss, "interval": [-loss - doubt, -loss + doubt], "p_value": 0.4}
    return {"leaderboard": rows, "candidate": "t-model@v2", "baseline": "t-model@v1", "n": 800, "comparisons": [gain]}


def old(loss: float = 0.0, best: float | None = None, doubt: float = 0.01) -> Child:
    return child("old", {"evaluation": "evaluation-0", "report": compared(loss, best, doubt)})


def core(verdict: str = "promote", loss: float = 0.0, best: float | None = None) -> Child:
    decided = [{"candidate": "t-model@v2", "verdict": verdict}]
    report = compared(loss, best)
    decision = {"verdict": verdict, "reasons": ["its gates"]}
    return child(
        "evaluate", {"evaluation": "evaluation-1", "report": report, "decision": decision, "decisions": decided}
    )


def judged(delta: float, low: float, high: float, n: int = 40, p: float | None = None, value: float = 0.9) -> Child:
    gain = {"candidate": "t-model@v2", "delta": delta, "interval": [low, high], "minimum_detectable_effect": 0.07,
            "p_value": p if p is not None else 0.001 if low > 0 else 0.3}  # fmt: skip
    rows = [row("t-model@v2", value), row("t-model@v1", value - delta)]
    report = {"comparisons": [gain], "n": n, "leaderboard": rows, "baseline": "t-model@v1"}
    return child("judge", {"evaluation": "evaluation-2", "report": report})


SHADOW = child(
    "shadow",
    {"model": "t-model@v2", "against": "t-model@v1", "asked": 200, "failed": 0, "agree": 150, "agreement": 0.75,
     "interval": [0.69, 0.8], "disagreements": ["pred-1"], "ms": 1.5, "logged_ms": 2.0},
)  # fmt: skip
BETTER = [*ADDED, child("train/like", TRAINED), judged(0.3, 0.1, 0.5), core()]


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


def test_answers_that_a_candidate_was_trained_on_are_told_of() -> None:
    of_its_own = judged(0.05, -0.1, 0.2)
    assert of_its_own.result is not None
    of_its_own.result["report"]["leaderboard"][0] |= {"seen": 12, "nearly_seen": 3}
    said = "on 40 judged answers, 12 of which it was trained on, 3 of which are nearly of its training data (95 %"
    assert said in ended(spec(), [*ADDED, child("train/like", TRAINED), of_its_own]).why


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
    assert [each.step for each in asked(two, spent)] == ["judge"]
    left = [*ADDED, child("train/replay", TRAINED, seconds=30)]
    assert [each.step for each in asked(two, left)] == ["train/like"]
    [first] = asked(two, ADDED)
    half = (10 * 60 - 10) / 2
    assert (first.step, first.run_seconds) == ("train/replay", half + 30)


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
    children = [*ADDED, child("train/like", TRAINED), judged(*gain)]
    if verdict == "promote":
        [evaluation] = asked(spec(), children)
        assert (evaluation.step, evaluation.spec["models"]) == ("evaluate", ["t-model@v2"])
        assert evaluation.spec["shown"] == {"evaluation": "evaluation-2", "level": 0.95}
        children.append(core())
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


def test_what_must_go_is_replaced_by_what_is_not_surely_worse() -> None:
    trained = [*ADDED, child("train/like", TRAINED)]
    for gain in ((0.0, -0.05, 0.05), (0.05, 0.01, 0.1)):
        [evaluation] = asked(spec(replaces=True), [*trained, judged(*gain)])
        assert evaluation.step == "evaluate"
        assert "shown" not in evaluation.spec
        assert [each.step for each in asked(spec(replaces=True), [*trained, judged(*gain), core()])] == ["shadow"]
    assert ended(spec(replaces=True), [*trained, judged(-0.2, -0.3, -0.1)]).verdict == "hold"
    alone = spec(replaces=True, train_source=None, judge_source=None)
    assert [each.step for each in asked(alone, [child("train/like", TRAINED)])] == ["evaluate"]
    unjudged = [child("train/like", TRAINED), core()]
    assert [each.step for each in asked(alone, unjudged)] == ["shadow"]
    done = ended(alone, [*unjudged, SHADOW, child("promote", {"state": "applied"})])
    assert (done.verdict, done.model) == ("promote", "t-model@v2")


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
    found = ended(spec(), [*ADDED, child("train/like", TRAINED), judged(0.3, 0.1, 0.5), slices])
    assert "ignore" not in found.why
    assert found.why.endswith("worse in (a value) and (a value) by 0.1: shows 'better' only")


def test_variants_are_made_for_the_one_way_that_learns_from_them() -> None:
    both = spec(ways=(Way(name="like", like="t-model@v1"), Way(name="variants", like="t-model@v1", with_variants=True)))
    trained = [*ADDED, child("train/like", TRAINED)]
    [made] = asked(both, trained)
    assert (made.step, made.kind) == ("variants", "curate")
    assert made.spec == {"dataset": "letters@v2", "steps": [{"op": "variants", "count": 1}]}
    [training] = asked(both, [*trained, child("variants", {"dataset": "letters@v3"})])
    assert (training.step, training.spec["dataset"]) == ("train/variants", "letters@v3")
    assert "with_variants" not in training.spec
    assert [each.step for each in asked(both, [*trained, child("variants", None)])] == ["judge"]


@pytest.mark.parametrize("before", [0, 1, 30])
def test_what_judged_others_before_must_be_surer(before: int) -> None:
    """However many the judged answers judge: in one of twenty loops at most one is called better that is not."""
    children = [*ADDED, child("train/like", TRAINED), judged(0.1, 0.01, 0.19, p=0.02)]
    found = next_step(spec(judged_before=before), children, 0.0)
    if before == 0:
        assert not isinstance(found, Finished)
    else:
        assert isinstance(found, Finished)
        learned = Learned.model_validate(found.result)
        assert learned.verdict == "inconclusive"
        assert f"they judged {before} before" in learned.why


GROWN = [*ADDED, child("suite", {"dataset": "letters@v3"}), child("train/like", TRAINED), judged(0.3, 0.1, 0.5)]


def test_where_the_suite_grows_its_old_rows_are_judged_alone() -> None:
    [first] = asked(spec(grows=True), GROWN)
    assert (first.step, first.spec["dataset"]) == ("old", "letters@v1:test")
    [then] = asked(spec(grows=True), [*GROWN, old(loss=0.015)])
    assert then.step == "evaluate"


@pytest.mark.parametrize(("loss", "doubt"), [(0.025, 0.005), (0.015, 0.03)])
def test_a_gain_on_new_answers_hides_no_loss_on_old_ones(loss: float, doubt: float) -> None:
    found = ended(spec(grows=True), [*GROWN, old(loss=loss, doubt=doubt)])
    assert found.verdict == "hold"
    sure = loss > 0.02
    told = (
        "would lose on what was asked before" if sure else "too few rows of before (800) to exclude a loss beyond 0.04"
    )
    assert told in found.why
    allowed = asked(spec(grows=True, margin=0.04), [*GROWN, old(loss=loss, doubt=doubt)])
    assert [each.step for each in allowed] == ["evaluate"], "the use case's own gate says how much may be lost"


def test_small_losses_do_not_add_up() -> None:
    """Each promotion may lose a little against its predecessor; against the best that ever served it may not."""
    children = [*ADDED, child("train/like", TRAINED), judged(0.3, 0.1, 0.5)]
    beside = spec(best="t-model@v0")
    [evaluation] = asked(beside, children)
    assert evaluation.spec["baselines"] == ["t-model@v0"]
    assert [each.step for each in asked(beside, [*children, core(loss=0.01, best=0.96)])] == ["shadow"]
    eroded = ended(beside, [*children, core(loss=0.01, best=0.98)])
    assert eroded.verdict == "hold"
    assert "worse on the core suite than t-model@v0, which served before" in eroded.why


def second(gain: float, first: float) -> list[Child]:
    """The judged answers of a second round: its candidate and the first one's gain over what served before."""
    found = judged(gain, 0.1, 0.9)
    assert found.result is not None
    report = found.result["report"]
    report["baseline"] = "t-model@v0"
    report["comparisons"].append({**report["comparisons"][0], "candidate": "t-model@v1", "delta": first})
    return [*ADDED, child("train/like", TRAINED), found]


def test_a_second_round_betters_the_first_and_is_compared_with_what_served_before_the_episode() -> None:
    again = spec(before="t-model@v0", serving="t-model@v1", judged_before=1)
    [judgement] = asked(again, [*ADDED, child("train/like", TRAINED)])
    assert (judgement.spec["baseline"], judgement.spec["baselines"]) == ("t-model@v0", ["t-model@v1"])
    assert [each.step for each in asked(again, second(0.5, 0.4))] == ["evaluate"]
    found = ended(again, second(0.4, 0.5))
    assert (found.verdict, found.why) == (
        "hold", "t-model@v2 is no better on 40 judged answers than t-model@v1, which serves",
    )  # fmt: skip


@pytest.mark.parametrize(("value", "short"), [(0.7, True), (0.9, False)])
def test_whether_it_is_short_of_the_target_is_said(value: float, short: bool) -> None:
    promoted = child("promote", {"state": "applied"})
    better = judged(0.3, 0.1, 0.5, value=value)
    children = [*ADDED, child("train/like", TRAINED), better, core(), SHADOW, promoted]
    assert ended(spec(target=0.85), children).short is short


def test_what_reaches_its_target_is_left_alone_unless_a_new_base_model_came() -> None:
    reached = {"target": 0.8, "serving_share": ServingShare(share=0.9, n=50, low=0.81, high=0.96)}
    unsure = [*ADDED, child("train/like", TRAINED), judged(0.1, -0.05, 0.25)]
    found = ended(spec(**reached), unsure)
    assert (found.verdict, found.settled) == ("hold", True)
    assert found.why.startswith("nothing need be done: 90% of 50 random answers are right (95 %: 81.0% to 96.0%), and")
    assert ended(spec(**reached, screens=True), unsure).verdict == "inconclusive"
    assert ended(spec(**reached | {"target": 0.85}), unsure).verdict == "inconclusive"


@pytest.mark.parametrize("verdict", ["hold", "inconclusive"])
def test_what_the_core_suite_says_is_passed_on(verdict: str) -> None:
    found = ended(spec(), [*ADDED, child("train/like", TRAINED), judged(0.3, 0.1, 0.5), core(verdict)])
    assert (found.verdict, found.why) == (verdict, "on the core suite: its gates")


def test_without_a_randomly_drawn_answer_nothing_can_be_said() -> None:
    found = ended(spec(), [ADDED[0], child("judged", None)])
    assert (found.verdict, found.why) == ("inconclusive", "there are no randomly drawn answers to judge by")
    assert [each.step for each in asked(spec(replaces=True), [ADDED[0], child("judged", None)])] == ["train/like"]
    single = child("judge", {"evaluation": "evaluation-2", "report": {
        "comparisons": [{"candidate": "t-model@v2", "delta": 1.0, "interval": None}], "n": 1, "baseline": "t-model@v1",
        "leaderboard": [row("t-model@v2", 1.0), row("t-model@v1", 0.0)],
    }})  # fmt: skip
    found = ended(spec(), [*ADDED, child("train/like", TRAINED), single])
    assert (found.verdict, found.why) == ("inconclusive", "too few randomly drawn answers to judge by: 1")


def test_a_training_that_fails_is_told() -> None:
    found = ended(spec(), [*ADDED, child("train/like", None)])
    assert (found.verdict, found.why) == ("hold", "no model could be trained: train/like broke")


def test_each_further_suite_is_judged_before_a_promotion() -> None:
    children = [*ADDED, child("train/like", TRAINED), judged(0.3, 0.1, 0.5), core()]
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


# New base models

BASES = ("org--a@v1", "org--b@v1", "org--c@v1", "org--d@v1")
DAY = spec(
    ways=(
        Way(name="like", like="t-model@v1"),
        *(Way(name=f"probe-{place}", method="probe", base_model=base) for place, base in enumerate(BASES)),
    ),
    shortlist=True,
)
LIKE = child("train/like", TRAINED)
COMPARED = child(
    "shortlist",
    {"report": {"candidates": [
        {"base_model": "org--c@v1", "kept": True}, {"base_model": "org--a@v1", "kept": True},
        {"base_model": "org--d@v1", "kept": True}, {"base_model": "org--b@v1", "kept": False},
    ]}},
)  # fmt: skip


def test_new_base_models_are_compared_as_specialize_compares_them_before_one_is_trained() -> None:
    assert [each.step for each in asked(DAY, ADDED)] == ["train/like"]
    (compared,) = asked(DAY, [*ADDED, LIKE])
    assert (compared.step, compared.kind, compared.priority) == ("shortlist", "shortlist", -10)
    assert compared.spec["base_models"] == list(BASES)
    assert compared.spec["dataset"] == "letters@v2"
    assert compared.spec["budget_minutes"] < 10 / 3
    ShortlistSpec.model_validate(compared.spec)
    (all_of_them,) = asked(DAY.model_copy(update={"shortlist": False}), [*ADDED, LIKE])
    assert all_of_them.step == "train/probe-0"


def test_only_promising_base_models_are_trained_the_best_one_first() -> None:
    children, steps = [*ADDED, LIKE, COMPARED], []
    while (found := asked(DAY, children)[0]).kind == "train":
        steps.append(found.step)
        children.append(child(found.step, {"model": f"t-model@v{len(children)}", "report": TRAINED["report"]}))
    assert steps == ["train/probe-2", "train/probe-0", "train/probe-3"]
    assert found.kind == "evaluate"


def test_where_no_comparison_could_be_made_every_base_model_is_trained() -> None:
    (found,) = asked(DAY, [*ADDED, LIKE, child("shortlist", None)])
    assert found.step == "train/probe-0"


# Whether a new base model is worth an episode

SCREENS = spec(
    ways=DAY.ways[:3], screens=True, judged_exists=True, train_source=None, judge_source=None, serving="t-model@v1",
    chosen_by=0.8,
)  # fmt: skip
"""The recipe of what serves, and two new base models."""


def probes(*values: tuple[float, float, float] | None) -> list[Child]:
    """A probe of each base model, with its value and interval on held-out examples, where it could be made."""
    return [
        child(
            f"screen/probe-{place}",
            {"model": f"t-model@v{place + 2}",
             "report": {"validation": {"value": value[0], "interval": list(value[1:]), "n": 120}}}
            if value else None,
        )
        for place, value in enumerate(values)
    ]  # fmt: skip


def test_of_new_base_models_probes_are_made_before_a_label_is_learned_from() -> None:
    made, steps = list[Child](), []
    with_labels = SCREENS.model_copy(update={"train_source": "log:t?part=train"})
    for each in probes((0.9, 0.85, 0.95), (0.7, 0.6, 0.8)):
        (found,) = asked(with_labels, made)
        steps.append(found.step)
        assert 60 * found.spec["budget_minutes"] <= 300
        assert found.spec["dataset"] == "letters@v1"
        made.append(each)
    assert steps == ["screen/probe-0", "screen/probe-1"]
    assert [each.step for each in asked(with_labels, made)] == ["rows"]


@pytest.mark.parametrize(
    ("values", "because"),
    [
        ([(0.7, 0.6, 0.81), (0.801, 0.79, 0.819)],
         "0 of 2 new base models may be better than what serves, chosen by 0.8: org--b@v1, the best, has"),
        ([None, None], "no new base model could be compared"),
    ],
)  # fmt: skip
def test_where_none_may_be_better_it_ends_before_a_label_is_asked_for_or_learned_from(
    values: list[tuple[float, float, float] | None], because: str
) -> None:
    end = next_step(SCREENS, probes(*values), 0.0)
    assert isinstance(end, Finished)
    found = Learned.model_validate(end.result)
    assert (found.verdict, found.used_labels, found.bases) == ("hold", False, None if values[0] is None else ())
    assert because in found.why


def test_those_that_may_be_better_go_on_and_are_told_where_labels_lack() -> None:
    mixed = probes((0.7, 0.6, 0.81), (0.81, 0.75, 0.87))
    (judgement,) = asked(SCREENS.model_copy(update={"ways": DAY.ways[1:3]}), mixed)
    assert (judgement.step, judgement.spec["models"]) == ("judge", ["t-model@v3"]), "nothing new to learn from"
    end = next_step(SCREENS.model_copy(update={"judged_exists": False}), mixed, 0.0)
    assert isinstance(end, Finished)
    found = Learned.model_validate(end.result)
    assert (found.verdict, found.bases) == ("inconclusive", ("org--b@v1",))
    learns = SCREENS.model_copy(update={"train_source": "log:t?part=train", "judge_source": "log:t?part=judge"})
    children, steps = [*mixed, *ADDED], []
    while (step := asked(learns, children)[0]).kind == "train":
        steps.append((step.step, step.spec["dataset"]))
        children.append(child(step.step, {"model": f"t-model@v{len(children) + 5}", "report": TRAINED["report"]}))
    assert steps == [("train/like", "letters@v2"), ("train/probe-1", "letters@v2")]


def test_where_nobody_knows_what_production_was_chosen_by_new_bases_are_not_screened() -> None:
    unknown = SCREENS.model_copy(update={"train_source": "log:t?part=train", "chosen_by": None})
    (found,) = asked(unknown, [])
    assert not found.step.startswith("screen/")
    assert isinstance(next_step(SCREENS.model_copy(update={"chosen_by": None}), [], 0.0), list | Finished)


@pytest.mark.parametrize(("metric", "values"), [("accuracy", (0.91, 0.95)), ("mae", (4.0, 3.0))])
def test_where_the_best_is_wanted_judged_answers_say_which_goes_forward_first(
    metric: str, values: tuple[float, float]
) -> None:
    names = ("t-model@v2", "t-model@v3")
    sign = 1 if metric == "accuracy" else -1
    gains = [
        {
            "candidate": name,
            "delta": sign * gain,
            "interval": sorted([sign * gain / 2, sign * gain * 2]),
            "p_value": 1e-4,
        }
        for name, gain in zip(names, (0.2, 0.3), strict=True)
    ]
    rows = [row(name, value) for name, value in zip(names, values, strict=True)]
    report = {"comparisons": gains, "n": 40, "leaderboard": rows, "baseline": "t-model@v1"}
    ways = (Way(name="like", like="t-model@v1"), Way(name="probe", method="probe"))
    there = [
        *ADDED, child("train/like", TRAINED), child("train/probe", {**TRAINED, "model": names[1]}),
        child("judge", {"evaluation": "evaluation-2", "report": report}),
    ]  # fmt: skip
    asked = {}
    for aim in ("pass", "best"):
        (asked[aim],) = next_step(spec(ways=ways, metric=metric, aim=aim), there, 0.0)  # type: ignore[misc]
    assert asked["best"].step == "evaluate"
    assert [(one["model"], one["n"]) for one in asked["best"].spec["order"]] == [(names[1], 40), (names[0], 40)]
    assert "order" not in asked["pass"].spec
