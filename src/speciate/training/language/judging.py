"""What a finished language model is worth: it answers validation examples, and the objective's metric says how well."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from speciate.datasets.loading.loader import Example
from speciate.evaluation.statistics import Estimate
from speciate.jobs.run import Stopped
from speciate.tasks.writing import WritingPredictor
from speciate.training.language.durable_trainer import Ending
from speciate.training.language.specs import LanguageParameters
from speciate.training.selection import Chosen, Tried, measure
from speciate.training.study import Study

_AT_ONCE = 16
_NOT_JUDGED = Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0, "not judged")


def chosen(
    study: Study, predictor: WritingPredictor, parameters: LanguageParameters, ending: Ending, began: float
) -> Chosen:
    """The model with its value on validation examples, the first `judged` of them in the order of their ids."""
    held = sorted(study.validation, key=lambda each: each.id)[: parameters.judged]
    estimate = judged(study, predictor, held) if held else _NOT_JUDGED
    if not study.validation:
        study.notes.append("There is no validation split, so nothing says yet how good the model is.")
    elif len(held) < len(study.validation):
        study.notes.append(f"{len(held)} of {len(study.validation)} validation examples were answered (`judged`).")
    study.found["training"] = {
        "ended": ending.why, "steps": ending.steps, "kept_step": ending.step, "held_loss": ending.held_loss,
        "held": dict(ending.held),
    }  # fmt: skip
    name = f"{study.payload.spec.method} of {study.payload.spec.base_model}"
    tried = (Tried(name, time.monotonic() - began, estimate.value, chosen=True),)
    return Chosen(predictor, estimate, study.how if held else "not judged", tried)


def judged(study: Study, predictor: WritingPredictor, held: Sequence[Example]) -> Estimate:
    """Raises Stopped between batches."""
    texts: list[str] = []
    with study.tally.stage("judging"):
        for start in range(0, len(held), _AT_ONCE):
            if study.run.stopping:
                raise Stopped
            study.progress(len(texts), len(held), "answers", "validation examples are answered")
            texts += [str(one.output) for one in predictor.predict(held[start : start + _AT_ONCE])]
    return measure(study, study.readout, held, texts)
