"""Kind `promote`: lets a model version serve a use case, if a decision says so and the policy lets it.

Everything happens in the one transaction that ends the job: the checks, the move of the alias, its audit row and its
event. What the checks demand of the decision:

- it is of the current version of the use case (a changed requirement makes older verdicts worthless),
- it says promote, and
- its baseline is what serves now (a model that beat the last one has not beaten this one), and
- where the use case has a held-out or a regression suite, there is such a decision on each of them, too.

A share of the requests (`canary_percent`) asks for the same: whoever is answered by a canary is answered by it alone.

The policy is the settings': a spec can ask for a person where they would not, never the other way. A version that was
taken back after its decision always needs one, and so does one that passed only after its requirements were loosened.
A named person may override what stands against it, on a terminal alone (`override`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from speciate import usecases
from speciate.errors import Code, SpeciateError
from speciate.evaluation.decisions import Recorded
from speciate.faults import fault
from speciate.jobs.job import ENDED, Job, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.models import registry
from speciate.production import aliases, approval_keys, approvals
from speciate.production.promotion import (
    PromoteSpec,
    against,
    check_task,
    decision_of,
    objections,
    reserved,
    share,
    undecided,
)
from speciate.refs import model_ref
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_NEWEST_MODEL = "SELECT max(version) FROM model_versions WHERE name = ?"


def plan(spec: PromoteSpec, workspace: Workspace) -> Plan:
    """Raises NOT_FOUND for a use case or a model that is not there, INVALID for a model of another task."""
    use_case = usecases.get(workspace.database, spec.use_case)
    version = registry.resolve(workspace.database, workspace.folders, spec.model)
    if version.card.endpoint is not None:
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref!r} is served by {version.card.endpoint.host}: predict cannot ask it yet, so it cannot serve "
            f"{spec.use_case!r}.",
            f"Call define_use_case(name={spec.use_case!r}, ..., incumbent={version.ref!r}): a special model must then "
            "beat it.",
        )
    check_task(use_case, version.card.task, version.ref)
    return Plan(
        resources=Resources(cpu=0),
        seconds=0.0,
        use_case=spec.use_case,
        resolved={"model": version.ref, "policy": workspace.settings.policy_of(spec.use_case)},
    )


def exact(workspace: Workspace, spec: PromoteSpec) -> PromoteSpec:
    """With the version that its model means now, `name@v3`. Raises as `plan` does."""
    return spec.model_copy(update={"model": plan(spec, workspace).resolved["model"]})


def act(tx: Transaction, spec: PromoteSpec, job: Job, settings: Settings) -> dict[str, Any]:
    """Returns `state` applied, needs_approval or refused, the `decision` and the `reasons`.

    What is in production already is applied at once, with the reason that it serves: nothing moves, nobody is asked.
    Raises CONFLICT where another version serves than the caller believed.
    """
    aliases.check_expected(aliases.read(tx, spec.use_case), spec.use_case, spec.expected_current)
    spec = spec.model_copy(update={"model": _exact(tx, spec.model)})
    decision = decision_of(tx, spec)
    if not spec.is_canary and (standing := _stands(tx, spec)):
        return _unchanged(spec, decision, standing)  # whatever the policy says: nobody is asked to change nothing
    if decision is None:
        return _refused(None, [undecided(tx, spec)])
    if reasons := against(tx, spec, decision):
        return _refused(decision, reasons)
    if whys := reserved(tx, spec, decision, settings):
        return _ask(tx, spec, decision, whys, settings.approval_hours)
    return _apply(tx, spec, decision, settings, approved_by=None)


def apply_approved(tx: Transaction, arguments: dict[str, Any], by: str) -> dict[str, Any]:
    """What `approvals.decide` calls once a person said yes: the same checks again, then the move.

    Raises CONFLICT or REFUSED where the world has moved on since the question.
    """
    spec = PromoteSpec.model_validate(arguments)
    aliases.check_expected(aliases.read(tx, spec.use_case), spec.use_case, spec.expected_current)
    decision = decision_of(tx, spec)
    reasons = against(tx, spec, decision) if decision else ["The decision is gone."]
    if decision is None or reasons:
        raise SpeciateError(Code.REFUSED, " ".join(reasons), "Evaluate the model again, then ask for its promotion.")
    return _apply(tx, spec, decision, None, approved_by=by)


def override(
    tx: Transaction,
    spec: PromoteSpec,
    *,
    reason: str,
    by: str,
    seen: Sequence[str],
    proof: Mapping[str, Any] = _NOTHING,
) -> dict[str, Any]:
    """A named person's word in place of a decision, about the objections that the person has `seen`. `proof`: what the
    row's evidence has, too.

    Raises CONFLICT where others stand against it by now, or another version serves than was believed.
    """
    aliases.check_expected(aliases.read(tx, spec.use_case), spec.use_case, spec.expected_current)
    overridden = objections(tx, spec)
    if list(seen) != overridden:
        raise SpeciateError(
            Code.CONFLICT, "What stands against it is not what was shown.", "Look at it again: speciate promote ..."
        )
    decision = decision_of(tx, spec)
    evidence = {
        "decision": decision.decision.id if decision else None, "override": reason, "overridden": overridden,
        "note": spec.note, "asked_by": by, "approved_by": by, **proof,
    }  # fmt: skip
    return {"state": "applied", "to": spec.model, "reasons": [f"overridden by {by}"], **_move(tx, spec, by, evidence)}


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


def _brief(found: Recorded | None) -> dict[str, Any] | None:
    shown = {"id", "verdict", "reasons", "needed_examples", "dataset", "n", "interval", "level", "looks"}
    return found.decision.model_dump(mode="json", include=shown, exclude_none=True) if found else None


def _refused(found: Recorded | None, reasons: list[str]) -> dict[str, Any]:
    return {"state": "refused", "decision": _brief(found), "reasons": reasons}


def _ask(tx: Transaction, spec: PromoteSpec, found: Recorded, whys: list[str], hours: float) -> dict[str, Any]:
    current = aliases.read(tx, spec.use_case)
    serving = current.model if current else aliases.NOTHING
    if spec.is_canary:
        whys = [*whys, f"It is asked for a share of {spec.canary_percent:g} % of the requests."]
    arguments = spec.model_copy(update={"decision": found.decision.id, "expected_current": serving}).model_dump()
    evidence = {
        **(_brief(found) or {}), "baseline": found.decision.baseline, "evaluation": found.evaluation,
        "asked_because": whys,
    }  # fmt: skip
    subject = f"use_case:{spec.use_case}"
    approval = approvals.request(tx, "promote", arguments, evidence, subject=subject, hours=hours)
    return {
        "state": "needs_approval",
        "decision": _brief(found),
        "reasons": whys,
        "approval": {
            "id": approval.id,
            "expires": approval.expires,
            "how": approval_keys.how(tx, approval.id),
        },
    }


def _apply(
    tx: Transaction, spec: PromoteSpec, found: Recorded, settings: Settings | None, *, approved_by: str | None
) -> dict[str, Any]:
    """`settings` where no person was asked."""
    if standing := _stands(tx, spec):
        return _unchanged(spec, found, standing)
    done = {"state": "applied", "decision": _brief(found), "to": spec.model}
    evidence = {
        "decision": found.decision.id, "evaluation": found.evaluation, "note": spec.note,
        "asked_by": spec.actor, "approved_by": approved_by,
    }  # fmt: skip
    why = f"approved by {approved_by}" if approved_by else "passed its gates; the policy is automatic"
    if settings and settings.policy_of(spec.use_case) != "auto":
        why = "a smaller share of the requests than it had"
    fault("promotion_decided")
    return {**done, "reasons": [why], **_move(tx, spec, approved_by or spec.actor, evidence)}


def _unchanged(spec: PromoteSpec, found: Recorded | None, standing: str) -> dict[str, Any]:
    return {
        "state": "applied", "decision": _brief(found), "to": spec.model, "from": spec.model, "reasons": [standing],
    }  # fmt: skip


def _stands(tx: Transaction, spec: PromoteSpec) -> str | None:
    """What to say where nothing would change."""
    current, canary = aliases.read(tx, spec.use_case), aliases.read(tx, spec.use_case, aliases.CANARY)
    if not spec.is_canary and current and current.model == spec.model:
        return f"{spec.model} serves already."
    if spec.is_canary and canary and (canary.model, share(canary)) == (spec.model, spec.canary_percent):
        return f"{spec.model} is the canary already, with {spec.canary_percent:g} % of the requests."
    return None


def _move(tx: Transaction, spec: PromoteSpec, actor: str, evidence: dict[str, Any]) -> dict[str, Any]:
    about: Any = {
        "use_case": spec.use_case, "model": spec.model, "expected": spec.expected_current, "actor": actor,
        "evidence": evidence,
    }  # fmt: skip
    if spec.is_canary:
        moved = aliases.set_canary(tx, percent=spec.canary_percent, **about)
        return {"from": moved.before, "audit": moved.audit.hash, "canary_percent": spec.canary_percent}
    moved = aliases.move(tx, action="promote", **about)
    return {"from": moved.before, "audit": moved.audit.hash}


__all__ = ["KIND", "PromoteSpec", "act", "apply_approved", "check_task", "objections", "override", "plan", "result"]

KIND = Kind(name="promote", spec=PromoteSpec, plan=plan, act=act)
