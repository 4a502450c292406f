"""A canary asks for the evidence that a promotion asks for, has a share, and is over when production moves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate import use_cases
from speciate.errors import Code, SpeciateError
from speciate.evaluation.reports.report import GateResult, Verdict
from speciate.governance import approvals, audit
from speciate.promotion import aliases, promote
from speciate.promotion.evidence import PromoteSpec, check_task, objections
from speciate.promotion.rollback import RollbackResult, roll_back
from speciate.use_cases import Definition, Gate, Objective
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.promotion import world


@pytest.fixture(scope="module")
def beaten(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m@v1 serves, m@v2 has beaten it a second later; closed, to be copied."""
    root, clock = tmp_path_factory.mktemp("two") / "workspace", ManualClock()
    with data.to_copy(blank, root, clock) as workspace:
        world.define(workspace)
        world.judge(workspace, "m@v1")
        world.ask_promotion(workspace, "m@v1")
        clock.advance(1)
        world.judge(workspace, "m@v2", baseline="m@v1")
    return root


@pytest.fixture
def two(beaten: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    clock.advance(1)
    with data.copied(beaten, tmp_path / "workspace", clock) as workspace:
        yield workspace


def pointers(workspace: Workspace) -> dict[str, str]:
    return aliases.of_use_case(workspace.database, "digits")


def share(workspace: Workspace) -> float | None:
    canary = aliases.read(workspace.database, "digits", "canary")
    return canary.percent if canary else None


def back(workspace: Workspace, expected: str | None) -> RollbackResult:
    return workspace.database.transact(
        lambda tx: roll_back(tx, "digits", expected=expected, to=None, reason="worse", actor="ada")
    )


def sound(workspace: Workspace) -> bool:
    return audit.verify(workspace.database).problems == ()


def test_beside_a_canary_a_rollback_says_which_of_the_two(two: Workspace) -> None:
    world.ask_promotion(two, "m@v2", percent=5)
    with pytest.raises(SpeciateError, match="which one shall go") as caught:
        back(two, None)
    assert [each.arguments["expected_current"] for each in caught.value.next] == ["m@v2", "m@v1"]
    assert pointers(two) == {"production": "m@v1", "canary": "m@v2"}


def test_a_canary_stands_beside_production_with_its_share(two: Workspace) -> None:
    result = world.ask_promotion(two, "m@v2", percent=5)
    assert (result["state"], result["canary_percent"], result["to"]) == ("applied", 5, "m@v2")
    assert pointers(two) == {"production": "m@v1", "canary": "m@v2"}
    assert share(two) == 5
    row = audit.of_use_case(two.database, "digits")[-1]
    assert (row.action, row.after, json.loads(row.evidence)["percent"]) == ("canary", "m@v2", 5)
    assert sound(two)


def test_another_share_of_the_same_canary_keeps_its_generation(two: Workspace) -> None:
    world.ask_promotion(two, "m@v2", percent=5)
    first = aliases.read(two.database, "digits", "canary")
    world.ask_promotion(two, "m@v2", percent=50)
    second = aliases.read(two.database, "digits", "canary")
    assert first
    assert second
    assert (second.generation, second.percent) == (first.generation, 50)
    assert "is the canary already" in str(world.ask_promotion(two, "m@v2", percent=50)["reasons"])
    assert audit.verify(two.database).rows == 3
    assert sound(two)


def test_all_requests_complete_it(two: Workspace) -> None:
    world.ask_promotion(two, "m@v2", percent=5)
    assert world.ask_promotion(two, "m@v2")["state"] == "applied"
    assert pointers(two) == {"production": "m@v2", "previous": "m@v1"}
    assert sound(two)


def test_a_rollback_of_the_canary_ends_it_and_leaves_production(two: Workspace) -> None:
    world.ask_promotion(two, "m@v2", percent=5)
    done = back(two, "m@v2")
    assert (done.before, done.after) == ("m@v2", "m@v1")
    assert pointers(two) == {"production": "m@v1"}
    assert "was rolled back since" in str(world.ask_promotion(two, "m@v2", percent=5)["reasons"])
    assert sound(two)


def test_a_rollback_of_production_ends_the_canary(two: Workspace, clock: ManualClock) -> None:
    world.ask_promotion(two, "m@v2")
    clock.advance(1)
    world.judge(two, "m@v3", baseline="m@v2")
    world.ask_promotion(two, "m@v3", percent=5)
    back(two, "m@v2")
    assert pointers(two) == {"production": "m@v1", "previous": "m@v2"}
    assert sound(two)


def test_a_rollback_that_expects_neither_is_a_conflict(two: Workspace) -> None:
    world.ask_promotion(two, "m@v2", percent=5)
    with pytest.raises(SpeciateError) as caught:
        back(two, "m@v7")
    assert caught.value.code is Code.CONFLICT


def test_without_production_there_is_no_canary(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    result = world.ask_promotion(workspace, "m@v1", percent=5)
    assert result["state"] == "refused"
    assert "without canary_percent" in str(result["reasons"])


def test_what_serves_already_is_no_canary(two: Workspace) -> None:
    assert world.ask_promotion(two, "m@v1", percent=5)["state"] == "refused"


def test_a_canary_without_evidence_is_refused(two: Workspace) -> None:
    result = world.ask_promotion(two, "m@v9", percent=1)
    assert result["state"] == "refused"
    asked = {"models": ["m@v9"], "use_case": "digits", "dataset": "NAME"}
    assert result["next"] == [{"tool": "evaluate_models", "arguments": asked}]


def test_each_share_is_a_question_of_its_own_and_a_smaller_one_is_none(two: Workspace) -> None:
    """A person who agreed to 5 % did not agree to all."""
    small = world.ask_promotion(two, "m@v2", policy="person", percent=5)
    whole = world.ask_promotion(two, "m@v2", policy="person")
    ids = [str(each["approval"]["id"]) for each in (small, whole)]  # type: ignore[index]
    assert ids[0] != ids[1]
    assert approvals.decide(two, ids[0], True, "grace").approval.state == "approved"
    assert (pointers(two)["canary"], pointers(two)["production"]) == ("m@v2", "m@v1")
    less = world.ask_promotion(two, "m@v2", policy="person", percent=2)
    assert (less["state"], share(two)) == ("applied", 2)
    assert world.ask_promotion(two, "m@v2", policy="person", percent=9)["state"] == "needs_approval"
    assert approvals.decide(two, ids[1], True, "grace").approval.state == "approved"
    assert pointers(two)["production"] == "m@v2"
    with pytest.raises(SpeciateError, match="is approved: each is answered once"):
        approvals.decide(two, ids[1], True, "grace")


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(two: Workspace) -> None:
    world.judge(two, "m@v3", baseline="m@v1")
    together, results = threading.Barrier(2), dict[str, Any]()

    def ask(model: str) -> None:
        together.wait()
        results[model] = world.ask_promotion(two, model)

    threads = [threading.Thread(target=ask, args=(model,)) for model in ("m@v2", "m@v3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [won] = [model for model, result in results.items() if result["state"] == "applied"]
    [lost] = [result for result in results.values() if result["state"] == "refused"]
    assert f"but {won} serves now; evaluate again" in lost["reasons"][0]
    assert pointers(two)["production"] == won
    assert sound(two)


def test_of_two_approvals_of_one_moment_one_wins_and_the_other_person_is_told(two: Workspace) -> None:
    world.judge(two, "m@v3", baseline="m@v1")
    asked = [world.ask_promotion(two, model, policy="person")["approval"] for model in ("m@v2", "m@v3")]
    first, second = (approvals.decide(two, each["id"], True, "grace") for each in asked)  # type: ignore[index]
    assert first.approval.state == "approved"
    assert second.approval.state == "void"
    assert "moved in the meantime" in second.reason


# What is refused, and with which words


def gate(rule: str, reason: str) -> GateResult:
    return GateResult(gate=Gate.model_validate({"rule": rule}), outcome="fail", reason=reason)


@pytest.mark.parametrize(
    ("result", "why", "call"),
    [
        (gate("unseen", "12 of these examples were in its training data"), "12 of these examples", "train it again"),
        (gate("license", "licence unknown is not among mit"), "licence unknown", "search_models(use_case='digits')"),
        (gate("reaches", "accuracy: short of 0.9"), "short of 0.9", "describe_evaluation(evaluation='evaluation-1')"),
    ],
)  # fmt: skip
def test_a_refusal_says_which_gate_and_what_to_call(
    workspace: Workspace, result: GateResult, why: str, call: str
) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1", verdict="hold", gates=(result,))
    refused = world.ask_promotion(workspace, "m@v1")
    assert refused["state"] == "refused"
    [reason] = refused["reasons"]  # type: ignore[misc]
    assert why in reason
    assert call in reason
    assert pointers(workspace) == {}


def test_a_model_of_another_task_is_refused() -> None:
    definition = Definition(name="digits", task="image-classification", objective=Objective(metric="accuracy"))
    use_case = use_cases.UseCase(**definition.model_dump(), version=1, created=0.0)
    with pytest.raises(SpeciateError, match="is for text-classification, but 'digits' asks for image-class") as caught:
        check_task(use_case, "text-classification", "m@v1")
    assert "specialize(use_case='digits', ...)" in caught.value.recovery


def test_a_target_that_was_loosened_for_this_model_needs_a_person(workspace: Workspace, clock: ManualClock) -> None:
    world.define(workspace, target=0.95)
    world.judge(workspace, "m@v1", verdict="hold")
    clock.advance(1)
    world.define(workspace, target=0.8)
    world.judge(workspace, "m@v1", version=2, evaluation="evaluation-2")
    result = world.ask_promotion(workspace, "m@v1")
    assert result["state"] == "needs_approval"
    assert "Version 1 of digits held m@v1 back, and asked for more than version 2 does (objective.target)" in str(
        result["reasons"]
    )
    world.judge(workspace, "m@v2", version=2, evaluation="evaluation-2")
    assert world.ask_promotion(workspace, "m@v2")["state"] == "applied", "nobody held that one back"


def test_in_production_a_loosened_requirement_needs_a_person_whichever_model_it_lets_pass(
    workspace: Workspace, clock: ManualClock
) -> None:
    """The policy is automatic, and the model was never judged before."""
    world.define(workspace, target=0.95)
    world.judge(workspace, "m@v1")
    assert world.ask_promotion(workspace, "m@v1")["state"] == "applied"
    clock.advance(1)
    world.define(workspace, target=0.8)
    world.judge(workspace, "m@v2", baseline="m@v1", version=2, evaluation="evaluation-2")
    result = world.ask_promotion(workspace, "m@v2")
    assert result["state"] == "needs_approval"
    assert "held to version 1 of digits, and version 2 asks for less (objective.target)" in str(result["reasons"])
    assert pointers(workspace)["production"] == "m@v1"
    assert world.ask_promotion(workspace, "m@v2", percent=5)["state"] == "needs_approval", "a canary answers, too"

    clock.advance(1)
    world.define(workspace, target=0.95)  # taken back: nothing is loosened any more
    world.judge(workspace, "m@v3", baseline="m@v1", version=3, evaluation="evaluation-3")
    assert world.ask_promotion(workspace, "m@v3")["state"] == "applied"


def test_what_a_person_accepted_once_is_not_asked_again(workspace: Workspace, clock: ManualClock) -> None:
    world.define(workspace, target=0.95)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    clock.advance(1)
    world.define(workspace, target=0.8)
    world.judge(workspace, "m@v2", baseline="m@v1", version=2, evaluation="evaluation-2")
    asked = {"use_case": "digits", "model": "m@v2"}
    workspace.database.transact(lambda tx: promote.apply_approved(tx, asked, "grace"))
    clock.advance(1)
    world.judge(workspace, "m@v3", baseline="m@v2", version=2, evaluation="evaluation-3")
    assert world.ask_promotion(workspace, "m@v3")["state"] == "applied"

    looser = Definition(name="digits", task="image-classification", objective=Objective(metric="accuracy", target=0.7))
    clock.advance(1)
    workspace.database.transact(lambda tx: use_cases.define(tx, looser, policy="person"))
    accepted = {"use_case": "digits", "version": 3}
    workspace.database.transact(lambda tx: use_cases.apply_approved(tx, accepted, "grace"))
    world.judge(workspace, "m@v4", baseline="m@v3", version=3, evaluation="evaluation-4")
    assert world.ask_promotion(workspace, "m@v4")["state"] == "applied"


@pytest.mark.parametrize("verdict", ["hold", "inconclusive"])
def test_a_weaker_incumbent_after_a_lost_verdict_needs_a_person(
    workspace: Workspace, clock: ManualClock, verdict: Verdict
) -> None:
    world.define(workspace, incumbent="column:expert")
    world.judge(workspace, "m@v1", baseline="column:expert", verdict=verdict)
    clock.advance(1)
    world.define(workspace, incumbent="constant:")
    world.judge(workspace, "m@v1", baseline="constant:", version=2, evaluation="evaluation-2")
    result = world.ask_promotion(workspace, "m@v1")
    assert result["state"] == "needs_approval"
    assert "held m@v1 back beside the incumbent column:expert; version 2 compares it with constant:" in str(
        result["reasons"]
    )


def test_a_looser_version_that_waits_is_named(workspace: Workspace) -> None:
    world.define(workspace, target=0.95)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    looser = Definition(name="digits", task="image-classification", objective=Objective(metric="accuracy", target=0.8))
    workspace.database.transact(lambda tx: use_cases.define(tx, looser, policy="person"))
    world.judge(workspace, "m@v2", baseline="m@v1", verdict="hold", gates=(gate("reaches", "short of 0.95"),))
    refused = world.ask_promotion(workspace, "m@v2")
    assert "version 2 of digits, which asks for less, waits for a person: list_approvals()" in str(refused["reasons"])


# A person's override


def override(workspace: Workspace, model: str, seen: list[str] | None = None) -> dict[str, Any]:
    spec = PromoteSpec(use_case="digits", model=model)

    def step(tx: Any) -> dict[str, Any]:
        shown = objections(tx, spec) if seen is None else seen
        return promote.override(tx, spec, reason="the customer asks for it", by="grace", seen=shown)

    return workspace.database.transact(step)


def test_a_named_person_overrides_a_verdict_and_the_trail_says_what(two: Workspace) -> None:
    world.judge(two, "m@v3", baseline="m@v1", verdict="hold")
    assert override(two, "m@v3")["state"] == "applied"
    row = audit.of_use_case(two.database, "digits")[-1]
    evidence = json.loads(row.evidence)
    assert (row.actor, row.action, evidence["override"]) == ("grace", "promote", "the customer asks for it")
    assert "The verdict of decision" in evidence["overridden"][0]
    assert pointers(two)["production"] == "m@v3"
    assert sound(two)


def test_an_override_is_of_what_the_person_saw(two: Workspace) -> None:
    with pytest.raises(SpeciateError, match="not what was shown"):
        override(two, "m@v3", ["Something else."])
    assert pointers(two)["production"] == "m@v1"


def test_the_policy_of_a_use_case_is_its_own(two: Workspace) -> None:
    result = world.ask_promotion(two, "m@v2", policies={"digits": "person"})
    assert result["reasons"] == ["The policy of the use case digits asks for a person."]
    assert world.ask_promotion(two, "m@v2", policy="person", policies={"digits": "auto"})["state"] == "applied"
