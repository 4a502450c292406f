"""Gathers what a watch sees: facts of the catalog and of the log. Reads, decides nothing, changes nothing.

What is the same for all watches is read once a look (`Surroundings`), so that the cost of a look follows what changed
and not how many watches there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

from speciate import use_cases
from speciate.errors import SpeciateError
from speciate.evaluation.reports.report import Report
from speciate.governance import approvals
from speciate.jobs import rows as job_rows
from speciate.jobs.job import ENDED, Job, State
from speciate.loop.watch import recall
from speciate.loop.watch.circles import circle, leanings
from speciate.loop.watch.decide import lacks_labels
from speciate.loop.watch.definition import Trigger, Watch
from speciate.loop.watch.facts import (
    Checked,
    EndedJob,
    Learned,
    Memory,
    Mined,
    Promoted,
    Requirement,
    Signal,
    Spent,
    WatchFacts,
    Window,
    key_of,
    monitor_key,
)
from speciate.loop.watch.label_counts import LabelReader
from speciate.loop.watch.recall import Recalled
from speciate.loop.watch.rows import LabelRequest, Standing
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.predictions import reading
from speciate.predictions.label_queue import requests
from speciate.predictions.log_files import log_folder
from speciate.promotion import aliases, bake
from speciate.promotion.aliases import Alias
from speciate.promotion.bake import BakeHistories
from speciate.refs import id_from_key
from speciate.training.planning.available_methods import all_candidates
from speciate.training.planning.transferability import comparable
from speciate.use_cases import UseCase
from speciate.vocabulary import find_metric, find_task
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

_STEPS = ("mine", "check", "relearn", "promote")
_BASES_SECONDS = 86_400.0
_ALL_SECONDS = 86_400.0
_TIMED_SECONDS = 600.0
"""What time alone changes, a question that expires, or a file that no event tells of, is seen so late."""
_MOST_WINDOWS = 60
"""Monitoring jobs that one look reads: after a year without a daemon the rest follows with the next looks."""
_SPENT = """
WITH RECURSIVE own AS (
    SELECT id, split_part(key, '/', 2) AS name, run_seconds, created, executor FROM jobs WHERE key LIKE 'watch/%'
    UNION ALL
    SELECT jobs.id, own.name, jobs.run_seconds, jobs.created, jobs.executor FROM jobs JOIN own ON jobs.parent = own.id
)
SELECT name, sum(run_seconds) FILTER (executor = 'local') / 60, coalesce(sum(usd), 0)
FROM own LEFT JOIN (SELECT job, sum(usd) AS usd FROM spending GROUP BY job) paid ON paid.job = own.id
WHERE created >= ? GROUP BY name
"""
_ASKED = "SELECT use_case, count(*) FROM label_requests WHERE asked >= ? GROUP BY use_case"
_USUAL = """
SELECT split_part(parents.key, '/', 2), avg(taken) / 60 FROM (
    SELECT parent, sum(run_seconds) AS taken FROM jobs WHERE parent IS NOT NULL GROUP BY parent
) spent JOIN jobs parents ON parents.id = spent.parent
WHERE parents.kind = 'relearn' AND parents.key LIKE 'watch/%' GROUP BY 1
"""
_CHANGES = "SELECT seq, data FROM events WHERE type = 'endpoint.changed' AND seq > ? ORDER BY seq"
_TAKEN = "SELECT before FROM audit WHERE use_case = ? AND action = 'rollback' AND actor = ? ORDER BY seq DESC LIMIT 10"
_REPORTS = """
SELECT report FROM evaluations WHERE use_case = ? AND contains(models, ?) ORDER BY created DESC, id LIMIT 5
"""
_REQUESTS = """
SELECT use_case, prediction, drawn, episode, asked FROM label_requests
WHERE use_case IN (SELECT unnest(?::VARCHAR[]))
"""
_ENDED = """
SELECT id FROM jobs WHERE id IN (SELECT unnest(?::VARCHAR[])) AND state IN (SELECT unnest(?::VARCHAR[]))
"""
_PROBLEM = "SELECT problem FROM watch_outbox WHERE key = ? AND problem IS NOT NULL"


class Surroundings(NamedTuple):
    """Facts about all watches at one moment."""

    production: Mapping[str, Alias]
    definitions: Mapping[str, UseCase]
    histories: Mapping[str, bake.BakeHistory]
    questions: Mapping[str, str]
    """Use case -> a pending approval."""
    spent: Mapping[str, Spent]
    usual: Mapping[str, float]
    """Use case -> minutes of an episode."""
    learning: tuple[str, ...]
    """Watches whose episode trains now."""
    requests: Mapping[str, Mapping[str, LabelRequest]]
    """Use case -> answer -> its label request, for watches that wait for labels."""
    changes: Sequence[tuple[int, str]]
    """Changed endpoints: number of the event, and the endpoint's identity."""
    canaries: Mapping[str, Alias] = {}
    circles: Mapping[str, tuple[str, ...]] = {}
    """Use case -> those that lean on one another with it."""
    recalls: Mapping[str, Recalled] = {}
    """Use case -> why what serves must go, where a watch asks for that."""
    monitored: frozenset[str] = frozenset()
    """Use cases of which a window is looked at that their watch has not read."""

    def about(self, use_case: str) -> tuple[object, ...]:
        """What an idle watch of this use case can see here."""
        return (
            self.production.get(use_case), self.definitions.get(use_case), self.histories.get(use_case),
            self.questions.get(use_case), self.spent.get(use_case), tuple(self.changes), self.recalls.get(use_case),
            self.circles.get(use_case),
        )  # fmt: skip


