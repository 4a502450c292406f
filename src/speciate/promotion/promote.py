"""Kind `promote`: lets a model version serve a use case, if a decision says so and the policy allows it.

The transaction that ends the job holds everything: the checks, the move of the alias, its audit row and its event. The
checks demand of the decision:

- it is of the current version of the use case (a changed requirement makes older verdicts worthless),
- it says promote, and
- its baseline is what serves now (a model that beat the last one has not beaten this one), and
- where the use case has a held-out or a regression suite, there is such a decision on each of them, too.

A canary (`canary_percent`) needs the same: its clients get answers from it alone.

The policy is the settings': a spec can ask for a person where they would not, never the other way. A version that was
taken back after its decision always needs one, and so does one that passed only after its requirements were loosened.
A named person may override what stands against it, on a terminal alone (`override`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate import use_cases
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation import decisions
from speciate.evaluation.decisions import StoredDecision
from speciate.evaluation.reports.report import GateResult
from speciate.faults import fault
from speciate.governance import approval_keys, approvals
from speciate.jobs.job import ENDED, Job, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.models import registry
from speciate.models.model_card import EXPORT, ModelCard
from speciate.promotion import aliases
from speciate.refs import dataset_ref, model_ref
from speciate.settings import Settings
from speciate.use_cases import UseCase
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_NEWEST_MODEL = "SELECT max(version) FROM model_versions WHERE name = ?"


class PromotionResult(BaseModel):
    """What came of a promotion. Only the fields that were set are stored and sent."""

    model_config = ConfigDict(frozen=True, validate_by_name=True)
    state: Literal["applied", "needs_approval", "refused"]
    decision: dict[str, Any] | None = None
    """Of `_decision_summary`."""
    to: str | None = None
    before: str | None = Field(None, alias="from")
    reasons: tuple[str, ...] = ()
    audit: str | None = None
    """Hash of the audit row."""
    canary_percent: float | None = None
    approval: dict[str, Any] | None = None
    """`{id, expires, how}` of the question to a person."""

    def document(self) -> dict[str, Any]:
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
    check_task(use_case, version.card.task, version.ref)
    return Plan(
        resources=Resources(cpu=0),
        seconds=0.0,
        use_case=spec.use_case,
        resolved={"model": version.ref, "policy": workspace.settings.policy_of(spec.use_case)},
    )


def resolve_model(workspace: Workspace, spec: PromoteSpec) -> PromoteSpec:
    """With the version that its model means now, `name@v3`. Raises as `plan` does."""
    return spec.model_copy(update={"model": plan(spec, workspace).resolved["model"]})


def act(tx: Transaction, spec: PromoteSpec, job: Job, settings: Settings) -> dict[str, Any]:
    """The `PromotionResult`, as stored. Raises CONFLICT if another version serves than the caller believed."""
    return _decide(tx, spec, settings).document()


def _decide(tx: Transaction, spec: PromoteSpec, settings: Settings) -> PromotionResult:
    """If the version is in production already, nothing moves and nobody is asked, whatever the policy says."""
    aliases.check_expected(aliases.read(tx, spec.use_case), spec.use_case, spec.expected_current)
    spec = spec.model_copy(update={"model": _resolve_version(tx, spec.model)})
    decision = decision_of(tx, spec)
    if not spec.is_canary and (standing := _already_in_place(tx, spec)):
        return _unchanged(spec, decision, standing)
    if decision is None:
        return _refused(None, [no_decision_reason(tx, spec)])
    if reasons := reasons_against(tx, spec, decision):
        return _refused(decision, reasons)
    if whys := reasons_for_person(tx, spec, decision, settings):
        return _request_approval(tx, spec, decision, whys, settings.approval_hours)
    return _apply(tx, spec, decision, settings, approved_by=None)


def apply_approved(tx: Transaction, arguments: dict[str, Any], by: str) -> dict[str, Any]:
    """What `approvals.decide` calls once a person said yes: the same checks again, then the move.

    Raises CONFLICT or REFUSED where the world has moved on since the question.
    """
    spec = PromoteSpec.model_validate(arguments)
    aliases.check_expected(aliases.read(tx, spec.use_case), spec.use_case, spec.expected_current)
    decision = decision_of(tx, spec)
    reasons = reasons_against(tx, spec, decision) if decision else ["The decision is gone."]
    if decision is None or reasons:
        raise SpeciateError(Code.REFUSED, " ".join(reasons), "Evaluate the model again, then ask for its promotion.")
    return _apply(tx, spec, decision, None, approved_by=by).document()


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
    move = _move(tx, spec, by, evidence)
    return _applied(spec, move, f"overridden by {by}").document()


def result(job: Job) -> PromotionResult:
    """Of the ended job. Raises its error, or UNAVAILABLE if it has not ended yet."""
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


def _decision_summary(found: StoredDecision | None) -> dict[str, Any] | None:
    shown = {"id", "verdict", "reasons", "needed_examples", "dataset", "n", "interval", "level", "looks"}
    return found.decision.model_dump(mode="json", include=shown, exclude_none=True) if found else None


def _refused(found: StoredDecision | None, reasons: list[str]) -> PromotionResult:
    return PromotionResult(state="refused", decision=_decision_summary(found), reasons=tuple(reasons))


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
    evidence = {
        "decision": found.decision.id, "evaluation": found.evaluation, "note": spec.note,
        "asked_by": spec.actor, "approved_by": approved_by,
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


def _move(tx: Transaction, spec: PromoteSpec, actor: str, evidence: dict[str, Any]) -> _Move:
    about: Any = {
        "use_case": spec.use_case, "model": spec.model, "expected": spec.expected_current, "actor": actor,
        "evidence": evidence,
    }  # fmt: skip
    if spec.is_canary:
        moved = aliases.set_canary(tx, percent=spec.canary_percent, **about)
        return _Move(moved.before, moved.audit.hash, spec.canary_percent)
    moved = aliases.move(tx, action="promote", **about)
    return _Move(moved.before, moved.audit.hash, None)


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
    canary_percent: float = Field(100, gt=0, le=100)
    """Share of the requests that it shall answer, beside what is in production; 100: all of them."""

    @property
    def is_canary(self) -> bool:
        return self.canary_percent < 100


KIND = Kind(name="promote", spec=PromoteSpec, plan=plan, act=act)


_ROLLED_BACK = """
SELECT count(*) FROM audit WHERE use_case = ? AND action IN ('rollback', 'canary_end') AND before = ? AND stamp >= ?
"""
_HELD_BACK = """
SELECT DISTINCT use_case_version FROM decisions
WHERE use_case = ? AND candidate = ? AND verdict = 'hold' AND use_case_version < ? ORDER BY 1 DESC
"""
_WAITING_VERSION = "SELECT max(version) FROM use_cases WHERE name = ? AND version > ? AND state = 'needs_approval'"
_MOST_GATES = 3
"""Missed gates in a message; the decision has all."""


def check_task(use_case: UseCase, task: str | None, model: str) -> None:
    """Raise INVALID where a model does something else than the use case asks for."""
    if task is not None and task != use_case.task:
        raise SpeciateError(
            Code.INVALID,
            f"{model!r} is for {task}, but {use_case.name!r} asks for {use_case.task}: it cannot serve it.",
            f"Call specialize(use_case={use_case.name!r}, ...) for a model of this task, or "
            f"search_models(use_case={use_case.name!r}).",
        )


def objections(tx: Transaction, spec: PromoteSpec) -> list[str]:
    """What stands against a promotion and a person would override: empty where nothing does."""
    decision = decision_of(tx, spec)
    return reasons_against(tx, spec, decision) if decision else [no_decision_reason(tx, spec)]


def decision_of(tx: Transaction, spec: PromoteSpec) -> StoredDecision | None:
    if spec.decision:
        return decisions.get(tx, spec.decision)
    return decisions.newest(tx, spec.use_case, spec.model, spec.evaluation)


def reasons_against(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> list[str]:
    """Why these decisions do not let this model serve; empty where they do: on the core suite, and on each further."""
    reasons = [
        *_canary_objections(tx, spec),
        *missing_export_evidence(tx, spec.model),
        *_decision_objections(tx, spec, found),
    ]
    for suite in use_cases.get(tx, spec.use_case).suites.further:
        other = decisions.newest(tx, spec.use_case, spec.model, suite=suite)
        if other is None:
            reasons.append(
                f"Nothing was decided on the {suite} suite of {spec.use_case}: call evaluate_models("
                f"models=['{spec.model}'], use_case='{spec.use_case}', suite='{suite}')."
            )
        else:
            reasons += [f"On the {suite} suite: {reason}" for reason in _decision_objections(tx, spec, other)]
    return reasons


def no_decision_reason(tx: Transaction, spec: PromoteSpec) -> str:
    """Without a core suite the call names the dataset that the use case has decided on before: it needs one."""
    on = ""
    if use_cases.get(tx, spec.use_case).suites.core is None:
        first = decisions.first_dataset(tx, spec.use_case)
        ref = dataset_ref(first) if first else None
        on = f", dataset='{ref.name}:{ref.split or 'test'}'" if ref else ", dataset='NAME'"
    return (
        f"No decision of {spec.use_case} on {spec.model} was found; evaluate it first: call "
        f"evaluate_models(models=['{spec.model}'], use_case='{spec.use_case}'{on})."
    )


def _canary_objections(tx: Transaction, spec: PromoteSpec) -> list[str]:
    """Why it cannot be a canary, where it shall be one."""
    if not spec.is_canary:
        return []
    current = aliases.read(tx, spec.use_case)
    if current is None:
        return [
            f"Nothing is in production for {spec.use_case}, so there is nothing for a canary to stand beside: call "
            f"promote_model(use_case='{spec.use_case}', model='{spec.model}') without canary_percent."
        ]
    return [f"{spec.model} is in production already, with all requests."] if current.model == spec.model else []


def _decision_objections(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> list[str]:
    decision, against = found.decision, []
    if (found.use_case, decision.candidate) != (spec.use_case, spec.model):
        against.append(
            f"Decision {decision.id} is about {decision.candidate} for {found.use_case}, "
            f"not about {spec.model} for {spec.use_case}."
        )
    if decision.verdict != "promote":
        against.append(f"The verdict of decision {decision.id} is {decision.verdict}{_missed_gates(tx, spec, found)}.")
    version = use_cases.get(tx, spec.use_case).version
    if found.use_case_version != version:
        against.append(
            f"Decision {decision.id} judged {spec.use_case} version {found.use_case_version}, "
            f"but its requirements are now version {version}."
        )
    current = aliases.read(tx, spec.use_case)
    if current and current.model not in (decision.baseline, spec.model):
        against.append(
            f"Decision {decision.id} compared with {_describe_baseline(decision.baseline)}, "
            f"but {current.model} serves now; evaluate again."
        )
    return against


def _missed_gates(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> str:
    """Which gates did not hold, and the calls that lead on from there."""
    missed = [gate for gate in found.decision.gates if gate.outcome != "pass"]
    if not missed:
        return ""
    missed.sort(key=lambda gate: gate.outcome != "fail")
    calls = dict.fromkeys(_next_call(gate, spec, found) for gate in missed[:_MOST_GATES])
    waiting = tx.execute(_WAITING_VERSION, [spec.use_case, found.use_case_version])[0][0]
    if waiting is not None:
        calls[f"version {waiting} of {spec.use_case}, which asks for less, waits for a person: list_approvals()"] = None
    told = "; ".join(gate.reason for gate in missed[:_MOST_GATES])
    return f": {told}. Next: {'; '.join(calls)}"


def _next_call(gate: GateResult, spec: PromoteSpec, found: StoredDecision) -> str:
    if gate.gate.rule == "unseen":
        return (
            "judge it on examples that it has not learned from, or train it again without them: "
            f"specialize(use_case='{spec.use_case}', ...)"
        )
    if gate.gate.rule == "license":
        return f"begin with a base model whose licence is allowed: search_models(use_case='{spec.use_case}')"
    return f"describe_evaluation(evaluation='{found.evaluation}')"


def _describe_baseline(baseline: str) -> str:
    return f"the most frequent answer ({baseline})" if baseline == use_cases.CONSTANT else baseline


def reasons_for_person(tx: Transaction, spec: PromoteSpec, found: StoredDecision, settings: Settings) -> list[str]:
    """Why a person must agree; empty where the gates are enough."""
    if _asks_for_less(tx, spec):
        return []
    of = f"the use case {spec.use_case}" if spec.use_case in settings.policies else "this workspace"
    whys = [f"The policy of {of} asks for a person."] if settings.policy_of(spec.use_case) != "auto" else []
    if spec.propose:
        whys.append("The caller asked for a person.")
    if tx.execute(_ROLLED_BACK, [spec.use_case, spec.model, found.created]) != [(0,)]:
        whys.append(f"{spec.model} was rolled back since this decision: production saw what the evidence did not.")
    return [*whys, *_loosened(tx, spec)]


def _asks_for_less(tx: Transaction, spec: PromoteSpec) -> bool:
    """Whether it is a canary already, with no smaller share."""
    canary = aliases.read(tx, spec.use_case, aliases.CANARY)
    return bool(spec.is_canary and canary and canary.model == spec.model and spec.canary_percent <= percent_of(canary))


def percent_of(canary: aliases.Alias) -> float:
    """Percent of the requests."""
    return canary.percent or 0.0


def _loosened(tx: Transaction, spec: PromoteSpec) -> list[str]:
    """Whether this very model was held back by requirements that were loosened since."""
    now = use_cases.get(tx, spec.use_case)
    for (version,) in tx.execute(_HELD_BACK, [spec.use_case, spec.model, now.version]):
        if paths := use_cases.loosenings(use_cases.get(tx, spec.use_case, version), now):
            return [
                f"Version {version} of {spec.use_case} held {spec.model} back, and asked for more than version "
                f"{now.version} does ({', '.join(paths)}): whether that is good enough is for a person to say."
            ]
    return []


_CARD = "SELECT card FROM model_versions WHERE name = ? AND version = ?"
_GATES = {"reload", "parity", "metric", "latency", "size"}


def missing_export_evidence(tx: Transaction, ref: str) -> list[str]:
    """Why the export `name@v3` may not carry an alias; empty for versions that are no exports.

    Only its own record counts: its parent's decisions say nothing about it.
    """
    name, _, version = ref.partition("@v")
    rows = tx.execute(_CARD, [name, int(version)]) if version.isdecimal() else []
    return export_objections(ModelCard.model_validate_json(rows[0][0])) if rows else []


def export_objections(card: ModelCard) -> list[str]:
    if card.method != EXPORT:
        return []
    record: Mapping[str, Any] = card.recipe.get("export") or {}
    outcomes = {gate["name"]: gate["outcome"] for gate in record.get("gates", ())}
    missed = sorted(name for name in _GATES if outcomes.get(name) != "pass")
    if not missed:
        return []
    return [
        f"{card.ref} is an export, and its record does not show that these gates held: {', '.join(missed)}. Call "
        f"export_model(model={record.get('parent', 'NAME')!r}, ...) again."
    ]
