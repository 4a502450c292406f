"""The state of the workspace: use cases, jobs, approvals and disk."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from speciate.governance import approval_keys
from speciate.governance.roles import Act
from speciate.loop.status import UseCaseStatus, status
from speciate.server.next_actions import first_steps
from speciate.server.tool_api import App, NextAction, Result, tool
from speciate.serving import deployments


class Clock(Result):
    state: Literal["open", "provisional", "done"] = Field(
        description="provisional: a model answers and its bake is not over."
    )
    seconds: float
    stages: dict[str, float] = Field(
        description="data, queue, train, evaluate, person, deploy, idle; adds up to seconds."
    )
    model: str | None = None


class DeploymentView(Result):
    """The process that serves it over HTTP."""

    state: Literal["serving", "loading", "refused", "failed", "starting", "stopped"]
    serving: str | None = Field(None, description="Version that answers now; if one is refused, the version before it.")
    loading: str | None = None
    refused: str | None = Field(None, description="Production version that failed its trial, and why.")
    problem: str | None = None
    canary: str | None = Field(None, description="Version beside it, with its share; or why it was refused.")
    url: str | None = None
    overloaded: int = Field(0, description="Requests since the last move that found no room or no turn: load alone.")


class CanaryView(Result):
    model: str
    percent: float = Field(description="Of the requests of its deployment.")
    bake: Literal["provisional", "survived", "broken"]


class RollbackView(Result):
    model: str
    alias: Literal["production", "canary"]
    at: float
    reasons: tuple[str, ...]


class WatchView(Result):
    state: str = Field(description="paused, idle, mining, labelling, checking, learning, asking or baking.")
    because: str
    since: float
    labels_waiting: int = Field(0, description="Answers that its episode asks people about.")
    not_promised: str | None = Field(None, description="What its alarms do not promise, and what mends that.")


class UseCaseView(Result):
    name: str
    version: int
    task: str
    production: str | None = None
    bake: Literal["provisional", "survived", "broken"] | None = Field(
        None, description="Of the production version; broken: over a limit, and a person decides."
    )
    canary: CanaryView | None = None
    taken_back: RollbackView | None = Field(None, description="By the bake, and why; until something moves again.")
    previous: str | None = None
    slot: DeploymentView | None = None
    time_to_model: Clock
    running_jobs: tuple[str, ...]
    paused_jobs: tuple[str, ...] = ()
    waiting_for_person: tuple[str, ...]
    watch: WatchView | None = Field(None, description="speciate://use-cases/NAME/watch has more.")
    next_actions: tuple[NextAction, ...]

    @classmethod
    def of(cls, found: UseCaseStatus, deployment: deployments.DeploymentView | None) -> UseCaseView:
        clock = found.time_to_model
        shown = (
            DeploymentView(**{name: getattr(deployment, name) for name in DeploymentView.model_fields})
            if deployment
            else None
        )
        return cls(
            name=found.name, version=found.version, task=found.task, production=found.production,
            bake=found.bake, canary=CanaryView(**found.canary._asdict()) if found.canary else None,
            taken_back=RollbackView(**found.taken_back._asdict()) if found.taken_back else None,
            slot=shown, previous=found.previous, running_jobs=tuple(found.running_jobs),
            paused_jobs=tuple(found.paused_jobs),
            waiting_for_person=tuple(found.waiting_for_person),
            watch=WatchView(**found.watch._asdict()) if found.watch else None,
            time_to_model=Clock(state=clock.state, seconds=clock.seconds, stages=clock.stages, model=clock.model),
            next_actions=tuple(NextAction(tool=step.tool, arguments=step.arguments) for step in found.next_steps),
        )  # fmt: skip


class DiskView(Result):
    total: int
    free: int
    catalog: int
    floor: int = Field(description="With less free, runs stop at a checkpoint and wait.")
    quota: int | None = None
    used: int | None = Field(None, description="By the workspace, where it has a quota.")
    low: bool = False


class StatusView(Result):
    workspace: str = Field(description="Its folder.")
    use_cases: tuple[UseCaseView, ...]
    models_deployed_30d: int = Field(description="That survived their bake.")
    models_baking_30d: int
    change_failure_rate: float | None = None
    seconds_to_recover: float | None = None
    disk: DiskView
    alerts: tuple[str, ...] = ()
    approvals: str
    next_actions: tuple[NextAction, ...] = ()


@tool(read_only=True)
def get_status(app: App, use_case: Annotated[str | None, Field(description="Default: all.")] = None) -> StatusView:
    """Show use cases with clock, production and next call, running jobs, pending approvals, disk: where to begin.

    For one job, call get_job; for datasets, describe_dataset.
    """
    return status_view(app, use_case, sees_settings=app.caller.may(Act.INSPECT))


def status_view(app: App, use_case: str | None = None, *, sees_settings: bool = True) -> StatusView:
    """`sees_settings`: else no folder or host of this machine is named."""
    found = status(app.workspace, use_case, sees_settings=sees_settings)
    root = app.workspace.folders.root
    return StatusView(
        workspace=str(root) if sees_settings else root.name,
        use_cases=tuple(
            UseCaseView.of(item, deployments.deployment_of(app.workspace.folders, item.name))
            for item in found.use_cases
        ),
        models_deployed_30d=found.deliveries.models_deployed_30d,
        models_baking_30d=found.deliveries.models_baking_30d,
        change_failure_rate=found.deliveries.change_failure_rate,
        seconds_to_recover=found.deliveries.seconds_to_recover,
        disk=DiskView(**found.disk._asdict()),
        alerts=tuple(found.alerts),
        approvals=approval_keys.approval_strength_here(app.workspace.database),
        next_actions=() if found.use_cases else first_steps(app.workspace.database),
    )
