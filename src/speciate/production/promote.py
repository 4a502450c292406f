"""Kind `promote`: lets a model version serve a use case, if a decision says so and the policy lets it.

Everything happens in the one transaction that ends the job: the checks, the move of the alias, its audit row and its
event. What the checks demand of the decision:

- it is of the current version of the use case (a changed requirement makes older verdicts worthless),
- it says promote, and
- its baseline is what serves now (a model that beat the last one has not beaten this one), and
- where the use case has a held-out or a regression suite, there is such a decision on each of them, too.

The policy is the workspace's: a spec can ask for a person where the settings would not, never the other way. A version
that was rolled back after its decision always needs one. What is left out: canaries, which need a serving process that
splits its requests.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from speciate import usecases
from speciate.errors import Code, SpeciateError
from speciate.evaluation import decisions
from speciate.evaluation.decisions import Recorded
from speciate.jobs.job import ENDED, Job, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.models import registry
from speciate.production import aliases, approvals
from speciate.refs import model_ref
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_ROLLED_BACK = """
SELECT count(*) FROM audit WHERE use_case = ? AND action = 'rollback' AND before = ? AND stamp >= ?
"""
_NEWEST_MODEL = "SELECT max(version) FROM model_versions WHERE name = ?"


class PromoteSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    model: str
    evaluation: str | None = None
    decision: str | None = None
    """Default: the newest decision on this model, of `evaluation` where that is given."""
    expected_current: str | None = None
    """The version believed to serve, or 'nothing'. None: only the decision's baseline is compared."""
    actor: str = "unknown"
    note: str = ""
    propose: bool = False
    """Ask a person also where the policy is automatic."""


def plan(spec: PromoteSpec, workspace: Workspace) -> Plan:
    """Raises NOT_FOUND for a use case or a model that is not there."""
    usecases.get(workspace.database, spec.use_case)
    version = registry.resolve(workspace.database, workspace.folders, spec.model)
    if version.card.endpoint is not None:
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref!r} is served by {version.card.endpoint.host}: predict cannot ask it yet, so it cannot serve "
            f"{spec.use_case!r}.",
            f"Call define_use_case(name={spec.use_case!r}, ..., incumbent={version.ref!r}): a special model must then "
            "beat it.",
        )
    return Plan(
        resources=Resources(cpu=0),
        seconds=0.0,
        use_case=spec.use_case,
        resolved={"model": version.ref, "policy": workspace.settings.policy},
    )


def act(tx: Transaction, spec: PromoteSpec, job: Job, settings: Settings) -> dict[str, Any]:
    """Returns `state` applied, needs_approval or refused, the `decision` and the `reasons`.

    Raises CONFLICT where another version serves than the caller believed.
    """
    aliases.check_expected(aliases.read(tx, spec.use_case), spec.use_case, spec.expected_current)
    spec = spec.model_copy(update={"model": _exact(tx, spec.model)})
    decision = _decision(tx, spec)
    if decision is None:
        return _refused(None, [f"No decision of {spec.use_case} on {spec.model} was found; evaluate it first."])
    if reasons := _objections(tx, spec, decision):
        return _refused(decision, reasons)
    if whys := _reserved(tx, spec, decision, settings):
        return _ask(tx, spec, decision, whys, settings.approval_hours)
    return _apply(tx, spec, decision, approved_by=None)


def apply_approved(tx: Transaction, arguments: dict[str, Any], by: str) -> dict[str, Any]:
    """What `approvals.decide` calls once a person said yes: the same checks again, then the move.

    Raises CONFLICT or REFUSED where the world has moved on since the question.
    """
    spec = PromoteSpec.model_validate(arguments)
    aliases.check_expected(aliases.read(tx, spec.use_case), spec.use_case, spec.expected_current)
    decision = _decision(tx, spec)
    reasons = _objections(tx, spec, decision) if decision else ["The decision is gone."]
    if decision is None or reasons:
        raise SpeciateError(Code.REFUSED, " ".join(reasons), "Evaluate the model again, then ask for its promotion.")
    return _apply(tx, spec, decision, approved_by=by)


def result(job: Job) -> dict[str, Any]:
    """What the ended job says. Raises its error, or UNAVAILABLE where it has not ended yet."""
    if job.result is not None:
        return job.result
    error = job.error or {}
    if job.state in ENDED:
        code = error.get("code", Code.CONFLICT)
        raise SpeciateError(Code(code), error.get("message", f"{job.id} is {job.state}."), error.get("recovery", ""))
    raise SpeciateError(
        Code.UNAVAILABLE, f"{job.id} is still {job.state}.", f"Call wait_for_job(job={str(job.id)!r}) for its result."
    )


def _exact(tx: Transaction, model: str) -> str:
    """The version that a ref means now, `name@v3`."""
    ref = model_ref(model)
    if ref.alias and (alias := aliases.read(tx, ref.name, ref.alias)):
        return alias.model
    if ref.source or ref.version or ref.alias:
        return model
    return f"{ref.name}@v{tx.execute(_NEWEST_MODEL, [ref.name])[0][0]}"


