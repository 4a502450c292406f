"""What a training will cost in seconds, memory and bytes written, from recorded runs of like work.

Alike are runs of one method on one base model, modality and family of tasks. Reading and preparing grow with the
examples and their length; a network's steps with what each of them reads; other learners with a power of the examples,
which runs of several sizes tell. Bytes follow from the base model's size on disk. Where nothing is recorded, a shipped
table of pace stands in (pace.json, evals/bench/pace.py), scaled by how fast this processor sorts numbers; what is not
in it has no estimate."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from speciate.datasets.versions import Manifest
from speciate.training.hyperparameters import FullParameters, Parameters
from speciate.training.language_hyperparameters import (
    LANGUAGE_PARAMETERS,
    TEXT_TASKS,
    VISION_TASK,
    LanguageParameters,
    ReinforcementParameters,
)
from speciate.training.networks import trial_steps
from speciate.training.old_option_names import with_new_names
from speciate.training.train_spec import Payload, parameters_of
from speciate.vocabulary import Family, find_task
from speciate.workspace.database import Database

_RECENT = """
SELECT id, kind, result FROM jobs WHERE kind IN ('train', 'measure') AND state = 'succeeded' AND result IS NOT NULL
AND json_extract_string(resources, '$.place') IS NOT DISTINCT FROM ? ORDER BY ended DESC LIMIT 200
"""
_FEWEST_EXAMPLES = 100
"""Below this a run's time is mostly start-up: it is not scaled down further."""
_NEAREST = 5
_READ_AT_MOST = {"text": 256 * 4.0, "protein": 1024.0}
"""Characters of an example that a network reads, about: its tokens are limited (backbones). The rest costs nothing."""
_SIZES_APART = 1.5
"""Runs whose sizes differ by less say nothing about growth."""
USUAL_STEPS_SHARE = 0.5
"""Share of a network's planned steps that is done before patience ends it, where no like run is recorded. Four easy
tasks did 0.36 to 0.48 of them, handwritten digits 0.86 and all: the least certain part of an estimate."""
_RATES = 3
"""Learning rates that are tried where none is given."""


OWN_COSTS = ("tabm", "thorough")
"""Options by which a method costs something else altogether."""


class Estimate(NamedTuple):
    """None: not known."""

    seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    p95_latency_ms: float | None
    known_from: tuple[str, ...]
    """The jobs that it comes from."""


class TrainingRequest(NamedTuple):
    """A training, as far as its cost depends on it."""

    method: str
    base_model: str | None
    modality: str
    family: Family
    examples: int
    length: float
    """Characters, residues, steps or seconds of a mean example; 1 if all have one length."""
    visits: int = 0
    """Examples that a network's steps read in all, at most; where it writes answers, the tokens of those, at most."""
    dataset: str = ""
    hyperparameters: Mapping[str, Any] = {}
    processes: int = 1
    """That learn together, on all nodes: what one does in some time says nothing about several."""

    @property
    def counted(self) -> int:
        return max(self.examples, _FEWEST_EXAMPLES)

    @property
    def volume(self) -> float:
        return self.counted * self.length_read

    @property
    def length_read(self) -> float:
        """A classical method reads all of an example, a language model as much as its options say."""
        limited = self.base_model is not None and self.method not in LANGUAGE_PARAMETERS
        return min(self.length, _READ_AT_MOST.get(self.modality, math.inf)) if limited else self.length

    def like(self, other: TrainingRequest) -> bool:
        return self._kind == other._kind

    @property
    def _kind(self) -> tuple[str, str | None, str, Family, tuple[bool, ...], int]:
        own = tuple(bool(self.hyperparameters.get(name)) for name in OWN_COSTS)
        return self.method, self.base_model, self.modality, self.family, own, self.processes


class RecordedRun(NamedTuple):
    """One run that ended well. Of each stage and of the rest: seconds by the clock, and of the processor."""

    job: str
    request: TrainingRequest
    stages: Mapping[str, tuple[float, float]]
    rest: tuple[float, float]
    start_mb: float
    loaded_mb: float
    peak_mb: float
    share: float | None = None
    """Share of a network's planned steps that was done."""


class MeasuredRun(NamedTuple):
    """What `plan_training(measure=true)` found."""

    job: str
    request: TrainingRequest
    estimate: Estimate


class KnownCosts(NamedTuple):
    """Newest first."""

    runs: Sequence[RecordedRun]
    measured: Sequence[MeasuredRun]
    shipped: Sequence[RecordedRun] = ()
    """Shipped runs, with the figures that they would have here."""


def known_costs(database: Database, place: str | None = None) -> KnownCosts:
    """What runs on this machine have cost, or at a place: those of another machine say nothing, and shipped figures are
    of this one's processor."""
    runs, measured = [], []
    for job, kind, result in database.read(_RECENT, [place]):
        report = json.loads(result).get("report", {})
        if kind == "train" and "cost" in report:
            if (report["modality"], report["cost"]["length"]) == ("text", 1.0):
                continue  # texts in files, from when their length was not known
            runs.append(_parse_run(job, report))
        elif kind == "measure":
            measured += [_parse_measurement(job, one) for one in report.get("candidates", ()) if one.get("asked")]
    return KnownCosts(runs, measured, () if place else shipped_runs())


