"""What is known of a model version: where it comes from, what it costs, what it may be used for."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from speciate.models.endpoints import Endpoint


class Card(BaseModel):
    """Stored in the catalog and as `model.json` beside the weights. Models that come with packages have one, too."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    version: int = 0
    """0 for a model that is not registered here."""
    id: str = ""
    """sha256 of the list of the files' hashes: the same bytes have the same id."""
    task: str
    modality: str
    method: str
    """How it was made: a training method, or 'packaged'."""
    base_model: str | None = None
    dataset: str | None = None
    """The exact version that it was trained on."""
    use_case: str | None = None
    inputs: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    parameters: int | None = None
    """Numbers that were learned, those of a frozen base model included."""
    bytes: int | None = None
    seconds: float | None = None
    """Run time of the training."""
    usd: float = 0.0
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    """Measured on data that chose the model, so slightly optimistic; evaluations say how good it is."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """What made it, in full: the training job's spec with everything resolved."""
    job: str | None = None
    endpoint: Endpoint | None = None
    """Where others serve it; then there are no weights here."""
    license: str | None = None
    """SPDX id; None where it is not known."""
    created: float = 0.0

    @property
    def ref(self) -> str:
        """`name@v3`, or `pkg:NAME` for one from a package."""
        return f"{self.name}@v{self.version}" if self.version else f"pkg:{self.name}"
