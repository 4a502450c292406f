"""Tags of versions, and removal of data: deletion, purge, garbage collection."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from speciate.datasets.tags import KIND as TAG
from speciate.datasets.tags import TagSpec
from speciate.errors import Code, SpeciateError
from speciate.governance.approvals import postponed
from speciate.privacy import deletion, gc, purge
from speciate.privacy.purge_datasets import Target
from speciate.refs import check_name, dataset_ref
from speciate.server.approval_questions import NeedsApproval, needs_approval
from speciate.server.tool_api import (  # fmt: skip
    App,
    DryRun,
    DryRunFlag,
    Estimate,
    IdempotencyKey,
    JobStarted,
    NextAction,
    make_spec,
    once,
    start_job,
    tool,
)
from speciate.workspace.database import Transaction

Action = Literal["delete", "purge", "gc", "tag", "untag"]


class TagResult(JobStarted):
    """Done. `dataset` is the version that the tag names or, after untag, named; `was` is the one before."""

    dataset: str
    tag: str
    was: str | None = None


@tool(destructive=True, idempotent=True)
def manage_data(
    app: App,
    action: Annotated[Action, Field(description="purge: rows, everywhere.")],
    ref: Annotated[str | None, Field(description="Dataset or model, name@v3 one version. Clash: model:NAME.")] = None,
    group: Annotated[str | None, Field(description="purge: a group_key of ref.")] = None,
    example: Annotated[str | None, Field(description="purge: an id of ref.")] = None,
    tag: Annotated[str | None, Field(description="As in dataset@TAG.")] = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> TagResult | JobStarted | NeedsApproval | DryRun:
    """Tag versions, delete unused ones, purge examples everywhere, or free disk space (gc).

    A person approves delete and purge: `speciate approve ID`. dry_run, and the first gc, list what goes. To leave rows
    out of one dataset, call curate_dataset.
    """
    _check_given(action, ref=ref, group=group, example=example, tag=tag)
    if action == "gc":
        return _collect_garbage(app, idempotency_key, dry_run=dry_run)
    assert ref is not None
    if action == "delete":
        return _delete(app, ref, idempotency_key, dry_run=dry_run)
    if action == "purge":
        return _purge(
            app, Target(dataset=_without_version(ref), group=group, example=example), idempotency_key, dry_run=dry_run
        )
    return _tag(app, make_spec(TagSpec, action=action, ref=ref, tag=tag), idempotency_key, dry_run=dry_run)


_TAKES = {
    "delete": ({"ref"}, set[str]()),
    "purge": ({"ref"}, {"group", "example"}),
    "gc": (set[str](), set[str]()),
    "tag": ({"ref", "tag"}, set[str]()),
    "untag": ({"ref", "tag"}, set[str]()),
}
"""Action -> the arguments that it needs, and those of which it needs exactly one."""


def _check_given(action: Action, **arguments: str | None) -> None:
    needed, one_of = _TAKES[action]
    given = {name for name, value in arguments.items() if value is not None}
    if given - needed - one_of or needed - given or (one_of and len(given & one_of) != 1):
        form = [*sorted(needed), *([f"one of {' and '.join(sorted(one_of))}"] if one_of else [])]
        got = ", ".join(sorted(given)) or "none"
        again = [f"action={action!r}", *(f"{name}=..." for name in sorted(needed))]
        again += [" or ".join(f"{name}=..." for name in sorted(one_of))] if one_of else []
        raise SpeciateError(
            Code.INVALID,
            f"action={action!r} takes {', '.join(form) or 'no more arguments'}; got {got}.",
            f"Call manage_data({', '.join(again)}) again.",
        )


def _without_version(ref: str) -> str:
    """A purge covers every version."""
    name = dataset_ref(ref).name
    if name != ref:
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} is one version, and a purge covers all of them.",
            f"Call again with ref={name!r}.",
        )
    return check_name("dataset", name)


def _tag(app: App, spec: TagSpec, idempotency_key: str | None, *, dry_run: bool) -> TagResult | JobStarted | DryRun:
    started = start_job(app, TAG, spec, idempotency_key=idempotency_key, dry_run=dry_run)
    if isinstance(started, DryRun):
        return started
    done = app.engine.get(started.job).result
    if done is None:
        return started
    describe = NextAction(tool="describe_dataset", arguments={"dataset": done["dataset"]})
    return TagResult(**started.model_dump(exclude={"next_actions"}), **done, next_actions=(describe,))


def _collect_garbage(app: App, idempotency_key: str | None, *, dry_run: bool) -> JobStarted | DryRun:
    announced = gc.announced(app.workspace.database) is not None
    if dry_run or not announced:
        survey = deletion.survey_with_surplus(app.workspace)
        found = survey.document()
        if not announced:  # before the first deletion in this workspace
            gc.announce(app.workspace, survey)
            found = {**found, "note": "Nothing was deleted. To delete this, call manage_data(action='gc')."}
        return DryRun(valid=True, estimate=Estimate(bytes=found["bytes"]), resolved=found)
    return start_job(app, gc.KIND, gc.GcSpec(), idempotency_key=idempotency_key)


def _delete(app: App, ref: str, idempotency_key: str | None, *, dry_run: bool) -> NeedsApproval | DryRun:
    doomed = postponed(lambda: deletion.resolve_versions(app.workspace, ref))
    if dry_run:
        app.workspace.database.transact(lambda tx: deletion.check_deletable(tx, doomed()))
        return DryRun(valid=True, estimate=Estimate(), resolved={"deletes": doomed().refs})

    def step(tx: Transaction) -> NeedsApproval:
        return needs_approval(tx, deletion.request_deletion(tx, doomed(), app.workspace.settings.approval_hours))

    arguments = {"action": "delete", "ref": ref}
    return once(app, "manage_data", arguments, idempotency_key, step, answer=NeedsApproval)


def _purge(app: App, target: Target, idempotency_key: str | None, *, dry_run: bool) -> NeedsApproval | DryRun:
    found = postponed(lambda: purge.survey(app.workspace, app.pool, target))
    if dry_run:
        return DryRun(valid=True, estimate=Estimate(), resolved=found().document())

    def step(tx: Transaction) -> NeedsApproval:
        return needs_approval(tx, purge.request_purge(tx, target, found(), app.workspace.settings.approval_hours))

    arguments = {"action": "purge", **target.model_dump()}
    return once(app, "manage_data", arguments, idempotency_key, step, answer=NeedsApproval)
