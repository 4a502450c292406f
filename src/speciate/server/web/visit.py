"""One request as a page sees it: the open workspace, who asks and what they may, and what the address says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.server.control import Answer, ControlContext, perform
from speciate.server.tool_api import App
from speciate.server.web.sessions import Session
from speciate.workspace.database import Database

if TYPE_CHECKING:
    from speciate.server.web.media import Media
    from speciate.server.web.pages.labelling import HeldLabels

LONGEST_WORDS = 400
"""Characters of one parameter of an address."""


class Parts(NamedTuple):
    """What pages keep beside the workspace while the daemon lives."""

    media: Media
    labels: HeldLabels


@dataclass(frozen=True)
class Visit:
    app: App
    """With the session's account as caller."""
    control: ControlContext
    parts: Parts
    session: Session
    decides_for: float
    """Seconds for which the session still decides; 0: it only looks."""
    path: Mapping[str, str]
    """What stands in the places of the route's braces."""
    query: Mapping[str, str]
    form: Mapping[str, str]
    """Of a POST; empty else."""
    address: str
    """Path and query."""

    @property
    def database(self) -> Database:
        return self.app.workspace.database

    @property
    def decides(self) -> bool:
        return self.decides_for > 0

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

    def perform(self, action: str, **fields: object) -> Answer:
        """What the command line does by this name, for the session's account."""
        return perform(self.control, {"action": action, **fields}, self.session.account)


def field(visit: Visit, name: str) -> str:
    """A field of a form. Raises INVALID where it is missing."""
    if not (value := visit.form.get(name, "").strip()):
        raise SpeciateError(Code.INVALID, f"The form has no {name}.", "Load the page again and repeat.")
    return value
