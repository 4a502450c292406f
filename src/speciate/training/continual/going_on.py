"""What the recipes share that go on from a network: its head grown by the new labels, what judges them, and the report
of what was forgotten.

A recipe differs in two things: which earlier examples it learns again, and what each example teaches (`Teach`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.models.backbones.contract import Backbone
from speciate.models.backbones.table import usual_rate
from speciate.tasks import network
from speciate.tasks.growth import grown, kept_readout
from speciate.tasks.soft import Wanted, mapped
from speciate.training.continual import slices
from speciate.training.network.choosing import Lessons, Method, choose
from speciate.training.network.lessons import Lesson, Taught
from speciate.training.selection import Chosen
from speciate.training.specs import GoingOnParameters
from speciate.training.study import Study

Teach = Callable[[Study, Backbone, Any], Lessons]
"""With the grown head."""


def method(parameters: GoingOnParameters, learn_again: Callable[[Study], None], teach: Teach) -> Method:
    """`learn_again` adds earlier examples to what there is to learn, if any."""
    return Method(
        _all_weights, _all_weights, usual_rate, partial(_prepare, learn_again=learn_again), partial(_teach, teach=teach)
    )


def fit(study: Study, parameters: GoingOnParameters, how: Method) -> Chosen:
    chosen = choose(study, parameters, how)
    before = network.load(base_folder(study), study.payload.threads)
    study.found["forgetting"] = slices.forgetting(study, study.slices, before, chosen.predictor)
    return chosen


def base_folder(study: Study) -> Path:
    folder = study.payload.base_folder
    assert folder is not None, "the plan sees to it"
    return Path(folder)


def old_scores(study: Study, examples: Sequence[Example]) -> Wanted:
    """What the model that is gone on from says of these, in the columns of the grown head."""
    if not examples:
        return np.zeros((0, 0), np.float32)
    old = network.load(base_folder(study), study.payload.threads)
    items = old.backbone.prepare([example.media for example in examples])
    return mapped(old.readout, study.readout, network.scores(old.backbone, old.head, old.readout, items))


def nothing_again(study: Study) -> None:
    """No earlier example is learned."""


def truths_alone(study: Study, backbone: Backbone, head: Any) -> Lessons:
    return Lessons(head, study.readout, study.targets)


def taught(study: Study, head: Any, readout: Taught, lesson: Callable[[Example, Any], Lesson]) -> Lessons:
    """`lesson(example, target)` says what each teaches."""

    def targets(examples: Sequence[Example]) -> list[Lesson]:
        return [lesson(*pair) for pair in zip(examples, study.targets(examples), strict=True)]

    return Lessons(head, readout, targets)


def _prepare(study: Study, learn_again: Callable[[Study], None]) -> None:
    learn_again(study)
    study.go_on_from(kept_readout(base_folder(study)))
    slices.add(study)


def _teach(study: Study, backbone: Backbone, teach: Teach) -> Lessons:
    head = study.readout.head(backbone.width)
    grown(head, study.readout, base_folder(study))
    return teach(study, backbone, head)


def _all_weights(backbone: Backbone) -> None:
    backbone.module.requires_grad_(True)
