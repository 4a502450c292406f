"""How a watch stands, for people and agents: state, reason, next look, what is left of the month, the last episodes."""

from __future__ import annotations

from typing import NamedTuple, NotRequired, TypedDict

from speciate.jobs import rows as job_rows
from speciate.loop.monitor import not_promised
from speciate.loop.watch import costs, rows
from speciate.loop.watch.aim import AimedGap
from speciate.loop.watch.definition import WINDOW_SECONDS, next_time
from speciate.loop.watch.facts import Learned, Memory, ShadowReport, Spent, Taught, key_of
from speciate.loop.watch.label_counts import LabelCounts
from speciate.loop.watch.mine import MineOutcome
from speciate.loop.watch.rows import Episode, Recorded, Standing, Tick
from speciate.loop.watch.seen import Gatherer
from speciate.loop.watch.watcher import LOOK_SECONDS
from speciate.refs import id_from_key
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

_DAY = 86_400.0


class BudgetLeft(NamedTuple):
    """What is left of the budget of this calendar month, UTC."""

    minutes: float
    usd: float
    labels: int


class WatchReport(NamedTuple):
    use_case: str
    enabled: bool
    state: str
    because: str
    since: float
    next_look: float
    """When something is due that is known already: a schedule, the end of a window or of a cool-down; else the next
    pass."""
    budget_left: BudgetLeft
    triggers: tuple[str, ...]
    action: str
    cool_down_until: float | None
    labels_asked: int
    """Answers that the running episode asked people to label."""
    labels_answered: int
    alarms: tuple[str, ...]
    """Detectors that have enough evidence."""
    fruitless: int
    episodes: tuple[Episode, ...]
    """Newest first."""
    not_promised: str | None
    """What its alarms do not promise, and what mends that."""


class EpisodeReport(NamedTuple):
    episode: Episode
    triggers: tuple[Recorded, ...]
    minutes: float
    usd: float
    labels_asked: int
    near_suites: int
    """Answers that nobody was asked about, for they are near-copies of a suite's rows."""
    gaps: tuple[AimedGap, ...]
    """Groups in which it fails, by the analysis before people were asked."""
    shadow: ShadowReport | None
    taught: Taught | None


class TickDocument(TypedDict):
    first: float
    last: float
    times: int
    state: str
    because: str
    fired: list[str]


class WatchDocument(TypedDict):
    use_case: str
    enabled: bool
    state: str
    because: str
    since: float
    next_look: float
    minutes_left: float
    usd_left: float
    labels_left: int
    triggers: list[str]
    labels_asked: int
    labels_answered: int
    episodes: list[dict[str, object]]
    not_promised: NotRequired[str | None]
    """A daemon from before this field sends none."""


_ASKED = "SELECT count(*) FROM label_requests WHERE use_case = ? AND episode = ?"


def report(workspace: Workspace, use_case: str) -> WatchReport:
    """Raises NOT_FOUND where nothing watches it."""
    return _report(workspace, Gatherer(workspace), rows.find(workspace.database, use_case))


def reports(workspace: Workspace) -> list[WatchReport]:
    """Reports of all watches, in the order of their names."""
    gatherer = Gatherer(workspace)
    return [_report(workspace, gatherer, each) for each in rows.everyone(workspace.database)]


def _report(workspace: Workspace, gatherer: Gatherer, standing: Standing) -> WatchReport:
    watch, memory, database = standing.watch, standing.memory, workspace.database
    now = workspace.clock.now()
    ticks = rows.ticks(database, watch.use_case, limit=1)
    labels = LabelCounts()
    if memory.state != "idle" and memory.mined:
        requested = {each.prediction: each for each in rows.requests(database, watch.use_case)}
        labels = gatherer.labels.counts(watch.use_case, memory.learned_until, requested, memory.episode)
    spent = gatherer.around([standing], now).spent.get(watch.use_case, Spent())
    policy = watch.policy.capped(workspace.settings.watch)
    return WatchReport(
        use_case=watch.use_case,
        enabled=standing.enabled,
        state=memory.state if standing.enabled else "paused",
        because=_because(standing, ticks),
        since=memory.since,
        next_look=next_look(standing, now),
        budget_left=BudgetLeft(
            round(max(0.0, policy.budget_minutes - spent.minutes), 2),
            round(max(0.0, policy.budget_usd - spent.usd), 4),
            max(0, policy.labels - spent.labels),
        ),
        triggers=tuple(each.on for each in watch.triggers),
        action=policy.action,
        cool_down_until=memory.quiet_until if memory.quiet_until > now else None,
        labels_asked=memory.mined,
        labels_answered=labels.of_episode,
        alarms=tuple(each.signal for each in memory.alarms),
        fruitless=memory.fruitless,
        episodes=tuple(rows.episodes(database, watch.use_case)),
        not_promised=not_promised(database).get(watch.use_case),
    )  # fmt: skip


