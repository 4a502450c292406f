"""Which events a person is told of, and in which words. Pure.

A notice holds no text of others: names are cleaned, reasons and errors are left out, and `get_status` has them.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from speciate.settings import Notify
from speciate.workspace.database import Event

Kind = Literal["waiting", "job", "rollback", "canary", "refused", "bake", "disk"]
_STRANGE = re.compile(r"[^\w@.:/-]")
_LONGEST_NAME = 96
ENDS = {
    "job.succeeded": "succeeded", "job.failed": "failed", "job.dead": "was given up", "job.cancelled": "was cancelled",
}  # fmt: skip
_UNWANTED = {"job.failed", "job.dead"}


class Notice(NamedTuple):
    id: str
    """The same for the same event, so that who gets it twice can tell."""
    at: float
    kind: Kind
    text: str
    """A sentence."""
    subject: str
    data: dict[str, str]


def notice_of(event: Event, notify: Notify, workspace: str) -> Notice | None:
    """What to tell of an event; None where it is of no interest. `workspace`: what the notices' ids begin with. Ends of
    jobs bring their `kind`; those of a composite's children, with their `parent`, are told by the composite's end."""
    said = _said(event, notify)
    if said is None:
        return None
    kind, text, data = said
    return Notice(f"{workspace}-{event.seq}", event.at, kind, text, _name(event.subject), data)


def _said(event: Event, notify: Notify) -> tuple[Kind, str, dict[str, str]] | None:
    data, use_case = event.data, _name(event.subject.removeprefix("use_case:"))
    named = {key: _name(data[key]) for key in _NAMES if isinstance(data.get(key), str)}
    if event.type == "approval.requested":
        approval = named.get("approval", "")
        text = f"{use_case}: {named.get('action', 'something')} waits for a person: speciate approve {approval}"
        return "waiting", text, named
    if event.type in ENDS:
        if data.get("parent") or notify.jobs == "none" or (notify.jobs == "failed" and event.type not in _UNWANTED):
            return None
        return "job", f"{named.get('kind', 'A job')} {_name(event.subject)} {ENDS[event.type]}.", named
    if event.type == "alias.moved" and data.get("action") == "rollback":
        who = f"the bake took {named.get('before')} back" if data.get("actor") == "bake" else "it was rolled back"
        return "rollback", f"{use_case} is served by {named.get('after')} again: {who}.", named
    if event.type == "canary.ended":
        how = "was taken back by the bake" if data.get("actor") == "bake" else "was ended"
        return "canary", f"{use_case}: the canary {named.get('model')} {how}.", named
    if event.type == "canary.survived":
        return "canary", f"{use_case}: the canary {named.get('model')} held; it waits to get all requests.", named
    if event.type == "slot.refused":
        return "refused", f"{use_case}: the slot did not let {named.get('model')} serve; get_status says why.", named
    if event.type == "bake.broken":
        return "bake", f"{use_case}: {named.get('model')} breaks its limits and was left serving; get_status.", named
    if event.type == "disk.low":
        return "disk", "The disk is nearly full: runs stopped at a checkpoint and wait; get_status says what to do.", {}
    if event.type == "disk.enough":
        return "disk", "The disk has room again: runs go on.", {}
    return None


_NAMES = ("approval", "action", "kind", "before", "after", "model", "alias", "audit")


def _name(text: Any) -> str:
    """Letters, digits and the signs of names alone."""
    return _STRANGE.sub("_", str(text))[:_LONGEST_NAME]
