"""Kind `promote`: lets a model version serve a use case, if a decision says so and the policy allows it.

The transaction that ends the job holds everything: the checks, the move of the alias, its audit row and its event. The
checks demand of the decision:

- it is of the current version of the use case (a changed requirement makes older verdicts worthless),
- it says promote, and
- its baseline is what serves now (a model that beat the last one has not beaten this one), and
- where the use case has a held-out or a regression suite, there is such a decision on each of them, too.

A canary (`canary_percent`) needs the same: its clients get answers from it alone.

What speaks for and against it is in evidence.py. The policy is the settings': a spec can ask for a person where they
would not, never the other way. A version that was taken back after its decision always needs one, and so do one that
passes requirements that were loosened since production was promoted, one that was judged on another suite, and one that
reads an input which alone gives the answer (until a person approved that column for this use case). A named person may
override what stands against it, on a terminal alone (`override`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate import use_cases
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation.decisions import StoredDecision
from speciate.evaluation.settling import document
from speciate.faults import fault
from speciate.governance import approval_keys, approvals, audit
from speciate.jobs.job import ENDED, Job, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.models import registry
from speciate.models.fetch import PUBLISHED
from speciate.models.published.manifest import needs_labels
from speciate.promotion import aliases
from speciate.promotion.evidence import (
    PromoteSpec,
    check_task,
    decision_of,
    next_calls,
    objections,
    objections_to,
    percent_of,
    reasons_for_person,
    what_is_not_known,
)
from speciate.refs import model_ref
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_NEWEST_MODEL = "SELECT max(version) FROM model_versions WHERE name = ?"


class PromotionResult(BaseModel):
    """What came of a promotion. Only the fields that were set are stored and sent."""

    model_config = ConfigDict(frozen=True, validate_by_name=True)
    state: Literal["applied", "needs_approval", "refused"]
    decision: Mapping[str, Any] | None = None
    """The decision as `_decision_summary` has it."""
    to: str | None = None
    before: str | None = Field(None, alias="from")
    reasons: tuple[str, ...] = ()
    audit: str | None = None
    """Hash of the audit row."""
    canary_percent: float | None = None
    next: tuple[Mapping[str, Any], ...] = ()
    """Calls `{tool, arguments, purpose}` that would settle a refusal."""
    approval: Mapping[str, Any] | None = None
    """`{id, expires, how}` of the question to a person."""

    def document(self) -> Mapping[str, object]:
        """The result as it is stored and sent."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class _Move(NamedTuple):
    before: str | None
    audit: str
    canary_percent: float | None


def plan(spec: PromoteSpec, workspace: Workspace) -> Plan:
    """Raises NOT_FOUND for a use case or a model that is not there, INVALID for a model of another task."""
    use_case = use_cases.get(workspace.database, spec.use_case)
    version = registry.resolve(workspace.database, workspace.folders, spec.model)
    if version.card.endpoint is not None:
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref!r} is served by {version.card.endpoint.host}: predict cannot ask it yet, so it cannot serve "
            f"{spec.use_case!r}.",
            f"Call define_use_case(name={spec.use_case!r}, ..., incumbent={version.ref!r}): a special model must then "
            "beat it.",
        )
    if version.card.method == PUBLISHED and needs_labels(version.path):
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref!r} answers under the labels that it was published with, and {spec.use_case!r} has its own.",
            "Register it with the table of its evaluation, evaluate that version, and promote it: "
            f"register_model(name='NAME', source={version.card.recipe.get('source')!r}, labels={{published: yours}}).",
        )
    check_task(use_case, version.card.task, version.ref)
    return Plan(
        resources=Resources(cpu=0),
        seconds=0.0,
        use_case=spec.use_case,
        resolved={"model": version.ref, "policy": workspace.settings.policy_of(spec.use_case)},
    )


def resolve_model(workspace: Workspace, spec: PromoteSpec) -> PromoteSpec:
    """The spec with the version that its model means now, `name@v3`. Raises as `plan` does."""
    return spec.model_copy(update={"model": plan(spec, workspace).resolved["model"]})


def act(tx: Transaction, spec: PromoteSpec, job: Job, settings: Settings) -> Mapping[str, object]:
    """The `PromotionResult`, as stored. Raises CONFLICT if another version serves than the caller believed."""
    return _decide(tx, spec, settings).document()


class Ruling(NamedTuple):
    """What a promotion comes to: made before anything is written, so a dry run says exactly what the call would do."""

    spec: PromoteSpec
    """With the version that its model means."""
    state: Literal["unchanged", "applied", "needs_approval", "refused"]
    found: StoredDecision | None
    reasons: tuple[str, ...] = ()
    next: tuple[Call, ...] = ()


