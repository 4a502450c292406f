"""What a watch remembers, what it sees, and what it decides: plain data between the pure function and its callers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from speciate.loop.watch.definition import TriggerKind

State = Literal["idle", "mining", "labelling", "checking", "learning", "asking", "baking"]
StepName = Literal["mine", "check", "relearn", "promote"]
Outcome = Literal["promoted", "hold", "inconclusive", "taken_back", "denied", "no_labels", "met", "failed", "stopped"]

Evidence = Mapping[str, float | str | list[str] | None]
"""Ids and numbers alone: no text of others."""


class Alarm(BaseModel):
    """A detector that has enough evidence, until an episode took it up."""

    model_config = ConfigDict(frozen=True)
    signal: str
    onset: float | None = None
    """When the change began, most likely."""
    log_evidence: float = 0.0
    window: int = 0


class Memory(BaseModel):
    """The one row that a tick changes."""

    model_config = ConfigDict(frozen=True)
    state: State = "idle"
    since: float = 0.0
    """When the state began."""
    episode: int = 0
    begun: float = 0.0
    """When the episode began."""
    round: int = 1
    """Round of labelling; the second asks for what an inconclusive comparison lacked."""
    rounds: int = 2
    """How many there may be: one more where the first found that there was nothing to judge by, and asked nobody."""
    causes: tuple[TriggerKind, ...] = ()
    fingerprints: tuple[str, ...] = ()
    """Fingerprints of the causes of the running episode."""
    model: str | None = None
    generation: int = 0
    moved: float = 0.0
    """When the model came into production."""
    window: int = -1
    """The last monitoring job that was read."""
    alarms: tuple[Alarm, ...] = ()
    tried: Mapping[str, float] = {}
    """Fingerprint -> when that cause may fire again: never is wrong, for what was tried in vain may still be so."""
    quiet_until: float = 0.0
    fruitless: int = 0
    """Episodes without a better model, one after another."""
    undecided: int = 0
    """Episodes whose labels were too few to tell, one after another."""
    learned_until: float = 0.0
    """Labels that came until then were learned from, or were tried."""
    scheduled: float = 0.0
    """Time until which schedules were looked at."""
    asked: float = 0.0
    """The newest call with the trigger `now` that was dealt with."""
    requirement: int = 0
    """Version of the use case that was last looked at."""
    provider: int = 0
    """Number of the last event of a changed endpoint that was looked at."""
    bases: tuple[str, ...] = ()
    """Base models that are known to this watch."""
    looked_up: bool = False
    """Whether `bases` was ever looked up: then none may be known, too."""
    new_bases: tuple[str, ...] = ()
    """That the running episode tries, until it is over."""
    mined: int = 0
    """Answers that this episode asked people about."""
    onset: float | None = None
    model_found: str | None = None
    """The candidate of this episode."""
    before: str | None = None
    """What served when the episode began."""
    first: str | None = None
    """The candidate of its first round, once it survived its bake, where a second round follows."""
    short: bool = False
    """Whether the candidate is short of the target on the judged answers."""
    approval: str | None = None
    canary: bool = False
    """Whether the candidate serves a share first."""
    told: float = 0.0
    """When the last notice was given."""


@dataclass(frozen=True)
class Signal:
    """What a monitoring job says of one detector."""

    name: str
    alarm: bool
    onset: float | None = None
    log_evidence: float = 0.0
    p: float | None = None


@dataclass(frozen=True)
class Window:
    """An ended monitoring job."""

    number: int
    signals: tuple[Signal, ...] = ()


class Mined(BaseModel):
    """Result of the kind `mine`."""

    model_config = ConfigDict(frozen=True)
    asked: int
    """Answers that people are asked about."""
    pool: int
    """Answers that could have been chosen."""
    not_kept: int = 0
    """Answers whose inputs the log did not keep."""
    near_suites: int = 0
    """Answers that were passed over, for they are near-copies of rows of a suite."""


class Checked(BaseModel):
    """What an evaluation of production alone says."""

    model_config = ConfigDict(frozen=True)
    meets: bool | None
    failing: tuple[str, ...] = ()


class Taught(BaseModel):
    """Result of the kind `teach`."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    teacher: str
    checked: int
    """Labels of people that it was held to."""
    agreement: float | None
    interval: tuple[float, float] | None
    """Wilson's, of 95 %."""
    trusted: bool
    because: str
    labels: int = 0
    """Labels that the teacher gave; none where it is not trusted."""
    source: str | None = None
    """The job under which the log has them."""


