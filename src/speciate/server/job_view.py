"""A job as clients see it: what tools, resources and tasks show of it, with its learning curves."""

from __future__ import annotations

import base64
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import Field

from speciate.datasets import versions
from speciate.errors import Code, SpeciateError
from speciate.evaluation import suite_choice
from speciate.governance import approvals
from speciate.jobs.engine import Engine
from speciate.jobs.folder import METRICS, RunFolder, decode_whole
from speciate.jobs.folder import Progress as RunProgress
from speciate.jobs.job import ENDED, LIVE, Job, JobResult, State
from speciate.jobs.pool import Pool
from speciate.server.next_actions import after_dataset, after_failure, after_model, first_answer, next_calls
from speciate.server.tool_api import App, NextAction, Progress, Result
from speciate.training.cascade.candidates import step_name
from speciate.training.curve_measures import held_sign, measures, sign_of
from speciate.training.planning.estimates import OWN_COSTS
from speciate.training.train_spec import Candidate

if TYPE_CHECKING:
    from speciate.training.networks.training_log import MetricsLine

_SLICE_SECONDS = 1.0
_LONGEST_LINE = 160
"""Characters of why a job failed, where it is one of several."""
_LONGEST_MESSAGE = 2_000
_LOG_PIECE = 64_000
_EASY_STATES = {State.FAILED: "retry", State.DEAD: "retry", State.CANCELLED: "retry", State.PAUSED: "resume"}
_MAKE_DATASETS, _MAKE_MODELS = ("ingest", "curate", "label", "predict"), ("train", "merge", "convert")
_AT_REST = ENDED | {State.PAUSED}
"""Nothing happens to these until somebody asks for it."""


class JobProgress(Result):
    done: float
    total: float | None = None
    unit: str = ""


class JobError(Result):
    kind: str
    """user (never retried), transient, memory, stopped, killed."""
    message: str
    recovery: str = ""


class JobLine(Result):
    """A job in a list."""

    job: str
    kind: str
    state: str
    attempt: int
    use_case: str | None = None
    step: str | None = None
    """Its step in a larger job; of a training by itself what that would call it: `train/probe-minilm`."""
    created_at: float
    """Seconds since the epoch, as all times here."""
    run_seconds: float
    outcome: str | None = None
    """What a promotion has come to by now, whose job succeeds however it was decided: applied, needs_approval or
    refused; denied, expired or void where a person was asked."""
    error: str | None = None
    """The first line of why it failed; get_job has all of it."""


class ForeignText(Result):
    log_tail: str = ""
    message: str = ""
    """What the run said last about its progress."""
    error_text: str = ""
    """What a library said of the error, in its words."""


class LearningCurves(Result):
    """`job`: the one that learns, where a composite was asked about."""

    job: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    lines: int
    """How many lines there are; the rows are some of them, the last one included."""


class JobView(Result):
    """A job with all that is known of it."""

    untrusted_characters: ClassVar[int] = 100_000  # the caller chooses the number of lines

    job: str
    kind: str
    state: str
    attempt: int
    reason: str | None = None
    """Why it is in this state, or why it does not get on."""
    request: str | None = None
    """What was asked of a run that still lives: cancel, pause or stop."""
    place: str | None = None
    """Place of settings.toml, where it does not run here."""
    progress: JobProgress | None = None
    eta_seconds: float | None = None
    run_seconds: float = 0.0
    result: JobResult | None = None
    error: JobError | None = None
    children: tuple[JobLine, ...] = ()
    next_actions: tuple[NextAction, ...] = ()
    poll_after_seconds: float | None = None
    learning: LearningCurves | None = None
    untrusted: ForeignText = Field(default_factory=ForeignText)


class LogPiece(Result):
    job: str
    attempt: int
    next_after: int
    """Byte offset to ask for next."""
    untrusted: dict[str, str]


_Age = Callable[[float], float]
"""Seconds since a stamp, however the clock was set since."""


