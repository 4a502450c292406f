"""The ledger: what the events of a workspace say of how long models take, what they cost, and how they hold.

Reading is here; every figure is a pure function in a file of its own.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypedDict, cast
from weakref import WeakKeyDictionary

from speciate import use_cases
from speciate.loop.deployment_periods import DeploymentMetrics, deployment_metrics, deployment_periods
from speciate.loop.effort import Effort, efforts
from speciate.loop.time_to_model import STAGES, CountedModel, TimeToModel, model_that_counts, time_to_model
from speciate.loop.watch import costs
from speciate.workspace.database import Database, Event
from speciate.workspace.workspace import Workspace

_OWN = """
SELECT seq, stamp, subject, type, data FROM events
WHERE type IN ('use_case.created', 'decision.made', 'alias.moved', 'production.answered', 'canary.answered',
               'promotion.survived', 'bake.broken', 'bake.rolled_back', 'slot.serving', 'approval.requested')
ORDER BY seq
"""
_SHARED = """
SELECT seq, stamp, subject, type, data FROM events
WHERE type IN ('dataset.created', 'model.created', 'approval.decided')
ORDER BY seq
"""
"""What these are about may belong to any use case: they are found by `_keys`."""
_CLOCKS = """
(SELECT unnest(?::VARCHAR[]) AS name, unnest(?::DOUBLE[]) AS clock_stopped) clocks ON clocks.name = jobs.use_case
"""
_JOBS = (
    f"SELECT id, kind, use_case, created FROM jobs JOIN {_CLOCKS} WHERE executor = 'local' AND created <= clock_stopped"
)
_OF_JOBS = f"""
SELECT seq, stamp, subject, type, use_case FROM events JOIN jobs ON jobs.id = events.subject
JOIN {_CLOCKS}
WHERE type IN ('job.queued', 'job.running', 'job.waiting', 'job.paused', 'job.succeeded', 'job.failed', 'job.cancelled',
               'job.dead') AND stamp <= clock_stopped AND executor = 'local'
