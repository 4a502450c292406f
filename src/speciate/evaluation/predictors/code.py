"""A model that others serve, asked over HTTP."""

from __future__ import annotations

from speciate.evaluation.predictors.contract import Asked, Sheet


def hand_in(asked: Asked) -> Sheet:
    raise NotImplementedError
