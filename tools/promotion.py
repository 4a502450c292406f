"""Promote a model, roll back, and list approvals."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from speciate.governance import approval_keys, approvals
from speciate.promotion import promote
from speciate.promotion.evidence import PromoteSpec
from speciate.promotion.rollback import roll_back
from speciate.server.tool_api import (  # fmt: skip
    App,
    Cursor,
    DryRun,
    DryRunFlag,
    IdempotencyKey,
    Limit,
    Result,
    fitting,
    make_spec,
    once,
    start_job,
    tool,
)
from speciate.workspace.database import Transaction


class RolledBack(Result):
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)  # `from` is a keyword
    before: str = Field(alias="from")
    to: str
    audit: str = Field(description="Hash of the audit row.")


class Note(Result):
    note: str = ""
    """The caller's note for the person, unchecked."""


class Approval(Result):
    id: str
    action: str
    state: str
    arguments: dict[str, Any]
    evidence: dict[str, Any]
    expires: float
    decided_by: str | None = None
    untrusted: Note = Note()


class Approvals(Result):
    approvals: tuple[Approval, ...]
    next_cursor: str | None = None
    note: str


class ApprovalRequest(Result):
    id: str
    expires: float
    how: str


class Promotion(Result):
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)
    job: str
    state: Literal["applied", "needs_approval"]
    decision: dict[str, Any] | None = None
    reasons: tuple[str, ...]
    approval: ApprovalRequest | None = None
    before: str | None = Field(None, alias="from")
    to: str | None = None
    canary_percent: float | None = Field(None, description="Of the requests, where it is a canary.")
    audit: str | None = None


@tool(idempotent=True)
def promote_model(
    app: App,
    use_case: Annotated[str, Field(description="Which it will serve.")],
    model: Annotated[str, Field(description="name or name@v3, as evaluated.")],
    evaluation: Annotated[
        str | None, Field(description="With the decision; default: the newest on the core suite.")
    ] = None,
    expected_current: Annotated[str | None, Field(description="Believed to serve, or 'nothing'.")] = None,
    canary_percent: Annotated[float, Field(gt=0, le=100, description="Of a deployment's requests; 100: all.")] = 100,
    note: Annotated[str, Field(max_length=500, description="To the person who approves.")] = "",
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> Promotion | DryRun:
    """Let a model that passed its gates serve USE_CASE@production. Without a decision, call evaluate_models first.

    State needs_approval: a person decides on a terminal. The bake rolls it back if it breaks limits; rollback_model
    does so now.
    """
    spec = make_spec(
        PromoteSpec, use_case=use_case, model=model, evaluation=evaluation, expected_current=expected_current,
        note=note, actor=app.caller.client, canary_percent=canary_percent,
    )  # fmt: skip
    if not spec.is_canary:
        spec.model_fields_set.discard(
            "canary_percent"
        )  # stored specs leave it out, and a key's calls are compared by them
    started = start_job(app, promote.KIND, spec, idempotency_key=idempotency_key, dry_run=dry_run)
    if isinstance(started, DryRun):
        return _with_outcome(started, promote.dry_run(app.workspace, spec))
    found = promote.result(app.engine.wait(started.job, timeout=20))
    if found.state == "refused":
        raise promote.refusal(found)
    return Promotion(job=started.job, **found.document())


def _with_outcome(checked: DryRun, found: promote.PromotionResult) -> DryRun:
    """What the same call without `dry_run` would do now: valid where it would not be refused."""
    resolved = {**checked.resolved, "outcome": found.document()}
    return checked.model_copy(update={"valid": found.state != "refused", "resolved": resolved})


@tool(destructive=True, idempotent=True)
def rollback_model(
    app: App,
    use_case: Annotated[str, Field(description="Which it serves.")],
    reason: Annotated[str, Field(max_length=500, description="Why, for the audit.")],
    expected_current: Annotated[
        str | None,
        Field(description="Believed to serve; a canary's ends it. Default: promoted last."),
    ] = None,
    to: Annotated[str | None, Field(description="Default: the version before.")] = None,
    idempotency_key: IdempotencyKey = None,
) -> RolledBack:
    """Serve a version again that served before, at once. For a better model instead, call specialize.

    A repeat without expected_current moves nothing.
    """
    arguments = {"use_case": use_case, "expected_current": expected_current, "reason": reason, "to": to}

    def step(tx: Transaction) -> RolledBack:
        done = roll_back(tx, use_case, expected=expected_current, to=to, reason=reason, actor=app.caller.client)
        return RolledBack(before=done.before, to=done.after, audit=done.audit)

    return once(app, "rollback_model", arguments, idempotency_key, step, answer=RolledBack)


@tool(read_only=True)
def list_approvals(
    app: App,
    state: Annotated[
        Literal["pending", "approved", "denied", "expired", "void"] | None, Field(description="Only these.")
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Approvals:
    """List pending and past approvals, with their evidence. To ask for one, call promote_model or manage_data.

    No tool approves: a person runs `speciate approve ID` on a terminal.
    """
    now = app.workspace.clock.now()
    page = approvals.page(app.workspace.database, now, state, limit=limit, cursor=cursor)
    shown = tuple(
        Approval(
            id=item.id,
            action=item.action,
            state=item.state_at(now),
            evidence=item.evidence,
            expires=item.expires,
            arguments={key: value for key, value in item.arguments.items() if key != "note"},
            decided_by=item.decided_by,
            untrusted=Note(note=item.arguments.get("note") or ""),
        )
        for item in page.approvals
    )
    most = fitting(shown, limit)
    return Approvals(
        approvals=shown[:most],
        next_cursor=page.next_cursor if most == len(shown) else shown[most - 1].id,
        note=approval_keys.approval_strength_here(app.workspace.database),
    )  # fmt: skip
