"""No alias moves without a decision that passed, was about this question, and compared with what serves."""

from __future__ import annotations

import pytest

from speciate.errors import Code, SpeciateError
from speciate.evaluation.reports.report import GateResult, Verdict
from speciate.governance import approvals, audit
from speciate.jobs.job import Job, State
from speciate.jobs.kinds import Kinds
from speciate.jobs.store import Enqueue, Store
from speciate.promotion import aliases, promote
from speciate.promotion.rollback import roll_back
from speciate.use_cases import Gate
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.promotion import world


def _serving(workspace: Workspace) -> str | None:
    alias = aliases.read(workspace.database, "digits")
    return alias.model if alias else None


def test_a_passing_decision_moves_the_alias(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    result = world.ask_promotion(workspace, "m@v1")
    assert result["state"] == "applied"
    assert _serving(workspace) == "m@v1"
    assert audit.verify(workspace.database).problems == ()


def test_without_a_decision_nothing_moves(workspace: Workspace) -> None:
    world.define(workspace)
    result = world.ask_promotion(workspace, "m@v1")
    assert result["state"] == "refused"
    assert result["decision"] is None
    assert _serving(workspace) is None


def test_without_a_core_suite_the_call_to_evaluate_names_a_dataset(workspace: Workspace) -> None:
    world.define(workspace)

    def call(model: str) -> object:
        return world.ask_promotion(workspace, model)["next"]

    asked = {"models": ["m@v1"], "use_case": "digits", "dataset": "NAME"}
    assert call("m@v1") == [{"tool": "evaluate_models", "arguments": asked}]
    world.judge(workspace, "m@v1")
    row = "INSERT INTO evaluations VALUES ('evaluation-1', 'digits', 'photos@v1:test', '[]', '{}', NULL, 0)"
    workspace.database.transact(lambda tx: tx.execute(row))
    asked = {"models": ["m@v2"], "use_case": "digits", "dataset": "photos:test"}
    assert call("m@v2") == [{"tool": "evaluate_models", "arguments": asked}]


@pytest.mark.parametrize("verdict", ["hold", "inconclusive"])
def test_a_verdict_other_than_promote_is_refused_with_its_evidence(workspace: Workspace, verdict: Verdict) -> None:
    world.define(workspace)
    identity = world.judge(workspace, "m@v1", verdict=verdict)
    result = world.ask_promotion(workspace, "m@v1")
    assert result["state"] == "refused"
    assert result["reasons"] == [f"The verdict of decision {identity} is {verdict}."]
    assert isinstance(result["decision"], dict)
    assert result["decision"].items() >= {"id": identity, "verdict": verdict, "reasons": ["m@v1 was measured"]}.items()
    assert _serving(workspace) is None


def test_a_decision_on_older_requirements_is_worthless(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1", version=1)
    world.define(workspace, target=0.99)
    result = world.ask_promotion(workspace, "m@v1")
    assert result["state"] == "refused"
    assert "now version 2" in str(result["reasons"])


def test_a_model_that_beat_the_last_one_has_not_beaten_this_one(workspace: Workspace, clock: ManualClock) -> None:
    world.define(workspace)
    for model in ("m@v1", "m@v2"):
        world.judge(workspace, model)
    assert world.ask_promotion(workspace, "m@v1")["state"] == "applied"
    result = world.ask_promotion(workspace, "m@v2")
    assert result["state"] == "refused"
    assert "compared with the most frequent answer (constant:), but m@v1 serves now" in str(result["reasons"])
    clock.advance(1)
    world.judge(workspace, "m@v2", baseline="m@v1")
    assert world.ask_promotion(workspace, "m@v2")["state"] == "applied"


def test_promoting_what_serves_already_changes_nothing(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    assert world.ask_promotion(workspace, "m@v1")["reasons"] == ["m@v1 serves already."]
    assert audit.verify(workspace.database).rows == 1


@pytest.mark.parametrize("policy", ["auto", "person"])
def test_what_serves_already_asks_nobody_and_needs_no_decision(workspace: Workspace, policy: str) -> None:
    """A person would be asked to change nothing."""
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    before = aliases.read(workspace.database, "digits")
    world.define(workspace, target=0.99)  # the decision counts no more; what serves still serves
    result = world.ask_promotion(workspace, "m@v1", policy=policy)
    assert (result["state"], result["reasons"]) == ("applied", ["m@v1 serves already."])
    assert (result["from"], result["to"]) == ("m@v1", "m@v1")
    assert aliases.read(workspace.database, "digits") == before
    assert approvals.list_approvals(workspace.database, workspace.clock.now(), "pending") == []
    assert audit.verify(workspace.database).rows == 1


def test_a_wrong_expectation_is_a_conflict(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    with pytest.raises(SpeciateError) as caught:
        world.ask_promotion(workspace, "m@v1", expected="m@v0")
    assert caught.value.code is Code.CONFLICT


def test_where_a_person_decides_the_alias_waits_for_them(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    result = world.ask_promotion(workspace, "m@v1", policy="person")
    assert result["state"] == "needs_approval"
    assert _serving(workspace) is None
    (waiting,) = approvals.list_approvals(workspace.database, workspace.clock.now(), "pending")
    decided = approvals.decide(workspace, waiting.id, True, "grace")
    assert decided.result is not None
    assert decided.result["state"] == "applied"
    assert _serving(workspace) == "m@v1"
    assert audit.of_use_case(workspace.database, "digits")[-1].actor == "grace"


def test_a_question_by_another_decision_takes_the_place_of_the_one_before(
    workspace: Workspace, clock: ManualClock
) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1", policy="person")
    (first,) = approvals.list_approvals(workspace.database, workspace.clock.now(), "pending")
    clock.advance(1)
    newer = world.judge(workspace, "m@v1", evaluation="evaluation-2")
    world.ask_promotion(workspace, "m@v1", policy="person")
    (second,) = approvals.list_approvals(workspace.database, workspace.clock.now(), "pending")
    assert second.id != first.id
    assert second.arguments["decision"] == newer
    with pytest.raises(SpeciateError, match="void"):
        approvals.decide(workspace, first.id, True, "grace")


def test_an_approval_does_nothing_once_the_requirements_have_changed(workspace: Workspace) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1", policy="person")
    world.define(workspace, target=0.99)
    (waiting,) = approvals.list_approvals(workspace.database, workspace.clock.now(), "pending")
    decided = approvals.decide(workspace, waiting.id, True, "grace")
    assert (decided.approval.state, decided.result) == ("void", None)
    assert _serving(workspace) is None


def test_what_was_rolled_back_returns_only_with_a_person_or_new_evidence(
    workspace: Workspace, clock: ManualClock
) -> None:
    world.define(workspace)
    world.judge(workspace, "m@v1")
    world.ask_promotion(workspace, "m@v1")
    world.judge(workspace, "m@v2", baseline="m@v1")
    world.ask_promotion(workspace, "m@v2")
    workspace.database.transact(
        lambda tx: roll_back(tx, "digits", expected="m@v2", to=None, reason="worse on Mondays", actor="ada")
    )
    result = world.ask_promotion(workspace, "m@v2")
    assert result["state"] == "needs_approval"
    assert "was rolled back since" in str(result["reasons"])
    (waiting,) = approvals.list_approvals(workspace.database, workspace.clock.now(), "pending")
    assert waiting.evidence["asked_because"] == result["reasons"], "who decides is told as well as who asks"
    clock.advance(1)
    world.judge(workspace, "m@v2", baseline="m@v1", evaluation="evaluation-2")
    assert world.ask_promotion(workspace, "m@v2")["state"] == "applied"


def test_a_refusal_inside_the_job_keeps_its_code(workspace: Workspace) -> None:
    world.define(workspace)
    spec = {"use_case": "digits", "model": "m@v1", "decision": "decision-nope"}
    job = world.JOB.model_copy(update={"spec": spec, "state": State.QUEUED, "executor": "inline"})
    ended = workspace.database.write(Store(Kinds(), workspace.settings).enqueue, Enqueue(job))
    assert isinstance(ended, Job)
    with pytest.raises(SpeciateError, match="decision-nope") as caught:
        promote.result(ended)
    assert caught.value.code is Code.NOT_FOUND


def test_what_nobody_knows_is_accepted_once_by_a_person_under_every_policy(
    workspace: Workspace, clock: ManualClock
) -> None:
    told = "what it learned from is not here: nobody knows whether it saw these examples"
    unknown = GateResult(gate=Gate(rule="unseen"), outcome="not_known", reason=told)
    world.define(workspace)
    world.judge(workspace, "m@v1", gates=(unknown,))
    result = world.ask_promotion(workspace, "m@v1", policy="auto")
    assert (result["state"], result["reasons"]) == ("needs_approval", [f"m@v1: {told}."])
    assert _serving(workspace) is None
    (waiting,) = approvals.list_approvals(workspace.database, workspace.clock.now(), "pending")
    approvals.decide(workspace, waiting.id, True, "grace")
    assert _serving(workspace) == "m@v1"
    clock.advance(1)
    world.judge(workspace, "m@v2", baseline="m@v1", gates=(unknown,), evaluation="evaluation-2")
    other = world.ask_promotion(workspace, "m@v2", policy="auto")
    assert other["state"] == "needs_approval"  # another version is another question
    world.judge(workspace, "m@v2", baseline="m@v1", evaluation="evaluation-3")
    clock.advance(1)
    world.judge(workspace, "m@v3", baseline="m@v1", evaluation="evaluation-4")
    assert world.ask_promotion(workspace, "m@v3", policy="auto")["state"] == "applied"
    clock.advance(1)
    world.judge(workspace, "m@v1", baseline="m@v3", gates=(unknown,), evaluation="evaluation-5")
    assert world.ask_promotion(workspace, "m@v1", policy="auto")["state"] == "applied"  # accepted before


def test_what_is_not_known_is_no_reason_among_those_of_a_refusal(workspace: Workspace) -> None:
    unknown = GateResult(gate=Gate(rule="unseen"), outcome="not_known", reason="nobody knows")
    short = GateResult(gate=Gate(rule="reaches", value=0.9), outcome="fail", reason="short of 0.9")
    world.define(workspace)
    world.judge(workspace, "m@v1", verdict="hold", gates=(unknown, short))
    reasons = str(world.ask_promotion(workspace, "m@v1")["reasons"])
    assert "short of 0.9" in reasons
    assert "nobody knows" not in reasons
