"""Recipe `der`: replay, and on what is replayed the old model's raw scores are matched, too.

Dark experience replay (Buzzega et al. 2020): `beta=0` is DER, more is DER++. Departures: scores are those of the model
that is gone on from, for all of the buffer, and not as they were while the examples were learned; and of a label that
it did not know yet, it is taken to say as little of an old example as of the least likely one that it knew.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.models.backbones.contract import Backbone
from speciate.training.continual import going_on
from speciate.training.network.choosing import Lessons, Method
from speciate.training.network.lessons import Lesson, Taught
from speciate.training.replay import AGAIN, rehearse, replayed
from speciate.training.selection import Chosen
from speciate.training.specs import DerParameters
from speciate.training.study import Study


def fit(study: Study, parameters: DerParameters) -> Chosen:
    return going_on.fit(study, parameters, method(parameters))


def method(parameters: DerParameters) -> Method:
    return going_on.method(parameters, partial(rehearse, parameters=parameters), partial(_teach, parameters=parameters))


def _teach(study: Study, backbone: Backbone, head: Any, parameters: DerParameters) -> Lessons:
    old = replayed(study.train)
    wanted = going_on.old_scores(study, old)
    if old and study.readout.family == "classification":
        wanted = np.where(np.isnan(wanted), np.nanmin(wanted, axis=1, keepdims=True), wanted)
    said = dict(zip([each.id for each in old], wanted, strict=True))

    def lesson(example: Example, target: Any) -> Lesson:
        if not example.id.startswith(AGAIN):
            return Lesson(target)
        return Lesson(target, parameters.beta, said[example.id], parameters.alpha)

    return going_on.taught(study, head, Taught(study.readout, "scores"), lesson)