ORDER BY seq
"""
_LEARNED_FROM = """
SELECT ref, card ->> 'dataset' FROM model_versions
JOIN (SELECT unnest(?::VARCHAR[]) AS ref) asked ON name || '@v' || version = ref WHERE card ->> 'dataset' IS NOT NULL
"""
_EXPORTED_FROM = """
SELECT card ->> '$.parents[0]' FROM model_versions
WHERE name = ? AND version = ? AND card ->> 'method' = 'export' AND card ->> '$.parents[0]' IS NOT NULL
"""
_EPISODES = "SELECT use_case, number, causes ->> '$[0]', outcome, ended - begun FROM episodes"
_BY_LOOP = """
SELECT count(*) FILTER (asked = 'watch'), count(*) FILTER (asked <> 'watch') FROM (
    SELECT coalesce(evidence ->> 'asked_by', actor) AS asked FROM audit WHERE action = 'promote' AND stamp >= ?
)
"""
_MONTH = 30 * 86_400.0
_ClockKey = tuple[str, int, CountedModel]
"""A use case, the event that it was made by, and the version that stopped its clock."""


class _Settled:
    """What never changes once it is known, of one catalog."""

    def __init__(self) -> None:
        self.clocks: dict[_ClockKey, TimeToModel] = {}
        self.exports: dict[str, str | None] = {}
        """Version -> the one that it was exported from."""


_settled: WeakKeyDictionary[Database, _Settled] = WeakKeyDictionary()


class History(NamedTuple):
    """The events that matter, sorted by the use case that they may be about."""

    by_use_case: Mapping[str, Sequence[Event]]
    """Events of each use case, in order of `seq`; while its clock goes on, with the shared ones that concern it."""
    jobs: Mapping[str, Mapping[str, str]]
    """Use case -> id -> kind, of jobs that ran or may run, and began while the clock ran."""
    datasets: Mapping[str, str]
    """Version of a model that counts -> the version that it was trained on, without its split."""
    exports: Mapping[str, str]
    """Version that served -> the one that it was exported from."""
    clocks: Mapping[str, TimeToModel]
    """Clocks that have stopped, by use case."""


class LedgerLine(NamedTuple):
    """One use case."""

    use_case: str
    time_to_model: TimeToModel
    until_model: Effort
    """Effort up to the first answer; up to now while there is none."""
    in_all: Effort


class Typical(NamedTuple):
    """Time to model over all use cases, unfinished ones counted as longer than they are (loop/ledger.py)."""

    median_seconds: float | None
    p90_seconds: float | None


class Remodelled(NamedTuple):
    """How long the loop takes from a cause to a model that survived its bake, by the first cause of each episode."""

    cause: str
    episodes: int
    promoted: int
    median_seconds: float | None
    """Median over the episodes that were promoted."""
    minutes: float
    """Computing time of all jobs of all these episodes."""
    usd: float


class Ledger(NamedTuple):
    at: float
    lines: list[LedgerLine]
    counts: dict[str, int]
    """{done, provisional, open}."""
    baked: Typical
    """Only versions that survived their bake are finished."""
    answered: Typical
    """As if all that are provisional were to survive: no more than what it may come to."""
    deliveries: DeploymentMetrics
    remodelled: tuple[Remodelled, ...] = ()
    monitoring_minutes: float = 0.0
    """Computing time of the windows that watches looked at. With the minutes of `remodelled` it is all that watches
    took."""
    promoted_by_loop_30d: int = 0
    promoted_by_hand_30d: int = 0


def ledger(workspace: Workspace) -> Ledger:
    """The ledger as of now."""
    now = workspace.clock.now()
    history = history_of(workspace, now)
    names = use_cases.names(workspace.database)
    clocks = [clock_of(history, name, now) for name in names]
    stops = [math.inf if clock.answered is None else clock.answered for clock in clocks]  # as in `history_of`
    spent = efforts(workspace.database, [*zip(names, stops, strict=True), *((name, math.inf) for name in names)])
    lines = [LedgerLine(*each) for each in zip(names, clocks, spent[: len(names)], spent[len(names) :], strict=True)]
    states = [clock.state for clock in clocks]
    return Ledger(
        now,
        lines,
        {state: states.count(state) for state in ("done", "provisional", "open")},
        typical(clocks, "done"),
        typical(clocks, "done", "provisional"),
        deployment_metrics_of(history, now),
        *_of_watches(workspace.database),
        *workspace.database.read(_BY_LOOP, [now - _MONTH])[0],
    )


def _of_watches(database: Database) -> tuple[tuple[Remodelled, ...], float]:
    """Episodes by their first cause, and the minutes of monitoring."""
    spent = costs.everywhere(database)
    by_episode = {(each.use_case, each.episode): each for each in spent}
    by_cause = defaultdict[str, list[tuple[str | None, float | None, costs.Cost | None]]](list)
    for use_case, number, cause, outcome, seconds in database.read(_EPISODES):
        by_cause[cause].append((outcome, seconds, by_episode.get((use_case, number))))
    found = []
    for cause, episodes in sorted(by_cause.items()):
        times = [seconds for outcome, seconds, _ in episodes if outcome == "promoted" and seconds is not None]
        own = [each for _, _, each in episodes if each is not None]
        found.append(
            Remodelled(
                cause, len(episodes), len(times), statistics.median(times) if times else None,
                math.fsum(each.minutes for each in own), math.fsum(each.usd for each in own),
            )
        )  # fmt: skip
    return tuple(found), math.fsum(each.minutes for each in spent if each.episode is None)


class TypicalDocument(TypedDict):
    median_seconds: float | None
    p90_seconds: float | None


class ClockDocument(TypedDict):
    """`TimeToModel` as JSON."""

    state: str
    seconds: float
    stages: dict[str, float]
    model: str | None
    answered: float | None
    waited_for: dict[str, float]


class EffortDocument(TypedDict):
    """`Effort` as JSON."""

    compute_minutes: float
    usd: float
    tool_calls: int
    people_asked: int


class DeploymentsDocument(TypedDict):
    """`DeploymentMetrics` as JSON."""

    models_deployed_30d: int
    models_baking_30d: int
    change_failure_rate: float | None
    seconds_to_recover: float | None
    rework_rate: float | None


class LineDocument(TypedDict):
    """`LedgerLine` as JSON."""

    use_case: str
    time_to_model: ClockDocument
    until_model: EffortDocument
    in_all: EffortDocument


class RemodelledDocument(TypedDict):
    """`Remodelled` as JSON."""

    cause: str
    episodes: int
    promoted: int
    median_seconds: float | None
    minutes: float
    usd: float


class LedgerDocument(TypedDict):
    """`Ledger` as JSON."""

    at: float
    stages: list[str]
    counts: dict[str, int]
    baked: TypicalDocument
    answered: TypicalDocument
    deliveries: DeploymentsDocument
    lines: list[LineDocument]
    remodelled: list[RemodelledDocument]
    monitoring_minutes: float
    promoted_by_loop_30d: int
    promoted_by_hand_30d: int


def document(found: Ledger) -> LedgerDocument:
    """The ledger as JSON has it."""
    shown = {
        "at": found.at,
        "stages": list(STAGES),
        "counts": found.counts,
        "baked": found.baked._asdict(),
        "answered": found.answered._asdict(),
        "deliveries": found.deliveries._asdict(),
        "remodelled": [each._asdict() for each in found.remodelled],
        "monitoring_minutes": found.monitoring_minutes,
        "promoted_by_loop_30d": found.promoted_by_loop_30d,
        "promoted_by_hand_30d": found.promoted_by_hand_30d,
        "lines": [
            {"use_case": line.use_case} | {name: getattr(line, name)._asdict() for name in LedgerLine._fields[1:]}
            for line in found.lines
        ],
    }
    return cast(LedgerDocument, shown)


def typical(clocks: Sequence[TimeToModel], *finished: str) -> Typical:
    steps = survival_curve(Span(clock.seconds, clock.state in finished) for clock in clocks)
    return Typical(quantile(steps, 0.5), quantile(steps, 0.9))


def history_of(workspace: Workspace, now: float) -> History:
    """What happened until `now`; of jobs only what happened while the clock of their use case went.

    A clock that has stopped is not read again: nothing that happens later changes it."""
    database = workspace.database
    settled = _settled.setdefault(database, _Settled())
    own = _own_events(database)
    periods = {name: deployment_periods(events, now) for name, events in own.items()}
    keys = {name: _clock_key(name, events, model_that_counts(periods[name])) for name, events in own.items()}
    clocks = {name: settled.clocks[key] for name, key in keys.items() if key in settled.clocks}
    open_ = {name: events for name, events in own.items() if name not in clocks}
    served = {period.model for found in periods.values() for period in found}
    history = History(dict(own), {}, {}, _exports(database, served, settled), clocks)
    if open_:
        history = _with_jobs(database, history, {name: keys[name][2] for name in open_}, now)
    for name in open_:
        if keys[name][2].answered is not None:
            settled.clocks[keys[name]] = clocks[name] = clock_of(history, name, now)
    return history


def _clock_key(use_case: str, own: Sequence[Event], counted: CountedModel) -> _ClockKey:
    return use_case, next((event.seq for event in own if event.type == "use_case.created"), 0), counted


def _own_events(database: Database) -> dict[str, list[Event]]:
    own = defaultdict[str, list[Event]](list)
    for seq, stamp, subject, kind, data in database.read(_OWN):
        own[subject.removeprefix("use_case:")].append(Event(seq, stamp, subject, kind, json.loads(data)))
    return own


def _exports(database: Database, served: Iterable[str], settled: _Settled) -> dict[str, str]:
    """What each version that served was exported from, and that one, and so on."""
    found, known = dict[str, str](), settled.exports
    for model in served:
        while model not in found:
            if model not in known:
                name, _, version = model.partition("@v")
                row = database.read_one(_EXPORTED_FROM, [name, int(version)]) if version.isdecimal() else None
                known[model] = row[0] if row else None
            if (parent := known[model]) is None:
                break
            found[model] = model = parent  # noqa: PLW2901 - on to where that came from
    return found


def _with_jobs(database: Database, history: History, open_: Mapping[str, CountedModel], now: float) -> History:
    """With jobs and shared events of the use cases `open_`."""
    shared = _shared_events(database)
    models = [found.model for found in open_.values() if found.model is not None]
    datasets = {ref: dataset.partition(":")[0] for ref, dataset in database.read(_LEARNED_FROM, [models])}
    stops = {name: now if found.answered is None else found.answered for name, found in open_.items()}
    # Where the clock goes on, `now` is left to the lines below: a statement that names it is another one each time, and
    # no reader could remember it.
    clocks = [list(open_), [math.inf if found.answered is None else found.answered for found in open_.values()]]
    jobs = defaultdict[str, dict[str, str]](dict)
    for job, kind, use_case, created in database.read(_JOBS, clocks):
        if created <= stops[use_case]:
            jobs[use_case][job] = kind
    events = {
        name: [*own, *_about(shared, jobs[name], own, datasets.get(open_[name].model or ""))]
        for name, own in history.by_use_case.items()
        if name in open_
    }
    for seq, stamp, subject, kind, use_case in database.read(_OF_JOBS, clocks):
        if stamp <= stops[use_case]:
            events[use_case].append(Event(seq, stamp, subject, kind, {}))
    for each in events.values():
        each.sort(key=lambda event: event.seq)
    return history._replace(by_use_case={**history.by_use_case, **events}, jobs=jobs, datasets=datasets)


def _shared_events(database: Database) -> dict[str, list[Event]]:
    """Events that may concern any use case, by each key that they are found by."""
    shared = defaultdict[str, list[Event]](list)
    for seq, stamp, subject, kind, data in database.read(_SHARED):
        event = Event(seq, stamp, subject, kind, json.loads(data))
        for key in _keys(event):
            shared[key].append(event)
    return shared


def _keys(event: Event) -> tuple[str, ...]:
    """What a use case must have to do with, for this event to concern it."""
    if event.type == "model.created":
        return f"model:{event.data.get('model')}", f"{event.data.get('job')}"
    if event.type == "dataset.created":
        return (f"{event.subject}@v{event.data.get('version')}",)
    return (event.subject,)


def _about(
    shared: Mapping[str, Sequence[Event]], jobs: Iterable[str], own: Sequence[Event], dataset: str | None
) -> Iterable[Event]:
    """The shared events that concern a use case: of the models that it trained or let serve, of the dataset that the
    version which counts learned from, and of the answers to its questions. There may be thousands of others."""
    served = {f"model:{event.data.get('after')}" for event in own if event.type == "alias.moved"}
    asked = {f"approval:{event.data['approval']}" for event in own if event.type == "approval.requested"}
    keys = (*jobs, *served, *asked, f"dataset:{dataset}")
    return {event.seq: event for key in keys for event in shared.get(key, ())}.values()


def clock_of(history: History, use_case: str, now: float) -> TimeToModel:
    if (stopped := history.clocks.get(use_case)) is not None:
        return stopped
    events, jobs = history.by_use_case.get(use_case, ()), history.jobs.get(use_case, {})
    served = deployment_periods((event for event in events if event.subject == f"use_case:{use_case}"), now)
    model = model_that_counts(served).model
    return time_to_model(use_case, events, now, history.datasets.get(model) if model else None, jobs)


def deployment_metrics_of(history: History, now: float) -> DeploymentMetrics:
    served = {
        name: deployment_periods((event for event in events if event.subject == f"use_case:{name}"), now)
        for name, events in history.by_use_case.items()
    }
    return deployment_metrics(served, now, history.exports)


class Span(NamedTuple):
    seconds: float
    finished: bool
    """Not finished: it takes longer than `seconds`, nobody knows how much."""


class SurvivalStep(NamedTuple):
    seconds: float
    longer: float
    """Share that takes longer than `seconds`."""


def survival_curve(spans: Iterable[Span]) -> list[SurvivalStep]:
    """How long something takes, if some of it is not over yet: a step for each time at which something ended, in order.

    The product-limit estimator of Kaplan and Meier, "Nonparametric estimation from incomplete observations", JASA 53
    (1958): at each time t at which d of n open spans end, the share that takes longer is multiplied by 1 - d/n.
    Unfinished spans count among the n as long as they are known, and never as an end; without them everything would
    look faster than it is. At equal times ends come before spans that are cut off there.
    """
    known = list(spans)
    ends = Counter(span.seconds for span in known if span.finished)
    lasts = sorted(span.seconds for span in known)
    steps, longer, before = list[SurvivalStep](), 1.0, 0
    for seconds in sorted(ends):
        while lasts[before] < seconds:
            before += 1
        longer *= 1 - ends[seconds] / (len(lasts) - before)
        steps.append(SurvivalStep(seconds, longer))
    return steps


def quantile(steps: Sequence[SurvivalStep], share: float) -> float | None:
    """The least time within which at least `share` of them end; None where it is not known that so many ever do."""
    return next((step.seconds for step in steps if step.longer <= 1 - share + 1e-12), None)
