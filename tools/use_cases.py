"""Define a use case: every other call takes its objective and limits from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from speciate.promotion.requirements import RequirementChange, change_requirements, check_possible
from speciate.server.ahead import expect_data
from speciate.server.roots import check_refs
from speciate.server.tool_api import App, IdempotencyKey, NextAction, Result, once, tool
from speciate.use_cases import Definition, Gate, Objective, Suites, UseCaseLimits
from speciate.workspace.database import Transaction


class UseCaseDefined(Result):
    use_case: str
    version: int
    state: Literal["active", "needs_approval"] = Field(description="needs_approval: the version before stays in force.")
    clock_started_at: float
    changed: tuple[str, ...]
    gates: tuple[Gate, ...]
    needed_test_examples: int | None = Field(
        None,
        description="Test rows in all to show the target. plan_training knows the labels' shares, this does not: here "
        "for recall and the like rows of that label alone, for macro F1 a lower bound, as if labels were equally many. "
        "None: no target, or an error in the label's own unit.",
    )
    approval: str | None = None
    next_actions: tuple[NextAction, ...]

    @classmethod
    def of(cls, done: RequirementChange) -> UseCaseDefined:
        use_case = done.defined.use_case
        return cls(
            use_case=use_case.name,
            version=use_case.version,
            state="needs_approval" if done.approval else "active",
            clock_started_at=done.defined.clock_started_at,
            changed=done.defined.changed,
            gates=use_case.in_force,
            needed_test_examples=done.defined.needed_test_examples,
            approval=done.approval.id if done.approval else None,
            next_actions=(NextAction(tool="get_status", arguments={"use_case": use_case.name}),),
        )


@tool(idempotent=True)
def define_use_case(
    app: App,
    name: Annotated[str, Field(description="As in NAME@production.")],
    task: Annotated[str, Field(description="list_options(kind='task').")],
    objective: Annotated[
        Objective,
        Field(
            description="{metric: list_options(kind='metric'), target?: else only beat the incumbent, aim?: "
            "pass, or best: use the whole budget}."
        ),
    ],
    target_column: Annotated[str | None, Field(description="Default: the dataset's label.")] = None,
    positive_label: Annotated[str | None, Field(description="For recall, precision, f1.")] = None,
    limits: Annotated[
        UseCaseLimits | None,
        Field(
            description="Caps: {p95_latency_ms (one, warm), usd_per_1k, max_parameters, max_memory_mb, licenses "
            "[SPDX], offline}."
        ),
    ] = None,
    incumbent: Annotated[
        str | None, Field(description="In use today: a model, or 'column:NAME' of its answers.")
    ] = None,
    gates: Annotated[list[Gate] | None, Field(description="Beside objective and limits.")] = None,
    suites: Suites | None = None,
    description: Annotated[str, Field(max_length=2000, description="For people.")] = "",
    idempotency_key: IdempotencyKey = None,
) -> UseCaseDefined:
    """Say what a model must do; starts the clock. A changed repeat makes the next version.

    Loosening asks a person (policy auto: when promoting). Then create_dataset and specialize.
    """
    definition = Definition(
        name=name,
        task=task,
        objective=objective,
        target_column=target_column,
        positive_label=positive_label,
        limits=limits or UseCaseLimits(),
        incumbent=check_refs(app, incumbent),
        gates=tuple(gates or ()),
        suites=suites or Suites(),
        description=description,
    )

    check_possible(app.workspace, definition)
    expect_data(app)

    def step(tx: Transaction) -> UseCaseDefined:
        return UseCaseDefined.of(change_requirements(tx, definition, app.workspace.settings))

    return once(app, "define_use_case", definition.model_dump(), idempotency_key, step, answer=UseCaseDefined)
