"""Recipes `replay`, `der`, `lwf`, `ewc` and `slda`: train a model on with a new dataset version without forgetting.

The first part is what all but `slda` share: the head grows by the new labels, earlier held-out examples evaluate as
well, and the report says what was forgotten. A recipe differs in the earlier examples that it learns again, and in the
target of each example (`MakeTargets`)."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speciate.datasets import next_version, version_rows
from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.versions import Manifest
from speciate.evaluation.contamination import find_seen
from speciate.models.backbones.architectures import usual_rate
from speciate.models.backbones.contract import Backbone
from speciate.models.encoders import load_encoder
from speciate.models.estimators import Estimator, StreamingLda
from speciate.tasks import network_predictor, predictor
from speciate.tasks.example_targets import training_examples
from speciate.tasks.families.classification import Classification
from speciate.tasks.network_predictor import grow_head, saved_task_head
from speciate.tasks.predictor import TrainedPredictor
from speciate.tasks.representations import Embeddings
from speciate.tasks.soft_targets import SoftTargets, align_columns
from speciate.tasks.task import Predictor, TaskHead
from speciate.training.held_out import measure, measure_answers
from speciate.training.hyperparameters import (
    ContinualParameters,
    DerParameters,
    EwcParameters,
    LwfParameters,
    ReplayParameters,
    SldaParameters,
)
from speciate.training.networks.train_network import NetworkMethod, TrainingHead, train_all_weights, train_best_network
from speciate.training.networks.weighted_targets import SoftTargetLoss, TrainingTarget
from speciate.training.recipes import replay_buffer
from speciate.training.recipes.replay_buffer import REPLAYED_FROM
from speciate.training.selection.learners import Learner, LearnerGroup
from speciate.training.selection.model_selection import select_best
from speciate.training.selection.selected_model import CandidateResult, SelectedModel
from speciate.training.training_context import EarlierSlice, TrainingContext
from speciate.training.training_report import MethodReport
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Folders

if TYPE_CHECKING:
    import torch


MakeTargets = Callable[[TrainingContext, Backbone, Any], TrainingHead]
"""Makes what a training learns, given the grown head."""


def continual_method(
    parameters: ContinualParameters, learn_again: Callable[[TrainingContext], None], teach: MakeTargets
) -> NetworkMethod:
    """`learn_again` adds earlier examples to what there is to learn, if any."""
    return NetworkMethod(
        train_all_weights,
        train_all_weights,
        usual_rate,
        partial(_add_earlier_examples, learn_again=learn_again),
        partial(_grow_head, teach=teach),
    )


def fit_continual(context: TrainingContext, parameters: ContinualParameters, how: NetworkMethod) -> SelectedModel:
    chosen = train_best_network(context, parameters, how)
    before = network_predictor.load_network(base_folder(context), context.payload.threads)
    context.report["forgetting"] = measure_forgetting(context, context.slices, before, chosen.predictor)
    return chosen


def base_folder(context: TrainingContext) -> Path:
    folder = context.payload.base_folder
    assert folder is not None, "the plan sees to it"
    return Path(folder)


def old_model_scores(context: TrainingContext, examples: Sequence[Example]) -> SoftTargets:
    """Scores of these by the earlier model, in the columns of the grown head."""
    if not examples:
        return np.zeros((0, 0), np.float32)
    old = network_predictor.load_network(base_folder(context), context.payload.threads)
    items = old.backbone.prepare([example.media for example in examples])
    return align_columns(
        old.task_head, context.task_head, network_predictor.scores(old.backbone, old.head, old.task_head, items)
    )


def no_replay(context: TrainingContext) -> None:
    """No earlier example is learned."""


def labels_only(context: TrainingContext, backbone: Backbone, head: Any) -> TrainingHead:
    return TrainingHead(head, context.task_head, context.targets)


def soft_target_head(
    context: TrainingContext,
    head: Any,
    task_head: SoftTargetLoss,
    make_target: Callable[[Example, Any], TrainingTarget],
) -> TrainingHead:
    """`make_target(example, target)`: what is learned of each example."""

    def targets(examples: Sequence[Example]) -> list[TrainingTarget]:
        return [make_target(*pair) for pair in zip(examples, context.targets(examples), strict=True)]

    return TrainingHead(head, task_head, targets)


def _add_earlier_examples(context: TrainingContext, learn_again: Callable[[TrainingContext], None]) -> None:
    learn_again(context)
    context.extend_task_head(saved_task_head(base_folder(context)))
    add_slices(context)


def _grow_head(context: TrainingContext, backbone: Backbone, teach: MakeTargets) -> TrainingHead:
    head = context.task_head.head(backbone.width)
    grow_head(head, context.task_head, base_folder(context))
    return teach(context, backbone, head)


REPLAYED_PREFIX = "again:"
"""The ids of replayed examples begin so."""


def fit_replay(context: TrainingContext, parameters: ReplayParameters) -> SelectedModel:
    """Experience replay: learn the new version, and earlier examples again.

    Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning". The buffer is drawn anew each time from the
    data that the model and its ancestors learned from. It is repeated until it is `share` of an epoch: in the mean,
    each batch has new and old examples in that proportion. Without a buffer this is plain fine-tuning.
    """
    return fit_continual(context, parameters, replay_method(parameters))


def replay_method(parameters: ReplayParameters) -> NetworkMethod:
    return continual_method(parameters, partial(add_replay_buffer, parameters=parameters), labels_only)


def add_replay_buffer(context: TrainingContext, parameters: ReplayParameters) -> None:
    """Draw the buffer and add it to what there is to learn."""
    payload = context.payload
    drawn = replay_buffer.draw_buffer(
        context.folders, replay_buffer.buffer_name(payload.spec.name), payload.manifest,
        payload.base_learned_from or (), payload.target, parameters.mem_size, parameters.policy, payload.spec.seed,
    )  # fmt: skip
    if drawn is None:
        context.notes.append("Nothing is replayed: no earlier training example is wanted, or the new version has all.")
        return
    operation = replay_buffer.buffer_operation(
        drawn, payload.spec.base_model or "", parameters.policy, payload.spec.seed
    )
    manifest = drawn.sealed.manifest
    context.beside = next_version.pack_version(
        drawn.sealed, operation=operation, report={"ok": manifest.rows}, result={}, parents=sorted(drawn.of)
    )
    old = [
        example._replace(id=f"{REPLAYED_PREFIX}{example.id}", split="train")
        for example in load_examples(context.folders, manifest)
    ]
    old, times = context.note_training_examples(old), 1
    if old and parameters.share:
        times = max(1, round(parameters.share / (1 - parameters.share) * len(context.train) / len(old)))
    context.report["replay"] = {
        "dataset": manifest.name, "examples": len(old), "times": times, "from": drawn.of, "labels": drawn.labels,
        "available": drawn.available, "policy": parameters.policy,
    }  # fmt: skip
    context.train += old * times


def replayed_examples(examples: Sequence[Example]) -> list[Example]:
    """Examples that come from the replay buffer, each once."""
    return list({each.id: each for each in examples if each.id.startswith(REPLAYED_PREFIX)}.values())


def fit_der(context: TrainingContext, parameters: DerParameters) -> SelectedModel:
    """Dark experience replay: replay that also matches the earlier model's raw scores of the replayed examples.

    Buzzega et al. 2020; `beta=0` is DER, more is DER++. Departures: the scores of the whole buffer are those of the
    model that the training starts from, not those recorded while the examples were learned. For a label that this model
    did not know, the score is that of its least likely label.
    """
    return fit_continual(context, parameters, der_method(parameters))


def der_method(parameters: DerParameters) -> NetworkMethod:
    return continual_method(
        parameters, partial(add_replay_buffer, parameters=parameters), partial(_der_targets, parameters=parameters)
    )


def _der_targets(context: TrainingContext, backbone: Backbone, head: Any, parameters: DerParameters) -> TrainingHead:
    old = replayed_examples(context.train)
    wanted = old_model_scores(context, old)
    if old and context.task_head.family == "classification":
        wanted = np.where(np.isnan(wanted), np.nanmin(wanted, axis=1, keepdims=True), wanted)
    said = dict(zip([each.id for each in old], wanted, strict=True))

    def make_target(example: Example, target: Any) -> TrainingTarget:
        if not example.id.startswith(REPLAYED_PREFIX):
            return TrainingTarget(target)
        return TrainingTarget(target, parameters.beta, said[example.id], parameters.alpha)

    return soft_target_head(context, head, SoftTargetLoss(context.task_head, "scores"), make_target)


def fit_lwf(context: TrainingContext, parameters: LwfParameters) -> SelectedModel:
    """Learning without forgetting: learn the new version, and match the earlier model's answers to its examples.

    Li & Hoiem 2016. No earlier example is kept. Where new examples are unlike the earlier ones, the earlier model's
    answers say little of what it knew: with new labels in each version it forgets nearly everything.
    """
    return fit_continual(context, parameters, lwf_method(parameters))


def lwf_method(parameters: LwfParameters) -> NetworkMethod:
    return continual_method(parameters, no_replay, partial(_lwf_targets, parameters=parameters))


def _lwf_targets(context: TrainingContext, backbone: Backbone, head: Any, parameters: LwfParameters) -> TrainingHead:
    said = dict(zip([each.id for each in context.train], old_model_scores(context, context.train), strict=True))

    def make_target(example: Example, target: Any) -> TrainingTarget:
        return TrainingTarget(target, 1.0, said[example.id], parameters.alpha)

    return soft_target_head(
        context, head, SoftTargetLoss(context.task_head, "probabilities", parameters.temperature), make_target
    )


def fit_ewc(context: TrainingContext, parameters: EwcParameters) -> SelectedModel:
    """Elastic weight consolidation: learn the new version while each weight is pulled to its earlier value.

    Kirkpatrick et al. 2017, as a baseline: with new labels in each version it forgets as plain fine-tuning does. The
    pull is weighted by the Fisher information on a sample of earlier training examples, of all earlier versions
    together. Its diagonal is taken from the gradients of their own labels.
    """
    return fit_continual(context, parameters, ewc_method(parameters))


def ewc_method(parameters: EwcParameters) -> NetworkMethod:
    return continual_method(parameters, no_replay, partial(_ewc_penalty, parameters=parameters))


def _ewc_penalty(context: TrainingContext, backbone: Backbone, head: Any, parameters: EwcParameters) -> TrainingHead:
    mattered = _fisher_information(context, parameters.sampled)
    before = {name: each.detach().clone() for name, each in backbone.module.named_parameters()}

    def penalty(_: torch.nn.Module) -> torch.Tensor:
        """Penalty on changes of the backbone alone: the head's rows move with new labels."""
        named = backbone.module.named_parameters()
        moved = [(mattered[name] * (each - before[name].to(each.device)).square()).sum() for name, each in named]
        total: torch.Tensor = sum(moved[1:], moved[0])
        return parameters.ewc_lambda * total

    task_head = SoftTargetLoss(context.task_head, penalty=penalty)
    return soft_target_head(context, head, task_head, lambda example, target: TrainingTarget(target))


