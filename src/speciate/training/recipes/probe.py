"""Recipe `probe`: the frozen vectors of a base model, computed once and cached, then a linear head.

Thousands of times cheaper per step than fine-tuning, as the base model runs once per example, whatever is tried on
top; and the next training on the same examples finds the vectors there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from speciate.datasets.ingest.draft import WITHOUT_LABEL
from speciate.datasets.loading.loader import Example, load_unlabelled
from speciate.modalities.multimodal import PartName
from speciate.models.backbones import architectures
from speciate.models.encoders import FrozenEncoder, load_encoder
from speciate.models.estimators import Linear
from speciate.tasks.example_targets import is_label
from speciate.tasks.multimodal_representation import Parts, names_of, part_combinations, with_part
from speciate.tasks.representations import Embeddings
from speciate.tasks.task import TaskHead
from speciate.training.hyperparameters import ProbeParameters
from speciate.training.planning.part_encoders import reads
from speciate.training.recipes import structured_learners, unlabelled
from speciate.training.recipes.classical import ONE_UNIT, RETRIEVERS, Weights, learners_for, logistic, ridge
from speciate.training.recipes.structured_learners import Learn, cumulative, one_versus_rest
from speciate.training.selection.lanes import Lanes
from speciate.training.selection.learners import Learner, LearnerGroup
from speciate.training.selection.model_selection import select_best
from speciate.training.selection.selected_model import SelectedModel
from speciate.training.training_context import TrainingContext


def fit_probe(context: TrainingContext, parameters: ProbeParameters) -> SelectedModel:
    base_model = context.payload.spec.base_model
    assert base_model is not None, "the plan fills in the base model"
    if context.payload.part_encoders:
        return _fit_parts(context, parameters)
    folder = context.payload.base_folder
    encoder = load_encoder(
        base_model,
        context.payload.threads,
        folder=Path(folder) if folder else None,
        media=context.payload.manifest.modality,
        layers=True,
    )

    def progress(done: int, total: int) -> None:
        context.checkpoint()
        context.progress(done, total, "examples", f"embedding with {base_model}")

    embeddings = Embeddings(base_model, encoder, context.folders, progress)
    if not embeddings.has_cached(context.train[:1]):  # nor the others, as a rule
        list(encoder.embed(()))  # loads the network: as long for few examples as for many, so outside the stage
    with context.meter.stage("preparing"):
        _embed_in_time(context, embeddings)
    if isinstance(encoder, FrozenEncoder):
        context.note_cut_texts(encoder.most_tokens)
    heads = _head_learners(context.task_head, sorted(parameters.C))
    taught = _unlabelled_learners(context, embeddings, parameters)  # which embed while they learn, in torch's threads
    groups = [LearnerGroup(base_model, lambda examples: embeddings, heads + taught)]
    with Lanes(1 if taught else context.payload.threads) as lanes:
        return select_best(context, groups, parameters.folds, lanes=lanes)


def _fit_parts(context: TrainingContext, parameters: ProbeParameters) -> SelectedModel:
    """Mixed rows: each part is read by the base models that suit it, else described by its modality. Parts alone, in
    pairs and all together are learned from, and means of several of these (late fusion)."""
    parts = names_of(context.train)
    reading = {str(part): found for part in parts if (found := _readers(context, part))}

    class EveryPart:
        def encode(self, examples: Sequence[Example]) -> None:
            for name, found in reading.items():
                for each in found:
                    each.encode(with_part(examples, name))

        def has_cached(self, examples: Sequence[Example]) -> bool:
            return any(
                each.has_cached(with_part(examples, name)) for name, found in reading.items() for each in found
            )  # fmt: skip

    with context.meter.stage("preparing"):
        _embed_in_time(context, EveryPart())
    groups = [_part_group(chosen, reading, described=False, context=context) for chosen in part_combinations(parts)]
    every = _part_group(parts, reading, described=True, context=context)
    return select_best(context, [*groups, every], parameters.folds, ensemble=True)


def _readers(context: TrainingContext, part: PartName) -> list[Embeddings]:
    found = []
    for each in context.payload.part_encoders:
        folder = Path(each.folder) if each.folder else None
        if reads(architectures.modality_of(each.base_model, folder), part.modality):
            encoder = load_encoder(
                each.base_model, context.payload.threads, folder=folder, media=part.modality, layers=True
            )
            found.append(Embeddings(each.base_model, encoder, context.folders, partial(_embedding, context, part.own)))
    return found


def _embedding(context: TrainingContext, part: str, done: int, total: int) -> None:
    context.checkpoint()
    context.progress(done, total, "examples", f"embedding {part}")


def _part_group(
    chosen: Sequence[PartName],
    reading: Mapping[str, Sequence[Embeddings]],
    *,
    described: bool,
    context: TrainingContext,
) -> LearnerGroup:
    """`described`: also those parts that a base model reads."""
    said = []
    for part in chosen:
        by = [each.base_model for each in reading.get(str(part), ())]
        said.append(part.own + (f" by {', '.join([*by, *(['its description'] if described else [])])}" if by else ""))
    represent = partial(
        Parts.fit, parts=[str(part) for part in chosen], dense=True, one_unit=ONE_UNIT, encoders=reading,
        described=described,
    )  # fmt: skip
    learners = tuple(learners_for(context.task_head, context.payload.objective.metric, sparse=False))
    return LearnerGroup(" + ".join(said) + (" alone" if len(chosen) == 1 else ""), represent, learners, len(chosen))


class _Embeds(Protocol):
    def encode(self, examples: Sequence[Example]) -> Any: ...

    def has_cached(self, examples: Sequence[Example]) -> bool: ...


_UNLABELLED_SHARE = 0.5
"""Share of the time left, once the labelled examples are embedded, that embedding unlabelled ones must leave."""


def _unlabelled_learners(
    context: TrainingContext, embeddings: Embeddings, parameters: ProbeParameters
) -> tuple[Learner, ...]:
    """Heads that also learn from training examples without a label, where labels are few and such examples many."""
    few = len(context.train) + len(context.validation) <= unlabelled.MOST_LABELLED
    if context.task_head.family != "classification" or not few:
        return ()
    there = list(context.unlabelled_train)
    if is_label(context.payload.manifest, context.payload.target):  # rows without the label itself are not loaded
        there += load_unlabelled(context.folders, context.payload.manifest, WITHOUT_LABEL)
    if len(there) < unlabelled.FEWEST_UNLABELLED:
        return ()
    drawn = np.random.default_rng(context.payload.spec.seed).permutation(len(there))[: unlabelled.MOST_UNLABELLED]
    examples, until = [there[place] for place in drawn.tolist()], _UNLABELLED_SHARE * context.seconds_left
    done = 0
    with context.meter.stage("preparing"):
        while done < len(examples) and (math.isinf(until) or context.seconds_left > until):
            embeddings.encode(examples[done : done + _CHUNK])
            done += _CHUNK
    examples = examples[:done]
    if len(examples) < unlabelled.FEWEST_UNLABELLED:
        return ()
    context.notes.append(f"Heads were also tried that learn from {len(examples):,} examples without a label.")

    def learn(strength: float, taught: unlabelled.Teaching) -> Learn:
        def weighted(inputs: Any, targets: npt.NDArray[Any], seed: int, weights: Any) -> Linear:
            spread: Linear = logistic(strength * spread_factor(inputs) ** 2)(inputs, targets, seed, weights)
            return spread

        return taught(weighted, lambda: np.asarray(embeddings.encode(examples)))

    strongest = max(parameters.C)
    return (
        Learner(f"self-trained {strongest:g}", learn(strongest, unlabelled.self_trained)),
        Learner(f"labels spread {strongest:g}", learn(strongest, unlabelled.spread_labels)),
    )


_CHUNK, _MOST_IN_CHUNK, _FEWEST_EMBEDDED, _HEADS_SHARE = 256, 4096, 64, 0.3
"""Examples; and the share of the time that is kept for the heads."""
_CHUNK_SHARE = 0.02
"""Share of the time left that a chunk may take for the next one to be twice as large: the more texts are ordered by
length together, the less they are padded. A chunk of which some was cached says nothing of the network's pace."""


