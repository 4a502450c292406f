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
from speciate.training.hyperparameters import (
    ContinualParameters,
    DerParameters,
    EwcParameters,
    LwfParameters,
    ReplayParameters,
    SldaParameters,
)
from speciate.training.model_selection import (
    CandidateResult,
    Learner,
    LearnerGroup,
    SelectedModel,
    measure,
    measure_answers,
    select_best,
)
from speciate.training.networks.train_network import NetworkMethod, TrainingHead, train_best_network
from speciate.training.networks.weighted_targets import SoftTargetLoss, TrainingTarget
from speciate.training.recipes import replay_buffer
from speciate.training.recipes.replay_buffer import REPLAYED_FROM
from speciate.training.training_context import EarlierSlice, TrainingContext
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Folders

if TYPE_CHECKING:
    import torch


MakeTargets = Callable[[TrainingContext, Backbone, Any], TrainingHead]
"""With the grown head."""


def continual_method(
    parameters: ContinualParameters, learn_again: Callable[[TrainingContext], None], teach: MakeTargets
) -> NetworkMethod:
    """`learn_again` adds earlier examples to what there is to learn, if any."""
    return NetworkMethod(
        _train_all_weights,
        _train_all_weights,
        usual_rate,
        partial(_add_earlier_examples, learn_again=learn_again),
        partial(_grow_head, teach=teach),
    )


def fit_continual(study: TrainingContext, parameters: ContinualParameters, how: NetworkMethod) -> SelectedModel:
    chosen = train_best_network(study, parameters, how)
    before = network_predictor.load_network(base_folder(study), study.payload.threads)
    study.found["forgetting"] = measure_forgetting(study, study.slices, before, chosen.predictor)
    return chosen


def base_folder(study: TrainingContext) -> Path:
    folder = study.payload.base_folder
    assert folder is not None, "the plan sees to it"
    return Path(folder)


def old_model_scores(study: TrainingContext, examples: Sequence[Example]) -> SoftTargets:
    """What the model that is gone on from says of these, in the columns of the grown head."""
    if not examples:
        return np.zeros((0, 0), np.float32)
    old = network_predictor.load_network(base_folder(study), study.payload.threads)
    items = old.backbone.prepare([example.media for example in examples])
    return align_columns(
        old.readout, study.readout, network_predictor.scores(old.backbone, old.head, old.readout, items)
    )


def no_replay(study: TrainingContext) -> None:
    """No earlier example is learned."""


def labels_only(study: TrainingContext, backbone: Backbone, head: Any) -> TrainingHead:
    return TrainingHead(head, study.readout, study.targets)


def soft_target_head(
    study: TrainingContext, head: Any, readout: SoftTargetLoss, lesson: Callable[[Example, Any], TrainingTarget]
) -> TrainingHead:
    """`lesson(example, target)` says what each teaches."""

    def targets(examples: Sequence[Example]) -> list[TrainingTarget]:
        return [lesson(*pair) for pair in zip(examples, study.targets(examples), strict=True)]

    return TrainingHead(head, readout, targets)


def _add_earlier_examples(study: TrainingContext, learn_again: Callable[[TrainingContext], None]) -> None:
    learn_again(study)
    study.go_on_from(saved_task_head(base_folder(study)))
    add_slices(study)


def _grow_head(study: TrainingContext, backbone: Backbone, teach: MakeTargets) -> TrainingHead:
    head = study.readout.head(backbone.width)
    grow_head(head, study.readout, base_folder(study))
    return teach(study, backbone, head)


def _train_all_weights(backbone: Backbone) -> None:
    backbone.module.requires_grad_(True)


# Recipe `replay`: a network goes on with a new version and learns again from earlier examples, so that it keeps them.
#
# Experience replay (Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning"). The buffer is drawn
# anew each time from the data that the model's line learned from, and repeated until it is `share` of an epoch: there
# each batch has the new and the old in that proportion, in the mean. Without a buffer it is plain fine-tuning.


REPLAYED_PREFIX = "again:"
"""What the ids of replayed examples begin with."""


def fit_replay(study: TrainingContext, parameters: ReplayParameters) -> SelectedModel:
    return fit_continual(study, parameters, replay_method(parameters))


def replay_method(parameters: ReplayParameters) -> NetworkMethod:
    return continual_method(parameters, partial(add_replay_buffer, parameters=parameters), labels_only)


