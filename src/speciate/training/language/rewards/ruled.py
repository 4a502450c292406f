"""Rewards by rules of our own that are at work in a cage (rules_cage.py): patterns, schemas, maths, reasoning-gym."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.evaluation.caged_lines import CagedLines
from speciate.evaluation.own_code import loaded
from speciate.sandbox import CagePolicy
from speciate.training.language.rewards.caged import CagedBatches
from speciate.training.language.rewards.finding import result
from speciate.training.language.rewards.reward import Asked, Marker
from speciate.training.language.rewards.specs import GymReward, MathReward, RegexReward, SchemaReward

Ruled = RegexReward | SchemaReward | MathReward | GymReward
_CAGE = "speciate.training.language.rewards.rules_cage"
INSTALL = "pip install 'speciate[rewards]'"
_SECONDS_ALONE = 10.0
_LIBRARIES = {"math": "math_verify", "gym": "reasoning_gym", "json_schema": "jsonschema"}


def opened(spec: Ruled, folder: Path, policy: CagePolicy) -> Marker:
    """MISSING_EXTRA where its library is not installed."""
    check(spec)
    loading = {"kind": spec.kind, "spec": spec.model_dump(mode="json")}

    def load() -> CagedLines:
        return loaded(CagedLines(_CAGE, folder, policy), loading, f"The reward {spec.kind!r}")

    def ask(asked: Sequence[Asked]) -> dict[str, Any]:
        return {
            "answers": [result(each.answer, spec.where, spec.marker) for each in asked],
            "truths": [each.truth for each in asked],
            "cells": [_cell(spec, each) for each in asked],
        }

    return CagedBatches(load, ask, spec.seconds, min(spec.seconds, _SECONDS_ALONE))


def check(spec: Ruled) -> None:
    if lacking(spec.kind):
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"The reward {spec.kind!r} needs the library {_LIBRARIES[spec.kind]!r}, which is not installed.",
            f"Run: {INSTALL}",
        )


def lacking(kind: str) -> bool:
    """Whether a kind of reward needs a library that is not installed."""
    return kind in _LIBRARIES and importlib.util.find_spec(_LIBRARIES[kind]) is None


def _cell(spec: Ruled, asked: Asked) -> str | None:
    cell = asked.columns.get(spec.column) if isinstance(spec, GymReward) else None
    return cell if isinstance(cell, str) else None