def _decision(tx: Transaction, spec: PromoteSpec) -> Recorded | None:
    if spec.decision:
        return decisions.get(tx, spec.decision)
    return decisions.newest(tx, spec.use_case, spec.model, spec.evaluation)


def _objections(tx: Transaction, spec: PromoteSpec, found: Recorded) -> list[str]:
    """Why these decisions do not let this model serve; empty where they do: on the core suite, and on each further."""
    against = _against(tx, spec, found)
    for suite in usecases.get(tx, spec.use_case).suites.further:
        other = decisions.newest(tx, spec.use_case, spec.model, suite=suite)
        if other is None:
            against.append(
                f"Nothing was decided on the {suite} suite of {spec.use_case}: call evaluate_models("
                f"models=['{spec.model}'], use_case='{spec.use_case}', suite='{suite}')."
            )
        else:
            against += [f"On the {suite} suite: {reason}" for reason in _against(tx, spec, other)]
    return against


def _against(tx: Transaction, spec: PromoteSpec, found: Recorded) -> list[str]:
    decision, against = found.decision, []
    if (found.use_case, decision.candidate) != (spec.use_case, spec.model):
        against.append(
            f"Decision {decision.id} is about {decision.candidate} for {found.use_case}, "
            f"not about {spec.model} for {spec.use_case}."
        )
    if decision.verdict != "promote":
        against.append(f"The verdict of decision {decision.id} is {decision.verdict}.")
    version = usecases.get(tx, spec.use_case).version
    if found.use_case_version != version:
        against.append(
            f"Decision {decision.id} judged {spec.use_case} version {found.use_case_version}, "
            f"but its requirements are now version {version}."
        )
    current = aliases.read(tx, spec.use_case)
    if current and current.model not in (decision.baseline, spec.model):
        against.append(
            f"Decision {decision.id} compared with {_spoken(decision.baseline)}, "
            f"but {current.model} serves now; evaluate again."
        )
    return against


def _spoken(baseline: str) -> str:
    return f"the most frequent answer ({baseline})" if baseline == usecases.CONSTANT else baseline


def _reserved(tx: Transaction, spec: PromoteSpec, found: Recorded, settings: Settings) -> list[str]:
    """Why a person must agree; empty where the gates are enough."""
    whys = ["The policy of this workspace asks for a person."] if settings.policy != "auto" else []
    if spec.propose:
        whys.append("The caller asked for a person.")
    if tx.execute(_ROLLED_BACK, [spec.use_case, spec.model, found.created]) != [(0,)]:
        whys.append(f"{spec.model} was rolled back since this decision: production saw what the evidence did not.")
    return whys


def _brief(found: Recorded | None) -> dict[str, Any] | None:
    shown = {"id", "verdict", "reasons", "needed_examples", "dataset", "n", "interval", "level", "looks"}
    return found.decision.model_dump(mode="json", include=shown, exclude_none=True) if found else None


def _refused(found: Recorded | None, reasons: list[str]) -> dict[str, Any]:
    return {"state": "refused", "decision": _brief(found), "reasons": reasons}


def _ask(tx: Transaction, spec: PromoteSpec, found: Recorded, whys: list[str], hours: float) -> dict[str, Any]:
    current = aliases.read(tx, spec.use_case)
    serving = current.model if current else aliases.NOTHING
    arguments = spec.model_copy(update={"decision": found.decision.id, "expected_current": serving}).model_dump()
    evidence = {**(_brief(found) or {}), "baseline": found.decision.baseline, "evaluation": found.evaluation}
    subject = f"use_case:{spec.use_case}"
    approval = approvals.request(tx, "promote", arguments, evidence, subject=subject, hours=hours)
    return {
        "state": "needs_approval",
        "decision": _brief(found),
        "reasons": whys,
        "approval": {
            "id": approval.id,
            "expires": approval.expires,
            "how": f"A person runs on a terminal: speciate approve {approval.id}",
        },
    }


def _apply(tx: Transaction, spec: PromoteSpec, found: Recorded, *, approved_by: str | None) -> dict[str, Any]:
    current = aliases.read(tx, spec.use_case)
    done = {"state": "applied", "decision": _brief(found), "to": spec.model}
    if current and current.model == spec.model:
        return {**done, "reasons": [f"{spec.model} serves already."], "from": spec.model}
    moved = aliases.move(
        tx,
        use_case=spec.use_case,
        model=spec.model,
        expected=spec.expected_current,
        action="promote",
        actor=approved_by or spec.actor,
        evidence={
            "decision": found.decision.id, "evaluation": found.evaluation, "note": spec.note,
            "asked_by": spec.actor, "approved_by": approved_by,
        },
    )  # fmt: skip
    why = f"approved by {approved_by}" if approved_by else "passed its gates; the policy is automatic"
    return {**done, "reasons": [why], "from": moved.before, "audit": moved.audit.hash}


KIND = Kind(name="promote", spec=PromoteSpec, plan=plan, act=act)