def add_replay_buffer(study: TrainingContext, parameters: ReplayParameters) -> None:
    """Draw the buffer and add it to what there is to learn."""
    payload = study.payload
    drawn = replay_buffer.draw_buffer(
        study.folders, replay_buffer.buffer_name(payload.spec.name), payload.manifest, payload.base_learned_from or (),
        payload.target, parameters.buffer_size, parameters.policy, payload.spec.seed,
    )  # fmt: skip
    if drawn is None:
        study.notes.append("Nothing is replayed: no earlier training example is wanted, or the new version has all.")
        return
    operation = replay_buffer.buffer_operation(
        drawn, payload.spec.base_model or "", parameters.policy, payload.spec.seed
    )
    manifest = drawn.sealed.manifest
    study.beside = next_version.pack_version(
        drawn.sealed, operation=operation, report={"ok": manifest.rows}, result={}, parents=sorted(drawn.of)
    )
    old = [
        example._replace(id=f"{REPLAYED_PREFIX}{example.id}", split="train")
        for example in load_examples(study.folders, manifest)
    ]
    old, times = study.learn_too(old), 1
    if old and parameters.share:
        times = max(1, round(parameters.share / (1 - parameters.share) * len(study.train) / len(old)))
    study.found["replay"] = {
        "dataset": manifest.name, "examples": len(old), "times": times, "from": drawn.of, "labels": drawn.labels,
        "available": drawn.available, "policy": parameters.policy,
    }  # fmt: skip
    study.train += old * times


def replayed_examples(examples: Sequence[Example]) -> list[Example]:
    """Those of the buffer, each once."""
    return list({each.id: each for each in examples if each.id.startswith(REPLAYED_PREFIX)}.values())


# Recipe `der`: replay, and on what is replayed the old model's raw scores are matched, too.
#
# Dark experience replay (Buzzega et al. 2020): `beta=0` is DER, more is DER++. Departures: scores are those of the
# model that is gone on from, for all of the buffer, and not as they were while the examples were learned; and of a
# label that it did not know yet, it is taken to say as little of an old example as of the least likely one that it
# knew.


def fit_der(study: TrainingContext, parameters: DerParameters) -> SelectedModel:
    return fit_continual(study, parameters, der_method(parameters))


def der_method(parameters: DerParameters) -> NetworkMethod:
    return continual_method(
        parameters, partial(add_replay_buffer, parameters=parameters), partial(_der_targets, parameters=parameters)
    )


def _der_targets(study: TrainingContext, backbone: Backbone, head: Any, parameters: DerParameters) -> TrainingHead:
    old = replayed_examples(study.train)
    wanted = old_model_scores(study, old)
    if old and study.readout.family == "classification":
        wanted = np.where(np.isnan(wanted), np.nanmin(wanted, axis=1, keepdims=True), wanted)
    said = dict(zip([each.id for each in old], wanted, strict=True))

    def lesson(example: Example, target: Any) -> TrainingTarget:
        if not example.id.startswith(REPLAYED_PREFIX):
            return TrainingTarget(target)
        return TrainingTarget(target, parameters.beta, said[example.id], parameters.alpha)

    return soft_target_head(study, head, SoftTargetLoss(study.readout, "scores"), lesson)


# Recipe `lwf`: a network goes on with a new version, and is held to what it said of these examples before.
#
# Learning without forgetting (Li & Hoiem 2016): no earlier example is kept. Where new examples are unlike the old
# ones, what the old model says of them tells little of what it knew: with new labels in each version it forgets
# nearly all.


def fit_lwf(study: TrainingContext, parameters: LwfParameters) -> SelectedModel:
    return fit_continual(study, parameters, lwf_method(parameters))


def lwf_method(parameters: LwfParameters) -> NetworkMethod:
    return continual_method(parameters, no_replay, partial(_lwf_targets, parameters=parameters))


def _lwf_targets(study: TrainingContext, backbone: Backbone, head: Any, parameters: LwfParameters) -> TrainingHead:
    said = dict(zip([each.id for each in study.train], old_model_scores(study, study.train), strict=True))

    def lesson(example: Example, target: Any) -> TrainingTarget:
        return TrainingTarget(target, 1.0, said[example.id], parameters.alpha)

    return soft_target_head(study, head, SoftTargetLoss(study.readout, "probabilities", parameters.temperature), lesson)


