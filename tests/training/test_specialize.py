"""The cascade as a table: children so far -> what comes next."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.evaluation import evaluate, suites
from speciate.evaluation.endpoints.pricing import OWN_PRICE
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.evaluation.holdout_reuse import LooksOnRows
from speciate.jobs.job import fingerprint
from speciate.jobs.kinds import Child, ChildRequest, Finished
from speciate.training import specialize
from speciate.training.cascade import candidates
from speciate.training.cascade.candidates import SpecializeSpec
from speciate.training.cascade.search import skipped_candidates
from speciate.training.planning.training_plan import plan_training
from speciate.training.specialize import next_step
from speciate.training.train_spec import Candidate
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace
from tests.data import ingest, run_job
from tests.training.world import define, make_dataset, thirds, train_now

SPEC = SpecializeSpec(use_case="taste", dataset="reviews", budget_minutes=1)
LONGER = SPEC.model_copy(update={"budget_minutes": 5})
PROBE = {"method": "probe", "base_model": "pkg:minilm"}


def _trained(
    method: str = "classical",
    version: int = 1,
    value: float = 0.8,
    half: float = 0.05,
    target: float | None = 0.9,
    seconds: float = 2.0,
    dearer: tuple[dict[str, Any], ...] = (PROBE,),
) -> Child:
    base = PROBE["base_model"] if method == "probe" else None
    report = {
        "dataset": "reviews@v1", "method": method, "base_model": base, "metric": "accuracy", "target": target,
        "validation": {
            "value": value, "interval": [value - half, value + half], "standard_error": half / 2, "n": 200,
            "how": "validation",
        },
        "seconds": seconds, "dearer": list(dearer),
    }  # fmt: skip
    step = "train/classical" if method == "classical" else "train/probe-minilm"
    spec = {"method": method} | ({"base_model": base} if base else {})
    result = {"model": f"taste-model@v{version}", "report": report}
    return _child(step, "train", spec=spec, result=result, seconds=seconds)


def _child(
    step: str,
    kind: str,
    *,
    state: str = "succeeded",
    spec: dict[str, Any] | None = None,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    seconds: float = 1.0,
) -> Child:
    return Child(
        id=f"job-{step}", step=step, kind=kind, spec=spec or {}, state=state, result=result, error=error,
        run_seconds=seconds,
    )  # fmt: skip


def _evaluated(verdict: str, candidate: str = "taste-model@v2") -> Child:
    result = {
        "evaluation": "evaluation-1",
        "decision": {"id": "decision-1", "verdict": verdict, "reasons": ["measured"]},
        "report": {
            "baseline": "constant:",
            "candidate": candidate,
            "leaderboard": [{"model": candidate, "value": 0.91, "interval": [0.9, 0.92]}],
        },
    }
    return _child("evaluate", "evaluate", result=result)


def _requests(*children: Child, spec: SpecializeSpec = SPEC) -> list[ChildRequest]:
    step = next_step(spec, children, 0.0)
    assert not isinstance(step, Finished), step
    return list(step)


def _end(*children: Child, spec: SpecializeSpec = SPEC) -> Finished:
    step = next_step(spec, children, 0.0)
    assert isinstance(step, Finished), step
    return step


def test_the_cheapest_method_comes_first() -> None:
    (request,) = _requests()
    assert (request.step, request.kind) == ("train/classical", "train")
    assert request.spec["name"] == "taste-model"
    assert request.spec["budget_minutes"] == pytest.approx(0.9), "a tenth is the evaluation's"
    assert request.run_seconds == 54 + 30 + 300, "without a model there is nothing: reading may take its time"


def test_nothing_is_asked_while_a_child_lives() -> None:
    assert _requests(_child("train/classical", "train", state="running")) == []


def test_a_dearer_method_follows_where_the_target_is_not_surely_met() -> None:
    (request,) = _requests(_trained(value=0.91, half=0.05))
    assert request.step == "train/probe-minilm"
    assert request.spec["base_model"] == "pkg:minilm"
    assert request.spec["dataset"] == "reviews@v1"  # all candidates learn from the version that the first one saw
    assert request.spec["budget_minutes"] == pytest.approx(52 / 60)
    assert request.run_seconds == 52 + 30


def test_the_cascade_stops_where_the_whole_interval_reaches_the_target() -> None:
    (request,) = _requests(_trained(value=0.97, half=0.02))
    assert request.kind == "evaluate"


def test_a_verdict_on_few_test_examples_is_not_sure_and_the_cascade_goes_on() -> None:
    """Validation alone would say that the target is met: its interval is that of 200 examples."""
    few = SPEC.model_copy(update={"test_examples": 40})
    assert _requests(_trained(value=0.95, half=0.02))[0].kind == "evaluate"
    assert _requests(_trained(value=0.95, half=0.02), spec=few)[0].step == "train/probe-minilm"


def test_who_aims_for_the_best_model_uses_the_budget() -> None:
    best = SPEC.model_copy(update={"aim": "best"})
    assert _requests(_trained(value=0.97, half=0.02), spec=best)[0].step == "train/probe-minilm"


def test_where_no_method_can_reach_the_target_the_search_ends_early_and_shows_why() -> None:
    poor = _trained(value=0.5, half=0.01, target=0.99)
    curve = {"points": [[100, 0.45], [200, 0.5]], "examples_for_target": None}
    poor.result["report"]["learning_curve"] = curve  # type: ignore[index]
    assert _requests(poor)[0].kind == "evaluate"
    ended = _end(poor, _evaluated("inconclusive")).result["ended"]
    assert (ended["reason"], ended["learning_curve"]) == ("out_of_reach", curve)


def test_the_learning_curve_is_the_chosen_models_own() -> None:
    """The first training's said 630,485 examples where the better model's own curve said 16,734."""
    curves = [{"points": [[100, 0.4]], "examples_for_target": count} for count in (630_485, 16_734)]
    seen = [_trained(value=0.5), _trained("probe", 2, value=0.6)]
    for child, curve in zip(seen, curves, strict=True):
        child.result["report"]["learning_curve"] = curve  # type: ignore[index]
    assert _end(*seen, _evaluated("hold")).result["ended"]["learning_curve"] == curves[1]
    ended = _end(*seen, _evaluated("hold", "taste-model@v1")).result["ended"]
    assert ended["learning_curve"] == curves[0]
    assert _end(*seen, _evaluated("hold", "hf:org/other")).result["ended"]["learning_curve"] == curves[1]


def test_where_methods_were_named_the_end_does_not_say_that_nothing_else_suits() -> None:
    seen = (_trained(value=0.5), _evaluated("hold", "taste-model@v1"))
    named = SPEC.model_copy(update={"methods": ("classical",)})
    whys = [_end(*seen, spec=named).result["ended"]["why"]]
    seen = (_trained(value=0.5, dearer=()), _evaluated("hold", "taste-model@v1"))
    whys.append(_end(*seen).result["ended"]["why"])
    assert whys == [
        "Each candidate that the call named was tried; plan_training lists what else suits.",
        "Every method that suits was tried.",
    ]


_WAYS = (
    Candidate(method="classical"), Candidate(method="probe", base_model="pkg:minilm"),
    Candidate(method="lora", base_model="pkg:minilm"), Candidate(method="full", base_model="new:bert"),
)  # fmt: skip
_AT_ONCE = {"train/probe-minilm": 2, "train/lora-minilm": 2, "train/full-new-bert": 2}


def _told(requests: list[ChildRequest]) -> list[tuple[str, float]]:
    """Step and minutes of each training."""
    return [(request.step, round(request.spec["budget_minutes"], 2)) for request in requests]


def test_where_a_place_has_room_trainings_run_at_once_and_divide_the_budget_that_is_left() -> None:
    spec = LONGER.model_copy(update={"ways": _WAYS, "at_once": _AT_ONCE})
    assert _told(_requests(spec=spec)) == [("train/classical", 4.5)], "the first is alone: often it is enough"
    trained = _trained(seconds=30)
    both = _requests(trained, spec=spec)
    assert _told(both) == [("train/probe-minilm", 2.0), ("train/lora-minilm", 2.0)]
    assert [request.run_seconds for request in both] == [150, 150]
    probe, lora = _trained("probe", 2, seconds=20), _child("train/lora-minilm", "train", state="running")
    assert _requests(trained, probe, lora, spec=spec) == [], "what comes next is decided on the results of both"
    failed = lora.model_copy(update={"state": "failed", "run_seconds": 40.0})
    assert _told(_requests(trained, probe, failed, spec=spec)) == [("train/full-new-bert", 3.0)]
    sure = _trained(value=0.97, half=0.02)
    assert _requests(sure, spec=spec)[0].kind == "evaluate"


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"at_once": {}}, 1),
        ({"at_once": {**_AT_ONCE, "train/lora-minilm": 1}}, 1),
        ({"budget_minutes": 2}, 1),
        ({"least_seconds": {"train/lora-minilm": 140.0}}, 1),
        ({"shortlist": True}, 1),
        ({"at_once": dict.fromkeys(_AT_ONCE, 8)}, 3),
    ],
    ids=["no place", "one stays here", "short shares", "too slow for a share", "compared first", "room for all"],
)
def test_trainings_run_at_once_only_where_each_may(changes: dict[str, Any], steps: int) -> None:
    spec = LONGER.model_copy(update={"ways": _WAYS, "at_once": _AT_ONCE, **changes})
    assert len(_requests(_trained(seconds=10), spec=spec)) == steps


def test_a_thorough_search_gets_all_that_the_others_leave_and_no_share_beside_them() -> None:
    ways = (_WAYS[0], Candidate(method="classical", tabm=True), _WAYS[3], Candidate(method="classical", thorough=True))
    steps = ["train/classical", "train/classical-tabm", "train/full-new-bert", "train/classical-thorough"]
    spec = LONGER.model_copy(update={"aim": "best", "ways": ways, "at_once": dict.fromkeys(steps, 8)})
    trained = _trained(seconds=30)
    assert _told(_requests(trained, spec=spec)) == [(steps[1], 2.0), (steps[2], 2.0)]
    ended = [_child(step, "train", state="failed").model_copy(update={"run_seconds": 10.0}) for step in steps[1:3]]
    assert _told(_requests(trained, *ended, spec=spec)) == [(steps[3], 3.67)]
    here = spec.model_copy(update={"at_once": {}})
    assert _told(_requests(trained, spec=here)) == [(steps[1], 1.2)], "one by one, they leave it the most"
    assert _told(_requests(trained, *ended, spec=here)) == [(steps[3], 3.67)]


def test_a_method_that_cannot_end_in_what_is_left_is_skipped_and_told() -> None:
    slow = SPEC.model_copy(update={"least_seconds": {"train/probe-minilm": 300.0}})
    trained = _trained(value=0.85)
    assert _requests(trained, spec=slow)[0].kind == "evaluate"
    ended = _end(trained, _evaluated("inconclusive"), spec=slow).result["ended"]
    assert ended["reason"] == "budget"
    assert ended["skipped"] == [
        {
            "step": "train/probe-minilm", "method": "probe", "base_model": "pkg:minilm",
            "why": "needs about 300 s at least; 52 s were left",
        }
    ]  # fmt: skip
    search = Candidate(method="classical", thorough=True)
    few = slow.model_copy(update={"ways": (search,), "least_seconds": {"train/classical-thorough": 300.0}})
    (skipped,) = skipped_candidates(few, few.ways, 52.0)
    assert skipped["thorough"], "`classical` itself was tried"
    late = _end(_trained(value=0.85, seconds=90), _evaluated("inconclusive"), spec=SPEC).result["ended"]
    assert (late["reason"], late.get("skipped")) == ("budget", None), "nothing is known of what the rest would need"
    named = slow.model_copy(update={"methods": ("classical", "probe"), "base_models": ("pkg:minilm",)})
    assert _requests(trained, spec=named)[0].step == "train/probe-minilm", (
        "named ones are tried: estimates may be wrong"
    )


def test_candidates_of_one_method_and_of_one_version_are_told_apart() -> None:
    tabm = {"method": "classical", "hyperparameters": {"tabm": True}}
    other = _child("train/classical-tabm", "train", spec=tabm, result=_trained(version=2).result)
    same = other.model_copy(update={"result": _trained().result})
    first, second = "train/classical", "train/classical-tabm"
    for found, expected in (
        (other, [("taste-model@v1", first, None), ("taste-model@v2", second, None)]),
        (
            same,
            [
                ("taste-model@v1", "train/classical", None),
                ("taste-model@v1", "train/classical-tabm", "train/classical"),
            ],
        ),
    ):
        rows = _end(_trained(), found, _evaluated("hold")).result["candidates"]
        assert [(row["model"], row["step"], row.get("same_as")) for row in rows] == expected


def test_a_training_whose_limit_passed_says_so() -> None:
    late = _child("train/probe-minilm", "train", state="dead").model_copy(
        update={"reason": "timed_out: its limit of 48 s (run) passed"}
    )
    (failed,) = _end(_trained(), late, _evaluated("hold")).result["failed"]
    assert failed["why"].endswith("timed_out: its limit of 48 s (run) passed, before it had a first model")


def test_without_a_target_everything_is_tried() -> None:
    (request,) = _requests(_trained(value=0.99, half=0.001, target=None))
    assert request.step == "train/probe-minilm"


def test_the_cascade_stops_when_the_budget_is_spent() -> None:
    (request,) = _requests(_trained(seconds=59.5))
    assert request.kind == "evaluate"


def test_methods_that_were_asked_for_are_the_only_ones() -> None:
    spec = SPEC.model_copy(update={"methods": ("probe",), "base_models": ("pkg:minilm",)})
    (request,) = _requests(spec=spec)
    assert request.step == "train/probe-minilm"


def test_all_adequate_candidates_are_judged_at_once_on_the_test_split() -> None:
    (request,) = _requests(_trained(value=0.80), _trained("probe", 2, value=0.81))
    assert request.spec["models"] == ["taste-model@v1", "taste-model@v2"]
    assert (request.spec["suite"], request.spec["dataset"]) == ("core", "reviews@v1:test")
    assert request.spec["use_case"] == "taste"


def test_who_aims_for_the_best_gets_an_order_that_is_fixed_before_the_test_split_is_looked_at() -> None:
    children = [_trained(value=0.81), _trained("probe", 2, 0.83, dearer=())]
    best = SPEC.model_copy(update={"aim": "best"})
    (asked,) = _requests(*children, spec=best)
    assert [(one["model"], one["value"], one["n"]) for one in asked.spec["order"]] == [
        ("taste-model@v2", 0.83, 200), ("taste-model@v1", 0.81, 200),
    ]  # fmt: skip
    assert asked.spec["models"] == ["taste-model@v2"], "alone, at the full level"
    assert EvaluateSpec.model_validate(asked.spec).order[0].how == "validation"
    same = _child("train/classical-tabm", "train", spec={"method": "classical"}, result=children[0].result)
    (asked,) = _requests(children[0], same, children[1], spec=best)
    found = [one["model"] for one in asked.spec["order"]]
    assert found == ["taste-model@v2", "taste-model@v1"], "two trainings that ended in one version are one candidate"
    (usual,) = _requests(*children, spec=SPEC)
    assert "order" not in usual.spec


BEST = SPEC.model_copy(update={"aim": "best"})


def _first_verdict(verdict: str, unmet: Sequence[str], target: float | None = 0.9, **decision: str) -> list[Child]:
    """After two trainings, of which the dearer one comes first."""
    evaluated = _evaluated(verdict, "taste-model@v2")
    assert evaluated.result is not None
    evaluated.result["unmet"] = list(unmet)
    evaluated.result["decision"] |= decision
    return [
        _trained(value=0.89, target=target), _trained("probe", 2, 0.91, target=target, dearer=()), evaluated,
    ]  # fmt: skip


@pytest.mark.parametrize("target", [0.8, None])
@pytest.mark.parametrize("unmet", ["reaches", "at_most"])
def test_where_the_first_does_not_pass_those_behind_it_are_judged(unmet: str, target: float | None) -> None:
    """Also where a better one would not pass: they may be quicker."""
    (asked,) = _requests(*_first_verdict("hold", [unmet], target), spec=BEST)
    assert (asked.step, asked.spec["models"]) == ("evaluate/2", ["taste-model@v1"])
    assert [one["model"] for one in asked.spec["order"]] == ["taste-model@v1"]
    assert isinstance(next_step(SPEC, _first_verdict("hold", ["at_most"]), 0.0), Finished)


def test_where_the_first_passes_nothing_else_is_asked_of_the_test_rows() -> None:
    (asked,) = _requests(*_first_verdict("promote", []), spec=BEST)
    assert (asked.step, asked.spec["model"]) == ("promote", "taste-model@v2")


def test_where_the_first_serves_already_those_behind_it_are_not_judged() -> None:
    end = _end(*_first_verdict("hold", [], same_model="taste-model@v1"), spec=BEST)
    assert end.result is not None


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [(("hold", "inconclusive"), 1), (("hold", "hold"), 2), (("inconclusive", "inconclusive"), 2)],
)
def test_of_verdicts_that_do_not_pass_the_first_that_rows_may_change_is_told(
    verdicts: tuple[str, str], told: int
) -> None:
    children = _first_verdict(verdicts[0], ["reaches"])
    again = _evaluated(verdicts[1], "taste-model@v1")
    second = again.model_copy(update={"step": "evaluate/2", "id": "job-evaluate/2"})
    end = _end(*children, second, spec=BEST)
    assert end.result is not None
    assert end.result["model"] == f"taste-model@v{told}"
    assert end.result["decision"]["verdict"] == verdicts[0 if told == 2 else 1]


def test_nested_values_are_compared_with_nested_ones() -> None:
    """The best of several by the rows that chose it would else go before a choice that is judged by others."""
    lucky, thorough = _trained(value=0.90, half=0.02), _trained("probe", 2, 0.85, half=0.02, dearer=())
    best = SPEC.model_copy(update={"aim": "best"})
    (asked,) = _requests(lucky, thorough, spec=best)
    assert asked.spec["models"] == ["taste-model@v1"]
    for one, value in ((lucky, 0.845), (thorough, 0.85)):
        assert one.result is not None
        one.result["report"]["validation"]["nested"] = {"value": value, "standard_error": 0.01}
    (asked,) = _requests(lucky, thorough, spec=best)
    assert [(one["value"], one["how"], one["optimistic"]) for one in asked.spec["order"]] == [
        (0.85, "validation, nested", False), (0.845, "validation, nested", False),
    ]  # fmt: skip
    network = _trained("full", 3, 0.855, half=0.02, dearer=())
    (asked,) = _requests(lucky, thorough, network, spec=best)
    assert [(one["model"][-1], one["optimistic"], one["doubt"]) for one in asked.spec["order"]] == [
        ("2", False, None), ("1", False, None), ("3", True, "not_nested"),
    ], "rows that stopped a network are too kind to it beside nested values"  # fmt: skip


@pytest.mark.parametrize(("value", "first", "doubt"), [(0.81, "2", "beside_thorough"), (0.84, "1", None)])
def test_beside_a_thorough_search_another_goes_first_if_it_is_better_by_a_standard_error(
    value: float, first: str, doubt: str | None
) -> None:
    thorough = _trained(version=2, value=0.80, dearer=())
    thorough = thorough.model_copy(
        update={"step": "train/classical-thorough", "spec": thorough.spec | {"hyperparameters": {"thorough": True}}}
    )
    other = _trained(value=value, dearer=())
    (asked,) = _requests(other, thorough, spec=SPEC.model_copy(update={"aim": "best"}))
    assert asked.spec["models"] == [f"taste-model@v{first}"]
    doubts = {one["model"]: one["doubt"] for one in asked.spec["order"]}
    assert doubts["taste-model@v1"] == doubt, "none where the search is so much worse that it has no place in the order"


def test_what_few_rows_say_of_a_network_comes_behind_what_many_say_of_another() -> None:
    few = _trained("probe", 2, 0.83, half=0.1, dearer=())
    assert few.result is not None
    few.result["report"]["validation"]["n"] = 40
    (asked,) = _requests(_trained(value=0.80), few, spec=SPEC.model_copy(update={"aim": "best"}))
    assert [one["model"] for one in asked.spec["order"]] == ["taste-model@v1", "taste-model@v2"]


def test_a_warm_start_that_may_know_the_rows_comes_behind_what_is_as_good_without_that() -> None:
    warm = _trained("probe", 2, 0.83, half=0.1, dearer=())
    assert warm.result is not None
    warm.result["report"]["left_out"] = None
    (asked,) = _requests(_trained(value=0.80), warm, spec=SPEC.model_copy(update={"aim": "best"}))
    assert [(one["model"], one["doubt"]) for one in asked.spec["order"]] == [
        ("taste-model@v1", None), ("taste-model@v2", "judged_apart"),
    ]  # fmt: skip


def test_a_published_model_has_its_place_in_the_order_by_its_race() -> None:
    rows = [{"model": "pub@v1", "value": 0.81, "interval": [0.77, 0.85], "n": 200, "seconds": 1.0}]
    raced = {"survivors": ["pub@v1"], "rows": rows, "metric": "accuracy"}
    screened = _child(
        "screen", "screen", result={"candidates": [{"name": "pub", "version": "pub@v1", "ref": "hf:a/b"}]}
    )
    children = [
        screened,
        _child("race", "race", result=raced),
        _trained(value=0.80),
        _trained("probe", 2, 0.82, dearer=()),
    ]
    spec = LONGER.model_copy(update={"aim": "best", "published": ("hf:a/b",)})
    (asked,) = _requests(*children, spec=spec)
    assert [one["model"] for one in asked.spec["order"]] == ["taste-model@v2", "pub@v1", "taste-model@v1"]
    assert asked.spec["order"][1]["standard_error"] == pytest.approx(0.0204, abs=1e-4)


def test_a_candidate_far_below_the_best_is_not_judged() -> None:
    (request,) = _requests(_trained(value=0.60), _trained("probe", 2, value=0.85))
    assert request.spec["models"] == ["taste-model@v2"]


def test_a_cheap_candidate_that_reaches_the_target_is_judged_beside_a_better_one() -> None:
    cheap, dear = _trained(value=0.905, half=0.01), _trained("probe", 2, value=0.99, half=0.01)
    (request,) = _requests(cheap, dear)
    assert request.spec["models"] == ["taste-model@v1", "taste-model@v2"]


def test_a_training_that_failed_does_not_end_the_search() -> None:
    failed = _child("train/probe-minilm", "train", state="failed", error={"message": "no room", "recovery": "wait"})
    (request,) = _requests(_trained(), failed)
    assert request.kind == "evaluate"
    end = _end(_trained(), failed, _evaluated("hold", "taste-model@v1"))
    assert end.result["failed"][0]["why"] == "no room"


def test_a_failed_first_training_is_followed_by_the_dearer_ones() -> None:
    ways = (Candidate(method="classical"), Candidate(method="probe", base_model="pkg:minilm"))
    failed = _child("train/classical", "train", state="failed", error={"message": "no room"})
    (request,) = _requests(failed, spec=SPEC.model_copy(update={"ways": ways}))
    assert request.step == "train/probe-minilm"
    assert request.spec["dataset"] == "reviews"


def test_the_order_of_the_labels_reaches_every_training() -> None:
    (request,) = _requests(spec=SPEC.model_copy(update={"order": ("poor", "good")}))
    assert request.spec["hyperparameters"] == {"order": ["poor", "good"]}


def test_where_nothing_could_be_trained_the_first_error_is_told() -> None:
    failed = _child(
        "train/classical", "train", state="failed", error={"message": "no labels", "recovery": "label them"}
    )
    other = _child("train/probe-minilm", "train", state="failed", error={"message": "not for images"})
    end = _end(failed, other)
    assert end.error is not None
    assert "no labels" in end.error
    assert end.recovery == "label them"


def test_a_passing_decision_is_followed_by_the_promotion_of_what_it_is_about() -> None:
    (request,) = _requests(_trained(), _trained("probe", 2), _evaluated("promote"))
    assert request.kind == "promote"
    assert request.spec["model"] == "taste-model@v2"
    assert request.spec["decision"] == "decision-1"


def test_the_chosen_model_is_judged_on_each_further_suite_before_it_is_promoted() -> None:
    evaluated = _evaluated("promote")
    evaluated = evaluated.model_copy(update={"result": {**(evaluated.result or {}), "further_suites": ["regression"]}})
    (further,) = _requests(_trained("classical", 0.95), evaluated)
    assert (further.step, further.kind) == ("evaluate-regression", "evaluate")
    assert further.spec["models"] == ["taste-model@v2"]
    after = _child("evaluate-regression", "evaluate", result={"evaluation": "evaluation-2"})
    assert [each.step for each in _requests(_trained("classical", 0.95), evaluated, after)] == ["promote"]


@pytest.mark.parametrize("verdict", ["hold", "inconclusive"])
def test_without_a_passing_decision_nothing_moves(verdict: str) -> None:
    end = _end(_trained(), _trained("probe", 2), _evaluated(verdict))
    assert end.result["promotion"]["state"] == "refused"
    assert verdict in end.result["promotion"]["reasons"][0]


def test_where_training_finds_the_serving_model_again_it_holds() -> None:
    again = _evaluated("hold", "taste-model@v1")
    assert again.result is not None
    result = {**again.result, "decision": None, "report": {**again.result["report"], "baseline": "taste-model@v1"}}
    end = _end(_trained(dearer=()), again.model_copy(update={"result": result}))
    assert end.result["decision"]["verdict"] == "hold"
    assert "serves already" in end.result["decision"]["reasons"][0]


def test_where_no_decision_could_be_made_the_result_says_why() -> None:
    undecided = _evaluated("hold")
    assert undecided.result is not None
    result = {**undecided.result, "decision": None, "no_decision": "the suite is another"}
    end = _end(_trained(), _trained("probe", 2), undecided.model_copy(update={"result": result}))
    assert end.result["decision"]["verdict"] == "inconclusive"
    assert end.result["decision"]["reasons"] == ["No decision is made: the suite is another."]


def test_a_candidate_without_a_validation_value_is_judged_only_where_none_has_one() -> None:
    unknown = _trained()
    assert unknown.result is not None
    unknown.result["report"]["validation"] |= {"value": None, "interval": None}
    (request,) = _requests(unknown, _trained("probe", 2))
    assert request.spec["models"] == ["taste-model@v2"]
    unknown.result["report"]["dearer"] = []
    (request,) = _requests(unknown)
    assert request.spec["models"] == ["taste-model@v1"]


def test_the_result_tells_what_was_tried_spent_and_decided() -> None:
    approval = {"id": "approval-1", "expires": 1.0, "how": "speciate approve approval-1"}
    promoted = _child("promote", "promote", result={"state": "needs_approval", "reasons": ["x"], "approval": approval})
    result = _end(_trained(), _trained("probe", 2), _evaluated("promote"), promoted).result
    assert result["model"] == "taste-model@v2"
    assert result["evaluation"] == "evaluation-1"
    assert result["decision"]["verdict"] == "promote"
    assert [(one["method"], one["value"], one["measured_on"]) for one in result["candidates"]] == [
        ("classical", 0.8, "validation"),
        ("probe", 0.91, "test"),
    ]
    assert result["spent"] == {"seconds": 6.0, "usd": 0.0, "prices": OWN_PRICE}
    assert "usd_per_hour of settings.toml" in OWN_PRICE
    assert result["promotion"] == {"state": "needs_approval", "reasons": ["x"], "approval": approval}


def test_a_promotion_that_came_too_late_is_told_as_refused() -> None:
    late = _child("promote", "promote", state="failed", error={"message": "another serves", "recovery": "again"})
    result = _end(_trained(), _trained("probe", 2), _evaluated("promote"), late).result
    assert result["promotion"] == {"state": "refused", "reasons": ["another serves"]}


def test_the_next_step_follows_from_its_arguments_alone() -> None:
    children = [_trained(), _trained("probe", 2)]
    assert next_step(SPEC, children, 0.0) == next_step(SPEC, list(children), 9e9)


def test_a_dataset_without_test_split_is_refused(workspace: Workspace) -> None:
    define(workspace, "taste", "text-classification")
    make_dataset(
        workspace,
        "reviews",
        "text",
        {"text": ["a", "b"]},
        labels=["x", "y"],
        splits=["train", "train"],
        inputs=["text"],
    )
    with pytest.raises(SpeciateError, match="no split 'test'") as error:
        specialize.plan(SPEC, workspace)
    assert "curate_dataset(dataset='reviews@v1', steps=[{'op': 'split'}])" in error.value.recovery


def test_a_core_suite_whose_rows_would_teach_is_refused_before_anything_is_trained(workspace: Workspace) -> None:
    """The dataset was split anew after its version became the core suite: no verdict could be better than hold."""
    rows = tuple({"text": f"a remark {number}", "label": "ab"[number % 2]} for number in range(60))
    ingest(workspace, "reviews", rows=rows, label="label", inputs=("text",), modality="text")
    define(workspace, "taste", "text-classification", target=0.9, core="reviews@v1")
    run_job(workspace, "curate", dataset="reviews", steps=[{"op": "split", "seed": 5}])
    with pytest.raises(
        SpeciateError, match="of the core suite 'reviews@v1' are training or validation rows"
    ) as refused:
        specialize.plan(SPEC, workspace)
    assert str(refused.value.next[0]) == "Call specialize again with dataset='reviews@v1'."
    before = SPEC.model_copy(update={"dataset": "reviews@v1"})
    assert specialize.plan(before, workspace).resolved["dataset"] == "reviews@v1"


def test_a_core_suite_stands_in_for_the_test_split(workspace: Workspace) -> None:
    columns, labels = {"text": ["a", "b", "c", "d"]}, ["x", "y", "x", "y"]
    make_dataset(workspace, "reviews", "text", columns, labels=labels, splits=["train"] * 4, inputs=["text"])
    others = {"text": [*"abcdefgh"]}
    splits = ["train"] * 4 + ["test"] * 4
    make_dataset(workspace, "judged", "text", others, labels=labels * 2, splits=splits, inputs=["text"])
    define(workspace, "taste", "text-classification", core="judged:test")
    assert specialize.plan(SPEC, workspace).resolved["dataset"] == "reviews@v1"
    define(workspace, "taste", "text-classification", core="judged:gold")
    with pytest.raises(SpeciateError, match="no split 'gold'"):
        specialize.plan(SPEC, workspace)
    with pytest.raises(SpeciateError, match=r"suites\.core is 'judged:train': models learn from the split 'train'"):
        define(workspace, "taste", "text-classification", core="judged:train")


def test_the_search_knows_the_test_split_and_the_plan_tells_what_cannot_fit(workspace: Workspace) -> None:
    texts, labels = {"text": [f"text {i}" for i in range(20)]}, ["a", "b"] * 10
    splits = ["train"] * 10 + ["validation"] * 4 + ["test"] * 6
    make_dataset(workspace, "reviews", "text", texts, labels=labels, splits=splits, inputs=["text"])
    define(workspace, "taste", "text-classification")
    ways = (Candidate(method="classical"), Candidate(method="full", base_model="new:bert"))
    terms = candidates.search_terms(workspace, "taste", "reviews", ways, 1.0)
    assert (terms.aim, terms.test_examples) == ("pass", 6)
    slow = SPEC.model_copy(update={"ways": ways, "least_seconds": {"train/full-new-bert": 200.0}})
    (skipped,) = specialize.plan(slow, workspace).resolved["skipped"]
    assert skipped["base_model"] == "new:bert"
    assert "skipped" not in specialize.plan(slow.model_copy(update={"budget_minutes": 5}), workspace).resolved


@pytest.mark.parametrize("incumbent", ["column:rulez", "nothing@v3"])
def test_an_incumbent_that_is_not_there_is_refused_before_training(workspace: Workspace, incumbent: str) -> None:
    texts = {"text": [f"text {i}" for i in range(20)], "rules": ["a"] * 20}
    labels, splits = ["a", "b"] * 10, ["train"] * 10 + ["validation"] * 4 + ["test"] * 6
    make_dataset(workspace, "reviews", "text", texts, labels=labels, splits=splits, inputs=["text"])
    define(workspace, "taste", "text-classification", incumbent=incumbent)
    with pytest.raises(SpeciateError, match=f"incumbent '{incumbent}' of 'taste'"):
        specialize.plan(SPEC, workspace)


def test_a_failed_evaluation_is_told_in_one_sentence() -> None:
    failed = _child("evaluate", "evaluate", state="failed", error={"message": "It broke."})
    end = next_step(SPEC, [_trained(), failed], 0.0)
    assert isinstance(end, Finished)
    assert end.error == "No model could be evaluated: It broke."


def test_the_evaluation_gets_what_is_left_of_the_budget() -> None:
    (request,) = _requests(_trained(value=0.97, half=0.02, seconds=20), spec=LONGER)
    assert (request.kind, request.run_seconds) == ("evaluate", 5 * 60 - 20 + 30)
    (request,) = _requests(_trained(seconds=59.5))
    assert request.run_seconds == 60 + 30, "and a minute where trainings took it all"
    evaluated = _evaluated("promote")
    evaluated = evaluated.model_copy(update={"result": {**(evaluated.result or {}), "further_suites": ["regression"]}})
    (further,) = _requests(_trained(value=0.97, half=0.02, seconds=20), evaluated, spec=LONGER)
    assert further.run_seconds == 5 * 60 - 21 + 30


def test_a_budget_that_ends_in_the_evaluation_ends_in_the_best_so_far() -> None:
    asked = {"models": ["taste-model@v1", "taste-model@v2"], "dataset": "reviews@v1:test", "use_case": "taste"}
    late = _child("evaluate", "evaluate", state="dead", spec=asked, seconds=301)
    end = _end(_trained(value=0.8), _trained("probe", 2, value=0.9), late, spec=LONGER)
    assert end.error is None
    assert end.result["model"] == "taste-model@v2"
    assert end.result["decision"]["verdict"] == "inconclusive"
    assert "budget_minutes=5" in end.result["decision"]["reasons"][0]
    assert end.result["promotion"]["state"] == "refused"
    assert end.result["promotion"]["next"] == [{"tool": "evaluate_models", "arguments": asked}]
    lost = late.model_copy(update={"run_seconds": 3.0})
    assert isinstance(next_step(LONGER, [_trained(), lost], 0.0), Finished)
    assert _end(_trained(), lost, spec=LONGER).error


def test_a_result_names_the_version_of_each_model_as_the_name_alone_is_the_one_trained_last() -> None:
    both = _trained(value=0.85), _trained("probe", 2, value=0.85)
    for verdict in ("hold", "inconclusive"):
        result = _end(*both, _evaluated(verdict, "taste-model@v1"), spec=SPEC).result
        assert result["model"] == "taste-model@v1"
        assert re.findall(r"taste-model(?!@v\d)", json.dumps(result)) == []


def test_base_models_that_are_named_are_the_only_ones(workspace: Workspace) -> None:
    make_dataset(
        workspace, "rows", "tabular", {"x": [float(i) for i in range(40)]},
        labels=["a" if i % 4 < 2 else "b" for i in range(40)], splits=thirds(40), inputs=["x"],
    )  # fmt: skip
    define(workspace, "sort", "tabular-classification")
    found = candidates.choose_candidates(workspace, "sort", "rows", ["new:tab-resnet", "net@v1"])
    assert [(way.method, way.base_model) for way in found] == [
        ("classical", None), ("probe", "net@v1"), ("lora", "net@v1"), ("full", "new:tab-resnet"), ("full", "net@v1"),
    ]  # fmt: skip
    spec = SPEC.model_copy(update={"base_models": ("net@v1",), "ways": found[1:3]})
    assert [request.step for request in _requests(spec=spec)] == ["train/probe-net-v1"]


CONTINUED = Candidate(method="full", base_model="taste-model@v1", continue_from="taste-model@v1")
FRESH = Candidate(method="full", base_model="new:bert")


def test_a_warm_start_is_a_step_and_a_row_of_its_own() -> None:
    spec = SPEC.model_copy(update={"ways": (Candidate(method="classical"), CONTINUED, FRESH)})
    (request,) = _requests(_trained(), spec=spec)
    assert request.step == "train/continue-taste-model-v1"
    assert request.spec["continue_from"] == "taste-model@v1"
    assert request.spec["hyperparameters"] == {}  # as every other candidate
    report = {**(_trained().result or {})["report"], "method": "full", "base_model": "taste-model@v1", "left_out": 0}
    done = _child(request.step, "train", spec=request.spec, result={"model": "taste-model@v2", "report": report})
    (request,) = _requests(_trained(), done, spec=spec)
    assert request.step == "train/full-new-bert"
    end = _end(_trained(), done, _evaluated("hold"), spec=spec)
    row = next(row for row in end.result["candidates"] if row["model"] == "taste-model@v2")
    assert (row["method"], row["base_model"], row["continue_from"]) == ("full", "taste-model@v1", "taste-model@v1")


def test_what_was_judged_on_other_examples_neither_ends_the_cascade_nor_beats_another_there() -> None:
    spec = SPEC.model_copy(update={"ways": (Candidate(method="classical"), CONTINUED, FRESH)})
    apart = _trained(version=2, value=0.99, half=0.005)
    assert apart.result is not None
    apart.result["report"] |= {"method": "full", "left_out": 60}
    done = apart.model_copy(update={"step": "train/continue-taste-model-v1"})
    (request,) = _requests(_trained(value=0.7), done, spec=spec)
    assert request.step == "train/full-new-bert"
    (request,) = _requests(_trained(value=0.7), done, spec=spec.model_copy(update={"ways": spec.ways[:2]}))
    assert request.spec["models"] == ["taste-model@v1", "taste-model@v2"]


def test_the_recipe_of_another_model_is_tried_first_and_stands_for_the_way_that_it_is() -> None:
    spec = SPEC.model_copy(
        update={"like": "old@v3", "ways": (Candidate(method="classical"), Candidate(**PROBE), FRESH)}
    )
    (request,) = _requests(spec=spec)
    assert request.step == "train/like-old-v3"
    assert request.spec == {
        "name": "taste-model", "dataset": "reviews", "use_case": "taste", "budget_minutes": pytest.approx(0.9),
        "like": "old@v3",
    }  # fmt: skip
    made = _trained("probe").model_copy(update={"step": request.step, "spec": request.spec})
    (request,) = _requests(made, spec=spec)
    assert request.step == "train/classical"
    (request,) = _requests(made, _trained(version=2), spec=spec)
    assert request.step == "train/full-new-bert"
    tabm = _trained().model_copy(update={"step": "train/like-old-v3", "spec": made.spec})
    assert tabm.result is not None
    tabm.result["report"] |= {"cost": {"tabm": True}}
    ways = (Candidate(method="classical"), Candidate(method="classical", tabm=True))
    (request,) = _requests(tabm, _trained(version=2), spec=spec.model_copy(update={"ways": ways}))
    assert not request.step.startswith("train/"), "it stood for classical with TabM"
    row = _end(made, _evaluated("hold"), spec=spec).result["candidates"][0]
    assert (row["method"], row["base_model"], row["like"]) == ("probe", "pkg:minilm", "old@v3")


def test_two_ways_to_the_same_version_are_judged_once() -> None:
    (request,) = _requests(_trained(), _trained("probe", 1), spec=SPEC.model_copy(update={"ways": ()}))
    assert request.spec["models"] == ["taste-model@v1"]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace whose use case is served by a network and by a classical model before it; to be copied."""
    pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("serving") / "workspace"
    workspace = Workspace(root)
    _rows(workspace, "rows", "xy")
    define(workspace, "sort", "tabular-classification")
    train_now(workspace, "job-a", name="simple", dataset="rows", method="classical", use_case="sort")
    quick = {"num_train_epochs": 1, "learning_rate": [1e-3]}
    how = {"method": "full", "base_model": "new:tab-resnet", "hyperparameters": quick}
    train_now(workspace, "job-b", name="net", dataset="rows", use_case="sort", **how)
    workspace.close()
    return root