def _embed_in_time(context: TrainingContext, embeddings: _Embeds) -> None:
    """All examples into the cache. Where the budget ends before, the training goes on with those that are there: a
    sample, in which each label is."""
    everything = [*context.train, *context.validation]
    if math.isinf(context.seconds_left):
        embeddings.encode(everything)
        return
    kept_for_heads, done = _HEADS_SHARE * context.seconds_left, 0
    order = _stratified([context.label(example) for example in everything], context.payload.spec.seed)
    chunk = _CHUNK
    while done < len(order) and (done < _FEWEST_EMBEDDED or context.seconds_left > kept_for_heads):
        left, examples = context.seconds_left, [everything[place] for place in order[done : done + chunk]]
        cached = embeddings.has_cached(examples)
        embeddings.encode(examples)
        done += chunk
        if not cached and left - context.seconds_left < _CHUNK_SHARE * left:
            chunk = min(2 * chunk, _MOST_IN_CHUNK)
    if done < len(order):
        context.keep_only({everything[place].id for place in order[:done]})
        context.notes.append(
            f"The budget allowed to embed {done:,} of {len(order):,} examples: the head has learned from these alone."
        )


def _stratified(labels: Sequence[Any], seed: int) -> list[int]:
    """Places in a random order whose every beginning has each label in about its share, and at least once."""
    drawn, places = np.random.default_rng(seed).permutation(len(labels)).tolist(), dict[str, list[int]]()
    for turn, place in enumerate(drawn):
        places.setdefault(repr(labels[place]), []).append(turn)
    ranked = [(rank / len(turns), turn) for turns in places.values() for rank, turn in enumerate(turns)]
    return [drawn[turn] for _, turn in sorted(ranked)]


