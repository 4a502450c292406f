"""Recipe `probe`: the frozen vectors of a base model, computed once and cached, then a linear head.

Thousands of times cheaper per step than fine-tuning, as the base model runs once per example, whatever is tried on
top; and the next training on the same examples finds the vectors there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speciate.models.encoders import load_encoder
from speciate.tasks.contract import Readout
from speciate.tasks.embeddings import Embeddings
from speciate.training import anomalies
from speciate.training.classical import RETRIEVERS, logistic, ridge
from speciate.training.selection import Chosen, Learner, Way, choose
from speciate.training.specs import ProbeParameters
from speciate.training.structured import cumulative, one_versus_rest
from speciate.training.study import Study
from speciate.training.widening import widened


def fit(study: Study, parameters: ProbeParameters) -> Chosen:
    base_model = study.payload.spec.base_model
    assert base_model is not None, "the plan fills in the base model"
    folder = study.payload.base_folder
    encoder = load_encoder(
        base_model,
        study.payload.threads,
        folder=Path(folder) if folder else None,
        media=study.payload.manifest.modality,
    )

    def progress(done: int, total: int) -> None:
        study.checkpoint()
        study.progress(done, total, "examples", f"embedding with {base_model}")

    embeddings = Embeddings(base_model, encoder, study.folders, progress)
    with study.tally.stage("preparing"):
        embeddings.encode([*study.train, *study.validation])  # all at once, into the cache
    learners = _heads(study.readout, sorted(parameters.strengths))
    return choose(study, [Way(base_model, lambda examples: embeddings, learners)], parameters.folds)


def _heads(readout: Readout, strengths: Sequence[float]) -> tuple[Learner, ...]:
    match readout.family:
        case "retrieval":
            return RETRIEVERS
        case "anomaly":
            return anomalies.DENSE
        case "regression":
            return tuple(Learner(f"ridge {strength:g}", widened(ridge(1 / strength))) for strength in strengths)
        case "multi-label":
            return tuple(Learner(f"logistic {each:g}", widened(one_versus_rest(logistic(each)))) for each in strengths)
        case "ordinal":
            labels = len(readout.labels)
            bounds = [widened(cumulative(logistic(each), labels)) for each in strengths]
            return tuple(Learner(f"logistic {each:g}", learn) for each, learn in zip(strengths, bounds, strict=True))
    return tuple(Learner(f"logistic {strength:g}", widened(logistic(strength))) for strength in strengths)
