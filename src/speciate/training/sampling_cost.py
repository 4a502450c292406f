"""What one training would cost, measured on a sample of its examples.

A network takes a few real steps; other learners fit fractions of the sample, and what they cost grows as it did from
one fraction to the next. Both ways the whole recipe runs once on little, for what it costs whatever the data.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speciate import features
from speciate.datasets import scan
from speciate.datasets.loading.keys import keys
from speciate.datasets.loading.loader import Example, load_examples
from speciate.errors import Code, SpeciateError
from speciate.evaluation.prices import usd_for
from speciate.jobs.run import Run
from speciate.models.encoders import load_encoder
from speciate.tasks import predictor
from speciate.tasks.embeddings import Embeddings
from speciate.training import bases, classical, full, lora, probe
from speciate.training.costs import Spent, Tally, now
from speciate.training.language.recipes import LANGUAGE_RECIPES
from speciate.training.language.specs import LanguageParameters, RewardedParameters
from speciate.training.network import choosing
from speciate.training.network.memory import forget_peak, peak_mb, resident_mb
from speciate.training.selection import Chosen
from speciate.training.specs import FullParameters, Payload
from speciate.training.study import Study

_SAMPLE = 2000
_EMBEDDED = 192
_STEPS = 6
_ANSWERED = 8
"""Validation examples that a language model answers."""
_FRACTIONS = (1 / 8, 1 / 4, 1 / 2)
_FEWEST = 40
_TIMINGS, _LATENCY_SECONDS = 60, 3.0

Fit = Callable[[Study, Any], Chosen]
_METHODS: dict[str, Callable[[Any], choosing.Method]] = {"full": full.method, "lora": lora.method}


class Cost(NamedTuple):
    spent: Spent
    peak_mb: float


def cost(run: Run, payload: Payload, share: float) -> dict[str, Any]:
    """Figures as JSON. Raises what the recipe raises of data that cannot be learned."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

    with threadpool_limits(limits=payload.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with bases.copied(run, payload) as copied:
            return _Measurement(run, copied).go(share)


class _Measurement:
    def __init__(self, run: Run, payload: Payload) -> None:
        self._run, self._payload, self._method = run, payload, payload.spec.method or ""
        self._tally = Tally()
        self._made = 0
        before = now()
        ids, sample = self._choose()
        self._ids = ids
        self._examples = load_examples(run.folders, payload.manifest, ids=sample)
        self._read = now().minus(before)
        held = resident_mb() - self._tally.start_mb
        self._larger = len(ids) / len(sample)
        """Times the sample that there is to learn from."""
        self._read = self._read.times(self._larger)
        self._unread_mb = max(0.0, held) * (self._larger - 1)

    def go(self, share: float) -> dict[str, Any]:
        match self._method:
            case "classical":
                cost = self._fits(classical.fit, self._examples, len(self._ids))
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
        table = scan.read(
            self._run.folders, self._payload.manifest, ["id"], splits=("train", "validation"), usable=True
        )
        ids = table["id"].to_pylist()
        order = np.random.default_rng(0).permutation(len(ids))
        shuffled = [ids[place] for place in order.tolist()]
        return shuffled, shuffled[:_SAMPLE]

    def _network(self, share: float) -> Cost:
        given = self._payload.parameters
        assert isinstance(given, FullParameters)
        method = _METHODS[self._method](given)
        base_model = self._payload.spec.base_model or ""
        little = given.model_copy(update={"epochs": 1, "learning_rate": (method.usual_rate(base_model),), "folds": 2})
        fit = full.fit if self._method == "full" else lora.fit
        before = now()
        self._fit(fit, self._some(2 * given.batch_size), little)
        once = now().minus(before)
        study = self._study(self._examples)
        weighed = choosing.weigh(study, given, method, _STEPS)
        ahead, pace = weighed.ahead, weighed.pace
        whole = ahead._replace(
            steps=round(share * self._larger * ahead.steps), judged=round(share * self._larger * ahead.judged)
        )
        spent = pace._replace(build=pace.build.times(self._larger)).of(whole)
        return Cost(once.plus(spent), max(self._tally.see_peak(), weighed.memory.at(weighed.micro_batch)))

    def _language(self, fit: Fit) -> Cost:
        """All of it with few steps; then so many more steps, and held-out examples as often as they will be judged."""
        given = self._payload.parameters
        assert isinstance(given, LanguageParameters)
        answered = min(given.judged, _ANSWERED)
        before = now()
        self._fit(fit, self._examples, given.model_copy(update={"steps": _STEPS, "judged": answered}))
        once = now().minus(before)
        step = self._tally.stages["training"].times(1 / max(1, self._tally.steps))
        learned = self._payload.manifest.splits.get("train", 0)
        steps = given.planned_steps(learned)
        again = max(given.epochs, given.judged / max(1, answered)) - 1
        if isinstance(given, RewardedParameters):  # which answers them all each time
            again = given.evaluations(steps) * given.judged / (given.evaluations(_STEPS) * max(1, answered)) - 1
        more = step.times(max(0, steps - _STEPS)).plus(self._tally.stages["judging"].times(again))
        return Cost(once.plus(more), self._tally.see_peak())

    def _probe(self) -> Cost:
        base_model = self._payload.spec.base_model or ""
        folders = self._run.folders
        before = now()
        folder = Path(self._payload.base_folder) if self._payload.base_folder else None
        modality = self._payload.manifest.modality
        encoder = load_encoder(base_model, self._payload.threads, folder=folder, media=modality)
        there = features.known(folders, encoder.id, keys(self._examples)).tolist()
        lacking = [example for example, known in zip(self._examples, there, strict=True) if not known]
        embeddings = Embeddings(base_model, encoder, folders)
        embeddings.encode(lacking[:8])
        once, before = now().minus(before), now()
        more = lacking[8 : 8 + _EMBEDDED]
        if more:
            embeddings.encode(more)
        each = now().minus(before).times(1 / max(1, len(more)))
        done = lacking[: 8 + _EMBEDDED]
        embedded = [example for example, known in zip(self._examples, there, strict=True) if known] + done
        heads = self._fits(probe.fit, embedded, len(self._ids))
        missing = round(len(lacking) / max(1, len(there)) * len(self._ids))
        left = max(0, missing - len(done))  # the training finds the others in the cache
        return Cost(heads.spent.plus(once).plus(each.times(left)) if left else heads.spent, heads.peak_mb)

    def _fits(self, fit: Fit, examples: Sequence[Example], count: int) -> Cost:
        """Of `count` examples, from fractions of `examples`."""
        sizes = sorted({max(_FEWEST, round(part * len(examples))) for part in _FRACTIONS})
        costs = [self._timed(fit, self._some(size, examples)) for size in sizes]
        if len(costs) < 3:  # so few that all of them are no more than a fraction
            return self._timed(fit, examples)
        (cold, _), (early, low), (late, high) = costs
        apart = math.log(sizes[2] / sizes[1])
        power = math.log(max(late.cpu, 1e-3) / max(early.cpu, 1e-3)) / apart
        power = min(max(power, 0.0), 2.5)
        once = cold.minus(late.times((sizes[0] / sizes[2]) ** power))
        spent = late.times((count / sizes[2]) ** power).plus(Spent(max(0.0, once.seconds), max(0.0, once.cpu)))
        grown = max(0.0, high - low) / (sizes[2] - sizes[1]) * (count - sizes[2])
        return Cost(spent, max(self._tally.see_peak(), high + grown))

    def _timed(self, fit: Fit, examples: Sequence[Example]) -> Cost:
        self._tally.see_peak()
        forget_peak()
        before = now()
        self._fit(fit, examples, self._payload.parameters)
        return Cost(now().minus(before), peak_mb())

    def _fit(self, fit: Fit, examples: Sequence[Example], parameters: Any) -> None:
        """The whole recipe, with the model that it makes. On all where so few cannot be learned from."""
        try:
            chosen = fit(self._study(examples), parameters)
        except SpeciateError as error:
            if error.code is not Code.INVALID or len(examples) == len(self._examples):
                raise
            chosen = fit(self._study(self._examples), parameters)
        self._made += 1
        chosen.predictor.save(self._model)

    def _study(self, examples: Sequence[Example]) -> Study:
        spec = self._payload.spec.model_copy(update={"budget_minutes": None})
        return Study(self._run, self._payload.model_copy(update={"spec": spec}), examples, self._tally)

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
