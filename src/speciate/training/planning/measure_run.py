"""The worker's side of `measure`: what each candidate would cost, measured on a sample of its examples.

Each candidate has a fork of its own, made before anything was computed, so its memory is its own. A network takes a few
real steps; other learners fit fractions of the sample, and their cost grows as it did from one fraction to the next.
Both ways the whole recipe runs once on little data, for its fixed cost."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from speciate import features
from speciate.datasets import version_rows
from speciate.datasets.loading.loader import Example, example_keys, load_examples
from speciate.environment import compute_threads, preload
from speciate.errors import Code, SpeciateError
from speciate.evaluation.endpoints.pricing import usd_for
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run
from speciate.jobs.zygote import PRELOADS
from speciate.models.encoders import load_encoder
from speciate.tasks import predictor
from speciate.tasks.representations import Embeddings
from speciate.training.hyperparameters import FullParameters
from speciate.training.language_hyperparameters import LanguageParameters, ReinforcementParameters
from speciate.training.networks import train_network
from speciate.training.networks.trial_steps import DOES_NOT_FIT
from speciate.training.planning import base_models
from speciate.training.planning.estimates import request_of
from speciate.training.planning.shortlist_run import compare_base_models
from speciate.training.planning.training_plan import MeasurePayload
from speciate.training.planning.transferability import FAMILIES, KEEP
from speciate.training.recipes import classical, lora_full, probe
from speciate.training.recipes.recipe_table import LANGUAGE_RECIPES
from speciate.training.resource_usage import CostMeter, Usage, forget_peak, peak_mb, resident_mb, usage_now
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.train_spec import Payload
from speciate.training.training_context import TrainingContext
from speciate.vocabulary import find_task

_COMPARED_EXAMPLES = 200
"""Examples, or 20 of each label."""


def run(run: Run) -> Mapping[str, object]:
    plan, found = run.read_payload(MeasurePayload), list[Mapping[str, object]]()
    for place, payload in enumerate(plan.candidates):
        candidate = f"{payload.spec.method} {payload.spec.base_model or ''}".strip()
        run.progress(place, len(plan.candidates), "candidates", f"measuring {candidate}")
        preload(PRELOADS.get(plan.preloads[place], ()))  # as the training's process has them from the start
        folder = RunFolder(run.folder.path / f"candidate-{place}")
        folder.create({"payload": {}, "job": run.job, "workspace": str(run.folders.root)})
        measured = _in_fork(partial(measure_cost, Run(folder), payload, plan.shares[place]))
        found.append(_candidate_row(payload, measured, plan.budget_minutes))
    report = {"dataset": payload.dataset, "task": payload.task, "candidates": found}
    return {"report": {**report, **_compare_probes(run, list(plan.candidates))}}


def _compare_probes(run: Run, payloads: list[Payload]) -> Mapping[str, object]:
    probes = {each.spec.base_model or "": each for each in payloads if each.spec.method == "probe"}
    if len(probes) < 2 or find_task(payloads[0].task).family not in FAMILIES:
        return {}
    run.progress(len(payloads), len(payloads), "candidates", "comparing base models")
    return {
        "shortlist": _in_fork(
            partial(
                compare_base_models, run, probes, None, KEEP, payloads[0].spec.seed, most=_COMPARED_EXAMPLES, tune=False
            )
        )
    }


def _candidate_row(payload: Payload, measured: ForkAnswer, budget_minutes: float | None) -> Mapping[str, object]:
    shown = {
        "method": payload.spec.method,
        "base_model": payload.spec.base_model,
        "hyperparameters": payload.parameters.model_dump(mode="json"),
    }
    if "error" in measured:
        return shown | {"why": measured["error"]}
    asked = request_of(payload)._replace(processes=1)  # one process is measured
    shown |= {"estimate": measured | {"known_from": ["measured"]}, "asked": asked._asdict()}
    if budget_minutes and measured["seconds"] > 60 * budget_minutes:
        took = f"about {measured['seconds']:.0f} s, and the budget is {60 * budget_minutes:.0f} s"
        shown["why"] = f"{DOES_NOT_FIT}: {took}. Fewer epochs, fewer examples or a cheaper method would."
    elif payload.memory_mb and measured["peak_memory_mb"] > payload.memory_mb:
        needs = f"about {measured['peak_memory_mb']:.0f} MB, and {payload.memory_mb} MB are there"
        shown["why"] = (
            f"{DOES_NOT_FIT}: {needs}. A smaller per_device_train_batch_size or batch_size, or a cheaper method, would."
        )
    return shown


ForkAnswer = dict[str, Any]
"""JSON that a fork gave, or `{"error"}`."""


def _in_fork(work: Callable[[], Mapping[str, Any]]) -> ForkAnswer:
    """What `work` gives in a fork of this process; `error` where it fails or is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            try:
                answer = work()
            except SpeciateError as error:
                answer = {"error": str(error)}
            with os.fdopen(writing, "w") as pipe:
                json.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    if said:
        answered: ForkAnswer = json.loads(said)
        return answered
    killed = os.WIFSIGNALED(status)
    return {"error": f"{DOES_NOT_FIT}: it was killed, most likely for want of memory." if killed else "It failed."}


