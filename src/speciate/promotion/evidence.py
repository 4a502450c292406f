"""What speaks for and against a promotion: the decision that it rests on, the objections to it, and why a person must
agree. Reads the catalog, changes nothing.

A decision is bound to the rows that it judged. Where rows that production or earlier decisions of the use case were
judged on are missing or changed, it is about another suite, and a person must agree under every policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate import use_cases
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation import decisions, suites
from speciate.evaluation.decisions import StoredDecision
from speciate.evaluation.reports.report import (
    GateResult,
    Suite,
    SuiteChange,
    learning_split,
    learning_split_words,
)
from speciate.evaluation.settling import settling_calls
from speciate.models.licenses import forbids_commerce
from speciate.models.model_card import EXPORT, ModelCard
from speciate.promotion import aliases
from speciate.refs import dataset_ref
from speciate.settings import Settings
from speciate.use_cases import UseCase
from speciate.workspace.database import Transaction


class PromoteSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    model: str
    evaluation: str | None = None
    decision: str | None = None
    """Default: of `evaluation` where that is given, else the newest on the use case's core suite."""
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


class Objection(NamedTuple):
    """Why a decision does not let a model serve, and the calls that would settle it."""

    reason: str
    next: tuple[Call, ...] = ()


_ROLLED_BACK = """
SELECT count(*) FROM audit WHERE use_case = ? AND action IN ('rollback', 'canary_end') AND before = ? AND stamp >= ?
"""
_ACCEPTED = """
SELECT count(*) FROM audit
WHERE use_case = ? AND after = ? AND action IN ('promote', 'canary') AND evidence ->> 'accepted' IS NOT NULL
"""
_APPROVED_BEFORE = """
SELECT count(*) FROM audit
WHERE use_case = ? AND after = ? AND action IN ('promote', 'canary') AND evidence ->> 'approved_by' IS NOT NULL
"""
_HELD_BACK = """
SELECT DISTINCT use_case_version FROM decisions
WHERE use_case = ? AND candidate = ? AND verdict <> 'promote' AND use_case_version < ? ORDER BY 1 DESC
"""
_SERVES_UNDER = """
SELECT greatest(
    coalesce(decisions.use_case_version, 0),
    coalesce((SELECT max(version) FROM use_cases
              WHERE name = audit.use_case AND state = 'active' AND created < audit.stamp), 0)
) FROM audit LEFT JOIN decisions ON decisions.id = audit.evidence ->> 'decision'
WHERE audit.use_case = ? AND audit.action = 'promote' ORDER BY audit.seq DESC LIMIT 1
"""
_APPROVED_VERSION = """
SELECT max(CAST(data ->> 'version' AS INTEGER)) FROM events
WHERE subject = ? AND type = 'use_case.changed' AND data ->> 'approved_by' IS NOT NULL
"""
_WAITING_VERSION = "SELECT max(version) FROM use_cases WHERE name = ? AND version > ? AND state = 'needs_approval'"
_APPROVED_EVIDENCE = """
SELECT evidence FROM approvals WHERE action = 'promote' AND state = 'approved' AND arguments ->> 'use_case' = ?
"""
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
    return [each.reason for each in objections_to(tx, spec, decision_of(tx, spec))]


def decision_of(tx: Transaction, spec: PromoteSpec) -> StoredDecision | None:
    """The decision that was named, by itself or by its evaluation, else the newest on the use case's core suite."""
    if spec.decision:
        return decisions.get(tx, spec.decision)
    if spec.evaluation:
        found = decisions.of_evaluation(tx, spec.evaluation)
        return next((each for each in found if each.decision.candidate == spec.model), None)
    return _newest_on_core(tx, spec)


def _newest_on_core(tx: Transaction, spec: PromoteSpec) -> StoredDecision | None:
    """The newest decision on the rows that the use case stands on; if there is none, the newest: what is wrong with it
    is an objection, or a question."""
    core = use_cases.get(tx, spec.use_case).suites.core
    found = decisions.on_candidate(tx, spec.use_case, spec.model)
    named = [each for each in found if core is None or _is_of(each.decision.dataset, core)]
    same = [each for each in named if not (each.decision.suite_change and each.decision.suite_change.is_another)]
    return next(iter(same or named or found), None)


def _is_of(dataset: str, core: str) -> bool:
    """Whether a decision's dataset is what the core suite says. A decision from before datasets were kept is."""
    if not dataset:
        return True
    wanted, judged = dataset_ref(core), dataset_ref(dataset)
    return (wanted.name, wanted.split or "test", wanted.version or judged.version) == (
        judged.name, judged.split, judged.version,
    )  # fmt: skip


