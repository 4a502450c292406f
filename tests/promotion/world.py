"""Rows that promotion needs, written as evaluation would write them."""

from __future__ import annotations

from speciate import use_cases
from speciate.evaluation import decisions
from speciate.evaluation.reports.report import Decision, GateResult, Verdict
from speciate.jobs.job import Job, State
from speciate.promotion import promote
from speciate.promotion.evidence import PromoteSpec
from speciate.refs import JobId
from speciate.settings import Settings
from speciate.use_cases import Definition, Objective
from speciate.workspace.workspace import Workspace

JOB = Job(id=JobId("job-x"), kind="promote", spec={}, fingerprint="", state=State.RUNNING, created=0.0, changed=0.0)


def define(workspace: Workspace, target: float = 0.9, incumbent: str | None = None) -> None:
    definition = Definition(
        name="digits",
        task="image-classification",
        objective=Objective(metric="accuracy", target=target),
        incumbent=incumbent,
    )
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))


def judge(
    workspace: Workspace,
    model: str,
    baseline: str = "constant:",
    verdict: Verdict = "promote",
    version: int = 1,
    evaluation: str = "evaluation-1",
    gates: tuple[GateResult, ...] = (),
) -> str:
    """A decision in the catalog; returns its id."""
    decision = Decision(
        id=f"decision-{model}-{baseline}-{version}-{evaluation}",
        verdict=verdict,
        reasons=(f"{model} was measured",),
        candidate=model,
        baseline=baseline,
        gates=gates,
    )
    workspace.database.transact(
        lambda tx: decisions.store(tx, decision, use_case="digits", version=version, evaluation=evaluation)
    )
    return decision.id


def ask_promotion(
    workspace: Workspace,
    model: str,
    *,
    policy: str = "auto",
    expected: str | None = None,
    percent: float = 100,
    policies: dict[str, str] | None = None,
) -> dict[str, object]:
    spec = PromoteSpec(
        use_case="digits", model=model, expected_current=expected, actor="ada", canary_percent=percent
    )  # fmt: skip
    settings = Settings.model_validate({"policy": policy, "policies": policies or {}})
    return workspace.database.transact(lambda tx: promote.act(tx, spec, JOB, settings))


def promote_two(workspace: Workspace) -> None:
    """m@v1 served, m@v2 serves."""
    define(workspace)
    judge(workspace, "m@v1")
    ask_promotion(workspace, "m@v1")
    judge(workspace, "m@v2", baseline="m@v1")
    ask_promotion(workspace, "m@v2")
