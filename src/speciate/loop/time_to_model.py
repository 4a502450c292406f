"""Time to model, and where it went, as a pure function over the event log.

It runs from `use_case.created` to the first production answer of a version that survived its bake: back-dated, so that
how long the bake takes costs nothing. Until then it is `provisional` where a version answers that was not taken back,
else `open`; both are lower bounds, for a version that is taken back sets the clock going again.

Every moment belongs to one stage, so the stages add up to the whole. In this order: `person` while a question about the
use case waits for one; the stage of a job that runs for it (a training before an evaluation); `queue` while one is
queued and none runs; `deploy` from the promotion to the first answer; else `idle`: nothing was asked of the machine.

Work and idle time are apart, so an evaluation of four seconds is four seconds. `waited_for` says before which step of
the model that counts the idle time lay: `data` until its dataset was there, `train` until the version was, `evaluate`
until it was decided on, then `deploy`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Literal, NamedTuple

from speciate.loop.deployment_periods import MOVED, DeploymentPeriod, deployment_periods
from speciate.workspace.database import Event

STAGES = ("data", "queue", "train", "evaluate", "person", "deploy", "idle")
_OF_KIND = {
    **dict.fromkeys(("ingest", "curate", "label", "embed", "mine", "teach"), "data"),
    **dict.fromkeys(("train", "measure", "shortlist", "merge", "fetch"), "train"),
    **dict.fromkeys(("evaluate", "fingerprint", "monitor", "shadow"), "evaluate"),
}
"""Kind of job -> the stage while it runs; others do not count."""
_ORDER = ("person", "train", "evaluate", "data", "queue", "deploy")
_IDLE = "idle"
_QUEUED, _RUNNING = frozenset({"job.queued", "job.starting"}), "job.running"
_STILL = frozenset(
    {"job.cancel_requested", "job.pause_requested", "job.stop_requested", "job.hold_requested", "job.child"}
)
"""Events of a job that are no change of its state."""


class TimeToModel(NamedTuple):
    state: Literal["open", "provisional", "done"]
    seconds: float
    """Seconds on the clock; up to now where the state is open."""
    stages: dict[str, float]
    """Stage -> seconds, those that took any: {data, queue, train, evaluate, person, deploy, idle}."""
    model: str | None
    answered: float | None = None
    """When the clock stopped (seconds since the epoch)."""
    waited_for: Mapping[str, float] = {}
    """Step that came next -> seconds of `idle`: {data, train, evaluate, deploy}."""


class CountedModel(NamedTuple):
    state: Literal["open", "provisional", "done"]
    model: str | None
    answered: float | None
    """When it first answered in production."""


class _Interval(NamedTuple):
    stage: str
    begin: float
    end: float


def time_to_model(
    use_case: str,
    events: Sequence[Event],
    now: float,
    dataset: str | None = None,
    jobs: Mapping[str, str] | None = None,
) -> TimeToModel:
    """Time to model of one use case. `events` in order of `seq`, of any subject; those after `now` have not happened
    yet. `dataset` (`name@v1`) is what the version that counts learned from. `jobs`: those that ran for the use case, id
    -> kind."""
    subject = f"use_case:{use_case}"
    known = [event for event in events if event.at <= now]
    own = [event for event in known if event.subject == subject]
    start = next((event.at for event in own if event.type == "use_case.created"), None)
    if start is None:
        return TimeToModel("open", 0.0, {}, None)
    state, model, answered = model_that_counts(deployment_periods(own, now))
    end = max(start, now if answered is None else answered)
    jobs = jobs or {}
    intervals = [*_waits(own, known, end), *_runs(known, jobs, end)]
    if (promoted := _promoted(own, end, model)) is not None:
        intervals.append(_Interval("deploy", promoted, end))
    phases = _phases(start, end, _milestones(own, known, end, model, dataset, jobs), model)
    stages, waited_for = _shares(start, end, intervals, phases)
    return TimeToModel(state, end - start, stages, model, answered, waited_for)


def model_that_counts(found: Sequence[DeploymentPeriod]) -> CountedModel:
    """The version whose bake was over first, else the first to answer whose bake may still be."""
    survived = [each for each in found if each.survived is not None]
    if survived:
        first = min(survived, key=lambda each: each.survived or inf)
        return CountedModel("done", first.model, first.answered or first.survived)
    hopeful = [each for each in found if each.answered is not None and not each.taken_back]
    if hopeful:
        return CountedModel("provisional", hopeful[0].model, hopeful[0].answered)
    return CountedModel("open", None, None)


def _promoted(own: Sequence[Event], end: float, model: str | None) -> float | None:
    """When the version that counts, or while none counts any, was last promoted."""
    moves = [event.at for event in own if event.type == MOVED and event.at <= end]
    if model is not None:
        moves = [event.at for event in own if event.type == MOVED and event.at <= end and event.data["after"] == model]
    return moves[-1] if moves else None


class _Shares(NamedTuple):
    stages: dict[str, float]
    waited_for: dict[str, float]


def _shares(start: float, end: float, intervals: Iterable[_Interval], phases: Sequence[tuple[str, float]]) -> _Shares:
    """Seconds per stage of [start, end]. `phases`: step and when it is over, in order; the last is `end`."""
    changes = [(max(start, each.begin), 1, each.stage) for each in intervals if each.end > start and each.begin < end]
    changes += [(min(end, each.end), -1, each.stage) for each in intervals if each.end > start and each.begin < end]
    changes += [(over, 0, "") for _, over in phases]
    active, last, phase = Counter[str](), start, 0
    seconds, waited_for = dict[str, float](), dict[str, float]()
    for moment, change, stage in sorted(changes):
        if moment > last:
            while phase < len(phases) - 1 and phases[phase][1] <= last:
                phase += 1
            now = next((each for each in _ORDER if active[each] > 0), _IDLE)
            seconds[now] = seconds.get(now, 0.0) + (moment - last)
            if now == _IDLE:
                step = phases[phase][0]
                waited_for[step] = waited_for.get(step, 0.0) + (moment - last)
            last = moment
        if change:
            active[stage] += change
    return _Shares({stage: seconds[stage] for stage in STAGES if stage in seconds}, waited_for)


def _phases(start: float, end: float, milestones: Sequence[float | None], model: str | None) -> list[tuple[str, float]]:
    """A milestone that was passed before the clock started, or before the one ahead of it, cost nothing; nor did one
    that nobody saw, where a later one was passed."""
    phases, last = list[tuple[str, float]](), start
    for place, (stage, moment) in enumerate(zip(("data", "train", "evaluate"), milestones, strict=True)):
        if moment is None:
            if model is None and all(later is None for later in milestones[place:]):
                return [*phases, (stage, end)]
            moment = last  # noqa: PLW2901 - it is this that is known of it
        last = min(end, max(last, moment))
        phases.append((stage, last))
    return [*phases, ("deploy", end)]


def _milestones(
    own: Sequence[Event],
    events: Sequence[Event],
    end: float,
    model: str | None,
    dataset: str | None,
    jobs: Mapping[str, str],
) -> tuple[float | None, float | None, float | None]:
    """When its dataset, the version and the decision on it were there; while no version counts, the first of any: its
    data were there when the first training was asked for."""
    decided = [event for event in own if event.type == "decision.made" and event.at <= end]
    if model is None:
        began = _first(
            event.at for event in events if _OF_KIND.get(jobs.get(event.subject, "")) in {"train", "evaluate"}
        )
        made = _first(event.at for event in events if event.type == "model.created" and event.data.get("job") in jobs)
        passed = _first(event.at for event in own if event.type == MOVED or event.data.get("verdict") == "promote")
        return began, made, passed
    name, _, version = (dataset or "").partition("@v")
    data = _first(
        event.at
        for event in events
        if event.type == "dataset.created"
        and event.subject == f"dataset:{name}"
        and str(event.data.get("version")) == version
    )
    made = _first(event.at for event in events if event.type == "model.created" and event.data.get("model") == model)
    judged = [event.at for event in decided if event.data.get("candidate") == model]
    return data, made, judged[-1] if judged else None


def _first(moments: Iterable[float]) -> float | None:
    return next(iter(moments), None)


def _waits(own: Sequence[Event], events: Sequence[Event], end: float) -> Iterator[_Interval]:
    """While a question waited for a person: until it was answered, or expired."""
    answered = {
        event.subject.removeprefix("approval:"): event.at for event in events if event.type == "approval.decided"
    }
    for event in own:
        if event.type == "approval.requested":
            expires = event.data.get("expires")
            over = answered.get(event.data["approval"], inf if expires is None else float(expires))
            yield _Interval("person", event.at, min(end, over))


def _runs(events: Sequence[Event], jobs: Mapping[str, str], end: float) -> Iterator[_Interval]:
    """While jobs of the use case were queued, and while they ran."""
    states: dict[str, tuple[str | None, float]] = {}
    for event in events:
        if event.subject not in jobs or event.type in _STILL:
            continue
        after = _stage_of(jobs[event.subject], event.type)
        before, since = states.get(event.subject, (None, event.at))
        if before:
            yield _Interval(before, since, event.at)
        states[event.subject] = after, event.at
    for before, since in states.values():
        if before:
            yield _Interval(before, since, end)


def _stage_of(kind: str, event: str) -> str | None:
    """The stage after that event of a job; None for those that are not counted, and where it neither waits nor runs."""
    stage = _OF_KIND.get(kind)
    if stage is None or event == _RUNNING:
        return stage
    return "queue" if event in _QUEUED else None