class ShadowReport(BaseModel):
    """Numbers and ids: what was asked and answered lies in the log."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    model: str
    against: str | None
    """The version whose logged answers it is held to."""
    asked: int
    failed: int
    """Inputs that it could not answer, and that were answered."""
    agree: int
    agreement: float | None
    interval: tuple[float, float] | None
    """Wilson's, of 95 %."""
    disagreements: tuple[str, ...]
    """Answers on which they differ, those first of which the candidate is most sure."""
    ms: float | None
    """Milliseconds for one input: the median over chunks of 16 asked together, once the candidate is loaded."""
    logged_ms: float | None
    """The median of what was logged: of requests of any size, so not to be compared to the last digit."""


class Learned(BaseModel):
    """Result of the kind `relearn`."""

    model_config = ConfigDict(frozen=True)
    verdict: Literal["promote", "hold", "inconclusive"]
    why: str
    model: str | None = None
    """The candidate that the verdict is about."""
    evaluation: str | None = None
    promotion: Literal["applied", "needs_approval", "refused"] | None = None
    approval: str | None = None
    gain: float | None = None
    """Gain on the judged answers of production, over what serves."""
    interval: tuple[float, float] | None = None
    judged: int = 0
    """Randomly drawn answers that judged it."""
    needed_labels: int | None = None
    smallest_gain: float | None = None
    short: bool = False
    """Whether it is short of the use case's target on the judged answers, by its estimate."""
    canary: bool = False
    """Whether it serves a share of a deployment's requests, and not yet all."""
    shadow: ShadowReport | None = None
    """What it answered to logged inputs."""
    taught: Taught | None = None
    """What a teacher labelled of what it learned from."""
    used_labels: bool = True
    """False: it ended before it learned from any, which wait for the next episode."""
    settled: bool = False
    """Whether nothing need be done about what began the episode: there is nothing to gain, or what serves reaches the
    target on what is asked now."""
    bases: tuple[str, ...] | None = None
    """New base models that may be better than what serves; None: it did not look."""


class Promoted(BaseModel):
    """Result of `promote`, after a canary survived."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    state: Literal["applied", "needs_approval", "refused"]
    approval: str | None = None


@dataclass(frozen=True)
class EndedJob:
    """A job of the running episode that has ended."""

    job: str
    outcome: Mined | Checked | Learned | Promoted | None
    """None where it failed."""
    why: str = ""
    """Why it failed, in our own words."""


@dataclass(frozen=True)
class Spent:
    """What the watch's jobs took in this calendar month."""

    minutes: float = 0.0
    usd: float = 0.0
    labels: int = 0


@dataclass(frozen=True)
class Requirement:
    version: int
    meets: bool | None
    """Whether the last evaluation of what serves meets it; None: no evaluation under this version says so."""
    failing: tuple[str, ...] = ()


