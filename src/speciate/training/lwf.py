"""Recipe `lwf`: a network goes on with a new version, and is held to what it said of these examples before.

Learning without forgetting (Li & Hoiem 2016): no earlier example is kept. Where new examples are unlike the old ones,
what the old model says of them tells little of what it knew: with new labels in each version it forgets nearly all.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from speciate.datasets.loading.loader import Example
from speciate.models.backbones.contract import Backbone
from speciate.training.continual import going_on
from speciate.training.network.choosing import Lessons, Method
from speciate.training.network.lessons import Lesson, Taught
from speciate.training.selection import Chosen
from speciate.training.specs import LwfParameters
from speciate.training.study import Study


def fit(study: Study, parameters: LwfParameters) -> Chosen:
    return going_on.fit(study, parameters, method(parameters))


def method(parameters: LwfParameters) -> Method:
    return going_on.method(parameters, going_on.nothing_again, partial(_teach, parameters=parameters))


def _teach(study: Study, backbone: Backbone, head: Any, parameters: LwfParameters) -> Lessons:
    said = dict(zip([each.id for each in study.train], going_on.old_scores(study, study.train), strict=True))

    def lesson(example: Example, target: Any) -> Lesson:
        return Lesson(target, 1.0, said[example.id], parameters.alpha)

    return going_on.taught(study, head, Taught(study.readout, "chances", parameters.temperature), lesson)