def _fisher_information(context: TrainingContext, most: int) -> dict[str, torch.Tensor]:
    """Mean squared gradient of each weight of the old backbone, an example at a time."""
    payload = context.payload
    old = network_predictor.load_network(base_folder(context), payload.threads)
    drawn = replay_buffer.draw_buffer(
        context.folders, replay_buffer.buffer_name(payload.spec.name), payload.manifest,
        payload.base_learned_from or (), payload.target, most, "balanced", payload.spec.seed,
    )  # fmt: skip
    trained = dict(old.backbone.module.named_parameters())
    found = {name: each.detach().clone().zero_() for name, each in trained.items()}
    if drawn is None:
        return found
    examples = load_examples(context.folders, drawn.sealed.manifest)
    posed = training_examples(examples, drawn.sealed.manifest, payload.target, payload.task, payload.terms)
    items = old.backbone.prepare([one.example.media for one in posed])
    targets = old.task_head.encode_targets([one.target for one in posed])
    old.backbone.module.requires_grad_(True).eval()
    for place, item in enumerate(items):
        old.backbone.module.zero_grad(set_to_none=True)
        states = old.backbone.states(old.backbone.collate([item]))
        old.task_head.loss(old.head, states, targets[place : place + 1]).backward()  # type: ignore[no-untyped-call]
        for name, each in trained.items():
            if each.grad is not None:
                found[name] += each.grad.square() / len(items)
    return found


