"""How a network is trained: what a caller may set, with bounds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from speciate.training.network.schedule import Schedule

Precision = Literal["float32", "bfloat16"]


class Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: int = Field(10, ge=1, le=10_000, description="Passes over the training examples, at most.")
    batch_size: int = Field(32, ge=1, description="Examples in each step of the optimizer.")
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="Examples that are in memory at once; the step stays the same. None: all of a batch, "
        "as some losses and norms need it.",
    )
    learning_rate: float = Field(1e-3, gt=0, le=10, description="Its highest value, after the warm-up.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Pull to zero of weights; not of norms and biases.")
    warmup: float = Field(0.1, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    schedule: Schedule = Field("cosine", description="The learning rate after that: falls to nothing, or stays.")
    clip: float = Field(1.0, gt=0, description="Longest gradient, as L2 norm of all of it.")
    precision: Precision = Field("float32", description="Of matrix products while it learns; weights are float32.")
    keep: Literal["best", "last"] = Field("best", description="Weights: the best on held-out examples, or the last.")
    patience: int | None = Field(
        None, ge=1, description="Stop after so many epochs without a better value on held-out examples."
    )