def job_lines(engine: Engine, jobs: Sequence[Job]) -> tuple[JobLine, ...]:
    """A line for each job; however many composites are among them, their children are read at once."""
    children: defaultdict[str | None, list[Job]] = defaultdict(list)
    for child in engine.children(*(job.id for job in jobs if job.executor == "composite")):
        children[child.parent].append(child)
    return tuple(_job_line(engine, job, children[job.id]) for job in jobs)


def job_view(engine: Engine, job: Job, log_lines: int) -> JobView:
    age = engine.workspace.elapsed.least
    folder, children = engine.folder(job), engine.children(job.id)
    progress = folder.progress()
    nearest = _child_progress(engine, children) if progress is None else progress
    eta = _eta(job, progress, age)
    return JobView(
        job=job.id, kind=job.kind, state=job.shown_state, attempt=job.attempt, reason=_reason(engine, job, children),
        request=job.request, place=job.resources.place, progress=_progress(nearest),
        eta_seconds=eta, run_seconds=_run_seconds(job, children, age), result=_result(engine, job), error=_error(job),
        children=tuple(_job_line(engine, child, ()) for child in children), next_actions=_next_actions(engine, job),
        poll_after_seconds=None if job.state in _AT_REST else min(30.0, max(2.0, (eta or 10.0) / 2)),
        untrusted=ForeignText(
            log_tail=folder.log_tail(log_lines),
            message=nearest.message if nearest else "",
            error_text=(job.error or {}).get("detail", ""),
        ),
    )  # fmt: skip


def _result(engine: Engine, job: Job) -> JobResult | None:
    """As it is stored; of a promotion what it has come to since, and of a curation also which use cases stay on an
    older version, since it left rows that they judged."""
    if job.result is None or job.kind == "promote":
        return job.result and _promotion_by_now(engine, job)
    if promotion := job.result.get("promotion"):
        now = _promotion_by_now(engine, job)
        return {**job.result, "promotion": now["state"] if isinstance(promotion, str) else now}
    dataset = job.result.get("dataset")
    if job.kind not in ("curate", "label") or not dataset:
        return job.result
    try:
        kept = suite_choice.left_behind(engine.workspace, versions.resolve(engine.workspace.database, dataset))
    except SpeciateError:
        return job.result  # deleted since
    return {**job.result, "suites_kept": list(kept)} if kept else job.result


def _progress(progress: RunProgress | None) -> JobProgress | None:
    return JobProgress(done=progress.done, total=progress.total, unit=progress.unit) if progress else None


def _promotion_by_now(engine: Engine, job: Job) -> JobResult:
    """What the promotion of a job has come to: where a person was asked, by the answer. Empty where it has none."""
    result = job.result or {}
    said: Any = result if job.kind == "promote" else result.get("promotion") or {}
    of_episode = {"state": said, "approval": {"id": result.get("approval")}}
    promotion: JobResult = of_episode if isinstance(said, str) else said
    asked = (promotion.get("approval") or {}).get("id")
    if promotion.get("state") != "needs_approval" or asked is None:
        return promotion
    try:
        state = approvals.get(engine.workspace.database, asked).state_at(engine.workspace.clock.now())
    except SpeciateError:
        return promotion  # redacted since
    if state == approvals.PENDING:
        return promotion
    return {**promotion, "state": "applied" if state == approvals.APPROVED else state}


def _job_line(engine: Engine, job: Job, children: Sequence[Job]) -> JobLine:
    return JobLine(
        job=job.id, kind=job.kind, state=job.shown_state, attempt=job.attempt, use_case=job.use_case, step=step_of(job),
        created_at=job.created, run_seconds=_run_seconds(job, children, engine.workspace.elapsed.least),
        outcome=outcome(engine, job), error=_first_line(job),
    )  # fmt: skip


