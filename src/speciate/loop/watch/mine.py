"""The job kind `mine`: which logged answers people are asked about. Half are drawn at random, half are the least sure.

The random half alone says without bias how good a model is, and it teaches as well as anything: after a shift no
strategy beat it on digits of two sources. Novelty is not asked for: it picks oddities, and was the worst by far.
Of the other half, up to a half lies where the model surely fails (aim.py): what a gap analysis finds is asked about
first. Near-copies of rows that a suite of the use case holds are asked about in neither half.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate import use_cases
from speciate.datasets import versions
from speciate.datasets.similarity import extractors
from speciate.errors import SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, Resources
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run
from speciate.loop import gaps
from speciate.loop.monitor_sample import Source, input_of
from speciate.loop.watch import aim, near_copies
from speciate.loop.watch.aim import Aim, AimedGap, AskedAnswer
from speciate.loop.watch.near_copies import InputSketch, SuiteIndex, SuiteRows
from speciate.modalities import find
from speciate.models import registry
from speciate.predictions import reading
from speciate.predictions.feedback import correctness, latest_by_source, prevailing_label
from speciate.predictions.label_queue import (
    QueuedAnswer,
    UnlabelledAnswer,
    interleave,
    next_in_queue,
    uncertainty_order,
)
from speciate.predictions.log_files import LogFolder, log_folder
from speciate.promotion import aliases
from speciate.refs import dataset_ref
from speciate.sandbox import SandboxPolicy
from speciate.settings import Settings
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

_ASKED = "SELECT prediction FROM label_requests WHERE use_case = ?"
_INSERT = "INSERT INTO label_requests VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_ROUNDS = 20
"""Rounds in which answers near a suite are replaced by the next ones."""
_GAP_ANSWERS = 2_000


class MineSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    episode: int
    n: int = Field(gt=0, le=10_000)
    since: float
    """Answers from then on: older ones tell nothing of what is new."""
    suites: tuple[str, ...] = ()
    """Datasets and splits whose near-copies are not asked about, beside the suites that the use case names."""


class MinePayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    log: Path
    n: int
    since: float
    asked: tuple[str, ...]
    """Answers that people were asked about before."""
    modality: str | None = None
    """None: mixed rows, or unknown; then near-copies are not looked for."""
    generation: int = 0
    suites: tuple[SuiteRows, ...] = ()
    gap_analysis: gaps.Wanted | None = None
    """None: what serves was never evaluated here."""
    cage: SandboxPolicy


class MineOutcome(BaseModel):
    model_config = ConfigDict(frozen=True)
    pool: int
    chosen: tuple[tuple[str, str], ...]
    """Prediction and how it was drawn."""
    near_suites: int = 0
    """Answers that would have been asked about, were they not near-copies of a suite's rows."""
    not_kept: int = 0
    """Answers whose inputs the log did not keep."""
    unchecked: int = 0
    """Chosen answers of which nobody can say whether they are near-copies."""
    gaps: tuple[AimedGap, ...] = ()
    notes: tuple[str, ...] = ()


class Candidate(NamedTuple):
    id: str
    confidence: float | None
    input: str | None
    """JSON of what was asked."""


def plan(spec: MineSpec, workspace: Workspace) -> Plan[MinePayload]:
    days = workspace.settings.log.of(spec.use_case).retention_days
    since = max(spec.since, reading.retention_start(workspace.clock.now(), days))
    asked = tuple(row[0] for row in workspace.database.read(_ASKED, [spec.use_case]))
    alias = aliases.read(workspace.database, spec.use_case)
    payload = MinePayload(
        log=log_folder(workspace.folders, spec.use_case).path, n=spec.n, since=since, asked=asked,
        modality=_modality(workspace, alias.model) if alias else None,
        generation=alias.generation if alias else 0, suites=_suites(workspace, spec),
        gap_analysis=_gaps(workspace, spec),
        cage=workspace.settings.cage,
    )  # fmt: skip
    return Plan(payload=payload, resources=Resources(cpu=1, memory_mb=768), use_case=spec.use_case)


def _modality(workspace: Workspace, model: str) -> str | None:
    try:
        found = registry.resolve(workspace.database, workspace.folders, model).card.modality
    except SpeciateError:  # deleted since
        return None
    return None if found == "mixed" else found