PACE = Path(__file__).with_name("pace.json")
SHIPPED = "shipped"
"""What an estimate is known from, where no run of this workspace tells."""
_NUMBERS, _SORTS = 300_000, 5
_SLOWEST = 8.0
"""Times as slow, or as fast, as the processor of the table that another one is taken for."""


@cache
def reference_seconds() -> float:
    """This processor's, for sorting the same numbers: the fastest of a few, in time of one thread, which waiting for
    other processes does not lengthen."""
    numbers = np.random.default_rng(0).random(_NUMBERS)
    times = []
    for _ in range(_SORTS):
        began = time.thread_time()
        np.sort(numbers, kind="stable")  # without vector instructions, which not every processor has
        times.append(time.thread_time() - began)
    return max(min(times), 1e-6)


@cache
def shipped_runs() -> tuple[RecordedRun, ...]:
    table = json.loads(PACE.read_text(encoding="utf-8")) if PACE.exists() else {"runs": []}
    if not table["runs"]:
        return ()
    slower = min(max(reference_seconds() / table["reference_seconds"], 1 / _SLOWEST), _SLOWEST)
    return tuple(_slowed(_parse_run(SHIPPED, one), slower) for one in table["runs"])


def _slowed(run: RecordedRun, times: float) -> RecordedRun:
    stages = {name: (seconds * times, cpu * times) for name, (seconds, cpu) in run.stages.items()}
    return run._replace(stages=stages, rest=(run.rest[0] * times, run.rest[1] * times))


def request_of(payload: Payload) -> TrainingRequest:
    spec, manifest = payload.spec, payload.manifest
    family = find_task(payload.task).family
    return TrainingRequest(
        spec.method or "", spec.base_model, manifest.modality, family, example_count(manifest), payload.length,
        _visits(payload.parameters, manifest, family), payload.dataset, payload.parameters.model_dump(mode="json"),
        payload.processes,
    )  # fmt: skip


def example_count(manifest: Manifest) -> int:
    """Examples that a training reads."""
    return manifest.splits.get("train", 0) + manifest.splits.get("validation", 0)


def estimate(known: KnownCosts, asked: TrainingRequest) -> Estimate | None:
    """Cost of a training: its own figures where it was measured; else the median of the like runs nearest in size."""
    like = [run for run in known.runs if run.request.like(asked)]
    measured = [one for one in known.measured if one.request.like(asked)]
    for one in measured:
        if (one.request.dataset, one.request.hyperparameters) == (asked.dataset, asked.hyperparameters):
            return one.estimate
    if not like:
        like = [run for run in known.shipped if run.request._replace(family=asked.family).like(asked)]
    if not like:
        return None
    growth = _growth_power(like)
    like = sorted(like, key=lambda run: abs(math.log(run.request.volume / asked.volume)))[:_NEAREST]
    scaled = [_scaled(run, asked, growth) for run in like]
    seconds, cpu, peak = (median(column) for column in zip(*scaled, strict=True))
    latency = next((one.estimate.p95_latency_ms for one in measured), None)
    return Estimate(seconds, cpu, peak, latency, tuple(dict.fromkeys(run.job for run in like)))


_LEAST_STEPS, _JUDGING_SHARE = 5, 3
"""For a network: the fewest steps, two to try it and a few to learn, and how many examples are judged in the time that
learning from one takes."""
_LEAST_EMBEDDED = 512
"""Examples: a probe of less is no use."""