def objections_to(tx: Transaction, spec: PromoteSpec, found: StoredDecision | None) -> list[Objection]:
    """Why these decisions do not let this model serve; empty where they do: on the core suite, and on each further."""
    if found is None:
        return [_no_decision(tx, spec)]
    reasons = [
        *_canary_objections(tx, spec),
        *_role_objections(tx, spec, found),
        *(Objection(reason) for reason in missing_export_evidence(tx, spec.model)),
        *_decision_objections(tx, spec, found),
    ]
    for suite in use_cases.get(tx, spec.use_case).suites.further:
        other = decisions.newest(tx, spec.use_case, spec.model, suite=suite)
        if other is None:
            call = Call("evaluate_models", {"models": [spec.model], "use_case": spec.use_case, "suite": suite})
            reasons.append(Objection(f"Nothing was decided on the {suite} suite of {spec.use_case}.", (call,)))
        else:
            reasons += [
                Objection(f"On the {suite} suite: {each.reason}", each.next)
                for each in _decision_objections(tx, spec, other)
            ]
    return reasons


def _role_objections(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> list[Objection]:
    """Another suite applies fewer gates: a verdict there is no verdict on promotion."""
    if found.decision.suite == "core":
        return []
    made = f"Decision {found.decision.id} was made on the {found.decision.suite} suite"
    reason = f"{made}, and a promotion rests on the core."
    return [Objection(reason, (evaluation_call(tx, spec),))]


def next_calls(objections: Sequence[Objection]) -> tuple[Call, ...]:
    """The calls that would settle them, each once."""
    found: dict[str, Call] = {}
    for call in (call for each in objections for call in each.next):
        found.setdefault(str(call), call)
    return tuple(found.values())


def evaluation_call(tx: Transaction, spec: PromoteSpec, suite: Suite = "core") -> Call:
    """The evaluation that a promotion could rest on. Without such a suite it names the dataset that the use case has
    decided on before: its name alone goes on with all rows that were judged."""
    arguments: dict[str, object] = {"models": [spec.model], "use_case": spec.use_case}
    if suite != "core":
        return Call("evaluate_models", {**arguments, "suite": suite})
    if use_cases.get(tx, spec.use_case).suites.core is None:
        first = decisions.first_dataset(tx, spec.use_case)
        ref = dataset_ref(first) if first else None
        arguments["dataset"] = f"{ref.name}:{ref.split or 'test'}" if ref else "NAME"
    return Call("evaluate_models", arguments)


def _no_decision(tx: Transaction, spec: PromoteSpec) -> Objection:
    call = evaluation_call(tx, spec)
    judged = _judged_on(tx, spec)
    if spec.evaluation is None:
        reason = f"No decision of {spec.use_case} on {spec.model} was found; evaluate it first.{judged}"
        return Objection(reason, (call,))
    others = decisions.of_evaluation(tx, spec.evaluation)
    if others:
        named = ", ".join(each.decision.candidate for each in others)
        return Objection(f"{spec.evaluation} decided on {named}, not on {spec.model}.{judged}", (call,))
    return Objection(
        f"{spec.evaluation} made no decision; describe_evaluation says why in its notes.{judged}",
        (call, Call("describe_evaluation", {"evaluation": spec.evaluation})),
    )


def _judged_on(tx: Transaction, spec: PromoteSpec) -> str:
    """Where the decision on what serves was made, in a sentence."""
    current = aliases.read(tx, spec.use_case)
    found = decisions.newest(tx, spec.use_case, current.model) if current else None
    if current is None or found is None or not found.decision.dataset:
        return ""
    return f" {current.model}, which serves, was judged on {found.decision.dataset}."


def _canary_objections(tx: Transaction, spec: PromoteSpec) -> list[Objection]:
    """Why it cannot be a canary, where it shall be one."""
    if not spec.is_canary:
        return []
    current = aliases.read(tx, spec.use_case)
    if current is None:
        call = Call("promote_model", {"use_case": spec.use_case, "model": spec.model})
        reason = (
            f"Nothing is in production for {spec.use_case}, so there is nothing for a canary to stand beside: promote "
            "it without canary_percent."
        )
        return [Objection(reason, (call,))]
    in_place = f"{spec.model} is in production already, with all requests."
    return [Objection(in_place)] if current.model == spec.model else []


def _decision_objections(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> list[Objection]:
    decision, against = found.decision, list[Objection]()
    again = evaluation_call(tx, spec, decision.suite)
    if (found.use_case, decision.candidate) != (spec.use_case, spec.model):
        about = (
            f"Decision {decision.id} is about {decision.candidate} for {found.use_case}, "
            f"not about {spec.model} for {spec.use_case}."
        )
        against.append(Objection(about, (again,)))
    if decision.verdict != "promote":
        same = f": it is the same model as {decision.same_model}" if decision.same_model else ""
        missed = same or _missed_gates(tx, spec, found)
        look = Call("describe_evaluation", {"evaluation": found.evaluation})
        settle = settling_calls(decision, spec.use_case, use_cases.get(tx, spec.use_case).suites.core)
        against.append(
            Objection(f"The verdict of decision {decision.id} is {decision.verdict}{missed}.", (look, *settle))
        )
    if decision.dataset and (split := learning_split(dataset_ref(decision.dataset).split)):
        against.append(Objection(f"Decision {decision.id} rests on {learning_split_words(split)}.", (again,)))
    use_case = use_cases.get(tx, spec.use_case)
    if found.use_case_version != use_case.version:
        changed = (
            f"Decision {decision.id} judged {spec.use_case} version {found.use_case_version}, "
            f"but its requirements are now version {use_case.version}."
        )
        against.append(Objection(changed, (again,)))
    core = use_case.suites.core
    if decision.suite == "core" and core is not None and not _is_of(decision.dataset, core):
        elsewhere = f"Decision {decision.id} was made on {decision.dataset}, and the core suite is now {core}."
        against.append(Objection(elsewhere, (again,)))
    current = aliases.read(tx, spec.use_case)
    if current and current.model not in (decision.baseline, spec.model):
        overtaken = (
            f"Decision {decision.id} compared with {_describe_baseline(decision.baseline)}, "
            f"but {current.model} serves now; evaluate again.{_judged_on(tx, spec)}"
        )
        against.append(Objection(overtaken, (again,)))
    return against


def _missed_gates(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> str:
    """Which gates did not hold, and the calls that lead on from there."""
    missed = [gate for gate in found.decision.gates if gate.outcome in ("fail", "inconclusive")]
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
    if gate.gate.rule == "free_method" and gate.outcome == "inconclusive":
        return f"evaluate_models(models=['{spec.model}'], use_case='{spec.use_case}', ...) with this model alone"
    if gate.gate.rule == "free_method":
        return (
            "train_model(method='classical', ...) has neighbours among its learners; describe_evaluation(evaluation="
            f"'{found.evaluation}', baseline='nearest:') shows where the model is worse"
        )
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
    whys += _loosened_since_production(tx, spec) or _loosened(tx, spec)
    whys += _telling_inputs(tx, spec, found)
    whys += [*_on_another_suite(tx, spec, found), *_overruled(tx, spec, found), *_not_known(tx, spec, found)]
    return [*whys, *_without_commerce(tx, spec)]


def _without_commerce(tx: Transaction, spec: PromoteSpec) -> list[str]:
    """A sentence where a licence forbids commercial use and the use case does not name it as allowed. Asked until one
    person has let this version serve."""
    name, _, version = spec.model.partition("@v")
    rows = tx.execute(_CARD, [name, int(version)]) if version.isdecimal() else []
    card = ModelCard.model_validate_json(rows[0][0]) if rows else None
    named = [each for each in (card.license, card.weights_license) if forbids_commerce(each)] if card else []
    allowed = {each.lower() for each in use_cases.get(tx, spec.use_case).limits.licenses}
    barred = [each for each in named if each and each.lower() not in allowed]
    if not barred or tx.execute(_APPROVED_BEFORE, [spec.use_case, spec.model]) != [(0,)]:
        return []
    return [f"{spec.model} has the licence {barred[0]}: whether this use is commercial is for a person to say."]


def what_is_not_known(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> list[GateResult]:
    """Gates of its decisions that nothing here can tell."""
    further = use_cases.get(tx, spec.use_case).suites.further
    others = (decisions.newest(tx, spec.use_case, spec.model, suite=suite) for suite in further)
    every = [found, *(other for other in others if other is not None)]
    return [gate for each in every for gate in each.decision.gates if gate.outcome == "not_known"]


def _not_known(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> list[str]:
    """What a person is asked to accept, under every policy, until one accepted it of this version."""
    if not (gates := what_is_not_known(tx, spec, found)):
        return []
    if tx.execute(_ACCEPTED, [spec.use_case, spec.model]) != [(0,)]:
        return []
    return [f"{spec.model}: {gates[0].reason}."]


def _telling_inputs(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> list[str]:
    """Whether the model reads a column that alone gives the answer and that no person has accepted for this use
    case: it may be a copy of the label. What was accepted is in the evidence of the approved promotions."""
    if not found.decision.telling_inputs:
        return []
    shown = [json.loads(evidence) for (evidence,) in tx.execute(_APPROVED_EVIDENCE, [spec.use_case])]
    accepted = {each["column"] for evidence in shown for each in evidence.get("telling_inputs", ())}
    open_ = [each for each in found.decision.telling_inputs if each.column not in accepted]
    if not open_:
        return []
    named = ", ".join(map(str, open_))
    return [
        f"{spec.model} reads {named}: an input that alone gives the answer may be a copy of it, or known only after "
        "it. A person says whether it is known before the answer is; the approval is remembered for this column of "
        f"{spec.use_case}."
    ]


def _on_another_suite(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> list[str]:
    """Sentences where rows that were judged before are missing from the suites of these decisions, or changed."""
    whys = _suite_whys(tx, spec, found)
    for suite in use_cases.get(tx, spec.use_case).suites.further:
        if other := decisions.newest(tx, spec.use_case, spec.model, suite=suite):
            whys += _suite_whys(tx, spec, other)
    return whys


def _suite_whys(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> list[str]:
    role, judged = found.decision.suite, suites.suite_of(tx, found.evaluation)
    line = suites.line(tx, spec.use_case, role, before=found.evaluation)
    shown = found.decision.dataset or f"the dataset of {found.evaluation}"
    if line is not None and judged is None:
        was = f"Decision {found.decision.id} is from before judged rows were kept"
        return [f"{was}: which rows of {shown} it judged is not known."]
    change: SuiteChange | None = None
    if line is not None and judged is not None:
        change = suites.suite_change(tx, line, judged)
    before = f"{spec.use_case} was judged on"
    if (change is None or not change.is_another) and role == "core":
        change = suites.change_since_elsewhere(tx, spec.use_case, found.evaluation, spec.model)
        before = "this model was looked at on before, for another use case or none"
    if change is None or not change.is_another:
        return []
    return [f"{shown} {change}: another suite than {before}, and only a person accepts it."]


def _overruled(tx: Transaction, spec: PromoteSpec, found: StoredDecision) -> list[str]:
    """A sentence where an older decision was named and a newer one on the same suite does not say promote."""
    newest = _newest_on_core(tx, spec.model_copy(update={"evaluation": None, "decision": None}))
    if newest is None or newest.created <= found.created or newest.decision.verdict == "promote":
        return []
    return [
        f"Decision {newest.decision.id} on {spec.model} is newer, and its verdict is {newest.decision.verdict}: it was "
        f"made on {newest.decision.dataset or 'the same suite'}, after decision {found.decision.id}."
    ]


def _asks_for_less(tx: Transaction, spec: PromoteSpec) -> bool:
    """Whether it is a canary already, with no smaller share."""
    canary = aliases.read(tx, spec.use_case, aliases.CANARY)
    return bool(spec.is_canary and canary and canary.model == spec.model and spec.canary_percent <= percent_of(canary))


def percent_of(canary: aliases.Alias) -> float:
    """Percent of the requests."""
    return canary.percent or 0.0


def _loosened_since_production(tx: Transaction, spec: PromoteSpec) -> list[str]:
    """Whether the use case asks for less than what serves was promoted under, whichever model it is about. A version
    that a person put in force was accepted."""
    promoted = tx.execute(_SERVES_UNDER, [spec.use_case])
    if not promoted or aliases.read(tx, spec.use_case) is None:
        return []
    ((accepted,),) = tx.execute(_APPROVED_VERSION, [f"use_case:{spec.use_case}"])
    now, held_to = use_cases.get(tx, spec.use_case), max(promoted[0][0], accepted or 0)
    if not 0 < held_to < now.version:
        return []
    paths = use_cases.loosenings(use_cases.get(tx, spec.use_case, held_to), now, tx)
    if not paths:
        return []
    return [
        f"What serves was held to version {held_to} of {spec.use_case}, and version {now.version} asks for less "
        f"({', '.join(paths)}): in production a person says whether that is good enough."
    ]


def _loosened(tx: Transaction, spec: PromoteSpec) -> list[str]:
    """Whether this very model was held back by requirements that were loosened since, or beside another incumbent."""
    now = use_cases.get(tx, spec.use_case)
    for (version,) in tx.execute(_HELD_BACK, [spec.use_case, spec.model, now.version]):
        before = use_cases.get(tx, spec.use_case, version)
        if paths := use_cases.loosenings(before, now, tx):
            return [
                f"Version {version} of {spec.use_case} held {spec.model} back, and asked for more than version "
                f"{now.version} does ({', '.join(paths)}): whether that is good enough is for a person to say."
            ]
        if before.incumbent != now.incumbent:
            return [
                f"Version {version} of {spec.use_case} held {spec.model} back beside the incumbent "
                f"{before.incumbent or 'that is best without training'}; version {now.version} compares it with "
                f"{now.incumbent or 'whatever is best without training'}: a person says whether that is enough."
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
