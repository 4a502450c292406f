"""What teachers say of examples, asked once: their answers are kept in the workspace's feature cache by the model's id.

Whatever gives a chance to each label, or a number, can teach: networks, probes and classical learners alike. Answers
are those that are served, so that confidences mean what they say (calibrated), whichever learner gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate import features
from speciate.datasets.loading.keys import keys
from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.tasks import predictor
from speciate.tasks.contract import Prediction, Predictor, Readout
from speciate.tasks.growth import kept_readout
from speciate.tasks.network import NetworkPredictor
from speciate.tasks.soft import Wanted, chances, together
from speciate.training.specs import Teacher
from speciate.training.study import Study

Vectors = npt.NDArray[np.float32]
_CHUNK = 64


def load(study: Study, teacher: Teacher, *, cached: bool = True) -> Predictor:
    """Not `cached`: it computes everything anew, as where it serves."""
    return predictor.load(Path(teacher.folder), study.folders if cached else None, study.payload.threads)


def wanted(study: Study, examples: Sequence[Example]) -> Wanted:
    """(N, K): what all teachers together say of these, in the columns of the student's head. INVALID where none of
    them knows any of its labels."""
    said = [chances(study.readout, answers(study, teacher, examples)) for teacher in study.payload.teachers]
    for teacher, each in zip(study.payload.teachers, said, strict=True):
        if len(each) and np.isnan(each).all():
            raise SpeciateError(
                Code.INVALID,
                f"{teacher.model} knows none of the labels {', '.join(study.readout.labels[:10])}.",
                "Name a teacher that was trained on these labels.",
            )
    return together(said, study.readout)


def answers(study: Study, teacher: Teacher, examples: Sequence[Example]) -> list[Prediction]:
    readout = kept_readout(Path(teacher.folder))
    labels = readout.labels

    def ask(model: Predictor, some: Sequence[Example]) -> Vectors:
        given = model.predict(some)
        if not labels:
            return np.array([[float(each.output)] for each in given], np.float32)
        return np.array([[(each.probabilities or {})[label] for label in labels] for each in given], np.float32)

    rows = _once(study, teacher, "answers", examples, ask, max(1, len(labels)))
    if not labels:
        return [Prediction(float(row[0]), None, None) for row in rows]
    return [_prediction(readout, row) for row in rows]


def states(study: Study, teacher: Teacher, examples: Sequence[Example]) -> Vectors:
    """(N, W): pooled states of the teacher's network. INVALID where it is none."""

    def ask(model: Predictor, some: Sequence[Example]) -> Vectors:
        import torch

        assert isinstance(model, NetworkPredictor), "width() has seen to it"
        backbone = model.backbone
        with torch.inference_mode():
            batch = backbone.collate(backbone.prepare([example.media for example in some]))
            found: Vectors = backbone.states(batch).pooled.float().numpy()
        return found

    return _once(study, teacher, "states", examples, ask, width(study, teacher))


def width(study: Study, teacher: Teacher) -> int:
    model = load(study, teacher)
    if not isinstance(model, NetworkPredictor):
        raise SpeciateError(
            Code.INVALID,
            f"{teacher.model} was made by {teacher.method!r}: it has no states that a student could match.",
            "Call train_model again with hyperparameters={'features': 0}, or another teacher.",
        )
    return int(model.backbone.width)


def _prediction(readout: Readout, row: Any) -> Prediction:
    return Prediction(None, None, dict(zip(readout.labels, map(float, row), strict=True)))


def _once(
    study: Study,
    teacher: Teacher,
    what: str,
    examples: Sequence[Example],
    ask: Callable[[Predictor, Sequence[Example]], Vectors],
    columns: int,
) -> Vectors:
    """(N, columns): from the cache, and the rest asked and cached, a chunk at a time: nothing is asked twice."""
    named, cache = keys(examples), f"{what}-{teacher.id[:32]}"
    known = features.read(study.folders, cache, named)
    found = np.zeros((len(examples), columns), np.float32)
    if known.known.any():
        found[known.known] = known.vectors
    missing = np.flatnonzero(~known.known)
    model = load(study, teacher) if len(missing) else None
    for start in range(0, len(missing), _CHUNK):
        study.checkpoint()
        study.progress(start, len(missing), "examples", f"asking {teacher.model}")
        places = missing[start : start + _CHUNK]
        assert model is not None
        found[places] = ask(model, [examples[place] for place in places.tolist()])
        features.write(study.folders, cache, [named[place] for place in places.tolist()], found[places])
    return found
