"""One request as a page sees it: the open workspace, who asks and what they may, and what the address says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.governance.page_sessions import Session
from speciate.governance.roles import ON_A_USE_CASE, Act
from speciate.server.control.action import Answer, ControlContext
from speciate.server.control.dispatch import perform
from speciate.server.tool_api import App
from speciate.workspace.database import Database

if TYPE_CHECKING:
    from speciate.evaluation.reports.shown_media import ShownMedia
    from speciate.governance.passkeys import PendingPasskeys
    from speciate.predictions.held_labels import HeldLabels
    from speciate.server.request_log import RequestLog
    from speciate.server.web.guard import Front

_COUNT = re.compile("[0-9]{1,18}")
LONGEST_WORDS = 400
"""Characters of one parameter of an address."""


class Parts(NamedTuple):
    """What pages keep beside the workspace while the daemon lives."""

    media: ShownMedia
    labels: HeldLabels
    requests: RequestLog
    passkeys: PendingPasskeys


@dataclass(frozen=True)
class Visit:
    app: App
    """The app, with the session's account as caller."""
    control: ControlContext
    parts: Parts
    session: Session
    acts: frozenset[Act]
    """What the session may do now."""
    decides_for: float
    """Seconds for which one of this machine still decides; 0: it only looks."""
    front: Front
    path: Mapping[str, str]
    """What stands in the places of the route's braces."""
    query: Mapping[str, str]
    form: Mapping[str, str]
    """Fields of a POST's form; empty else."""
    address: str
    """Path and query."""
    theme: str | None
    """`dark` or `light`, where this browser chose one."""

    @property
    def database(self) -> Database:
        return self.app.workspace.database

    def may(self, act: str) -> bool:
        """Whether the session may do an act, by the act's name."""
        return Act[act] in self.acts

    def may_on(self, act: str, use_case: str | None) -> bool:
        """The same, on a use case; None: on what is of none. A token may be for some alone."""
        token = self.session.token
        return self.may(act) and (token is None or Act[act] not in ON_A_USE_CASE or token.covers(use_case))

    @property
    def opened_to_decide(self) -> bool:
        """Whether a person at a terminal opened it for deciding, whatever it may do now."""
        return not self.front.team and self.session.role == "decide"

    @property
    def how(self) -> str:
        """How somebody gets to do what this session may not."""
        if self.front.team:
            scope = f", for {', '.join(self.session.account.use_cases)}" if self.session.account.use_cases else ""
            return f"Its role is {self.session.role}{scope}: whoever issues the tokens can give another."
        return "On a terminal: speciate open --decide"

    @property
    def now(self) -> float:
        return self.app.workspace.clock.now()

    def asked(self, name: str) -> str | None:
        """A parameter of the address; None where it is missing or empty. Raises INVALID for one that is too long."""
        value = self.query.get(name, "").strip()
        if len(value) > LONGEST_WORDS:
            raise SpeciateError(
                Code.INVALID, f"The parameter {name} has more than {LONGEST_WORDS} characters.", "Ask for less."
            )
        return value or None

    def one_of(self, name: str, known: tuple[str, ...], default: str) -> str:
        """A parameter that names one of a few. Raises INVALID for any other."""
        value = self.asked(name) or default
        if value not in known:
            raise SpeciateError(Code.INVALID, f"{name} is one of {', '.join(known)}.", "Follow a link of the page.")
        return value

    def number(self, name: str) -> float | None:
        value = self.asked(name)
        if value is None:
            return None
        try:
            return float(value)
        except ValueError:
            raise SpeciateError(Code.INVALID, f"{name} is a number.", "Follow a link of the page.") from None

    def count(self, name: str) -> int:
        """A whole number from 0 on, such as a byte of a file; 0 where it is missing. Raises INVALID for any other."""
        value = self.asked(name) or "0"
        if not _COUNT.fullmatch(value):
            raise SpeciateError(Code.INVALID, f"{name} is a whole number from 0 on.", "Load the page again.")
        return int(value)

    def perform(self, action: str, **fields: object) -> Answer:
        """What the command line does by this name, for the session's account."""
        return perform(self.control, {"action": action, **fields}, self.session.account)


def field(visit: Visit, name: str) -> str:
    """A field of a form. Raises INVALID where it is missing."""
    if not (value := visit.form.get(name, "").strip()):
        raise SpeciateError(Code.INVALID, f"The form has no {name}.", "Load the page again and repeat.")
    return value