_SAMPLE_EXAMPLES = 2000
_EMBEDDED_EXAMPLES = 192
_TRIAL_STEPS = 6
_ANSWERED_EXAMPLES = 8
"""Validation examples that a language model answers."""
_FRACTIONS = (1 / 8, 1 / 4, 1 / 2)
_FEWEST_EXAMPLES = 40
_TIMINGS, _LATENCY_SECONDS = 60, 3.0

Fit = Callable[[TrainingContext, Any], SelectedModel]
_METHODS: dict[str, Callable[[Any], train_network.NetworkMethod]] = {
    "full": lora_full.full_method,
    "lora": lora_full.lora_method,
}


class MeasuredCost(NamedTuple):
    spent: Usage
    peak_mb: float


class CostRow(TypedDict):
    """What one training would cost."""

    seconds: float
    cpu_seconds: float
    peak_memory_mb: int
    usd: float
    p95_latency_ms: float


def measure_cost(run: Run, payload: Payload, share: float) -> CostRow:
    """What one training would cost, measured on a sample of its examples, as JSON.

    A network takes a few real steps; other learners fit fractions of the sample, and their cost grows as it did from
    one fraction to the next. Both ways the whole recipe runs once on little data, for its fixed cost. Raises what the
    recipe raises of data that cannot be learned.
    """
    with compute_threads(payload.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with base_models.copy_caller_folders(run, payload) as copied:
            return _Measurement(run, copied).go(share)


class _Measurement:
    def __init__(self, run: Run, payload: Payload) -> None:
        self._run, self._payload, self._method = run, payload, payload.spec.method or ""
        self._tally = CostMeter()
        self._made = 0
        before = usage_now()
        ids, sample = self._choose()
        self._ids = ids
        self._examples = load_examples(run.folders, payload.manifest, ids=sample)
        self._read = usage_now().minus(before)
        held = resident_mb() - self._tally.start_mb
        self._larger = len(ids) / len(sample)
        """Times the sample that there is to learn from."""
        self._read = self._read.times(self._larger)
        self._unread_mb = max(0.0, held) * (self._larger - 1)

    def go(self, share: float) -> CostRow:
        match self._method:
            case "classical":
                cost = self._fits(classical.fit_classical, self._examples, len(self._ids))
            case "probe":
                cost = self._probe()
            case method if method in LANGUAGE_RECIPES:
                cost = self._language(LANGUAGE_RECIPES[method])
            case _:
                cost = self._network(share)
        spent = self._read.plus(cost.spent)
        return {
            "seconds": round(spent.seconds, 3),
            "cpu_seconds": round(spent.cpu, 3),
            "peak_memory_mb": math.ceil(cost.peak_mb + self._unread_mb),
            "usd": usd_for(spent.cpu, self._payload.usd_per_core_hour),
            "p95_latency_ms": round(self._latency(), 3),
        }

    def _choose(self) -> tuple[list[str], list[str]]:
        """Ids of all examples, and of those of the sample; shuffled, so that each beginning is a sample, too."""
        table = version_rows.read(
            self._run.folders, self._payload.manifest, ["id"], splits=("train", "validation"), usable=True
        )
        ids = table["id"].to_pylist()
        order = np.random.default_rng(0).permutation(len(ids))
        shuffled = [ids[place] for place in order.tolist()]
        return shuffled, shuffled[:_SAMPLE_EXAMPLES]

    def _network(self, share: float) -> MeasuredCost:
        given = self._payload.parameters
        assert isinstance(given, FullParameters)
        method = _METHODS[self._method](given)
        base_model = self._payload.spec.base_model or ""
        little = given.model_copy(
            update={"num_train_epochs": 1, "learning_rate": (method.usual_rate(base_model),), "folds": 2}
        )
        fit = lora_full.fit_full if self._method == "full" else lora_full.fit_lora
        before = usage_now()
        self._fit(fit, self._some(2 * given.batch_size), little)
        once = usage_now().minus(before)
        context = self._context(self._examples)
        weighed = train_network.measure_network_cost(context, given, method, _TRIAL_STEPS)
        ahead, pace = weighed.ahead, weighed.pace
        whole = ahead._replace(
            steps=round(share * self._larger * ahead.steps), judged=round(share * self._larger * ahead.judged)
        )
        spent = pace._replace(build=pace.build.times(self._larger)).of(whole)
        return MeasuredCost(once.plus(spent), max(self._tally.see_peak(), weighed.memory.at(weighed.micro_batch)))

    def _language(self, fit: Fit) -> MeasuredCost:
        """All of it with few steps; then so many more steps, and held-out examples as often as they will be judged."""
        given = self._payload.parameters
        assert isinstance(given, LanguageParameters)
        answered = min(given.judged, _ANSWERED_EXAMPLES)
        before = usage_now()
        self._fit(fit, self._examples, given.model_copy(update={"max_steps": _TRIAL_STEPS, "judged": answered}))
        once = usage_now().minus(before)
        step = self._tally.stages["training"].times(1 / max(1, self._tally.steps))
        learned = self._payload.manifest.splits.get("train", 0)
        steps = given.planned_steps(learned)
        again = max(given.num_train_epochs, given.judged / max(1, answered)) - 1
        if isinstance(given, ReinforcementParameters):  # which answers them all each time
            again = given.evaluations(steps) * given.judged / (given.evaluations(_TRIAL_STEPS) * max(1, answered)) - 1
        more = step.times(max(0, steps - _TRIAL_STEPS)).plus(self._tally.stages["judging"].times(again))
        return MeasuredCost(once.plus(more), self._tally.see_peak())

    def _probe(self) -> MeasuredCost:
        if self._payload.part_encoders:  # several base models, each of some parts: embedding and heads together
            return self._fits(probe.fit_probe, self._examples, len(self._ids))
        base_model = self._payload.spec.base_model or ""
        folders = self._run.folders
        before = usage_now()
        folder = Path(self._payload.base_folder) if self._payload.base_folder else None
        modality = self._payload.manifest.modality
        encoder = load_encoder(base_model, self._payload.threads, folder=folder, media=modality, layers=True)
        there = features.known(folders, encoder.cache, example_keys(self._examples)).tolist()
        lacking = [example for example, known in zip(self._examples, there, strict=True) if not known]
        embeddings = Embeddings(base_model, encoder, folders)
        embeddings.encode(lacking[:8])
        once, before = usage_now().minus(before), usage_now()
        more = lacking[8 : 8 + _EMBEDDED_EXAMPLES]
        if more:
            embeddings.encode(more)
        each = usage_now().minus(before).times(1 / max(1, len(more)))
        done = lacking[: 8 + _EMBEDDED_EXAMPLES]
        embedded = [example for example, known in zip(self._examples, there, strict=True) if known] + done
        heads = self._fits(probe.fit_probe, embedded, len(self._ids))
        missing = round(len(lacking) / max(1, len(there)) * len(self._ids))
        left = max(0, missing - len(done))  # the training finds the others in the cache
        return MeasuredCost(heads.spent.plus(once).plus(each.times(left)) if left else heads.spent, heads.peak_mb)

    def _fits(self, fit: Fit, examples: Sequence[Example], count: int) -> MeasuredCost:
        """Cost of fitting `count` examples, from fractions of `examples`."""
        sizes = sorted({max(_FEWEST_EXAMPLES, round(part * len(examples))) for part in _FRACTIONS})
        costs = [self._timed(fit, self._some(size, examples)) for size in sizes]
        if len(costs) < 3:  # so few that all of them are no more than a fraction
            return self._timed(fit, examples)
        (cold, _), (early, low), (late, high) = costs
        apart = math.log(sizes[2] / sizes[1])
        power = math.log(max(late.cpu, 1e-3) / max(early.cpu, 1e-3)) / apart
        power = min(max(power, 0.0), 2.5)
        once = cold.minus(late.times((sizes[0] / sizes[2]) ** power))
        spent = late.times((count / sizes[2]) ** power).plus(Usage(max(0.0, once.seconds), max(0.0, once.cpu)))
        grown = max(0.0, high - low) / (sizes[2] - sizes[1]) * (count - sizes[2])
        return MeasuredCost(spent, max(self._tally.see_peak(), high + grown))

    def _timed(self, fit: Fit, examples: Sequence[Example]) -> MeasuredCost:
        self._tally.see_peak()
        forget_peak()
        before = usage_now()
        self._fit(fit, examples, self._payload.parameters)
        return MeasuredCost(usage_now().minus(before), peak_mb())

    def _fit(self, fit: Fit, examples: Sequence[Example], parameters: Any) -> None:
        """The whole recipe, with the model that it makes. On all where so few cannot be learned from."""
        try:
            chosen = fit(self._context(examples), parameters)
        except SpeciateError as error:
            if error.code is not Code.INVALID or len(examples) == len(self._examples):
                raise
            chosen = fit(self._context(self._examples), parameters)
        self._made += 1
        chosen.predictor.save(self._model)

    def _context(self, examples: Sequence[Example]) -> TrainingContext:
        spec = self._payload.spec.model_copy(update={"budget_minutes": None})
        return TrainingContext(self._run, self._payload.model_copy(update={"spec": spec}), examples, self._tally)

    @property
    def _model(self) -> Any:
        return self._run.outputs / f"model-{self._made}"

    def _some(self, count: int, examples: Sequence[Example] | None = None) -> list[Example]:
        """A sample with the same share of each split, in the order of ids."""
        examples = self._examples if examples is None else examples
        order = np.random.default_rng(1).permutation(len(examples)).tolist()
        held = [place for place in order if examples[place].split == "validation"]
        learned = [place for place in order if examples[place].split == "train"]
        part = min(1.0, count / max(1, len(examples)))
        kept = sorted(held[: math.ceil(part * len(held))] + learned[: math.ceil(part * len(learned))])
        return [examples[place] for place in kept]

    def _latency(self) -> float:
        """Milliseconds, p95 of single answers of a model that is loaded as where it serves."""
        model = predictor.load(self._model)
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < _TIMINGS and (len(times) < 3 or time.perf_counter() - began < _LATENCY_SECONDS):
            example = self._examples[len(times) % len(self._examples)]
            start = time.perf_counter()
            model.predict([example])
            times.append(1000 * (time.perf_counter() - start))
        return float(np.quantile(times[1:], 0.95))
