"""What a person or agent writes of a watch: its triggers and its policy, and what of them cannot be. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, Field

from speciate.errors import CallAgain, Code, SpeciateError
from speciate.settings import WatchCaps

TriggerKind = Literal[
    "now", "schedule", "new_labels", "data_shift", "quality_regression", "limit_breach", "requirement_change",
    "new_base_model", "provider_change", "label_disagreement", "recall",
]  # fmt: skip
DAY = 86_400.0
HOUR = 3600.0
WINDOW_SECONDS = 7 * DAY
"""Span of the answers that one monitoring job looks at."""
PATIENCE_SECONDS = 21 * DAY
"""How long an episode waits for its labels."""
ASK = 100
"""Labels that an episode asks for, where the policy allows so many."""
FEWEST = 20
"""With fewer labels nothing is learned: their interval would say nothing."""
MARGIN = 0.02
"""How much worse an old slice may become."""
FEWEST_MINUTES = 2.0
"""An episode is not begun with less: its evaluation alone takes a minute."""
_YEARS_AHEAD = 8
"""A date such as 29 February comes within so many years, or never."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trigger(_Frozen):
    """One reason to look again."""

    on: TriggerKind
    cron: str | None = Field(None, max_length=100, description="For schedule: five fields.")
    zone: str = Field("UTC", max_length=64, description="Time zone of cron.")
    n: int | None = Field(None, ge=FEWEST, le=1_000_000, description="For new_labels.")

    @property
    def labels(self) -> int:
        """New labels with which `new_labels` fires."""
        return self.n or 300


class Policy(_Frozen):
    """What a watch may do by itself. Caps of the settings hold besides."""

    action: Literal["propose", "auto"] = Field("propose", description="auto: as far as the use case's policy allows.")
    budget_minutes: float = Field(120, gt=0, description="Computing, per month.")
    budget_usd: float = Field(0, ge=0, description="Paid calls, per month.")
    labels: int = Field(400, ge=0, description="Labels asked for, per month.")
    cooldown_hours: float = Field(168, ge=0, le=8760, description="Between episodes; longer while they bring nothing.")

    def capped(self, caps: WatchCaps) -> Policy:
        """The policy as it holds: a person's caps are never exceeded."""
        return self.model_copy(
            update={
                "budget_minutes": min(self.budget_minutes, caps.minutes),
                "budget_usd": min(self.budget_usd, caps.usd),
                "labels": min(self.labels, caps.labels),
            }
        )


class Watch(_Frozen):
    """The definition, as its row keeps it."""

    use_case: str
    triggers: tuple[Trigger, ...]
    policy: Policy = Policy()

    @property
    def ask(self) -> int:
        return min(ASK, self.policy.labels)

    def has(self, kind: TriggerKind) -> bool:
        return any(each.on == kind for each in self.triggers)


def check(watch: Watch, now: float) -> None:
    """Raise INVALID for a definition that could never do what it says."""
    if not watch.triggers:
        raise SpeciateError(
            Code.INVALID,
            "A watch without triggers never looks.",
            next=[_again([{"on": "data_shift"}, {"on": "new_labels", "n": 300}])],
        )
    for each in watch.triggers:
        if (each.on == "schedule") != (each.cron is not None):
            raise SpeciateError(
                Code.INVALID,
                f"The trigger {each.on!r} has cron={each.cron!r}: 'schedule' needs one, no other trigger takes one.",
                next=[_again([{"on": "schedule", "cron": "0 3 * * 1"}])],
            )
        if each.n is not None and each.on != "new_labels":
            raise SpeciateError(Code.INVALID, f"The trigger {each.on!r} takes no n.", next=[_again([{"on": each.on}])])
        if each.cron is not None and next_time(each, now) is None:
            raise SpeciateError(
                Code.INVALID,
                f"The schedule {each.cron!r} never comes within {_YEARS_AHEAD} years.",
                next=[_again([{"on": "schedule", "cron": "0 3 1 * *"}])],
            )


def _again(triggers: list[dict[str, object]]) -> CallAgain:
    return CallAgain("watch_use_case", {"triggers": triggers})


def next_time(trigger: Trigger, after: float) -> float | None:
    """When a schedule comes next, strictly after that moment; None where it never does. An hour that a change of the
    clocks skips comes at once after it, one that comes twice counts once (cronsim's rules, which are Debian's).

    Raises INVALID for what is no schedule or no time zone.
    """
    try:
        zone = ZoneInfo(trigger.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SpeciateError(
            Code.INVALID, f"There is no time zone {trigger.zone!r}.", "Write one such as 'Europe/Berlin', or 'UTC'."
        ) from None
    begin = datetime.fromtimestamp(after, UTC).astimezone(zone)
    try:
        found = next(CronSim(trigger.cron or "", begin))
    except CronSimError as error:
        raise SpeciateError(
            Code.INVALID, f"{trigger.cron!r} is no schedule: {error}.", "Write five fields, such as '0 3 * * 1'."
        ) from None
    except StopIteration:
        return None
    moment = found.timestamp()
    return moment if moment - after <= _YEARS_AHEAD * 366 * DAY else None