@pytest.fixture
def served(serving: Path, tmp_path: Path) -> Iterator[Workspace]:
    shutil.copytree(serving, tmp_path / "copy")
    workspace = Workspace(tmp_path / "copy")
    _promote(workspace, "net@v1")
    yield workspace
    workspace.close()


def _rows(
    workspace: Workspace, name: str, columns: str, splits: Sequence[str] = ("train", "validation", "test")
) -> None:
    make_dataset(
        workspace, name, "tabular", {column: [float(i % 7) for i in range(60)] for column in columns},
        labels=["a" if i % 4 < 2 else "b" for i in range(60)], splits=thirds(60, splits), inputs=list(columns),
    )  # fmt: skip


def _promote(workspace: Workspace, model: str) -> None:
    def point(tx: Transaction) -> None:
        tx.execute("DELETE FROM aliases")
        tx.execute("INSERT INTO aliases VALUES ('sort', 'production', ?, 1, 0, NULL)", [model])

    workspace.database.transact(point)


def _warm(ways: Sequence[Candidate]) -> list[str]:
    return [way.continue_from for way in ways if way.continue_from]


def test_a_network_in_production_is_gone_on_with_before_another_is_begun(served: Workspace) -> None:
    found = candidates.choose_candidates(served, "sort", "rows")
    assert [(way.method, way.base_model, way.continue_from, way.tabm) for way in found] == [
        ("classical", None, None, None), ("classical", None, None, True), ("full", "net@v1", "net@v1", None),
        ("full", "new:tab-resnet", None, None),
    ]  # fmt: skip
    planned = specialize.plan(SpecializeSpec(use_case="sort", dataset="rows", budget_minutes=1, ways=found), served)
    assert planned.resolved["candidates"][2] == {
        "step": "train/continue-net-v1", "method": "full", "base_model": "net@v1", "continue_from": "net@v1",
    }  # fmt: skip