# Recipe `ewc`: a network goes on with a new version while each weight is pulled back by what it mattered before.
#
# Elastic weight consolidation (Kirkpatrick et al. 2017), as a baseline: with new labels in each version it forgets as
# plain fine-tuning does. What mattered is the Fisher information on a sample of earlier training examples, of all
# earlier versions together; its diagonal is taken from the gradients of their own labels.


def fit_ewc(study: TrainingContext, parameters: EwcParameters) -> SelectedModel:
    return fit_continual(study, parameters, ewc_method(parameters))


def ewc_method(parameters: EwcParameters) -> NetworkMethod:
    return continual_method(parameters, no_replay, partial(_ewc_penalty, parameters=parameters))


def _ewc_penalty(study: TrainingContext, backbone: Backbone, head: Any, parameters: EwcParameters) -> TrainingHead:
    mattered = _fisher_information(study, parameters.sampled)
    before = {name: each.detach().clone() for name, each in backbone.module.named_parameters()}

    def penalty(_: torch.nn.Module) -> torch.Tensor:
        """Of the backbone: the head's rows move with new labels."""
        named = backbone.module.named_parameters()
        moved = [(mattered[name] * (each - before[name].to(each.device)).square()).sum() for name, each in named]
        total: torch.Tensor = sum(moved[1:], moved[0])
        return parameters.strength * total

    readout = SoftTargetLoss(study.readout, penalty=penalty)
    return soft_target_head(study, head, readout, lambda example, target: TrainingTarget(target))


def _fisher_information(study: TrainingContext, most: int) -> dict[str, torch.Tensor]:
    """Mean squared gradient of each weight of the old backbone, an example at a time."""
    payload = study.payload
    old = network_predictor.load_network(base_folder(study), payload.threads)
    drawn = replay_buffer.draw_buffer(
        study.folders, replay_buffer.buffer_name(payload.spec.name), payload.manifest, payload.base_learned_from or (),
        payload.target, most, "balanced", payload.spec.seed,
    )  # fmt: skip
    trained = dict(old.backbone.module.named_parameters())
    found = {name: each.detach().clone().zero_() for name, each in trained.items()}
    if drawn is None:
        return found
    examples = load_examples(study.folders, drawn.sealed.manifest)
    posed = training_examples(examples, drawn.sealed.manifest, payload.target, payload.task, payload.terms)
    items = old.backbone.prepare([one.example.media for one in posed])
    targets = old.readout.encode_targets([one.target for one in posed])
    old.backbone.module.requires_grad_(True).eval()
    for place, item in enumerate(items):
        old.backbone.module.zero_grad(set_to_none=True)
        states = old.backbone.states(old.backbone.collate([item]))
        old.readout.loss(old.head, states, targets[place : place + 1]).backward()  # type: ignore[no-untyped-call]
        for name, each in trained.items():
            if each.grad is not None:
                found[name] += each.grad.square() / len(items)
    return found


# Recipe `slda`: linear discriminant analysis on the frozen vectors of a base model, which goes on with new versions.
#
# Streaming LDA (Hayes & Kanan 2020): a mean for each label and one covariance are all that is kept of earlier
# examples, so going on reads the new version alone, takes seconds, and ends where learning from everything at once
# would.


_SLDA_NAME = "streaming LDA"


def fit_slda(study: TrainingContext, parameters: SldaParameters) -> SelectedModel:
    before = _earlier_model(study)
    return _fit_first(study, parameters) if before is None else _fit_further(study, before)


def _earlier_model(study: TrainingContext) -> TrainedPredictor | None:
    """The model that is gone on from; None where the base model is only its eyes."""
    folder = study.payload.base_folder
    if folder is None or not (Path(folder) / predictor.ESTIMATOR).exists():
        return None
    found = predictor.load(Path(folder), study.folders, study.payload.threads)
    assert isinstance(found, TrainedPredictor), "a network has no such file"
    return found


