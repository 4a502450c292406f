"""Approvals: what waits, one with its evidence, and a person's answer: the same signed one as on the command line.

The key is opened in the browser's tab by the passphrase, which never leaves it. The daemon gets a signature of the
question that it asked, and checks it as it does the command line's. A page that shows an older hash decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from speciate.errors import Call, Code, SpeciateError
from speciate.governance import approvals as rows
from speciate.governance import authorization
from speciate.promotion import aliases
from speciate.server.web.pages.keys import passkeys_here, sealed_here, to_sign
from speciate.server.web.visit import Visit, field
from speciate.tools.promotion import list_approvals

_PAGE = 50
_State = Literal["pending", "approved", "denied", "expired", "void"]
_STATES = ("pending", "approved", "denied", "expired", "void", "all")


def listed(visit: Visit) -> Mapping[str, object]:
    state = visit.one_of("state", _STATES, "all")
    found = list_approvals(
        visit.app, state=None if state == "all" else cast(_State, state), limit=_PAGE, cursor=visit.asked("after")
    )
    return {
        "title": "Approvals", "approvals": found.approvals, "next": found.next_cursor, "note": found.note,
        "state_": state, "states": _STATES,
    }  # fmt: skip


def approval(visit: Visit) -> Mapping[str, object]:
    found = rows.get(visit.database, visit.path["id"])
    arguments = {name: value for name, value in found.arguments.items() if name != "note"}
    use_case = arguments.get("use_case")
    alias = aliases.read(visit.database, use_case) if isinstance(use_case, str) else None
    authority = authorization.authority_of(visit.app.workspace)
    marks = {key.public: key.fingerprint for key in authority.keys.values()}
    return {
        "title": f"Approval {found.id}",
        "approval": found,
        "state_": found.state_at(visit.now),
        "arguments": arguments,
        "note": found.arguments.get("note") or "",
        "evidence": found.evidence,
        "interval": found.evidence.get("interval"),
        "serving": alias.model if alias else None,
        "signed": authority.required or visit.front.team,
        "worth": authority.sentence(),
        "problems": authority.problems,
        "sealed": sealed_here(visit, marks),
        "passkeys": passkeys_here(visit, list(authority.keys.values())),
        "enrolled": sorted(key.name for key in authority.keys.values()),
    }


def use_case(visit: Visit) -> str | None:
    """The one that an approval is about."""
    found = rows.get(visit.database, visit.path["id"]).arguments.get("use_case")
    return found if isinstance(found, str) else None


def question(visit: Visit) -> Mapping[str, object]:
    """The bytes to be signed for this answer, and what of this browser can sign; nothing is decided by asking.

    Raises CONFLICT where the approval is not the one that was shown, or was answered.
    """
    action, shown = _answer(visit), _shown(visit)
    about = {"action": action, "id": shown.id, "hash": shown.hash}
    return to_sign(visit, visit.perform("question", about=about))


def answer(visit: Visit) -> Mapping[str, object]:
    """Approve or deny, as `speciate approve` does."""
    action, shown = _answer(visit), _shown(visit)
    fields: dict[str, object] = {"id": shown.id, "hash": shown.hash}
    if signature := visit.form.get("signature"):
        fields["signed"] = {
            "challenge": field(visit, "challenge"), "key": field(visit, "key"), "signature": signature,
        }  # fmt: skip
    elif not authorization.authority_of(visit.app.workspace).required and field(visit, "typed") != "yes":
        raise SpeciateError(Code.REFUSED, "Without an enrolled key an answer is a typed yes.", "Type yes.")
    made = visit.perform(action, **fields)
    use_case = shown.arguments.get("use_case")
    return {
        "state": made["state"], "reason": made["reason"],
        "next": f"/use-cases/{use_case}/production" if made["result"] and use_case else f"/approvals/{shown.id}",
    }  # fmt: skip


def _answer(visit: Visit) -> str:
    action = field(visit, "answer")
    if action not in ("approve", "deny"):
        raise SpeciateError(Code.INVALID, "The answer is approve or deny.", "Load the page again.")
    return action


def _shown(visit: Visit) -> rows.Approval:
    """The approval, if the page showed it as it is."""
    found = rows.get(visit.database, visit.path["id"])
    if field(visit, "hash") != found.hash:
        raise SpeciateError(Code.CONFLICT, "What was shown is not what would be decided.", "Load the page again.")
    if (state := found.state_at(visit.now)) != rows.PENDING:
        raise SpeciateError(
            Code.CONFLICT,
            f"This approval is {state}{f', by {found.decided_by}' if found.decided_by else ''}: each is answered once.",
            "Load the page again.",
            next=[Call("list_approvals")],
        )
    return found
