"""Recipe `probe`: the frozen vectors of a base model, computed once and cached, then a linear head.

Thousands of times cheaper per step than fine-tuning, as the base model runs once per example, whatever is tried on
top; and the next training on the same examples finds the vectors there.
"""

from __future__ import annotations

from speciate.models.encoders import load_encoder
from speciate.tasks.embeddings import Embeddings
from speciate.training.classical import logistic, ridge
from speciate.training.selection import Chosen, Learner, Way, choose
from speciate.training.specs import ProbeParameters
from speciate.training.study import Study


def fit(study: Study, parameters: ProbeParameters) -> Chosen:
    base_model = study.payload.spec.base_model
    assert base_model is not None, "the plan fills in the base model"
    encoder = load_encoder(base_model, study.payload.threads)

    def progress(done: int, total: int) -> None:
        study.checkpoint()
        study.progress(done, total, "examples", f"embedding with {base_model}")

    embeddings = Embeddings(base_model, encoder, study.folders, progress)
    embeddings.encode([*study.train, *study.validation])  # all at once, into the cache
    head, name = (logistic, "logistic") if study.readout.labels else (ridge, "ridge")
    learners = tuple(
        Learner(f"{name} {strength:g}", head(strength if name == "logistic" else 1 / strength))
        for strength in sorted(parameters.strengths)
    )
    return choose(study, [Way(base_model, lambda examples: embeddings, learners)], parameters.folds)