def _fit_first(study: TrainingContext, parameters: SldaParameters) -> SelectedModel:
    base_model, folder = study.payload.spec.base_model or "", study.payload.base_folder
    encoder = load_encoder(
        base_model, study.payload.threads, folder=Path(folder) if folder else None,
        media=study.payload.manifest.modality,
    )  # fmt: skip
    embeddings = Embeddings(base_model, encoder, study.folders, partial(_report_embedding, study))
    with study.tally.stage("preparing"):
        embeddings.encode([*study.train, *study.validation])
    labels = len(study.readout.labels)

    def learn(inputs: np.ndarray, targets: np.ndarray, seed: int) -> Estimator:
        return StreamingLda.empty(labels, inputs.shape[1], parameters.shrinkage).learned(inputs, targets)

    return select_best(
        study, [LearnerGroup(base_model, lambda examples: embeddings, (Learner(_SLDA_NAME, learn),))], parameters.folds
    )


def _fit_further(study: TrainingContext, before: TrainedPredictor) -> SelectedModel:
    """From the new examples alone; judged by the held-out ones of all versions."""
    started, old = time.monotonic(), before.readout
    assert isinstance(before.estimator, StreamingLda), "the plan sees to it"
    assert isinstance(old, Classification), "the plan sees to it"
    study.go_on_from(old)
    asked = add_slices(study)
    labels = study.readout.labels
    with study.tally.stage("preparing"):
        inputs = before.representation.encode(study.train)
        held_inputs = before.representation.encode(study.validation)
    with study.tally.stage("training"):
        places = np.array([labels.index(label) for label in old.labels])
        estimator = before.estimator.placed(places, len(labels)).learned(inputs, study.targets(study.train))
    scores = estimator.scores(held_inputs)
    readout = study.readout.calibrated(scores, study.targets(study.validation))
    made = TrainedPredictor(study.payload.task, before.representation, estimator, readout)
    best = measure(study, readout, study.validation, scores)
    study.found["forgetting"] = measure_forgetting(study, asked, before, made)
    tried = CandidateResult(_SLDA_NAME, time.monotonic() - started, best.value, chosen=True)
    return SelectedModel(made, best, study.how, (tried,))


def _report_embedding(study: TrainingContext, done: int, total: int) -> None:
    study.checkpoint()
    study.progress(done, total, "examples", f"embedding with {study.payload.spec.base_model}")


# What earlier versions were judged by: held-out examples of each, and what a model forgot of them.
#
# Validation examples of an earlier version judge, too, which weights are kept; where it has none, its test examples
# only tell, at the end, what was forgotten. Of neither counts what any model of the line or the new version learned
# from.


_MOST_SLICE_EXAMPLES = 1000
"""Examples of a slice."""


class SliceValues(NamedTuple):
    """Of one slice; NaN where the metric is undefined."""

    slice: EarlierSlice
    before: float
    after: float


def read_slices(
    folders: Folders, now: Manifest, earlier: Sequence[Manifest], seed: int
) -> list[tuple[EarlierSlice, set[str]]]:
    """Oldest first, with the ids of those that may judge: no example twice, none of the new version's own.

    `earlier`: newest first, as `learned_from` has it.
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


def add_slices(study: TrainingContext) -> list[EarlierSlice]:
    """The slices, asked of this study: what may judge comes to its validation examples."""
    payload = study.payload
    for one, judging in read_slices(
        study.folders, payload.manifest, payload.base_learned_from or (), payload.spec.seed
    ):
        asked = study.ask_too(one.examples)
        study.slices.append(one._replace(examples=asked))
        study.validation += [example for example in asked if example.id.partition("#")[0] in judging]
    return study.slices


def measure_forgetting(
    study: TrainingContext, slices: Sequence[EarlierSlice], before: Predictor, after: Predictor
) -> dict[str, Any]:
    """For the report. Backward transfer: how much better the new model is on the earlier versions' held-out examples
    than the one that it began with, in the mean over them (Lopez-Paz & Ranzato 2017); forgetting: how much worse, where
    it is worse."""
    metric = find_metric(study.payload.objective.metric)
    measured = [
        SliceValues(each, _slice_value(study, before, each.examples), _slice_value(study, after, each.examples))
        for each in slices
        if each.examples
    ]
    changes = [metric.sign * (each.after - each.before) for each in measured]
    changes = [change for change in changes if math.isfinite(change)]
    return {
        "metric": metric.name,
        "began_with": study.payload.spec.base_model,
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


def _slice_value(study: TrainingContext, model: Predictor, examples: Sequence[Example]) -> float:
    readout: TaskHead | Any = getattr(model, "readout", study.readout)
    return float(measure_answers(study, readout, examples, model.predict(examples)).value)


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
