"""Recipe `slda`: linear discriminant analysis on the frozen vectors of a base model, which goes on with new versions.

Streaming LDA (Hayes & Kanan 2020): a mean for each label and one covariance are all that is kept of earlier examples,
so going on reads the new version alone, takes seconds, and ends where learning from everything at once would.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np

from speciate.models.encoders import load_encoder
from speciate.models.estimators import Estimator
from speciate.models.streaming import Streaming
from speciate.tasks import predictor
from speciate.tasks.classification import Classification
from speciate.tasks.embeddings import Embeddings
from speciate.tasks.predictor import TrainedPredictor
from speciate.training.continual import slices
from speciate.training.selection import Chosen, Learner, Tried, Way, choose, measure
from speciate.training.specs import SldaParameters
from speciate.training.study import Study

_NAME = "streaming LDA"


def fit(study: Study, parameters: SldaParameters) -> Chosen:
    before = _before(study)
    return _first(study, parameters) if before is None else _further(study, before)


def _before(study: Study) -> TrainedPredictor | None:
    """The model that is gone on from; None where the base model is only its eyes."""
    folder = study.payload.base_folder
    if folder is None or not (Path(folder) / predictor.ESTIMATOR).exists():
        return None
    found = predictor.load(Path(folder), study.folders, study.payload.threads)
    assert isinstance(found, TrainedPredictor), "a network has no such file"
    return found


def _first(study: Study, parameters: SldaParameters) -> Chosen:
    base_model, folder = study.payload.spec.base_model or "", study.payload.base_folder
    encoder = load_encoder(
        base_model, study.payload.threads, folder=Path(folder) if folder else None,
        media=study.payload.manifest.modality,
    )  # fmt: skip
    embeddings = Embeddings(base_model, encoder, study.folders, partial(_progress, study))
    with study.tally.stage("preparing"):
        embeddings.encode([*study.train, *study.validation])
    labels = len(study.readout.labels)

    def learn(inputs: np.ndarray, targets: np.ndarray, seed: int) -> Estimator:
        return Streaming.empty(labels, inputs.shape[1], parameters.shrinkage).learned(inputs, targets)

    return choose(study, [Way(base_model, lambda examples: embeddings, (Learner(_NAME, learn),))], parameters.folds)


def _further(study: Study, before: TrainedPredictor) -> Chosen:
    """From the new examples alone; judged by the held-out ones of all versions."""
    started, old = time.monotonic(), before.readout
    assert isinstance(before.estimator, Streaming), "the plan sees to it"
    assert isinstance(old, Classification), "the plan sees to it"
    study.go_on_from(old)
    asked = slices.add(study)
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
    study.found["forgetting"] = slices.forgetting(study, asked, before, made)
    tried = Tried(_NAME, time.monotonic() - started, best.value, chosen=True)
    return Chosen(made, best, study.how, (tried,))


def _progress(study: Study, done: int, total: int) -> None:
    study.checkpoint()
    study.progress(done, total, "examples", f"embedding with {study.payload.spec.base_model}")
