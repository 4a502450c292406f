"""Recipe `full`: every weight of a network learns, from published weights or from fresh ones (`new:`, `timm:`)."""

from __future__ import annotations

from speciate.models.backbones.contract import Backbone
from speciate.models.backbones.table import usual_rate
from speciate.training.network.choosing import Method, choose
from speciate.training.selection import Chosen
from speciate.training.specs import FullParameters
from speciate.training.study import Study


def fit(study: Study, parameters: FullParameters) -> Chosen:
    return choose(study, parameters, method(parameters))


def method(parameters: FullParameters) -> Method:
    return Method(_as_it_is, _as_it_is, usual_rate)


def _as_it_is(backbone: Backbone) -> None:
    backbone.module.requires_grad_(True)
