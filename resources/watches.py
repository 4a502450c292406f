"""Watches as resources: how one stands, and what one of its episodes did."""

from __future__ import annotations

from typing import Any

from speciate.loop.watch import news
from speciate.loop.watch import report as reports
from speciate.loop.watch.aim import AimedGap
from speciate.loop.watch.facts import ShadowReport, Taught
from speciate.loop.watch.rows import Episode
from speciate.server.tool_api import App, Result, resource


class EpisodeLine(Result):
    number: int
    begun: float
    ended: float | None = None
    causes: tuple[str, ...]
    outcome: str | None = None
    because: str | None = None
    model: str | None = None
    smallest_gain: float | None = None

    @classmethod
    def of(cls, found: Episode) -> EpisodeLine:
        return cls(**found._asdict())


class DigestView(Result):
    """The base models that were published in a month, and which of them suit the use case."""

    month: str
    new: int
    suits: int
    refs: tuple[str, ...]


class WatchView(Result):
    use_case: str
    state: str
    because: str
    since: float
    next_look: float
    action: str
    triggers: tuple[str, ...]
    alarms: tuple[str, ...] = ()
    minutes_left: float
    usd_left: float
    labels_left: int
    cool_down_until: float | None = None
    labels_asked: int = 0
    labels_answered: int = 0
    fruitless: int
    episodes: tuple[EpisodeLine, ...]
    digest: DigestView | None = None
    not_promised: str | None = None
    """What its alarms do not promise, and what mends that."""


class TriggerView(Result):
    kind: str
    at: float
    cause: str
    evidence: dict[str, Any]
    gain: float | None = None
    minutes: float
    labels: int


class EpisodeView(Result):
    episode: EpisodeLine
    triggers: tuple[TriggerView, ...]
    minutes: float
    usd: float
    labels_asked: int
    near_suites: int = 0
    """Answers that nobody was asked about, for they are near-copies of a suite's rows."""
    gaps: tuple[AimedGap, ...] = ()
    """Where it fails: what was asked about first. speciate://use-cases/NAME/gaps?page=true has the contact sheets."""
    shadow: ShadowReport | None = None
    """How the candidate answered what was logged; it decided nothing."""
    taught: Taught | None = None


@resource("speciate://use-cases/{name}/watch")
def watch(app: App, name: str) -> WatchView:
    """How the watch of a use case stands: state and reason, budget left, labels asked and answered, last episodes."""
    found, digest = reports.report(app.workspace, name), news.last_digest(app.workspace.database, name)
    return WatchView(
        use_case=found.use_case, state=found.state, because=found.because, since=found.since,
        next_look=found.next_look, action=found.action, triggers=found.triggers, alarms=found.alarms,
        minutes_left=found.budget_left.minutes, usd_left=found.budget_left.usd, labels_left=found.budget_left.labels,
        cool_down_until=found.cool_down_until, labels_asked=found.labels_asked,
        labels_answered=found.labels_answered, fruitless=found.fruitless,
        episodes=tuple(EpisodeLine.of(each) for each in found.episodes),
        digest=DigestView(**digest._asdict()) if digest else None, not_promised=found.not_promised,
    )  # fmt: skip


@resource("speciate://use-cases/{name}/watch/episodes/{number}")
def watch_episode(app: App, name: str, number: int) -> EpisodeView:
    """One episode: its causes with their evidence, what it spent, how it ended and why."""
    found = reports.episode_report(app.workspace, name, number)
    return EpisodeView(
        episode=EpisodeLine.of(found.episode),
        triggers=tuple(TriggerView(**{**each._asdict(), "evidence": dict(each.evidence)}) for each in found.triggers),
        minutes=found.minutes, usd=found.usd, labels_asked=found.labels_asked, near_suites=found.near_suites,
        gaps=found.gaps, shadow=found.shadow, taught=found.taught,
    )  # fmt: skip