def test_methods_and_base_models_that_are_named_say_whether_the_network_in_production_is_tried(
    served: Workspace,
) -> None:
    assert _warm(candidates.choose_candidates(served, "sort", "rows", methods=["full"])) == ["net@v1"]
    assert _warm(candidates.choose_candidates(served, "sort", "rows", methods=["classical", "lora"])) == []
    assert _warm(candidates.choose_candidates(served, "sort", "rows", ["new:tab-resnet"])) == []


def test_no_warm_start_from_what_is_no_network(served: Workspace) -> None:
    _promote(served, "simple@v1")
    assert _warm(candidates.choose_candidates(served, "sort", "rows")) == []


def test_no_warm_start_where_rows_lack_its_columns_or_nothing_could_judge_it(served: Workspace) -> None:
    _rows(served, "narrow", "x")
    assert _warm(candidates.choose_candidates(served, "sort", "narrow")) == []
    _rows(served, "wide", "wxy")
    assert _warm(candidates.choose_candidates(served, "sort", "wide")) == ["net@v1"]
    served.database.transact(lambda tx: tx.execute("DELETE FROM dataset_versions WHERE name = 'rows'"))
    assert _warm(candidates.choose_candidates(served, "sort", "wide")) == []


def test_no_warm_start_for_another_task(served: Workspace) -> None:
    numbers = [float(i) for i in range(60)]
    make_dataset(
        served, "sums", "tabular", {"x": numbers, "y": numbers}, labels=numbers, splits=thirds(60), inputs="xy"
    )
    define(served, "sort", "tabular-regression", metric="mae")
    assert _warm(candidates.choose_candidates(served, "sort", "sums")) == []