def _head_learners(task_head: TaskHead, strengths: Sequence[float]) -> tuple[Learner, ...]:
    match task_head.family:
        case "retrieval":
            return RETRIEVERS
        case "anomaly":
            return structured_learners.DENSE_ANOMALY_LEARNERS
        case "regression":
            return tuple(
                Learner(f"ridge {each:g}", on_spread_vectors(ridge(1 / each)), weighs=True) for each in strengths
            )
        case "multi-label":
            return tuple(
                Learner(f"logistic {each:g}", on_spread_vectors(one_versus_rest(logistic(each)))) for each in strengths
            )
        case "ordinal":
            labels = len(task_head.labels)
            bounds = [on_spread_vectors(cumulative(logistic(each), labels)) for each in strengths]
            return tuple(Learner(f"logistic {each:g}", learn) for each, learn in zip(strengths, bounds, strict=True))
    return tuple(Learner(f"logistic {each:g}", on_spread_vectors(logistic(each)), weighs=True) for each in strengths)


def spread_factor(inputs: npt.NDArray[Any]) -> float:
    """(N, D) -> what brings their mean squared distance from their mean to 1; 1 where that is more, or nothing."""
    spread = math.sqrt(float(np.var(inputs, axis=0, dtype=np.float64).sum()))
    return max(1.0, 1 / spread) if spread > 0 and math.isfinite(spread) else 1.0


def on_spread_vectors(learn: Learn) -> Learn:
    """A linear learner that learns as `learn` does, on vectors that are spread; its result is for the vectors as they
    were.

    The penalty on a head's weights suits vectors that lie about 1 apart. Some base models put all vectors near one
    point, and a head with that penalty can hardly tell them apart. Vectors that are spread already stay as they are:
    their scale may carry meaning. Nor is each dimension scaled by itself, as that enlarges noise.
    """

    def learn_wide(inputs: Any, targets: npt.NDArray[Any], seed: int, weights: Weights = None) -> Linear:
        more = () if weights is None else (weights,)
        times = spread_factor(inputs)
        if times == 1:
            line: Linear = learn(inputs, targets, seed, *more)
            return line
        middle = inputs.mean(axis=0, dtype=np.float64)  # far from 0 beside their spread, a solver loses its digits
        found = learn((inputs - middle) * times, targets, seed, *more)
        weight = found.weight * times
        return Linear(weight, found.bias - weight @ middle)

    return learn_wide