def rule(tx: Transaction, spec: PromoteSpec, settings: Settings) -> Ruling:
    """Writes nothing. If the version is in production already, nothing moves and nobody is asked, whatever the policy
    says. Raises CONFLICT if another version serves than the caller believed."""
    aliases.check_expected(aliases.read(tx, spec.use_case), spec.use_case, spec.expected_current)
    spec = spec.model_copy(update={"model": _resolve_version(tx, spec.model)})
    decision = decision_of(tx, spec)
    if not spec.is_canary and (standing := _already_in_place(tx, spec)):
        return Ruling(spec, "unchanged", decision, (standing,))
    against = objections_to(tx, spec, decision)
    if decision is None or against:
        return Ruling(spec, "refused", decision, tuple(each.reason for each in against), next_calls(against))
    if whys := reasons_for_person(tx, spec, decision, settings):
        return Ruling(spec, "needs_approval", decision, tuple(whys))
    if standing := _already_in_place(tx, spec):
        return Ruling(spec, "unchanged", decision, (standing,))
    return Ruling(spec, "applied", decision)


def _decide(tx: Transaction, spec: PromoteSpec, settings: Settings) -> PromotionResult:
    ruling = rule(tx, spec, settings)
    if ruling.state == "unchanged":
        return _unchanged(ruling.spec, ruling.found, ruling.reasons[0])
    if ruling.found is None or ruling.state == "refused":
        return _refused(ruling)
    if ruling.state == "needs_approval":
        return _request_approval(tx, ruling.spec, ruling.found, list(ruling.reasons), settings.approval_hours)
    return _apply(tx, ruling.spec, ruling.found, settings, approved_by=None)


def dry_run(workspace: Workspace, spec: PromoteSpec) -> PromotionResult:
    """What the promotion would come to now; changes nothing."""
    ruling = workspace.database.transact(lambda tx: rule(tx, spec, workspace.settings))
    if ruling.state == "refused":
        return _refused(ruling)
    return PromotionResult(
        state="applied" if ruling.state == "unchanged" else ruling.state,
        decision=_decision_summary(ruling.found),
        to=ruling.spec.model,
        reasons=ruling.reasons or ("It would be applied at once.",),
    )


def apply_approved(tx: Transaction, arguments: approvals.ApprovalArguments, by: str) -> Mapping[str, object]:
    """What `approvals.decide` calls once a person said yes: the same checks again, then the move.

    Raises CONFLICT or REFUSED where the world has moved on since the question.
    """
    spec = PromoteSpec.model_validate(arguments)
    aliases.check_expected(aliases.read(tx, spec.use_case), spec.use_case, spec.expected_current)
    decision = decision_of(tx, spec)
    against = objections_to(tx, spec, decision)
    if decision is None or against:
        raise SpeciateError(Code.REFUSED, " ".join(each.reason for each in against), next=next_calls(against))
    return _apply(tx, spec, decision, None, approved_by=by).document()


def refusal(found: PromotionResult) -> SpeciateError:
    """A refused promotion as the error that a caller gets."""
    calls = [Call(each["tool"], each["arguments"], each.get("purpose", "")) for each in found.next]
    return SpeciateError(Code.REFUSED, " ".join(found.reasons), next=calls)


def override(
    tx: Transaction,
    spec: PromoteSpec,
    *,
    reason: str,
    by: str,
    seen: Sequence[str],
    proof: Mapping[str, Any] = _NOTHING,
) -> Mapping[str, object]:
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
    move = _move(tx, spec, by, evidence)
    return _applied(spec, move, f"overridden by {by}").document()


def result(job: Job) -> PromotionResult:
    """The result of the ended job. Raises its error, or UNAVAILABLE if it has not ended yet."""
    if job.result is not None:
        return PromotionResult.model_validate(job.result)
    error = job.error or {}
    if job.state in ENDED:
        code = error.get("code", Code.CONFLICT)
        raise SpeciateError(Code(code), error.get("message", f"{job.id} is {job.state}."), error.get("recovery", ""))
    raise SpeciateError(
        Code.UNAVAILABLE,
        f"{job.id} is still {job.state}.",
        next=[Call("wait_for_job", {"job": str(job.id)}, "for its result")],
    )


def _resolve_version(tx: Transaction, model: str) -> str:
    """The version that a ref means now, `name@v3`."""
    ref = model_ref(model)
    if ref.alias and (alias := aliases.read(tx, ref.name, ref.alias)):
        return alias.model
    if ref.source or ref.version or ref.alias:
        return model
    return f"{ref.name}@v{tx.execute(_NEWEST_MODEL, [ref.name])[0][0]}"


