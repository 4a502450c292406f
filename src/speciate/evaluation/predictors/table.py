"""Which file asks which kind of contestant."""

from __future__ import annotations

from speciate.evaluation.predictors import code, column, constant, endpoint, ensemble, inspect_log, trained
from speciate.evaluation.predictors.contract import Asked, Sheet

_BY_SOURCE = {
    "model": trained.hand_in,
    "endpoint": endpoint.hand_in,
    "code": code.hand_in,
    "inspect": inspect_log.hand_in,
    "column": column.hand_in,
    "constant": constant.hand_in,
}


def hand_in(asked: Asked) -> Sheet:
    """Raises Stopped where the run was asked to stop: what was answered until then is kept."""
    if asked.contestant.source == "ensemble":
        return ensemble.hand_in(asked, hand_in)
    return _BY_SOURCE[asked.contestant.source](asked)