@dataclass(frozen=True)
class WatchFacts:
    """Facts, read by the caller. Nothing here is a guess."""

    production: str | None
    generation: int = 0
    moved: float = 0.0
    bake: Literal["provisional", "survived", "broken"] = "survived"
    taken_back: tuple[str, ...] = ()
    """Versions that the bake took out of production, newest first."""
    canary: str | None = None
    """The version that serves a share beside production."""
    canary_bake: Literal["provisional", "survived", "broken"] = "provisional"
    question: str | None = None
    """A pending approval of this use case."""
    windows: tuple[Window, ...] = ()
    """Monitoring windows newer than `memory.window`, oldest first."""
    labels_new: int = 0
    """Labelled answers that came after memory.learned_until."""
    labels_judging: int = 0
    """Those new labels that can judge, as their answers were drawn at random; others teach and judge nothing. Looked up
    where an episode may begin with them."""
    pool: int | None = None
    """Answers since the onset of the newest alarm, while the watch is idle; None: there is no such alarm."""
    labels_of_episode: int = 0
    labels_drawn: int = 0
    """Those of `labels_of_episode` whose answers were drawn at random."""
    requested: int | None = None
    """Answers that the episode waits for: a purge takes some. None: all that it asked about."""
    requirement: Requirement | None = None
    provider: int = 0
    """Number of the newest event of a changed endpoint that the use case leans on."""
    bases: tuple[str, ...] | None = None
    """Base models that suit and are there; None: not looked up."""
    alpha: float | None = None
    """Krippendorff's, of at least 50 answers that several people labelled."""
    doubly_labelled: int = 0
    recalled: str | None = None
    """Why what serves must go."""
    asked: float = 0.0
    """When somebody last called for an episode now."""
    jobs: Mapping[str, EndedJob] = field(default_factory=dict)
    """Step -> the ended job of this episode and round."""
    approval: str | None = None
    """State of the approval that the episode asked for."""
    spent: Spent = Spent()
    usual_minutes: float = 10.0
    """Minutes that an episode of this watch usually takes, by those before."""
    circle: tuple[str, ...] = ()
    """Use cases that lean on one another with this one."""
    busy: str | None = None
    """Another watch's episode that trains now."""
    due: float | None = None
    """The newest moment of a schedule since memory.scheduled; None: none came."""


@dataclass(frozen=True)
class Cause:
    """A trigger that fired."""

    kind: TriggerKind
    fingerprint: str
    """Identity of the cause: it is the same when the same cause fires again."""
    text: str
    evidence: Evidence
    gain: float | None
    """Expected, in the objective's metric; None: not known."""
    minutes: float
    labels: int


@dataclass(frozen=True)
class Start:
    """A job to begin, by a key that follows from watch, episode, step and round."""

    step: StepName
    n: int = 0
    """For `mine`: how many answers to ask about."""
    since: float | None = None
    """For `mine`: time from which on answers are taken; None: since what serves came."""
    minutes: float = 0.0
    """For `relearn`: how long it may take."""
    usd: float = 0.0
    bases: tuple[str, ...] = ()
    """For `relearn`: base models to try besides."""
    model: str | None = None
    """For `promote`: the version to promote."""
    fresh: bool = True
    """For `relearn`: whether it begins with the labels that came."""


@dataclass(frozen=True)
class WatchNotice:
    """What a person is told: `type` of the event, and a sentence without text of others."""

    type: Literal[
        "watch.begun", "watch.labels", "watch.ended", "watch.unresolved", "watch.budget", "watch.disagreement"
    ]
    text: str


@dataclass(frozen=True)
class End:
    """How an episode ended."""

    outcome: Outcome
    because: str
    model: str | None = None
    smallest_gain: float | None = None
    """The smallest gain that could have been seen: 'nothing to gain' and 'nothing could be seen' differ by it."""


@dataclass(frozen=True)
class Decision:
    """What one look comes to."""

    memory: Memory
    because: str
    fired: tuple[Cause, ...] = ()
    """All that fired, whether or not anything was begun."""
    taken: tuple[Cause, ...] = ()
    """The causes that an episode began with, or that joined one."""
    start: tuple[Start, ...] = ()
    told: tuple[WatchNotice, ...] = ()
    ended: End | None = None


def key_of(use_case: str, memory: Memory, step: str) -> str:
    """Key of a job: the same step of the same round of the same episode is the same job, however often it is asked
    for."""
    return f"watch/{use_case}/{memory.episode}/{step}" + (f".{memory.round}" if memory.round > 1 else "")


def monitor_key(use_case: str, generation: int, number: int) -> str:
    return f"watch/{use_case}/monitor/{generation}/{number}"