def test_a_recipe_that_cannot_be_repeated_for_the_use_case_is_refused_before_there_is_a_job(served: Workspace) -> None:
    spec = SpecializeSpec(use_case="sort", dataset="rows", budget_minutes=1, like="net@v7")
    with pytest.raises(SpeciateError, match="no version 7"):
        specialize.plan(spec, served)


def test_a_repeated_call_is_the_same_question_though_another_network_serves_by_now() -> None:
    asked = {"use_case": "sort", "dataset": "rows", "budget_minutes": 1}
    assert fingerprint("specialize", {**asked, "ways": []}) == fingerprint(
        "specialize", {**asked, "ways": [CONTINUED.model_dump()]}
    )
    assert fingerprint("specialize", asked) != fingerprint("specialize", {**asked, "like": "net@v1"})


# A verdict that validation examples were sure of, and that did not pass


def _refused(
    judged: Sequence[str] = ("taste-model@v1",), unmet: Sequence[str] = ("reaches",), step: str = "evaluate"
) -> Child:
    result = {
        "evaluation": f"evaluation-of-{step}",
        "decision": {"id": "decision-1", "verdict": "inconclusive", "reasons": ["too few"]},
        "unmet": list(unmet),
        "report": {
            "baseline": "constant:",
            "candidate": judged[0],
            "leaderboard": [{"model": model, "value": 0.9, "interval": [0.86, 0.94]} for model in judged],
        },
    }  # fmt: skip
    return _child(step, "evaluate", spec={"models": list(judged)}, result=result)


