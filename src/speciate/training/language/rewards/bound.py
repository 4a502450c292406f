"""Rewards as a run is handed them: what they name is found, and files are bound to the bytes that they have now."""

from __future__ import annotations

import re
from collections.abc import Sequence

from speciate.errors import Code, SpeciateError
from speciate.sandbox import check
from speciate.training.language.rewards import functions, judged, ruled, schemas
from speciate.training.language.rewards.specs import (
    CodeReward,
    GymReward,
    MathReward,
    ModelReward,
    PythonReward,
    RegexReward,
    RewardSpec,
    SchemaReward,
)
from speciate.training.language.rewards.table import WITHOUT_A_CAGE
from speciate.workspace.workspace import Workspace


def bound(specs: Sequence[RewardSpec], workspace: Workspace) -> tuple[RewardSpec, ...]:
    """For a plan, in the daemon. Raises NOT_FOUND, INVALID or MISSING_EXTRA for what would make a run fail."""
    return tuple(_bound(each, workspace) for each in specs)


def columns(specs: Sequence[RewardSpec]) -> dict[str, str]:
    """Columns that rewards read, each with the kind that does: a dataset must have them, and no model may see them."""
    return {each.column: each.kind for each in specs if isinstance(each, GymReward | CodeReward)}


def _bound(spec: RewardSpec, workspace: Workspace) -> RewardSpec:
    if isinstance(spec, ModelReward):
        return judged.bound(spec, workspace)
    if isinstance(spec, RegexReward):
        _check_pattern(spec.pattern)
    if isinstance(spec, SchemaReward):
        schemas.check(spec.json_schema)
    if isinstance(spec, RegexReward | SchemaReward | MathReward | GymReward):
        ruled.check(spec)
    if spec.kind not in WITHOUT_A_CAGE:
        check("required", code=True)  # whatever the settings: what models wrote runs in it
    return functions.bound(spec) if isinstance(spec, PythonReward) else spec


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise SpeciateError(
            Code.INVALID,
            f"pattern {pattern[:60]!r} of a reward is no regular expression: {error}.",
            "Mend it, then call again.",
        ) from error
