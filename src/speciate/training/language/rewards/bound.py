"""Rewards as a run is handed them: what they name is found, and files are bound to the bytes that they have now."""

from __future__ import annotations

from collections.abc import Sequence

from speciate.training.language.rewards.specs import RewardSpec
from speciate.workspace.workspace import Workspace


def bound(specs: Sequence[RewardSpec], workspace: Workspace) -> tuple[RewardSpec, ...]:
    """For a plan, in the daemon. Raises NOT_FOUND, INVALID or MISSING_EXTRA for what would make a run fail."""
    return tuple(specs)