LUCKY = _trained(value=0.97, half=0.02)


def test_a_pass_is_sure_only_at_the_level_that_published_models_beside_it_leave() -> None:
    race = _child("race", "race", result={"survivors": [f"hf:org/m{n}" for n in range(9)]})
    just = _trained(value=0.965, half=0.03)
    assert _requests(just, spec=LONGER)[0].kind == "evaluate"
    assert _requests(race, just, spec=LONGER)[0].step == "train/probe-minilm"


def test_a_value_on_a_few_rows_does_not_shut_out_one_on_many() -> None:
    many = _trained(value=0.74, half=0.052)
    few = _trained("probe", 2, value=0.85, half=0.16)
    assert few.result is not None
    few.result["report"]["validation"] |= {"n": 40, "how": "held out of train"}
    spec = SPEC.model_copy(update={"ways": (Candidate(method="classical"), Candidate(**PROBE))})
    (evaluation,) = _requests(many, few, spec=spec)
    assert evaluation.spec["models"] == ["taste-model@v2"], "1.3 standard errors"
    few.result["report"]["validation"] |= {"value": 0.823}
    (evaluation,) = _requests(many, few, spec=spec)
    assert evaluation.spec["models"] == ["taste-model@v1", "taste-model@v2"], "0.95 of the difference's"
    few.result["report"]["validation"] |= {"n": 200, "how": "validation"}
    (evaluation,) = _requests(many, few, spec=spec)
    assert evaluation.spec["models"] == ["taste-model@v2"], "on the same rows the best's own"


