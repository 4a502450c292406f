"""A training that an episode tries."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class Way(BaseModel):
    """A training to try, in the words of `train`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    """Name of its step, behind `train/`."""
    method: str | None = None
    base_model: str | None = None
    continue_from: str | None = None
    like: str | None = None
    with_variants: bool = False
    """Whether it learns from a version whose training rows have variants beside them."""

    def train_spec(self) -> Mapping[str, object]:
        return self.model_dump(exclude={"name", "with_variants"}, exclude_none=True)