def step_of(job: Job) -> str | None:
    """Its step in a larger job; of a training by itself what that would call it."""
    if job.step is not None or job.kind != "train":
        return job.step
    report, options = (job.result or {}).get("report") or {}, job.spec.get("hyperparameters") or {}
    said = {**job.spec, **report}
    if not said.get("method"):
        return None  # until its recipe was read
    asked = {name: said.get(name) for name in ("method", "base_model", "continue_from")}
    own = {name: (report.get("cost") or {}).get(name) or options.get(name) for name in OWN_COSTS}
    return step_name(Candidate.model_construct(**asked, **own))


def _first_line(job: Job) -> str | None:
    """The first line of why it failed, as far as a list has room for it."""
    if job.state not in (State.FAILED, State.DEAD):
        return None
    message = str((job.error or {}).get("message") or job.reason or "").strip()
    line = message.partition("\n")[0]
    return (line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…") or None


def outcome(engine: Engine, job: Job) -> str | None:
    """What a promotion has come to by now, whose job succeeds however it was decided."""
    if job.kind != "promote" or not job.result or "state" not in job.result:
        return None
    return str(_promotion_by_now(engine, job)["state"])


def _child_progress(engine: Engine, children: Sequence[Job]) -> RunProgress | None:
    """What the running child of a composite says of itself: the composite has no run of its own."""
    for child in children:
        if child.state in LIVE and (progress := engine.folder(child).progress()):
            return progress._replace(message=f"{child.step}: {progress.message}")
    return None


def _reason(engine: Engine, job: Job, children: Sequence[Job]) -> str | None:
    """Why it does not get on, its children's troubles included; else what its state came from."""
    for each in () if job.state in ENDED else (job, *children):
        if each.state not in ENDED and (trouble := engine.trouble(each.id)):
            return trouble[:_LONGEST_MESSAGE]
    if not any(each.state in LIVE for each in children):
        for each in (job, *children):
            if each.state is State.QUEUED and (why := engine.waits(each.id)):
                return why if each.id == job.id else f"{each.step}: {why}"
    return job.reason


def wait_until(app: App, job: str, until: str, seconds: float) -> Job:
    """Block until the job ends or is paused, or with `until='change'` until its state, a child or a checkpoint changes.

    Meanwhile tells the client how far the run is, where it asked for that.
    """
    engine = app.engine
    first = current = engine.get(job)
    marks, reported = _change_marks(engine, first), -1.0
    end = time.monotonic() + seconds
    while current.state not in _AT_REST and (left := end - time.monotonic()) > 0:
        current = engine.wait(job, until=until, timeout=min(left, _SLICE_SECONDS))
        if app.progress is not None:
            reported = _report_progress(engine, app.progress, current, reported)
        if until == "change" and (current != first or _change_marks(engine, current) != marks):
            break
    return current


def log_after(engine: Engine, job: Job, after: int, most: int = _LOG_PIECE) -> LogPiece:
    """The newest attempt's log from a byte offset on, at most so many bytes of it; whole characters."""
    path = engine.folder(job).log
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin = min(max(after, 0), size)
            file.seek(begin)
            text, length = decode_whole(file.read(most))
    except FileNotFoundError:
        text, begin, length = "", 0, 0
    return LogPiece(job=job.id, attempt=job.attempt, next_after=begin + length, untrusted={"log": text})


def failure_error(job: Job) -> SpeciateError:
    """Why a job did not succeed, as an error to show."""
    error = job.error or {}
    message = error.get("message") or job.reason or f"The job is {job.shown_state}."
    recovery = error.get("recovery") or f"Call get_job(job='{job.id}', log_lines=100) for its log."
    return SpeciateError(Code.INVALID, f"{job.id} {job.shown_state}: {message}", recovery, error.get("detail", ""))


class _ChangeMarks(NamedTuple):
    """What counts as a change beside the job's own row."""

    children: tuple[tuple[str, str], ...]
    checkpoints: int


def _change_marks(engine: Engine, job: Job) -> _ChangeMarks:
    children = tuple((child.id, str(child.state)) for child in engine.children(job.id))
    return _ChangeMarks(children, _checkpoints(engine.folder(job)))


def _checkpoints(folder: RunFolder) -> int:
    try:
        return sum(1 for _ in folder.checkpoints.iterdir())
    except FileNotFoundError:
        return 0


def _report_progress(engine: Engine, tell: Progress, job: Job, reported: float) -> float:
    """Report how far a job is, if that is more than was `reported`: the protocol's progress only grows. A composite is
    as far as its steps are, and names the one that runs."""
    if progress := engine.folder(job).progress():
        done, total, unit = progress.done, progress.total, progress.unit
    elif children := engine.children(job.id):
        running = [child for child in children if child.state in LIVE]
        done = sum(child.state in ENDED for child in children) + sum(_share_done(engine, child) for child in running)
        total, unit = float(len(children)), "steps" + "".join(f": {child.step}" for child in running[:1])
    else:
        return reported
    if done > reported:
        tell(done, total, f"{job.state} {unit}".strip())
    return max(done, reported)


def _share_done(engine: Engine, job: Job) -> float:
    """How far a run is, in hundredths below 1: what is left after its last count takes time, too."""
    progress = engine.folder(job).progress()
    share = progress.done / progress.total if progress and progress.total else 0.0
    return math.floor(100 * min(max(share, 0.0), 0.99)) / 100


def _eta(job: Job, progress: RunProgress | None, age: _Age) -> float | None:
    """Seconds left if it goes on as it did since the attempt began, or as its plan expected before the first step; at
    most what is left of its budget."""
    if job.state in ENDED:
        return None
    ran = age(job.started) if job.state in LIVE and job.started is not None else 0.0
    budget = job.spec.get("budget_minutes")
    most = 60 * budget - ran if isinstance(budget, int | float) else math.inf
    if ran and progress is not None and progress.total and progress.done > 0:
        left = ran * (progress.total - progress.done) / progress.done
    elif job.estimate is not None:
        left = job.estimate - ran
    else:
        return None
    return round(max(0.0, min(left, most)), 1)


def _run_seconds(job: Job, children: Sequence[Job], age: _Age) -> float:
    """Seconds of all attempts; of a composite the sum of its children's."""
    if children:
        return round(sum(_run_seconds(child, (), age) for child in children), 3)
    running = age(job.started) if job.state in LIVE and job.started is not None else 0.0
    return round(job.run_seconds + max(0.0, running), 3)


def _error(job: Job) -> JobError | None:
    if job.error is None:
        return None
    return JobError(
        kind=str(job.error.get("class", "")),
        message=str(job.error.get("message", ""))[:_LONGEST_MESSAGE],
        recovery=str(job.error.get("recovery", "")),
    )


def _next_actions(engine: Engine, job: Job) -> tuple[NextAction, ...]:
    if job.state is State.SUCCEEDED:
        return _after_success(engine, job, job.result or {})
    if job.state is State.FAILED and (job.error or {}).get("class") == "user":
        return after_failure(job)  # a retry would fail again
    if job.state in _EASY_STATES:
        return (NextAction(tool="control_job", arguments={"job": job.id, "action": _EASY_STATES[job.state]}),)
    return (NextAction(tool="wait_for_job", arguments={"job": job.id}),)


def _after_success(engine: Engine, job: Job, result: JobResult) -> tuple[NextAction, ...]:
    """A promotion leads to a person's answer, to the model's first one or to what would settle a refusal, a verdict to
    its evidence and, where it is to promote, to that, else to what would settle it, a dataset to a look at it and to a
    model, a model to its evaluation: of a step of a larger job that job sees to it."""
    if job.kind in _MAKE_DATASETS and (dataset := result.get("dataset")):
        return after_dataset(engine.workspace.database, dataset)
    if job.kind in _MAKE_MODELS and (model := result.get("model")):
        if job.parent is not None and engine.get(job.parent).state not in ENDED:
            return (NextAction(tool="wait_for_job", arguments={"job": job.parent}),)
        return after_model(engine.workspace, model)
    promotion = _promotion_by_now(engine, job)
    if promotion.get("state") == "needs_approval":
        return (NextAction(tool="list_approvals", arguments={"state": "pending"}),)
    if promotion.get("state") == "applied":
        return (first_answer(engine.workspace, job.use_case or ""),)
    if promotion.get("next"):
        return next_calls(promotion["next"])
    if evaluation := result.get("evaluation"):
        look = NextAction(tool="describe_evaluation", arguments={"evaluation": evaluation})
        settle = tuple(NextAction(**call) for call in (result.get("decision") or {}).get("settle", ()))
        return (look, *settle, *_promotion(job, result)) if job.kind == "evaluate" else (look, *settle)
    return ()


def _promotion(job: Job, result: JobResult) -> tuple[NextAction, ...]:
    """Where the verdict is to promote, and no further suite is to be asked first."""
    put_forward = {"candidate": (result.get("report") or {}).get("candidate"), **(result.get("decision") or {})}
    passed = [
        each["candidate"]
        for each in (put_forward, *result.get("decisions", ()))
        if each.get("verdict") == "promote" and each["candidate"] and ":" not in each["candidate"]  # an ensemble
    ]
    if not passed or result.get("further_suites") or not job.use_case:
        return ()
    arguments = {"use_case": job.use_case, "model": passed[0], "evaluation": result["evaluation"]}
    return (NextAction(tool="promote_model", arguments=arguments),)


_DRAW = "speciate.training.networks.training_log:serve_curves"
_ROWS, _POINTS, _LIVE_POINTS = 24, 600, 160
"""Lines of a table, of an image, and of what a page asks for twice a second."""
_JUDGED = b'"held_value"'
_LONGEST = 16 * 1024 * 1024  # bytes of the file's end that are read
_DIGITS = 5
_SAMPLES, _LARGEST_SAMPLES = "samples.png", 4 * 1024 * 1024


class LearningPlot(NamedTuple):
    curves: LearningCurves
    png: bytes


def learning_curves(engine: Engine, pool: Pool, job: Job) -> LearningPlot | None:
    """Learning curves of the job, or of that child which learned last; None where nothing has curves."""
    if (found := _newest_metrics(engine, job)) is None:
        return None
    shown, drawn_lines = _thin_out(found.lines, _ROWS), _thin_out(found.lines, _POINTS)
    columns = tuple(dict.fromkeys(name for line in (*drawn_lines, *shown) for name in line))
    rows = tuple(tuple(_round_digits(line.get(name)) for name in columns) for line in shown)
    drawn = pool.ask(_DRAW, {"lines": drawn_lines})["png"]
    curves = LearningCurves(job=found.place.partition("/")[0], columns=columns, rows=rows, lines=len(found.lines))
    return LearningPlot(curves, base64.b64decode(drawn))


class Measured(NamedTuple):
    """What a run measured while it trained."""

    place: str
    """Job and file that hold it."""
    end: int
    """Byte of the file after the last line."""
    lines: list[MetricsLine]
    held_sign: int | None
    """1 where a larger `held_value` is better, -1 where a smaller one is; None where that is not known."""


def read_curves(engine: Engine, job: Job) -> Measured | None:
    """Some lines of the job or of that child which learned last, with the last and the best; None without curves."""
    if (found := _newest_metrics(engine, job)) is None:
        return None
    return _measured(engine, found, _LIVE_POINTS)


def read_more_curves(engine: Engine, job: Job, place: str, after: int, most: int) -> Measured | None:
    """About so many lines of what was measured since, with the last and the best; None where another file is the
    newest, or it was cut."""
    found = _newest_metrics(engine, job, place, after)
    if found is None or found.place != place or found.end < after:
        return None
    return _measured(engine, found, most)


def _measured(engine: Engine, found: _MetricsFile, most: int) -> Measured:
    if not found.lines:
        return Measured(found.place, found.end, [], None)
    some = _thin_out(found.lines, most)
    sign = held_sign(some, _metric(engine, found.place.partition("/")[0]))
    return Measured(found.place, found.end, _thin_out(found.lines, most, _best(found.lines, some, sign)), sign)


def _metric(engine: Engine, job: str) -> str | None:
    """What a training measures on held-out examples; None where its run does not say."""
    try:
        objective = engine.folder(engine.get(job)).spec()["payload"].get("objective")
    except (SpeciateError, OSError, KeyError):
        return None
    return objective.get("metric") if isinstance(objective, dict) else None


def training_samples(engine: Engine, job: Job) -> bytes | None:
    """What the model draws by now, as a PNG, of a training on images and captions: of the job, or of that child which
    drew last."""
    for each in (job, *reversed(engine.children(job.id))):
        path = engine.folder(each).outputs / _SAMPLES
        if path.is_file() and path.stat().st_size <= _LARGEST_SAMPLES:
            return path.read_bytes()
    return None


class _MetricsFile(NamedTuple):
    place: str
    end: int
    lines: list[bytes]
    """As they are: a run of any length is parsed where it is drawn."""


def _newest_metrics(engine: Engine, job: Job, known: str = "", after: int = 0) -> _MetricsFile | None:
    """The newest file with lines, of the job or of that child which learned last. `known`: only what stands in that one
    from the byte `after` on."""
    for each in (job, *reversed(engine.children(job.id))):
        folder = engine.folder(each).path
        for path in sorted(folder.glob(f"{METRICS}*.jsonl"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
            place = f"{each.id}/{path.name}"
            end, lines = _whole_lines(path, after if place == known else 0)
            if lines or place == known:
                return _MetricsFile(place, end, lines)
    return None


def _whole_lines(path: Path, after: int) -> tuple[int, list[bytes]]:
    """Where they end, and the lines from that byte on, of a long file the last ones."""
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = max(min(after, size), size - _LONGEST)
        file.seek(begin)
        data = file.read()
    lines = data.splitlines(keepends=True)
    while lines and _parse_line(lines[-1]) is None:  # the run may be writing it now
        lines.pop()
    end = begin + sum(map(len, lines))
    return end, [line for line in lines[1 if begin > after else 0 :] if line.strip()]


def _parse_line(line: bytes) -> MetricsLine | None:
    """None where it is cut off."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _best(lines: Sequence[bytes], some: Sequence[MetricsLine], held: int | None) -> set[int]:
    """Places of the lines with the best value of each measure that `some` of them have; found without parsing each
    line. `held`: as `Measured.held_sign`."""
    places = set[int]()
    for name in measures(some):
        if (sign := sign_of(name, held)) is None:
            continue
        needle = b'"%s":' % name.encode()
        values = ((sign * _number_after(needle, line), -place) for place, line in enumerate(lines) if needle in line)
        if found := [each for each in values if math.isfinite(each[0])]:
            places.add(-max(found)[1])
    return places


def _number_after(needle: bytes, line: bytes) -> float:
    """NaN where there is none."""
    try:
        return float(line.partition(needle)[2].partition(b",")[0].rstrip(b"}\r\n "))
    except ValueError:
        return math.nan


def _thin_out(lines: Sequence[bytes], most: int, kept_too: Collection[int] = ()) -> list[MetricsLine]:
    """Evenly, with the last one, and with those that judge held-out examples as far as there is room."""
    judged = [place for place, line in enumerate(lines) if _JUDGED in line]
    kept = set(judged[:: max(1, -(-2 * len(judged) // most))])
    every = -(-len(lines) // max(1, most - len(kept) - 1))
    kept |= {*range(0, len(lines), every), len(lines) - 1, *kept_too}
    return [line for place in sorted(kept) if (line := _parse_line(lines[place])) is not None]


def _round_digits(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