def test_the_search_goes_on_where_a_sure_pass_was_none() -> None:
    assert _requests(LUCKY, spec=LONGER)[0].kind == "evaluate"
    (training,) = _requests(LUCKY, _refused(), spec=LONGER)
    assert training.step == "train/probe-minilm"
    assert training.spec["verdict_level"] == pytest.approx(1 - 0.05 / 11), "the next verdict accounts for the first"
    (again,) = _requests(LUCKY, _refused(), _trained("probe", 2, value=0.99, half=0.01), spec=LONGER)
    assert (again.step, again.kind, again.spec["models"]) == ("evaluate/2", "evaluate", ["taste-model@v2"])
    passed = _evaluated("promote").model_copy(update={"step": "evaluate/2"})
    seen = (LUCKY, _refused(), _trained("probe", 2, value=0.99, half=0.01), passed)
    (promotion,) = _requests(*seen, spec=LONGER)
    assert (promotion.kind, promotion.spec["model"]) == ("promote", "taste-model@v2")


def test_both_verdicts_are_told() -> None:
    second = _refused(["taste-model@v2"], step="evaluate/2")
    seen = (LUCKY, _refused(), _trained("probe", 2, value=0.99, half=0.01), second)
    result = _end(*seen, spec=LONGER).result
    assert result["evaluation"] == "evaluation-of-evaluate/2"
    assert [(each["evaluation"], each["model"]) for each in result["earlier_verdicts"]] == [
        ("evaluation-of-evaluate", "taste-model@v1")
    ]
    assert {row["model"]: row["measured_on"] for row in result["candidates"]} == {
        "taste-model@v1": "test", "taste-model@v2": "test"
    }  # fmt: skip
    assert result["ended"]["reason"] == "all_tried"