def _suites(workspace: Workspace, spec: MineSpec) -> tuple[SuiteRows, ...]:
    named = use_cases.get(workspace.database, spec.use_case).suites
    found: dict[tuple[str, str | None], SuiteRows] = {}
    for text in (*spec.suites, named.core, named.heldout, named.regression):
        if text is None:
            continue
        ref = dataset_ref(text)
        try:
            manifest = versions.resolve(workspace.database, ref._replace(split=None))
        except SpeciateError:  # a suite that is not there yet holds nothing
            continue
        split = ref.split or "test"
        found[manifest.ref, split] = SuiteRows(dataset=manifest.model_copy(update={"labels": {}}), split=split)
    return tuple(found.values())


def _gaps(workspace: Workspace, spec: MineSpec) -> gaps.Wanted | None:
    try:
        return gaps.request_of_use_case(workspace, spec.use_case, answers=_GAP_ANSWERS)
    except SpeciateError:  # nothing serves, or it was never evaluated here
        return None


def choose(candidates: Iterable[Candidate], n: int, wanted: Collection[str] = ()) -> list[QueuedAnswer]:
    """Equal inputs once, by their newest answer. Of the half that is not random, up to a half are those of `wanted`
    that are the least sure. Pure."""
    newest: dict[str, Candidate] = {}
    for each in candidates:
        newest[hashlib.sha256((each.input or each.id).encode()).hexdigest()] = each
    pool = [UnlabelledAnswer(each.id, each.confidence, None) for each in newest.values()]
    by_chance = next_in_queue(pool, {}, strategy="random", count=n)
    unsure = next_in_queue(pool, {}, strategy="uncertain", count=2 * n)
    if not wanted:
        return interleave(by_chance, unsure, n)
    at_random = {each.id for each in by_chance[: (n + 1) // 2]}
    open_ = sorted((each for each in pool if each.id in wanted and each.id not in at_random), key=uncertainty_order)
    aimed = [QueuedAnswer(each.id, "uncertain") for each in open_[: max(1, n // 4)]]
    names = {each.id for each in aimed}
    # interleaved, so that gaps take a half of this half and no more
    both = interleave(aimed, [each for each in unsure if each.id not in names], 2 * n)
    return interleave(by_chance, both, n)


class Choice(NamedTuple):
    chosen: list[QueuedAnswer]
    near: int
    unchecked: int


Check = Callable[[list[str]], Mapping[str, bool | None]]
"""Tells for each of some ids whether it is near a row of a suite; None: nobody can say."""


def choose_apart(candidates: Sequence[Candidate], n: int, wanted: Collection[str], check: Check) -> Choice:
    """As `choose`, without near-copies of the suites: what is near is replaced by the next ones in the same order, so
    the random half stays a fair draw of all others. The cost of checking follows `n`, not the size of the log."""
    known: dict[str, bool | None] = {}
    for _ in range(_ROUNDS):
        left = [each for each in candidates if known.get(each.id) is not True]
        chosen = choose(left, n, wanted)
        new = [each.id for each in chosen if each.id not in known]
        if not new:
            break
        known |= check(new)
    kept = [each for each in chosen if each.id in known and known[each.id] is not True]
    return Choice(kept, sum(each is True for each in known.values()), sum(known[each.id] is None for each in kept))


def run(run: Run) -> Mapping[str, object]:
    payload = run.read_payload(MinePayload)
    log = LogFolder(payload.log)
    pool = Pool(run.folders, Settings(cage=payload.cage), size=1)
    try:
        return _Mining(run, payload, log, pool).outcome().model_dump(mode="json")
    finally:
        pool.close()


class _Mining:
    def __init__(self, run: Run, payload: MinePayload, log: LogFolder, pool: Pool) -> None:
        self._run, self._payload, self._log, self._pool = run, payload, log, pool
        self._notes: list[str] = []

    def outcome(self) -> MineOutcome:
        payload, log = self._payload, self._log
        given = latest_by_source(reading.feedback(log, since=payload.since)) if log.path.exists() else {}
        done = {*payload.asked, *(name for name, said in given.items() if prevailing_label(said) is not None)}
        every = list(_candidates(log, payload.since))
        pool = [each for each in every if each.id not in done]
        aimed = self._aim(every, given) if pool else Aim([], [])
        found = choose_apart(pool, payload.n, aimed.wanted, self._check())
        names = {each.id for each in found.chosen}
        return MineOutcome(
            pool=len(pool), not_kept=_not_kept(log, payload.since),
            chosen=tuple((each.id, each.drawn) for each in found.chosen), near_suites=found.near,
            unchecked=found.unchecked, gaps=aimed.counted(names), notes=tuple(self._notes),
        )  # fmt: skip

    def _aim(self, every: Sequence[Candidate], given: Mapping[str, Mapping[str, reading.StoredFeedback]]) -> Aim:
        """Where it fails, by the labels that answers have and by the stored evaluation."""
        payload, evaluated = self._payload, None
        if payload.gap_analysis is not None:
            try:
                evaluated = gaps.ask(self._pool, payload.gap_analysis)
            except SpeciateError as error:  # it directs, and is no reason not to ask
                self._notes.append(f"The stored evaluation was not looked through for gaps: {error.message}")
        outputs = reading.answers(self._log, since=payload.since, columns=["id", "output"]) if every else None
        said = dict(zip(outputs["id"].to_pylist(), outputs["output"].to_pylist(), strict=True)) if outputs else {}
        answers = [
            AskedAnswer(each.id, output, each.input, _wrong(output, given.get(each.id, {})))
            for each in every
            for output in [said.get(each.id)]
        ]
        extractor = extractors.Descriptor(payload.modality).id if payload.modality else None
        vectors = aim.vectors_of(self._run.folders, self._log, payload.generation, extractor)
        return aim.find(answers, evaluated, vectors)

    def _check(self) -> Check:
        payload, log = self._payload, self._log
        if payload.modality is None or not payload.suites:
            return _not_checked
        modality = payload.modality
        if find(modality).sketching is None:
            self._notes.append(f"{modality} has no sketches: only equal inputs are told from the suites' rows.")
        index = SuiteIndex(self._run.folders, modality, payload.suites)
        source = Source(
            self._log, self._run.folders, self._pool, modality, extractors.DESCRIPTOR, None, 0, payload.since
        )

        def check(names: list[str]) -> Mapping[str, bool | None]:
            answers = reading.find_many(log, names)
            inputs = {name: input_of(source, answers[name]) for name in names if name in answers}
            known = [name for name in names if inputs.get(name) is not None]
            sketched = near_copies.sketches(
                self._pool, modality, self._log.media, [inputs[name] or {} for name in known]
            )
            near = index.near(sketched)
            return dict.fromkeys(names) | {
                name: None if each == InputSketch(None, None) else place in near
                for place, (name, each) in enumerate(zip(known, sketched, strict=True))
            }

        return check


def _not_checked(names: list[str]) -> Mapping[str, bool | None]:
    return dict.fromkeys(names)


def _wrong(output: str | None, said: Mapping[str, reading.StoredFeedback]) -> float | None:
    """0 to 1; None without a label, and for numbers, whose error has no bound."""
    found = correctness(json.loads(output), said) if output is not None and said else None
    return None if found is None or found.measure == "absolute_error" else 1 - found.value


def _candidates(log: LogFolder, since: float) -> Iterable[Candidate]:
    """Answers without an error whose input was kept: of others nobody could say what is right."""
    if not log.path.exists():
        return
    rows = reading.answers(log, since=since, columns=["id", "confidence", "error", "input"])
    columns = (rows[name].to_pylist() for name in ("id", "confidence", "error", "input"))
    for name, confidence, error, kept in zip(*columns, strict=True):
        if not error and kept:
            yield Candidate(name, confidence, kept)


def _not_kept(log: LogFolder, since: float) -> int:
    """By the settings, or as a file may name people: nobody could say of them what is right."""
    if not log.path.exists():
        return 0
    rows = reading.answers(log, since=since, columns=["error", "input"])
    columns = (rows[name].to_pylist() for name in ("error", "input"))
    return sum(not error and not kept for error, kept in zip(*columns, strict=True))


def collect(folder: RunFolder) -> MineOutcome:
    return MineOutcome.model_validate(folder.result() or {})


def commit(tx: Transaction, job: Job, found: MineOutcome) -> Mapping[str, object]:
    spec = MineSpec.model_validate(job.spec)
    for prediction, drawn in found.chosen:
        tx.execute(_INSERT, [spec.use_case, spec.episode, prediction, drawn, tx.now])
    return {"asked": len(found.chosen), **found.model_dump(mode="json", exclude={"chosen"})}


KIND = Kind(
    name="mine", spec=MineSpec, plan=plan, run="speciate.loop.watch.mine:run", collect=collect, commit=commit
)  # fmt: skip