def _decision_summary(found: StoredDecision | None) -> Mapping[str, Any] | None:
    shown = {
        "id", "verdict", "reasons", "needed_examples", "needed_groups", "dataset", "n", "interval", "level", "looks",
        "earlier_candidates", "suite_change", "same_model", "telling_inputs",
    }  # fmt: skip
    if found is None:
        return None
    return {
        name: value
        for name, value in found.decision.model_dump(mode="json", include=shown, exclude_none=True).items()
        if name != "telling_inputs" or value
    }


def _refused(ruling: Ruling) -> PromotionResult:
    return PromotionResult(
        state="refused",
        decision=_decision_summary(ruling.found),
        reasons=ruling.reasons,
        next=tuple(document(call) for call in ruling.next),
    )


def _request_approval(
    tx: Transaction, spec: PromoteSpec, found: StoredDecision, whys: list[str], hours: float
) -> PromotionResult:
    current = aliases.read(tx, spec.use_case)
    serving = current.model if current else aliases.NOTHING
    if spec.is_canary:
        whys = [*whys, f"It is asked for a share of {spec.canary_percent:g} % of the requests."]
    arguments = spec.model_copy(update={"decision": found.decision.id, "expected_current": serving}).model_dump()
    evidence = {
        **(_decision_summary(found) or {}), "baseline": found.decision.baseline, "evaluation": found.evaluation,
        "asked_because": whys,
    }  # fmt: skip
    subject = f"use_case:{spec.use_case}"
    approval = approvals.request(tx, "promote", arguments, evidence, subject=subject, hours=hours)
    how = approval_keys.answer_instructions(tx, approval.id)
    return PromotionResult(
        state="needs_approval",
        decision=_decision_summary(found),
        reasons=tuple(whys),
        approval={"id": approval.id, "expires": approval.expires, "how": how},
    )


def _apply(
    tx: Transaction, spec: PromoteSpec, found: StoredDecision, settings: Settings | None, *, approved_by: str | None
) -> PromotionResult:
    """`settings` where no person was asked."""
    if standing := _already_in_place(tx, spec):
        return _unchanged(spec, found, standing)
    accepted = sorted({each.gate.rule for each in what_is_not_known(tx, spec, found)}) if approved_by else []
    evidence = {
        "decision": found.decision.id, "evaluation": found.evaluation, "note": spec.note,
        "asked_by": spec.actor, "approved_by": approved_by,
        **({"accepted": accepted} if accepted else {}),
    }  # fmt: skip
    why = f"approved by {approved_by}" if approved_by else "passed its gates; the policy is automatic"
    if settings and settings.policy_of(spec.use_case) != "auto":
        why = "a smaller share of the requests than it had"
    fault("promotion_decided")
    applied = _applied(spec, _move(tx, spec, approved_by or spec.actor, evidence), why)
    return applied.model_copy(update={"decision": _decision_summary(found)})


def _applied(spec: PromoteSpec, move: _Move, why: str) -> PromotionResult:
    share = {} if move.canary_percent is None else {"canary_percent": move.canary_percent}
    return PromotionResult(
        state="applied", to=spec.model, before=move.before, reasons=(why,), audit=move.audit, **share
    )  # fmt: skip


def _unchanged(spec: PromoteSpec, found: StoredDecision | None, standing: str) -> PromotionResult:
    return PromotionResult(
        state="applied", decision=_decision_summary(found), to=spec.model, before=spec.model, reasons=(standing,)
    )


def _already_in_place(tx: Transaction, spec: PromoteSpec) -> str | None:
    """What to say where nothing would change."""
    current, canary = aliases.read(tx, spec.use_case), aliases.read(tx, spec.use_case, aliases.CANARY)
    if not spec.is_canary and current and current.model == spec.model:
        return f"{spec.model} serves already."
    if spec.is_canary and canary and (canary.model, percent_of(canary)) == (spec.model, spec.canary_percent):
        return f"{spec.model} is the canary already, with {spec.canary_percent:g} % of the requests."
    return None


def _move(tx: Transaction, spec: PromoteSpec, actor: str, evidence: audit.Evidence) -> _Move:
    about: Any = {
        "use_case": spec.use_case, "model": spec.model, "expected": spec.expected_current, "actor": actor,
        "evidence": evidence,
    }  # fmt: skip
    if spec.is_canary:
        moved = aliases.set_canary(tx, percent=spec.canary_percent, **about)
        return _Move(moved.before, moved.audit.hash, spec.canary_percent)
    moved = aliases.move(tx, action="promote", **about)
    return _Move(moved.before, moved.audit.hash, None)


KIND = Kind(name="promote", spec=PromoteSpec, plan=plan, act=act)