def test_the_test_rows_are_not_looked_at_again_for_what_can_hardly_pass() -> None:
    assert _requests(LUCKY, _refused(), _trained("probe", 2, value=0.96), spec=LONGER)[0].step == "evaluate/2"
    result = _end(LUCKY, _refused(), _trained("probe", 2, value=0.91), spec=LONGER).result
    assert (result["model"], result["ended"]["reason"]) == ("taste-model@v1", "all_tried")


def test_a_gate_that_no_better_model_passes_ends_the_search() -> None:
    result = _end(LUCKY, _refused(unmet=["reaches", "license"]), spec=LONGER).result
    assert result["ended"]["reason"] == "sure_pass"
    assert "earlier_verdicts" not in result


def test_a_budget_that_is_spent_ends_the_search_after_a_refused_verdict() -> None:
    late = _refused().model_copy(update={"run_seconds": 300.0})
    assert _end(LUCKY, late, spec=LONGER).result["decision"]["verdict"] == "inconclusive"


def test_validation_that_was_too_kind_once_is_not_believed_as_before() -> None:
    """The second candidate would pass if validation were right; the first one's verdict says that it is not."""
    other = Candidate(method="full", base_model="new:bert")
    ways = (Candidate(method="classical"), Candidate(method="probe", base_model="pkg:minilm"), other)
    spec = LONGER.model_copy(update={"ways": ways, "test_examples": 400})
    near = _trained("probe", 2, value=0.975, half=0.02)
    assert _requests(near, spec=spec.model_copy(update={"ways": ways[1:]}))[0].kind == "evaluate"
    assert _requests(LUCKY, _refused(), near, spec=spec)[0].step == "train/full-new-bert"
    far = _trained("probe", 2, value=1.0, half=0.01)
    tight = (_trained(value=0.94, half=0.01), _refused())
    assert _requests(*tight, far, spec=spec)[0].step == "evaluate/2"


