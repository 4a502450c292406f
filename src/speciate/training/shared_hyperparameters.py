"""The options that every method takes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parameters(Frozen):
    """What every method takes."""

    folds: int = Field(5, ge=2, le=20, description="Grouped folds where there is no validation split.")
    horizon: int | None = Field(None, ge=1, description="Forecasting: steps to foretell.")
    order: tuple[str, ...] = Field((), description="Ordinal labels from low to high; none: by the numbers in front.")
    positive_label: str | None = Field(None, description="Anomaly detection: the label that is not normal.")
    normal_share: float = Field(0.95, gt=0, lt=1, description="Anomaly detection: of normal ones, those called so.")