_SLDA_NAME = "streaming LDA"


def fit_slda(context: TrainingContext, parameters: SldaParameters) -> SelectedModel:
    """Streaming linear discriminant analysis on the frozen vectors of a base model.

    Hayes & Kanan 2020. A mean for each label and one covariance are all that is kept of earlier examples. So a further
    training reads the new version alone, takes seconds, and gives what learning from everything at once would give.
    """
    before = _earlier_model(context)
    return _fit_first(context, parameters) if before is None else _fit_further(context, before)


def _earlier_model(context: TrainingContext) -> TrainedPredictor | None:
    """The earlier model; None where the base model only encodes."""
    folder = context.payload.base_folder
    if folder is None or not (Path(folder) / predictor.ESTIMATOR).exists():
        return None
    found = predictor.load(Path(folder), context.folders, context.payload.threads)
    assert isinstance(found, TrainedPredictor), "a network has no such file"
    return found


def _fit_first(context: TrainingContext, parameters: SldaParameters) -> SelectedModel:
    base_model, folder = context.payload.spec.base_model or "", context.payload.base_folder
    encoder = load_encoder(
        base_model, context.payload.threads, folder=Path(folder) if folder else None,
        media=context.payload.manifest.modality,
    )  # fmt: skip
    embeddings = Embeddings(base_model, encoder, context.folders, partial(_report_embedding, context))
    with context.meter.stage("preparing"):
        embeddings.encode([*context.train, *context.validation])
    labels = len(context.task_head.labels)

    def learn(inputs: np.ndarray, targets: np.ndarray, seed: int) -> Estimator:
        return StreamingLda.empty(labels, inputs.shape[1], parameters.shrinkage).learned(inputs, targets)

    return select_best(
        context,
        [LearnerGroup(base_model, lambda examples: embeddings, (Learner(_SLDA_NAME, learn),))],
        parameters.folds,
        refit=False,
    )


