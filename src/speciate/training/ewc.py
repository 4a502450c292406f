"""Recipe `ewc`: a network goes on with a new version while each weight is pulled back by what it mattered before.

Elastic weight consolidation (Kirkpatrick et al. 2017), as a baseline: with new labels in each version it forgets as
plain fine-tuning does. What mattered is the Fisher information on a sample of earlier training examples, of all
earlier versions together; its diagonal is taken from the gradients of their own labels.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from speciate.datasets.loading.loader import load_examples
from speciate.models.backbones.contract import Backbone
from speciate.tasks import network
from speciate.tasks.truth import lessons
from speciate.training.continual import buffer, going_on
from speciate.training.network.choosing import Lessons, Method
from speciate.training.network.lessons import Lesson, Taught
from speciate.training.selection import Chosen
from speciate.training.specs import EwcParameters
from speciate.training.study import Study

if TYPE_CHECKING:
    import torch


def fit(study: Study, parameters: EwcParameters) -> Chosen:
    return going_on.fit(study, parameters, method(parameters))


def method(parameters: EwcParameters) -> Method:
    return going_on.method(parameters, going_on.nothing_again, partial(_teach, parameters=parameters))


def _teach(study: Study, backbone: Backbone, head: Any, parameters: EwcParameters) -> Lessons:
    mattered = _fisher(study, parameters.sampled)
    before = {name: each.detach().clone() for name, each in backbone.module.named_parameters()}

    def penalty(_: torch.nn.Module) -> torch.Tensor:
        """Of the backbone: the head's rows move with new labels."""
        named = backbone.module.named_parameters()
        moved = [(mattered[name] * (each - before[name].to(each.device)).square()).sum() for name, each in named]
        total: torch.Tensor = sum(moved[1:], moved[0])
        return parameters.strength * total

    readout = Taught(study.readout, penalty=penalty)
    return going_on.taught(study, head, readout, lambda example, target: Lesson(target))


def _fisher(study: Study, most: int) -> dict[str, torch.Tensor]:
    """Mean squared gradient of each weight of the old backbone, an example at a time."""
    payload = study.payload
    old = network.load(going_on.base_folder(study), payload.threads)
    drawn = buffer.draw(
        study.folders, buffer.name_of(payload.spec.name), payload.manifest, payload.base_learned_from or (),
        payload.target, most, "balanced", payload.spec.seed,
    )  # fmt: skip
    trained = dict(old.backbone.module.named_parameters())
    found = {name: each.detach().clone().zero_() for name, each in trained.items()}
    if drawn is None:
        return found
    examples = load_examples(study.folders, drawn.sealed.manifest)
    posed = lessons(examples, drawn.sealed.manifest, payload.target, payload.task, payload.terms)
    items = old.backbone.prepare([one.example.media for one in posed])
    targets = old.readout.targets([one.truth for one in posed])
    old.backbone.module.requires_grad_(True).eval()
    for place, item in enumerate(items):
        old.backbone.module.zero_grad(set_to_none=True)
        states = old.backbone.states(old.backbone.collate([item]))
        old.readout.loss(old.head, states, targets[place : place + 1]).backward()  # type: ignore[no-untyped-call]
        for name, each in trained.items():
            if each.grad is not None:
                found[name] += each.grad.square() / len(items)
    return found
