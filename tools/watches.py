"""Watch a use case: what makes it a continual-learning loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from speciate import use_cases
from speciate.errors import Call, Code, SpeciateError
from speciate.loop.watch import circles, rows, steps
from speciate.loop.watch.definition import Policy, Trigger, Watch, check
from speciate.loop.watch.report import WatchReport, report
from speciate.promotion import aliases
from speciate.server.tool_api import App, IdempotencyKey, NextAction, Result, once, tool
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace


class BudgetView(Result):
    minutes: float
    usd: float
    labels: int


class WatchSet(Result):
    watch: str
    triggers: tuple[str, ...]
    state: str = Field(description="paused, idle, mining, labelling, checking, learning, asking or baking.")
    because: str
    next_look: float
    budget_left: BudgetView = Field(description="Of this month; a person's caps included.")
    next_actions: tuple[NextAction, ...] = ()

    @classmethod
    def of(cls, found: WatchReport, notes: Sequence[str] = ()) -> WatchSet:
        """`notes`: what the caller may not have meant."""
        left, then = found.budget_left, NextAction(tool="get_status", arguments={"use_case": found.use_case})
        return cls(
            watch=found.use_case, triggers=found.triggers, state=found.state,
            because="; ".join((found.because, *notes)), next_look=found.next_look, next_actions=(then,),
            budget_left=BudgetView(minutes=left.minutes, usd=left.usd, labels=left.labels),
        )  # fmt: skip


class _Stored(Result):
    """What a repeat by a key remembers; how the watch stands is read anew."""

    watch: str


@tool(idempotent=True)
def watch_use_case(
    app: App,
    use_case: Annotated[str, Field(description="With a model in production.")],
    triggers: Annotated[
        list[Trigger],
        Field(
            max_length=20,
            description="{on: new_labels, n}, {on: schedule, cron, zone}; on: data_shift, now, quality_regression, "
            "limit_breach, requirement_change, new_base_model, provider_change, label_disagreement, recall.",
        ),
    ],
    policy: Annotated[
        Policy | None,
        Field(description="{action: propose or auto, cooldown_hours; a month: budget_minutes, budget_usd, labels}."),
    ] = None,
    enabled: Annotated[bool, Field(description="false pauses it.")] = True,
    idempotency_key: IdempotencyKey = None,
) -> WatchSet:
    """Keep a use case's model right: look again when a trigger fires, ask for labels, train, propose or promote.

    Replaces its watch. `now` begins one episode. For one run without a watch, call specialize. Then get_status; labels
    by record_feedback.
    """
    watch = Watch(use_case=use_case, triggers=tuple(triggers), policy=policy or Policy())
    workspace = app.workspace
    use_cases.get(workspace.database, use_case)
    check(watch, workspace.clock.now())
    if enabled:
        _check_served(workspace, use_case)
        _check_no_circle(workspace, use_case)

    notes = list[str]()
    if enabled and (sent := steps.groups_to_send(workspace, use_case)) is not None:
        notes.append(sent)
    if watch.policy.capped(workspace.settings.watch) != watch.policy:
        notes.append("a person's caps hold it to less than was asked for")

    def step(tx: Transaction) -> _Stored:
        before, client = rows.get(tx, use_case), app.caller.client
        paused = None if before is None or before.enabled else before.by
        if before is not None and before.watch != watch:
            notes.append("it replaces triggers and policy of before")
        if enabled and paused not in (None, client):
            raise _stays_paused(use_case, str(paused))
        by = client if enabled or paused is None else paused  # a pause stays that of whoever began it
        rows.define(tx, watch, enabled=enabled, by=by, asked=enabled and watch.has("now"))
        return _Stored(watch=use_case)

    arguments = {**watch.model_dump(mode="json"), "enabled": enabled}
    once(app, "watch_use_case", arguments, idempotency_key, step, answer=_Stored)
    return WatchSet.of(report(workspace, use_case), notes)


def _stays_paused(use_case: str, paused: str) -> SpeciateError:
    return SpeciateError(
        Code.CONFLICT,
        f"The watch of {use_case!r} was paused by {paused}, and no other caller ends that.",
        f"A person goes on with it: speciate watch resume {use_case}",
    )


def _check_served(workspace: Workspace, use_case: str) -> None:
    if aliases.read(workspace.database, use_case) is None:
        raise SpeciateError(
            Code.CONFLICT,
            f"Nothing is in production for {use_case!r}, so there is nothing to watch.",
            next=[Call("get_status", {"use_case": use_case}, ", which says what brings a first model into production")],
        )


def _check_no_circle(workspace: Workspace, use_case: str) -> None:
    """Refuse a watch whose incumbent or teacher is what another watch trains, which again leans on this one: each would
    take the other's promotions for news."""
    found = circles.circle(circles.leanings(workspace.database, workspace.settings.watch.teachers), use_case)
    if found:
        raise SpeciateError(
            Code.INVALID,
            f"The watches of {', '.join(map(repr, found))} would feed one another: what one promotes is what "
            "another learns from or is compared with.",
            next=[Call("watch_use_case", {"use_case": found[-1], "triggers": [], "enabled": False})],
        )
