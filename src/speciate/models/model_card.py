"""The card of a model version: where it comes from, what it cost, what it may be used for."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from speciate.models.endpoints import Endpoint

SERVED = "served"
EXPORT = "export"
"""Methods that are no training."""


_PROCESSED = {"image", "video", "dicom", "episode", "multimodal", None}
"""Modalities that a publisher's own processor may read."""

Recipe = dict[str, Any]
"""How a version was made, as JSON; its keys depend on the method (`recipes/`, merge, fetch, export)."""


class ModelCard(BaseModel):
    """Stored in the catalog and as `model.json` beside the weights. Models that come with packages have one, too."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    version: int = 0
    """0 for a model that is not registered here."""
    id: str = ""
    """sha256 of the list of the files' hashes: the same bytes have the same id."""
    task: str | None = None
    """None for a model that others serve and that answers any prompt in words."""
    modality: str | None = None
    """None where a model of others may read several."""
    method: str
    """How it was made: a training method, 'packaged', or 'served' by others."""
    base_model: str | None = None
    parents: tuple[str, ...] = ()
    """The versions that it was merged from, with what each of them began at `base_model`; of an export the one that it
    computes."""
    dataset: str | None = None
    """The exact version that it was trained on; of a merge, that it was chosen on or measured by."""
    beside: tuple[str, ...] = ()
    """Further versions that it learned from: what was replayed."""
    teachers: tuple[str, ...] = ()
    """Models whose answers it learned from."""
    use_case: str | None = None
    inputs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    """For mixed rows: NAME.MODALITY of each part that it reads."""
    ignored_parts: tuple[str, ...] = ()
    """For mixed rows: the parts of the rows that it was trained on which it does not read, and which rows may bring."""
    labels: tuple[str, ...] = ()
    parameters: int | None = None
    """Numbers that were learned, those of a frozen base model included."""
    bytes: int | None = None
    seconds: float | None = None
    """Run time of the training."""
    usd: float = 0.0
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    """Measured on data that chose the model, so slightly optimistic; evaluations say how good it is."""
    recipe: Recipe = Field(default_factory=dict)
    """What made it, in full: the training job's spec with everything resolved."""
    job: str | None = None
    endpoint: Endpoint | None = None
    """Where others serve it; then there are no weights here."""
    license: str | None = None
    """SPDX id; None where it is not known. Of metadata and the text beside the weights, the stricter."""
    weights_license: str | None = None
    """License of the weights alone, where that is another than of what came with them; both must be allowed."""
    created: float = 0.0

    @property
    def ref(self) -> str:
        """`name@v3`; `api:PROVIDER/MODEL` for one that others serve, `pkg:NAME` for one from a package."""
        if self.version:
            return f"{self.name}@v{self.version}"
        return f"api:{self.name}" if self.endpoint else f"pkg:{self.name}"


def needs_whole_transformers(base_model: str | None, modality: str | None, task: str | None, method: str = "") -> bool:
    """Whether a model may need of transformers what `lean_import` leaves out: publishers' image processors, and the
    losses of detectors. What a probe or a network with fresh weights reads is prepared by our own code; a student's
    teacher may be published."""
    own = method == "probe" or ((base_model or "").startswith("new:") and method != "distill")
    return not own and (modality in _PROCESSED or task == "text-to-image")