def test_an_evaluation_that_fails_the_second_time_leaves_the_first_verdict() -> None:
    lost = _child("evaluate/2", "evaluate", state="failed", error={"message": "no room"})
    result = _end(LUCKY, _refused(), _trained("probe", 2, value=0.99, half=0.01), lost, spec=LONGER).result
    assert (result["evaluation"], result["failed"][0]["why"]) == ("evaluation-of-evaluate", "no room")


def test_a_pass_is_surer_to_be_had_on_rows_that_judged_nobody() -> None:
    almost = _trained(value=0.95, half=0.02)
    assert _requests(almost)[0].kind == "evaluate"
    used = SPEC.model_copy(update={"looks": LooksOnRows(candidates=20, evaluations=7)})
    assert _requests(almost, spec=used)[0].step == "train/probe-minilm"


def test_a_search_knows_what_its_test_rows_were_asked_before(workspace: Workspace) -> None:
    count = 40
    manifest = make_dataset(
        workspace, "rows", "tabular", {"x": [float(place) for place in range(count)]},
        labels=["a" if place % 4 < 2 else "b" for place in range(count)], splits=thirds(count), inputs=["x"],
    )  # fmt: skip
    define(workspace, "sort", "tabular-classification")
    asked = (workspace, "sort", "rows", (Candidate(method="classical"),), 1.0)
    assert candidates.search_terms(*asked).looks == LooksOnRows()
    suite = suites.read_suite(workspace.folders, manifest, "test", "classification", "label", ())
    workspace.database.transact(
        partial(suites.store, evaluation="evaluation-1", suite=suite, roles={"sort-model@v1": "candidate"})
    )
    assert candidates.search_terms(*asked).looks == LooksOnRows(candidates=1, evaluations=1)


def _reviews_of(workspace: Workspace, labels: Sequence[str]) -> None:
    count = len(labels)
    splits = ["train"] * (count // 2) + ["test"] * (count - count // 2)
    texts = {"text": [f"text {number}" for number in range(count)]}
    make_dataset(workspace, "reviews", "text", texts, labels=list(labels), splits=splits, inputs=["text"])


def test_a_positive_label_that_does_not_occur_is_refused_before_training(workspace: Workspace) -> None:
    _reviews_of(workspace, ["good", "bad"] * 10)
    define(workspace, "taste", "text-classification", metric="f1", positive_label="badd")
    with pytest.raises(SpeciateError, match="positive_label 'badd' does not occur in reviews@v1") as refused:
        specialize.plan(SPEC, workspace)
    assert "'bad'" in str(refused.value)


def test_each_plan_tells_of_a_label_with_one_test_row_and_a_heavy_weight(workspace: Workspace) -> None:
    _reviews_of(workspace, [*["good", "bad"] * 20, "odd"])
    define(workspace, "taste", "text-classification", metric="f1_macro")
    (warning,) = specialize.plan(SPEC, workspace).resolved["warnings"]
    evaluation = evaluate.EvaluateSpec(models=("nearest:",), use_case="taste", dataset="reviews")
    assert evaluate.plan(evaluation, workspace).resolved["warnings"] == [warning]
    assert plan_training(workspace, "reviews", use_case="taste").warnings == (warning,)
    assert plan_training(workspace, "reviews").warnings == ()
    assert warning.startswith("'odd' has 1 test row and counts for a third of macro F1")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (1.0, "No number of rows shows a target of 1 in accuracy."),
        (
            0.97,
            "Even a model without an error shows at most 0.96 in accuracy on 100 test rows, and the target is 0.97.",
        ),
        (0.96, None),
    ],
)
def test_the_plan_tells_of_a_target_that_the_test_rows_cannot_show(
    workspace: Workspace, target: float, said: str | None
) -> None:
    _reviews_of(workspace, ["good", "bad"] * 100)
    define(workspace, "taste", "text-classification", target=target)
    warnings = specialize.plan(SPEC, workspace).resolved.get("warnings", [])
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]
