"""Rewards as hyperparameters: a frozen model per kind, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from speciate.training.hyperparameters import Frozen
from speciate.training.language.rewards.finding import Where


class _Spec(Frozen):
    weight: float = Field(1.0, ge=-1000, le=1000, description="In the sum of all rewards.")
    name: str | None = Field(None, max_length=64, description="In reports; none: its kind.")


class _Found(_Spec):
    where: Where = Field(
        "whole",
        description="Where in the answer the result stands: whole, last_line, after `marker`, in <answer> tags, boxed.",
    )
    marker: str = Field("####", min_length=1, max_length=100, description="Of where='after'; the last one counts.")


class ExactReward(_Found):
    """1 where the result is the target, else 0."""

    kind: Literal["exact"] = "exact"
    normalise: bool = Field(True, description="Case, spaces and what stands around a result do not count.")


class NumericReward(_Found):
    """1 where the last number of the result is the target's, within the tolerance, else 0."""

    kind: Literal["numeric"] = "numeric"
    tolerance: float = Field(1e-6, ge=0, description="Largest difference.")
    relative: float = Field(0.0, ge=0, le=1, description="Or as a share of the target; the larger of the two counts.")


RewardSpec = Annotated[ExactReward | NumericReward, Field(discriminator="kind")]
"""Kinds that are entered here are entered in table.py, too."""
DEFAULT: tuple[RewardSpec, ...] = (ExactReward(),)
