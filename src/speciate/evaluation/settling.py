"""What would settle an inconclusive verdict: the calls that bring what its gates lack. Pure."""

from __future__ import annotations

from typing import Any

from speciate.errors import Call
from speciate.evaluation.reports.report import Decision, GateResult
from speciate.refs import dataset_ref
from speciate.sample_size import is_worth_collecting, more_of

_MEASURED_AGAIN = ("p95_latency_ms", "memory_mb")
"""Measures that a quieter machine, or another run, can tell."""


def settling_calls(decision: Decision, use_case: str, core: str | None) -> tuple[Call, ...]:
    """The calls, in their order; empty where nothing but another model helps, or where more rows than are worth
    collecting would be needed. `core`: the use case's core suite."""
    if decision.verdict != "inconclusive" or not decision.dataset:
        return ()
    doubts = [gate for gate in decision.gates if gate.outcome == "inconclusive"]
    again = _evaluate_again(decision, use_case)
    lacks_rows = decision.needed_examples is not None or any(gate.gate.rule == "fresh_rows" for gate in doubts)
    if not lacks_rows:
        return (again,) if not doubts or all(map(_can_be_measured_again, doubts)) else ()
    if not is_worth_collecting(decision.needed_examples, decision.rows):
        return ()  # nobody collects twenty times the rows for a difference that small
    ref = dataset_ref(decision.dataset)
    split = ref.split or "test"
    add = Call("add_examples", {"dataset": ref.name}, f"with {_how_many(decision, doubts)} of the split {split!r}")
    if decision.suite == "core" and core is not None and dataset_ref(core).version is not None:
        return (add._replace(purpose=f"{add.purpose}, and name its new version as suites.core of {use_case}"),)
    return add, again._replace(purpose="once they are there")


def document(call: Call) -> dict[str, Any]:
    """A call as a job's result has it."""
    return {**call.document(), **({"purpose": call.purpose} if call.purpose else {})}


def _how_many(decision: Decision, doubts: list[GateResult]) -> str:
    fresh = any(gate.gate.rule == "fresh_rows" for gate in doubts)
    if decision.needed_examples is None:
        return "fresh rows" if fresh else "rows"
    if decision.needed_groups is not None:
        return f"rows of at least {more_of(decision.needed_groups, decision.groups, 'groups')}"
    if fresh:  # those that there are count no more
        return f"at least {decision.needed_examples:,} fresh rows"
    return f"at least {more_of(decision.needed_examples, decision.rows, 'rows')}"


def _can_be_measured_again(gate: GateResult) -> bool:
    """Whether another evaluation may settle the gate. It may beside a free method that was fitted for another
    candidate, too: the next call names this one alone."""
    if gate.gate.rule == "free_method":
        return True
    return gate.gate.rule == "at_most" and gate.gate.metric in _MEASURED_AGAIN


def _evaluate_again(decision: Decision, use_case: str) -> Call:
    """The call that evaluates again, by the dataset's name alone, so that rows that joined take part; a suite of its
    own is named."""
    ref = dataset_ref(decision.dataset)
    arguments: dict[str, Any] = {"models": [decision.candidate], "use_case": use_case}
    if decision.suite != "core":
        return Call("evaluate_models", {**arguments, "suite": decision.suite})
    return Call("evaluate_models", {**arguments, "dataset": f"{ref.name}:{ref.split or 'test'}"})