def _because(standing: Standing, ticks: list[Tick]) -> str:
    if not standing.enabled:
        return f"paused by {standing.by}"
    called, looked = standing.asked or 0.0, ticks[0].last if ticks else 0.0
    if called > standing.memory.asked and called >= looked:
        return "an episode was asked for now: the next look begins it"
    return ticks[0].because if ticks else "it was not looked at yet"


def next_look(standing: Standing, now: float) -> float:
    memory = standing.memory
    soon = now + LOOK_SECONDS
    if memory.state != "idle" or memory.model is None or (standing.asked or 0.0) > memory.asked:
        return soon
    moments = [next_time(each, now) for each in standing.watch.triggers if each.on == "schedule"]
    moments += [memory.moved + (memory.window + 2) * WINDOW_SECONDS, memory.quiet_until]
    return max(soon, min((each for each in moments if each is not None and each > now), default=soon))


def episode_report(workspace: Workspace, use_case: str, number: int) -> EpisodeReport:
    """Raises NOT_FOUND."""
    database = workspace.database
    found = rows.episode(database, use_case, number)
    spent = costs.of_episode(database, use_case, number)
    asked: int = database.read(_ASKED, [use_case, number])[0][0]
    triggers = tuple(rows.triggers(database, use_case, number))
    mined = [
        MineOutcome.model_validate({**each, "chosen": ()}) for each in _results(database, use_case, number, "mine")
    ]
    learned = [Learned.model_validate(each) for each in _results(database, use_case, number, "relearn")]
    last = learned[-1] if learned else None
    return EpisodeReport(
        found, triggers, round(spent.minutes, 2), round(spent.usd, 6), asked, sum(each.near_suites for each in mined),
        tuple(gap for each in mined for gap in each.gaps), last.shadow if last else None, last.taught if last else None,
    )  # fmt: skip


def _results(database: Database, use_case: str, number: int, step: str) -> list[dict[str, object]]:
    """Results of the ended jobs of a step, round by round."""
    begin = Memory(episode=number)
    keys = [key_of(use_case, begin.model_copy(update={"round": each}), step) for each in (1, 2, 3)]
    names = [id_from_key("job", key) for key in keys]
    jobs = job_rows.by_id(database, names)
    return [dict(jobs[name].result or {}) for name in names if name in jobs and jobs[name].result]


def document(found: WatchReport) -> WatchDocument:
    return {
        "use_case": found.use_case, "enabled": found.enabled, "state": found.state, "because": found.because,
        "since": found.since, "next_look": found.next_look, "minutes_left": found.budget_left.minutes,
        "usd_left": found.budget_left.usd, "labels_left": found.budget_left.labels, "triggers": list(found.triggers),
        "labels_asked": found.labels_asked, "labels_answered": found.labels_answered,
        "episodes": [each._asdict() | {"causes": list(each.causes)} for each in found.episodes],
        "not_promised": found.not_promised,
    }  # fmt: skip


def why(workspace: Workspace, use_case: str, days: float = 7.0) -> list[TickDocument]:
    """The looks of the last days as runs, newest first. Raises NOT_FOUND where nothing watches it."""
    rows.find(workspace.database, use_case)
    since = workspace.clock.now() - days * _DAY
    found = rows.ticks(workspace.database, use_case, since=since, limit=200)
    return [{**each._asdict(), "fired": list(each.fired)} for each in found]  # type: ignore[typeddict-item]  # the fields of Tick