def _fit_further(context: TrainingContext, before: TrainedPredictor) -> SelectedModel:
    """From the new examples alone; judged by the held-out ones of all versions."""
    started, old = time.monotonic(), before.task_head
    assert isinstance(before.estimator, StreamingLda), "the plan sees to it"
    assert isinstance(old, Classification), "the plan sees to it"
    context.extend_task_head(old)
    asked = add_slices(context)
    labels = context.task_head.labels
    with context.meter.stage("preparing"):
        inputs = before.representation.encode(context.train)
        held_inputs = before.representation.encode(context.validation)
    with context.meter.stage("training"):
        places = np.array([labels.index(label) for label in old.labels])
        estimator = before.estimator.placed(places, len(labels)).learned(inputs, context.targets(context.train))
    scores = estimator.scores(held_inputs)
    task_head = context.task_head.calibrated(scores, context.targets(context.validation))
    made = TrainedPredictor(context.payload.task, before.representation, estimator, task_head)
    best = measure(context, task_head, context.validation, scores)
    context.report["forgetting"] = measure_forgetting(context, asked, before, made)
    tried = CandidateResult(_SLDA_NAME, time.monotonic() - started, best.value, chosen=True)
    return SelectedModel(made, best, context.how, (tried,))


def _report_embedding(context: TrainingContext, done: int, total: int) -> None:
    context.checkpoint()
    context.progress(done, total, "examples", f"embedding with {context.payload.spec.base_model}")


