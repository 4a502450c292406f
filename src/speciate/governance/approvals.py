"""Questions to a person: one action, with its exact arguments and evidence, asked by tools and answered elsewhere.

An approval is bound to the hash of what it shows, so what a person saw is what happens. It is used once, and it
expires. Nothing in the surface of tools leads to `decide`: the command line calls it on a terminal.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, TypeVar

from speciate.errors import Call, CallAgain, Code, SpeciateError, unknown
from speciate.governance import audit
from speciate.governance.audit import Evidence
from speciate.refs import new_id
from speciate.workspace.database import Database, Row, Transaction
from speciate.workspace.workspace import Workspace

ACTIONS = {
    "promote": "speciate.promotion.promote:apply_approved",
    "define_use_case": "speciate.use_cases:apply_approved",
    "purge": "speciate.privacy.purge:apply_approved",
    "delete": "speciate.privacy.deletion:apply_approved",
    "convert": "speciate.models.fetch:apply_approved",
}
"""Action -> `function(tx, arguments, by) -> result` that does it once a person approved. It checks everything again and
raises SpeciateError if something changed since."""

Found = TypeVar("Found")
_NOTHING: Mapping[str, Any] = MappingProxyType({})

PENDING, APPROVED, DENIED, EXPIRED, VOID = "pending", "approved", "denied", "expired", "void"

_COLUMNS = "id, action, arguments, evidence, hash, state, created, expires, decided_by, decided_at"
_INSERT = "INSERT INTO approvals VALUES (?, ?, ?, ?, ?, 'pending', ?, ?, NULL, NULL)"
_GET = f"SELECT {_COLUMNS} FROM approvals WHERE id = ?"
_SAME = (
    f"SELECT {_COLUMNS} FROM approvals WHERE hash = ? AND state = 'pending' AND expires > ? ORDER BY created LIMIT 1"
)
_WAITING = f"""
SELECT {_COLUMNS} FROM approvals
WHERE action = ? AND arguments ->> 'use_case' = ? AND arguments ->> 'model' = ? AND state = 'pending' AND expires > ?
ORDER BY created
"""
_LIST = f"SELECT {_COLUMNS} FROM approvals ORDER BY created DESC, id LIMIT 1000"
_PENDING = f"SELECT {_COLUMNS} FROM approvals WHERE state = 'pending'"
_EXPIRE = "UPDATE approvals SET state = 'expired' WHERE id = ? AND state = 'pending' RETURNING id"
_IDS = "SELECT id FROM approvals"
_DECIDE = "UPDATE approvals SET state = ?, decided_by = ?, decided_at = ? WHERE id = ?"


ApprovalArguments = Mapping[str, Any]
"""What would be done, as JSON; the approved action validates it."""
ApprovedAction = Callable[[Transaction, ApprovalArguments, str], Mapping[str, object]]
"""(tx, arguments, who approved) -> what was done."""


class Approval(NamedTuple):
    id: str
    action: str
    arguments: ApprovalArguments
    evidence: Evidence
    hash: str
    state: str
    created: float
    expires: float
    decided_by: str | None = None
    decided_at: float | None = None

    def state_at(self, now: float) -> str:
        return EXPIRED if self.state == PENDING and now >= self.expires else self.state


class Page(NamedTuple):
    approvals: list[Approval]
    next_cursor: str | None


class ApprovalOutcome(NamedTuple):
    """`result` is what the action returned; None where it was denied or could no longer be done."""

    approval: Approval
    result: Mapping[str, object] | None
    reason: str = ""


def fingerprint(action: str, arguments: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([action, arguments, evidence], sort_keys=True).encode()).hexdigest()


def postponed(function: Callable[[], Found]) -> Callable[[], Found]:
    """Call now, outside any transaction, and raise only when the answer is asked for.

    A repeated call with its key needs no answer: what it was about may be gone by then.
    """
    try:
        found = function()
    except SpeciateError as error:
        return partial(_raise, error)
    return lambda: found


def _raise(error: SpeciateError) -> NoReturn:
    raise error


def request(
    tx: Transaction, action: str, arguments: ApprovalArguments, evidence: Evidence, *, subject: str, hours: float
) -> Approval:
    """Ask a person. A pending question is not asked again, whoever asks and whatever the note.

    The same question: the same action for the same model and use case, by the same decision; where no model is in it,
    the same in all. One by another decision takes its place.
    `subject` is what the event is about.
    """
    digest = fingerprint(action, arguments, evidence)
    for waiting in _same_requests(tx, action, arguments):
        if waiting.arguments.get("decision") == arguments.get("decision"):
            return waiting
        _close(tx, waiting, VOID, "")  # a person would decide by another decision than the caller was shown
    if rows := tx.execute(_SAME, [digest, tx.now]):
        return _approval(rows[0])
    approval = Approval(new_id("approval"), action, arguments, evidence, digest, PENDING, tx.now, tx.now + 3600 * hours)
    shown = [json.dumps(arguments), json.dumps(evidence)]
    tx.execute(_INSERT, [approval.id, action, *shown, digest, approval.created, approval.expires])
    tx.event(subject, "approval.requested", {"approval": approval.id, "action": action, "expires": approval.expires})
    return approval


def get(database: Database, id: str) -> Approval:  # noqa: A002 - the column
    row = database.read_one(_GET, [id])
    if row is None:
        raise unknown("approval", id, [name for (name,) in database.read(_IDS)], next=[Call("list_approvals")])
    return _approval(row)


def list_approvals(database: Database, now: float, state: str | None = None) -> list[Approval]:
    """Newest first. `state` counts an unanswered one past its time as expired."""
    found = [_approval(row) for row in database.read(_LIST)]
    return [approval for approval in found if state is None or approval.state_at(now) == state]


def page(database: Database, now: float, state: str | None, *, limit: int, cursor: str | None) -> Page:
    """`listed`, in pieces; `cursor` is the id that the page before ended with. Raises INVALID for any other."""
    found = list_approvals(database, now)
    if cursor is not None:
        found = found[_place_of(cursor, found) + 1 :]
    rest = [approval for approval in found if state is None or approval.state_at(now) == state]
    shown = rest[:limit]
    return Page(shown, shown[-1].id if len(rest) > limit else None)


def _place_of(cursor: str, found: list[Approval]) -> int:
    for place, approval in enumerate(found):
        if approval.id == cursor:
            return place
    raise SpeciateError(
        Code.INVALID,
        f"{cursor!r} is no cursor of list_approvals.",
        next=[CallAgain("list_approvals", {"cursor": None})],
    )


def decide(
    workspace: Workspace,
    id: str,  # noqa: A002
    approve: bool,
    by: str,
    proof: Mapping[str, Any] = _NOTHING,
) -> ApprovalOutcome:
    """A person's answer, and, where it is yes, the action itself, in one transaction. A signed answer (`signed` in
    `proof`) has a row of its own in the audit, after those of what it led to.

    Raises CONFLICT for an approval that was answered or has expired, and REFUSED where its row no longer matches the
    hash that it was asked with.
    """
    approval = get(workspace.database, id)
    action = _action(approval.action)
    passed = workspace.elapsed.most(approval.created)  # the clock may have been set back behind its end

    def answer(tx: Transaction) -> ApprovalOutcome:
        current = _approval(tx.execute(_GET, [id])[0])
        _check_open(current, max(tx.now, current.created + passed))
        if not approve:
            return ApprovalOutcome(_close(tx, current, DENIED, by, proof), None, f"denied by {by}")
        try:
            result = action(tx, current.arguments, by)
        except SpeciateError as error:
            return ApprovalOutcome(_close(tx, current, VOID, by, proof), None, str(error))
        approved = _close(tx, current, APPROVED, by, proof)
        for twin in _same_requests(tx, current.action, current.arguments):
            _close(tx, twin, VOID, by)  # what it asks for is done
        return ApprovalOutcome(approved, result)

    return workspace.database.transact(answer)


def expire(workspace: Workspace) -> list[str]:
    """Mark what nobody answered in its time, by the clock or by the time that has passed: a clock that goes back later
    revives none of them. Their ids."""
    waiting = [_approval(row) for row in workspace.database.read(_PENDING)]
    now = workspace.clock.now()
    over = [
        each.id
        for each in waiting
        if now >= each.expires or workspace.elapsed.most(each.created) >= each.expires - each.created
    ]
    if not over:
        return []

    def mark(tx: Transaction) -> list[str]:
        marked = []
        for name in over:
            if tx.execute(_EXPIRE, [name]):
                tx.event(f"approval:{name}", "approval.expired", {})
                marked.append(name)
        return marked

    return workspace.database.transact(mark)


def withdraw(tx: Transaction, action: str, use_case: str, model: str, by: str) -> None:
    """Whatever waits to do this with that model is void: what it shows leaves out what has happened since."""
    for waiting in _pending_for(tx, action, use_case, model):
        _close(tx, waiting, VOID, by)


def withdraw_changed(tx: Transaction, ids: Collection[str]) -> None:
    """Void those of `ids` that wait, after a purge took words out of what they show."""
    for row in tx.execute(_PENDING):
        if row[0] in ids:
            _close(tx, _approval(row), VOID, "")


def _same_requests(tx: Transaction, action: str, arguments: Mapping[str, Any]) -> list[Approval]:
    """What waits to do the same with the same model and share of the requests, oldest first."""
    if arguments.get("use_case") is None or arguments.get("model") is None:
        return []
    waiting = _pending_for(tx, action, arguments["use_case"], arguments["model"])
    return [twin for twin in waiting if _percent_of(twin.arguments) == _percent_of(arguments)]


def _pending_for(tx: Transaction, action: str, use_case: str, model: str) -> list[Approval]:
    """Oldest first."""
    return [_approval(row) for row in tx.execute(_WAITING, [action, use_case, model, tx.now])]


def _percent_of(arguments: Mapping[str, Any]) -> float:
    return float(arguments.get("canary_percent", 100))


def _approval(row: Row) -> Approval:
    return Approval(row[0], row[1], json.loads(row[2]), json.loads(row[3]), *row[4:])


def _action(name: str) -> ApprovedAction:
    if name not in ACTIONS:
        raise unknown("action", name, ACTIONS, "This approval was asked by another version of speciate.")
    module, _, attribute = ACTIONS[name].partition(":")
    function: ApprovedAction = getattr(importlib.import_module(module), attribute)
    return function


def _check_open(approval: Approval, now: float) -> None:
    state = approval.state_at(now)
    if state != PENDING:
        raise SpeciateError(
            Code.CONFLICT,
            f"Approval {approval.id!r} is {state}: each is answered once, before it expires.",
            "Ask for the action again; it makes a new approval.",
        )
    if fingerprint(approval.action, approval.arguments, approval.evidence) != approval.hash:
        raise SpeciateError(
            Code.REFUSED,
            f"Approval {approval.id!r} no longer says what it said when it was asked: its row was changed.",
            "Ask for the action again, and find out who writes to the catalog.",
        )


def _close(tx: Transaction, approval: Approval, state: str, by: str, proof: Mapping[str, Any] = _NOTHING) -> Approval:
    tx.execute(_DECIDE, [state, by, tx.now, approval.id])
    told = {"state": state, "by": by, "action": approval.action}
    if "signed" in proof:
        row = audit.append_row(
            tx, actor=by, action="deny" if state == DENIED else "approve",
            use_case=str(approval.arguments.get("use_case") or audit.WORKSPACE), before=None, after=state,
            evidence={"approval": approval.id, **proof},
        )  # fmt: skip
        told["audit"] = row.hash
    tx.event(f"approval:{approval.id}", "approval.decided", told)
    return approval._replace(state=state, decided_by=by, decided_at=tx.now)
