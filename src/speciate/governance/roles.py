"""Which role may do what: the one table, for the pages and for MCP over HTTP.

Every route of the pages and every tool names an act; what names none is refused. To answer an approval takes the act
and, beside it, a signature of exactly that question by an enrolled key: no role replaces it (docs/design/teams.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, get_args


class Act(StrEnum):
    LOOK = "look"
    INSPECT = "see settings, and who asked for what"
    LABEL = "label answers"
    ROLL_BACK = "roll back"
    ANSWER = "answer approvals, by an enrolled key"
    ENROLL = "make a passkey"
    RUN = "stop and resume runs"
    WATCH = "switch watches"
    WORK = "call every other tool"
    REOPEN = "decide again, by an enrolled key"


Role = Literal["viewer", "labeller", "approver", "admin"]
"""Role that a token gives."""
ROLES: tuple[Role, ...] = get_args(Role)
Level = Literal["look", "decide"]
"""Level of a session on this machine, which a person at a terminal opened."""

_VIEWER = frozenset({Act.LOOK})
_LABELLER = _VIEWER | {Act.LABEL}
_APPROVER = _LABELLER | {Act.ROLL_BACK, Act.ANSWER, Act.ENROLL}
_ADMIN = frozenset(Act) - {Act.REOPEN}
ACTS: Mapping[Role | Level, frozenset[Act]] = {
    "viewer": _VIEWER,
    "labeller": _LABELLER,
    "approver": _APPROVER,
    "admin": _ADMIN,
    "look": frozenset({Act.LOOK, Act.INSPECT, Act.REOPEN}),
    "decide": (_ADMIN - {Act.WORK}) | {Act.REOPEN},
}

ON_A_USE_CASE = frozenset({Act.LABEL, Act.ROLL_BACK, Act.ANSWER})
"""Acts on one use case, which a token for some use cases has for these alone."""
SCOPED: tuple[Role, ...] = ("labeller", "approver")
"""Roles whose changes are all on one use case, but for a passkey, whose enrollment an enrolled key signs."""

_TOOLS = {
    "record_feedback": Act.LABEL,
    "rollback_model": Act.ROLL_BACK,
    "control_job": Act.RUN,
    "watch_use_case": Act.WATCH,
}


def act_of_tool(name: str, *, read_only: bool) -> Act:
    """What a call of a tool is."""
    return Act.LOOK if read_only else _TOOLS.get(name, Act.WORK)