def least_seconds(known: KnownCosts, payload: Payload) -> float | None:
    """What a training takes at least to end in a model, however little it learns; None where that is not known.

    A network needs a few steps and one look at the held-out examples, a probe a sample of the vectors.
    """
    asked, parameters = request_of(payload), payload.parameters
    if isinstance(parameters, FullParameters):
        held = payload.manifest.splits.get("validation", 0) or asked.examples // parameters.folds
        asked = asked._replace(visits=_LEAST_STEPS * parameters.batch_size + held // _JUDGING_SHARE)
    elif asked.method == "probe":
        asked = asked._replace(examples=min(asked.examples, _LEAST_EMBEDDED))
    found = estimate(known, asked)
    return found.seconds if found else None


def _scaled(run: RecordedRun, asked: TrainingRequest, growth: float) -> tuple[float, float, float]:
    """Seconds, seconds of the processor, MiB."""
    larger = asked.volume / run.request.volume
    if asked.visits and run.request.visits:
        work = asked.visits * asked.length_read / (run.request.visits * run.request.length_read)
        held = 1.0
    elif asked.method == "probe":  # vectors are of one width, however long what they stand for is
        work, held = (asked.counted / run.request.counted) ** growth, larger
    else:
        work, held = larger**growth, larger
    factors = {"preparing": larger, "training": work, "judging": work}
    seconds, cpu = (
        run.rest[i] + sum(factors[stage] * spent[i] for stage, spent in run.stages.items()) for i in range(2)
    )
    peak = run.start_mb + larger * (run.loaded_mb - run.start_mb) + held * (run.peak_mb - run.loaded_mb)
    return seconds, cpu, peak


def _growth_power(runs: Sequence[RecordedRun]) -> float:
    """The power of the examples that training grows with: median over pairs of runs; 1 where none are far apart."""
    powers = [
        math.log(max(a.stages["training"][1], 1e-3) / max(b.stages["training"][1], 1e-3))
        / math.log(a.request.volume / b.request.volume)
        for a, b in combinations(runs[:20], 2)
        if max(a.request.volume, b.request.volume) > _SIZES_APART * min(a.request.volume, b.request.volume)
    ]
    return min(max(median(powers), 0.0), 2.5) if powers else 1.0


def _visits(parameters: Parameters, manifest: Manifest, family: Family) -> int:
    learned, held = manifest.splits.get("train", 0), manifest.splits.get("validation", 0)
    if isinstance(parameters, ReinforcementParameters):  # writing its answers is most of the work
        return parameters.planned_steps(learned) * parameters.batch_size * parameters.max_completion_length
    if isinstance(parameters, LanguageParameters):
        return (
            parameters.max_steps * parameters.batch_size
            if parameters.max_steps
            else parameters.num_train_epochs * learned
        )
    if not isinstance(parameters, FullParameters):
        return 0
    divisions, whole = [(learned, held)], None
    if not held:
        part = max(1, learned // parameters.folds)
        divisions = [(learned - part, part)] * (1 if family == "retrieval" else parameters.folds)
        whole = learned
    rates = len(parameters.learning_rate) or _RATES
    return trial_steps.planned_work(rates, parameters.num_train_epochs, 1, divisions, whole).steps


def _parse_run(job: str, report: Mapping[str, Any]) -> RecordedRun:
    cost = report["cost"]
    stages = {name: (spent[0], spent[1]) for name, spent in cost["stages"].items()}
    whole = cost["seconds"], cost["cpu_seconds"]
    rest = [whole[i] - sum(spent[i] for spent in stages.values()) for i in range(2)]
    asked = TrainingRequest(
        report["method"], report["base_model"], report["modality"], cost["family"], report["examples"], cost["length"],
        cost["visits"], hyperparameters={name: True for name in OWN_COSTS if cost.get(name)},
        processes=cost.get("processes", 1),
    )  # fmt: skip
    return RecordedRun(
        job, asked, stages, (max(0.0, rest[0]), max(0.0, rest[1])), cost["start_memory_mb"], cost["loaded_memory_mb"],
        cost["peak_memory_mb"], cost["steps"] / cost["planned_steps"] if cost["planned_steps"] else None,
    )  # fmt: skip


def _parse_measurement(job: str, candidate: Mapping[str, Any]) -> MeasuredRun:
    found = candidate["estimate"]
    estimate = Estimate(
        found["seconds"], found["cpu_seconds"], found["peak_memory_mb"], found["p95_latency_ms"], ("measured", job)
    )
    asked = TrainingRequest(**candidate["asked"])
    task = "" if asked.family != "generation" else TEXT_TASKS[0] if asked.modality == "text" else VISION_TASK
    known = with_new_names(parameters_of(asked.method, task), asked.hyperparameters)
    return MeasuredRun(job, asked._replace(hyperparameters=known), estimate)


_WEIGHTS = (".safetensors", ".bin", ".pt", ".npz")
_IN_A_CHECKPOINT, _CHECKPOINTS = 3, 3
_FEW_WEIGHTS = 1.5
_EVERY_WEIGHT = frozenset({"full", "replay", "der", "lwf", "ewc", "distill"})
"""Methods of small networks; those of language models say it by their hyperparameter `changes`."""


def bytes_written(method: str, changes: str | None, base_folder: str | None) -> int | None:
    """Bytes that a training will write, rather too much than too little; None where no base model lies on disk.

    Where every weight changes, a checkpoint has the weights and Adam's two moments of each. Two are kept while a third
    is written, and the model itself follows. Where few weights change, hardly more than the merged model is written.
    Not counted are logs, and that a base model in half precision doubles where it is trained in single precision.
    """
    size = _weight_bytes(Path(base_folder)) if base_folder else 0
    if not size:
        return None
    whole = changes == "full" or (changes is None and method in _EVERY_WEIGHT)
    return size * (_IN_A_CHECKPOINT * _CHECKPOINTS + 1) if whole else int(_FEW_WEIGHTS * size)


def _weight_bytes(folder: Path) -> int:
    """Bytes of the weights in a folder; a folder that is gone has none."""
    files = [folder] if folder.is_file() else folder.glob("*")
    return sum(path.stat().st_size for path in files if path.suffix in _WEIGHTS and path.is_file())