_MOST_SLICE_EXAMPLES = 1000
"""Examples of a slice."""


class SliceValues(NamedTuple):
    """The metric on one slice, before and after; NaN where it is undefined."""

    slice: EarlierSlice
    before: float
    after: float


def read_slices(
    folders: Folders, now: Manifest, earlier: Sequence[Manifest], seed: int
) -> list[tuple[EarlierSlice, set[str]]]:
    """Held-out examples of each earlier version, oldest first, with the ids of those that may choose the weights.

    Validation examples choose; where a version has none, its test examples only measure, at the end, what was
    forgotten. No example is there twice. Excluded are the new version's own examples, and those that the
    new version or an ancestor of the model learned from. `earlier`: newest first, as `learned_from` has it.
    """
    found: list[tuple[EarlierSlice, set[str]]] = []
    others = [now]
    for version in earlier:
        split = next((name for name in ("validation", "test") if version.splits.get(name)), None)
        if split is None or REPLAYED_FROM in version.columns:
            continue
        ids = version_rows.read(folders, version, ["id"], splits=(split,), usable=True)["id"].to_pylist()
        learned = find_seen(folders, version, ids, [now, *earlier], ("train",))
        order = sorted(set(ids) - learned, key=lambda each: hashlib.sha256(f"{seed}:{each}".encode()).digest())
        kept = sorted(order[:_MOST_SLICE_EXAMPLES])
        if not kept:
            continue
        again = find_seen(folders, version, kept, others, ("validation",)) if split == "validation" else set(kept)
        again |= find_seen(
            folders, version, kept, [now, *earlier], ("test",)
        )  # what decides in the end chooses nothing
        examples = [each._replace(split="validation") for each in load_examples(folders, version, ids=kept)]
        found.insert(0, (EarlierSlice(version.ref, split, examples), set(kept) - again))
        others.append(version)
    return found


def add_slices(context: TrainingContext) -> list[EarlierSlice]:
    """The slices as questions of this training; those that may choose the weights join its validation examples."""
    payload = context.payload
    for one, judging in read_slices(
        context.folders, payload.manifest, payload.base_learned_from or (), payload.spec.seed
    ):
        asked = context.note_questions(one.examples)
        context.slices.append(one._replace(examples=asked))
        context.validation += [example for example in asked if example.id.partition("#")[0] in judging]
    return context.slices


def measure_forgetting(
    context: TrainingContext, slices: Sequence[EarlierSlice], before: Predictor, after: Predictor
) -> MethodReport:
    """For the report. Backward transfer: how much better the new model is on the earlier versions' held-out examples
    than the one that it began with, in the mean over them (Lopez-Paz & Ranzato 2017); forgetting: how much worse, where
    it is worse."""
    metric = find_metric(context.payload.objective.metric)
    measured = [
        SliceValues(each, _slice_value(context, before, each.examples), _slice_value(context, after, each.examples))
        for each in slices
        if each.examples
    ]
    changes = [metric.sign * (each.after - each.before) for each in measured]
    changes = [change for change in changes if math.isfinite(change)]
    return {
        "metric": metric.name,
        "began_with": context.payload.spec.base_model,
        "slices": [
            {
                "dataset": each.slice.dataset, "split": each.slice.split, "n": len(each.slice.examples),
                "before": _rounded(each.before), "after": _rounded(each.after),
                "change": _rounded(each.after - each.before),
            }
            for each in measured
        ],
        "backward_transfer": _rounded(fmean(changes)) if changes else None,
        "forgetting": _rounded(fmean(max(0.0, -change) for change in changes)) if changes else None,
    }  # fmt: skip


def _slice_value(context: TrainingContext, model: Predictor, examples: Sequence[Example]) -> float:
    task_head: TaskHead | Any = getattr(model, "task_head", context.task_head)
    return float(measure_answers(context, task_head, examples, model.predict(examples)).value)


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
