"""What is asked of a training, and what its run is handed: frozen models, light to import."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets.versions import Manifest

Method = Literal["classical", "probe"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassicalParameters(_Frozen):
    candidates: tuple[Literal["logistic", "ridge", "svm", "boosting", "neighbours"], ...] = Field(
        (), description="Learners to try; none: all that fit the task and the size of the data."
    )
    folds: int = Field(5, ge=2, le=20, description="Grouped folds where there is no validation split.")


class ProbeParameters(_Frozen):
    strengths: tuple[float, ...] = Field(
        (0.3, 1.0, 3.0, 10.0), min_length=1, description="Inverse regularisation strengths of the head to try."
    )
    folds: int = Field(5, ge=2, le=20, description="Grouped folds where there is no validation split.")


PARAMETERS: dict[str, type[ClassicalParameters] | type[ProbeParameters]] = {
    "classical": ClassicalParameters,
    "probe": ProbeParameters,
}


class TrainSpec(_Frozen):
    name: str
    dataset: str
    method: Method
    base_model: str | None = None
    task: str | None = None
    use_case: str | None = None
    target: str | None = None
    """Column to learn; default: the use case's, else the dataset's label."""
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    budget_minutes: float | None = Field(None, gt=0)


class Objective(_Frozen):
    """What the training is chosen by, and whether that is enough for the use case."""

    metric: str
    target: float | None = None
    positive_label: str | None = None


class Option(_Frozen):
    """A way to train: a method, and the base model that it needs."""

    method: Method
    base_model: str | None = None


class Payload(_Frozen):
    """Everything resolved: the run needs nothing of the catalog."""

    spec: TrainSpec
    manifest: Manifest
    dataset: str
    """With its version."""
    task: str
    target: str
    objective: Objective
    parameters: ClassicalParameters | ProbeParameters
    license: str | None = None
    """Of the base model."""
    dearer: tuple[Option, ...] = ()
    """What could be tried after this one, cheapest first."""
    threads: int