@dataclass
class Gatherer:
    """`around` once a look, `seen` for each watch."""

    workspace: Workspace

    def __post_init__(self) -> None:
        self.labels = LabelReader(self.workspace)
        self._known_bases: dict[str, tuple[float, tuple[str, ...]]] = {}
        """Use case -> when they were looked up, and which suit."""
        self._bakes = BakeHistories()
        self._around: tuple[object, int, Surroundings] | None = None
        """What the last look read, with what it was read for."""

    def around(self, standing: Sequence[Standing], now: float) -> Surroundings:
        """Facts about all watches: the same object as at the look before, where nothing happened since.
        Whatever matters to a watch is an event, or seen within minutes."""
        states = tuple((each.watch.use_case, each.memory.state) for each in standing)
        key = (self.workspace.database.last_seq, states, month_start(now), int(now // _ALL_SECONDS))
        timed = int(now // _TIMED_SECONDS)
        if self._around is None or self._around[0] != key:
            self._around = key, timed, self._read_all(standing, now)
        elif self._around[1] != timed:
            known = self._around[2]
            recalls = self._recalls(standing, known.production, known.definitions)
            fresh = known._replace(questions=self._questions(now), recalls=recalls)
            same = (fresh.questions, recalls) == (known.questions, known.recalls)
            self._around = key, timed, known if same else fresh
        return self._around[2]

    def _questions(self, now: float) -> dict[str, str]:
        pending = approvals.list_approvals(self.workspace.database, now, approvals.PENDING)
        return {str(each.arguments["use_case"]): each.id for each in pending if "use_case" in each.arguments}

    def _recalls(
        self, standing: Sequence[Standing], production: Mapping[str, Alias], definitions: Mapping[str, UseCase]
    ) -> dict[str, Recalled]:
        asking = [each.watch.use_case for each in standing if each.watch.has("recall")]
        serving = {name: production[name].model for name in asking if name in production}
        return recall.everyone(self.workspace, serving, definitions)

    def label_news(self, standing: Standing) -> tuple[int, float | None, int]:
        """What an idle watch sees of labels."""
        found = self.labels.counts(standing.watch.use_case, standing.memory.learned_until, {}, standing.memory.episode)
        return found.new, found.alpha, found.doubly

    def _read_all(self, standing: Sequence[Standing], now: float) -> Surroundings:
        database = self.workspace.database
        names = [each.watch.use_case for each in standing]
        month = month_start(now)
        asked: dict[str, int] = dict(database.read(_ASKED, [month]))
        costs = {name: (minutes or 0.0, usd) for name, minutes, usd in database.read(_SPENT, [month])}
        requests: dict[str, dict[str, LabelRequest]] = {}
        labelling = [each.watch.use_case for each in standing if each.memory.state == "labelling"]
        for name, *row in database.read(_REQUESTS, [labelling]) if labelling else ():
            requests.setdefault(name, {})[row[0]] = LabelRequest(*row)
        leaning = [each.memory.provider for each in standing if each.watch.has("provider_change")]
        changes = database.read(_CHANGES, [min(leaning)]) if leaning else []
        production = {each.use_case: each for each in aliases.everywhere(database)}
        definitions = use_cases.in_force(database)
        leans = leanings(database, self.workspace.settings.watch.teachers, definitions)
        return Surroundings(
            production=production,
            definitions=definitions,
            histories=self._bakes.read(database, names),
            questions=self._questions(now),
            spent={
                name: Spent(*costs.get(name, (0.0, 0.0)), asked.get(name, 0)) for name in {*costs, *asked}
            },
            usual=dict(database.read(_USUAL)),
            learning=tuple(each.watch.use_case for each in standing if each.memory.state == "learning"),
            requests=requests,
            changes=[(number, str(json.loads(data).get("identity", ""))) for number, data in changes],
            canaries={each.use_case: each for each in aliases.everywhere(database, aliases.CANARY)},
            circles={name: tuple(found) for name in names if (found := circle(leans, name))},
            recalls=self._recalls(standing, production, definitions),
            monitored=self._monitored(standing, production),
        )  # fmt: skip

    def seen(self, standing: Standing, around: Surroundings, now: float) -> WatchFacts:
        watch, memory, name = standing.watch, standing.memory, standing.watch.use_case
        alias, definition = around.production.get(name), around.definitions.get(name)
        history, canary = around.histories[name], around.canaries.get(name)
        requests = around.requests.get(name, {})
        labels = self.labels.counts(name, memory.learned_until, requests, memory.episode)
        busy = next((other for other in around.learning if other != name), None)
        windows = self._windows(name, memory, alias) if name in around.monitored else ()
        return WatchFacts(
            production=alias.model if alias else None,
            generation=alias.generation if alias else 0,
            moved=alias.changed if alias else 0.0,
            bake=bake.bake_state(history, alias) if alias else "survived",
            taken_back=tuple(row[0] for row in self.workspace.database.read(_TAKEN, [name, bake.ACTOR]))
            if memory.state == "baking" else (),
            canary=canary.model if canary else None,
            canary_bake=bake.bake_state(history, canary) if canary else "provisional",
            question=around.questions.get(name),
            windows=windows,
            labels_new=labels.new,
            pool=self._pool(standing, windows),
            labels_judging=self._judging(standing, windows, labels.new),
            labels_of_episode=labels.of_episode,
            labels_drawn=labels.drawn,
            requested=sum(each.episode == memory.episode for each in requests.values())
            if memory.state == "labelling" else None,
            requirement=self._requirement(memory, alias, definition) if definition else None,
            provider=self._provider(definition, around),
            bases=self._bases(watch, alias, definition, now),
            alpha=labels.alpha,
            doubly_labelled=labels.doubly,
            recalled=around.recalls[name].why if name in around.recalls else None,
            asked=standing.asked or 0.0,
            circle=around.circles.get(name, ()),
            jobs=self._jobs(name, memory),
            approval=self._approval(memory, now),
            spent=around.spent.get(name, Spent()),
            usual_minutes=around.usual.get(name, 10.0),
            busy=busy,
            due=due(watch, memory.scheduled, now),
        )  # fmt: skip

    def _pool(self, standing: Standing, windows: Sequence[Window]) -> int | None:
        """Answers since the newest onset that an idle watch knows of."""
        if standing.memory.state != "idle":
            return None
        known = [alarm.onset for alarm in standing.memory.alarms]
        new = [signal.onset for window in windows for signal in window.signals if signal.alarm]
        onsets = [each for each in (*known, *new) if each is not None]
        log = log_folder(self.workspace.folders, standing.watch.use_case)
        if not onsets or not log.path.exists():
            return None
        return int(reading.answers(log, since=max(onsets), columns=["id"]).num_rows)

    def _judging(self, standing: Standing, windows: Sequence[Window], came: int) -> int:
        """How many of the new labels can judge: looked up where an episode may begin now that could do with them."""
        watch, memory, name = standing.watch, standing.memory, standing.watch.use_case
        alarmed = bool(memory.alarms) or any(signal.alarm for window in windows for signal in window.signals)
        may_begin = memory.state == "idle" and (alarmed or (standing.asked or 0.0) > memory.asked)
        if not may_begin or lacks_labels(watch, came):
            return 0
        drawn = requests(self.workspace.database, name)
        at_random = [prediction for prediction, how in drawn.items() if how == "random"]
        return self.labels.judging(name, memory.learned_until, at_random)

    def _windows(self, name: str, memory: Memory, alias: Alias | None) -> tuple[Window, ...]:
        """Outcomes of the monitoring jobs of what serves that follow the last one that was read, in order."""
        if alias is None:
            return ()
        first = _next_window(memory, alias)
        found: list[Window] = []
        for few in (range(first, first + 2), range(first + 2, first + _MOST_WINDOWS)):  # mostly there is one
            keys = {id_from_key("job", monitor_key(name, alias.generation, number)): number for number in few}
            jobs = job_rows.by_id(self.workspace.database, list(keys))
            for job, number in keys.items():
                if job not in jobs or jobs[job].state not in ENDED:
                    return tuple(found)
                found.append(Window(number, _signals(jobs[job])))
        return tuple(found)

    def _monitored(self, standing: Sequence[Standing], production: Mapping[str, Alias]) -> frozenset[str]:
        keys = {
            id_from_key("job", monitor_key(name, alias.generation, _next_window(each.memory, alias))): name
            for each in standing
            for name in (each.watch.use_case,)
            if (alias := production.get(name)) is not None
        }
        ended = [str(state) for state in ENDED]
        return frozenset(keys[job] for (job,) in self.workspace.database.read(_ENDED, [list(keys), ended]))

    def _jobs(self, name: str, memory: Memory) -> dict[str, EndedJob]:
        if memory.state not in ("mining", "checking", "learning") and not (memory.state == "baking" and memory.canary):
            return {}
        keys = {step: key_of(name, memory, step) for step in _STEPS}
        jobs = job_rows.by_id(self.workspace.database, [id_from_key("job", key) for key in keys.values()])
        found: dict[str, EndedJob] = {}
        for step, key in keys.items():
            job = jobs.get(id_from_key("job", key))
            if job is not None and job.state in ENDED:
                found[step] = self._ended(step, job)
            elif job is None and (problem := self.workspace.database.read_one(_PROBLEM, [key])) is not None:
                found[step] = EndedJob("", None, str(problem[0]))
        return found

    def _ended(self, step: str, job: Job) -> EndedJob:
        if job.state != State.SUCCEEDED or job.result is None:
            return EndedJob(job.id, None, f"{job.id} {job.shown_state}")
        if step == "mine":
            return EndedJob(job.id, Mined.model_validate(job.result))
        if step == "promote":
            asked = (job.result.get("approval") or {}).get("id")
            found = Promoted(state=job.result["state"], approval=asked)
            return EndedJob(job.id, found, "it was refused" if found.state == "refused" else "")
        if step == "relearn":
            return EndedJob(job.id, Learned.model_validate(job.result))
        definition = use_cases.get(self.workspace.database, str(job.use_case))
        rows = self.workspace.database.read("SELECT report FROM evaluations WHERE job = ?", [job.id])
        report = Report.model_validate_json(rows[0][0]) if rows else None
        serving = use_cases.serving(self.workspace.database, definition.name)
        return EndedJob(job.id, _checked(definition, report, serving))

    def _approval(self, memory: Memory, now: float) -> str | None:
        if memory.state != "asking" or memory.approval is None:
            return None
        try:
            return approvals.get(self.workspace.database, memory.approval).state_at(now)
        except SpeciateError:
            return None

    def _requirement(self, memory: Memory, alias: Alias | None, definition: UseCase) -> Requirement:
        """Whether it is met is only looked up where the requirement changed."""
        if alias is None or definition.version <= memory.requirement or memory.requirement == 0:
            return Requirement(definition.version, None)
        for (text,) in self.workspace.database.read(_REPORTS, [definition.name, alias.model]):
            report = Report.model_validate_json(text)
            if report.metric == definition.objective.metric and report.decision is not None:
                checked = _checked(definition, report, alias.model)
                return Requirement(definition.version, checked.meets, checked.failing)
        return Requirement(definition.version, None)

    def _provider(self, definition: UseCase | None, around: Surroundings) -> int:
        """Number of the newest change of an endpoint that the use case leans on, its incumbent or teacher; 0: none."""
        if definition is None or not around.changes:
            return 0
        named = {definition.incumbent, self.workspace.settings.watch.teachers.get(definition.name)}
        own = {self._endpoint(model) for model in named if model} - {None}
        return max((number for number, identity in around.changes if identity in own), default=0)

    def _endpoint(self, model: str) -> str | None:
        """The identity of the endpoint behind a model; None where its files are here, or it is none."""
        if model.startswith((use_cases.COLUMN, use_cases.CONSTANT)):
            return None
        endpoint = registry.endpoint_of(self.workspace.database, model)
        return endpoint.identity if endpoint else None

    def _allowed(self, base: str, definition: UseCase) -> bool:
        try:
            card = registry.resolve(self.workspace.database, self.workspace.folders, base).card
        except SpeciateError:  # a network that begins with random weights, say, is no version
            return True
        return _within(card, definition)

    def _bases(
        self, watch: Watch, alias: Alias | None, definition: UseCase | None, now: float
    ) -> tuple[str, ...] | None:  # fmt: skip
        """Base models that suit, of those that are installed or were fetched: looked up once a day. Nothing is
        downloaded, and the hub is not asked."""
        if alias is None or definition is None or not watch.has("new_base_model"):
            return None
        known = self._known_bases.get(definition.name)
        if known is None or now - known[0] >= _BASES_SECONDS or now < known[0]:
            modality = find_modality(self.workspace.database, alias.model)
            family = find_task(definition.task).family
            found = all_candidates(self.workspace, modality, family) if modality else []
            named = dict.fromkeys(each.base_model for each in found if comparable(each.base_model))
            bases = tuple(each for each in named if each and self._allowed(each, definition))
            known = self._known_bases[definition.name] = now, bases
        return known[1]


def _within(card: ModelCard, definition: UseCase) -> bool:
    """By licence and size, as far as the card says them: what it does not say is checked by whoever trains."""
    limits = definition.limits
    licensed = not limits.licenses or card.license is None or card.license in limits.licenses
    return licensed and (
        limits.max_parameters is None or card.parameters is None or card.parameters <= limits.max_parameters
    )


def find_modality(database: Database, model: str) -> str | None:
    cards = registry.versions(database, model.partition("@")[0])
    return next((each.modality for each in cards if each.ref == model), None)


def _next_window(memory: Memory, alias: Alias) -> int:
    """Number of the first window that was not read."""
    return memory.window + 1 if alias.generation == memory.generation else 0


def month_start(now: float) -> float:
    """When the calendar month began, UTC, in seconds since the epoch."""
    day = datetime.fromtimestamp(now, UTC)
    return datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()


def due(watch: Watch, since: float, now: float) -> float | None:
    """The newest moment of a schedule in (since, now]: missed ones count once."""
    moments = [last_time(each, now) for each in watch.triggers if each.on == "schedule"]
    came = [each for each in moments if each is not None and each > since]
    return max(came, default=None)


def last_time(trigger: Trigger, now: float) -> float | None:
    """The newest moment of a schedule that is not after `now`. The definition was checked."""
    begin = datetime.fromtimestamp(int(now) + 1, UTC).astimezone(ZoneInfo(trigger.zone))
    try:
        return float(next(CronSim(trigger.cron or "", begin, reverse=True)).timestamp())
    except StopIteration:
        return None


def _signals(job: Job) -> tuple[Signal, ...]:
    """Signals in a monitoring job's result; none where it failed: its window is passed over."""
    listed = (job.result or {}).get("signals", ())
    return tuple(
        Signal(
            name=str(each["name"]), alarm=bool(each.get("alarm")), onset=each.get("onset"), p=each.get("p"),
            log_evidence=float(each.get("log_evidence") or 0.0),
        )
        for each in listed
    )  # fmt: skip


def _checked(definition: UseCase, report: Report | None, serving: str | None) -> Checked:
    """By the values of the evaluation; an objective without a target is met by whatever serves."""
    row = next((each for each in report.leaderboard if each.model == serving), None) if report else None
    if row is None or (row.value is None and definition.objective.target is not None):
        return Checked(meets=None)
    failing: list[str] = []
    target, sign = definition.objective.target, find_metric(definition.objective.metric).sign
    if target is not None and row.value is not None and sign * row.value < sign * target:
        failing.append(f"{definition.objective.metric} is {row.value:.4g}, and {target:g} is asked")
    limits = definition.limits
    for name, most, value in (
        ("p95_latency_ms", limits.p95_latency_ms, row.p95_ms),
        ("max_parameters", limits.max_parameters, row.parameters),
        ("max_memory_mb", limits.max_memory_mb, row.memory_mb),
    ):
        if most is not None and value is not None and value > most:
            failing.append(f"{name} is {value:.4g}, and at most {most:g} is allowed")
    return Checked(meets=not failing, failing=tuple(failing))
