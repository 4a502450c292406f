"""A training to try, as the cascade of `specialize` holds it. Light."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from speciate.training.specs import Method


class Way(BaseModel):
    """A training to try, in TrainSpec's words. `like` needs nothing beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: Method | None = None
    base_model: str | None = None
    continue_from: str | None = None
    like: str | None = None
