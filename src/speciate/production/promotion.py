"""What a promotion asks for, what stands against it, and why a person must agree: all of it only read.

What leads on from a refusal is in its words: each names the next call.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from speciate import usecases
from speciate.errors import Code, SpeciateError
from speciate.evaluation import decisions
from speciate.evaluation.decisions import Recorded
from speciate.evaluation.report import GateResult
from speciate.production import aliases
from speciate.production.exports import evidence
from speciate.refs import dataset_ref
from speciate.settings import Settings
from speciate.usecases import UseCase
from speciate.workspace.database import Transaction

_ROLLED_BACK = """
SELECT count(*) FROM audit WHERE use_case = ? AND action IN ('rollback', 'canary_end') AND before = ? AND stamp >= ?
"""
_HELD_BACK = """
SELECT DISTINCT use_case_version FROM decisions
WHERE use_case = ? AND candidate = ? AND verdict = 'hold' AND use_case_version < ? ORDER BY 1 DESC
"""
_WAITING_VERSION = "SELECT max(version) FROM use_cases WHERE name = ? AND version > ? AND state = 'needs_approval'"
_MOST_GATES = 3
"""That did not hold and are told of; the decision has all."""


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
    return against(tx, spec, decision) if decision else [undecided(tx, spec)]


def decision_of(tx: Transaction, spec: PromoteSpec) -> Recorded | None:
    if spec.decision:
        return decisions.get(tx, spec.decision)
    return decisions.newest(tx, spec.use_case, spec.model, spec.evaluation)


def against(tx: Transaction, spec: PromoteSpec, found: Recorded) -> list[str]:
    """Why these decisions do not let this model serve; empty where they do: on the core suite, and on each further."""
    reasons = [*_misplaced(tx, spec), *evidence.lacking(tx, spec.model), *_against(tx, spec, found)]
    for suite in usecases.get(tx, spec.use_case).suites.further:
        other = decisions.newest(tx, spec.use_case, spec.model, suite=suite)
        if other is None:
            reasons.append(
                f"Nothing was decided on the {suite} suite of {spec.use_case}: call evaluate_models("
                f"models=['{spec.model}'], use_case='{spec.use_case}', suite='{suite}')."
            )
        else:
            reasons += [f"On the {suite} suite: {reason}" for reason in _against(tx, spec, other)]
    return reasons


def undecided(tx: Transaction, spec: PromoteSpec) -> str:
    """Without a core suite the call names the dataset that the use case has decided on before: it needs one."""
    on = ""
    if usecases.get(tx, spec.use_case).suites.core is None:
        first = decisions.first_dataset(tx, spec.use_case)
        ref = dataset_ref(first) if first else None
        on = f", dataset='{ref.name}:{ref.split or 'test'}'" if ref else ", dataset='NAME'"
    return (
        f"No decision of {spec.use_case} on {spec.model} was found; evaluate it first: call "
        f"evaluate_models(models=['{spec.model}'], use_case='{spec.use_case}'{on})."
    )


def _misplaced(tx: Transaction, spec: PromoteSpec) -> list[str]:
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


def _against(tx: Transaction, spec: PromoteSpec, found: Recorded) -> list[str]:
    decision, against = found.decision, []
    if (found.use_case, decision.candidate) != (spec.use_case, spec.model):
        against.append(
            f"Decision {decision.id} is about {decision.candidate} for {found.use_case}, "
            f"not about {spec.model} for {spec.use_case}."
        )
    if decision.verdict != "promote":
        against.append(f"The verdict of decision {decision.id} is {decision.verdict}{_why(tx, spec, found)}.")
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


def _why(tx: Transaction, spec: PromoteSpec, found: Recorded) -> str:
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


def _next_call(gate: GateResult, spec: PromoteSpec, found: Recorded) -> str:
    if gate.gate.rule == "unseen":
        return (
            "judge it on examples that it has not learned from, or train it again without them: "
            f"specialize(use_case='{spec.use_case}', ...)"
        )
    if gate.gate.rule == "license":
        return f"begin with a base model whose licence is allowed: search_models(use_case='{spec.use_case}')"
    return f"describe_evaluation(evaluation='{found.evaluation}')"


def _spoken(baseline: str) -> str:
    return f"the most frequent answer ({baseline})" if baseline == usecases.CONSTANT else baseline


def reserved(tx: Transaction, spec: PromoteSpec, found: Recorded, settings: Settings) -> list[str]:
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
    return bool(spec.is_canary and canary and canary.model == spec.model and spec.canary_percent <= share(canary))


def share(canary: aliases.Alias) -> float:
    """Percent of the requests."""
    return canary.percent or 0.0


def _loosened(tx: Transaction, spec: PromoteSpec) -> list[str]:
    """Whether this very model was held back by requirements that were loosened since."""
    now = usecases.get(tx, spec.use_case)
    for (version,) in tx.execute(_HELD_BACK, [spec.use_case, spec.model, now.version]):
        if paths := usecases.loosenings(usecases.get(tx, spec.use_case, version), now):
            return [
                f"Version {version} of {spec.use_case} held {spec.model} back, and asked for more than version "
                f"{now.version} does ({', '.join(paths)}): whether that is good enough is for a person to say."
            ]
    return []
