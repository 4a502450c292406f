"""The options of each method but those of language models: one class per method.

An option is called what scikit-learn, peft or transformers call it, where they have it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from speciate.training.networks.optimizer import Schedule
from speciate.training.old_option_names import Options


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parameters(Options):
    """The options that every method takes."""

    folds: int = Field(5, ge=2, le=20, description="Grouped folds where there is no validation split.")
    horizon: int | None = Field(None, ge=1, description="Forecasting: steps to foretell.")
    order: tuple[str, ...] = Field((), description="Ordinal labels from low to high; none: by the numbers in front.")
    positive_label: str | None = Field(None, description="Anomaly detection: the label that is not normal.")
    normal_share: float = Field(0.95, gt=0, lt=1, description="Anomaly detection: of normal ones, those called so.")


MOST_SEED = 2**32 - 1
"""As scikit-learn takes them."""
AskedPrecision = Literal["auto", "float32", "bfloat16"]


Learners = Literal[
    "logistic", "ridge", "svm", "boosting", "neighbours", "linear", "as-they-are", "discriminant", "covariance",
    "isolation",
]  # fmt: skip


class ClassicalParameters(Parameters):
    candidates: tuple[Learners, ...] = Field(
        (), description="Learners to try; none: all that fit the task and the size of the data."
    )
    parts: tuple[str, ...] = Field((), description="Mixed rows: the parts that a model may see; none: all.")


class ProbeParameters(Parameters):
    C: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.3, 1.0, 3.0, 10.0), min_length=1, description="Inverse regularisation strengths of the head to try."
    )


class FullParameters(Parameters):
    """Of a network whose weights all learn."""

    folds: int = Field(3, ge=2, le=20, description="Grouped folds where there is no validation split.")
    learning_rate: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (), max_length=16,
        description="Tried by successive halving; none: what suits the base model, and three times more and less.",
    )  # fmt: skip
    num_train_epochs: int = Field(30, ge=1, le=10_000, description="Passes over the training examples, at most.")
    early_stopping_patience: int = Field(
        6, ge=1, description="Epochs without a better value on held-out examples before it ends."
    )
    batch_size: int = Field(32, ge=1, le=4096, description="Examples in each step of the optimizer.")
    per_device_train_batch_size: int | None = Field(
        None, ge=1, description="Examples in memory at once; the step stays the same. Not with retrieval or BatchNorm."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Pull to zero of weights; not of norms and biases.")
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    lr_scheduler_type: Schedule = Field(
        "cosine", description="The learning rate after that: it falls to nothing, or stays as it is (constant)."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Longest gradient, as L2 norm of all of it.")
    precision: AskedPrecision = Field(
        "auto", description="In which it learns; auto: bfloat16 where a few steps show that to be faster here, as good."
    )
    dimensions: int = Field(128, ge=2, le=4096, description="Retrieval: numbers of each vector.")

    @field_validator("learning_rate", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value


class LoraParameters(FullParameters):
    """Of low-rank changes to a base model's weights, merged into them at the end."""

    adapter_type: Literal["lora", "dora", "ia3"] = Field("lora", description="peft's LoRA, DoRA or IA3.")
    r: int = Field(8, ge=1, le=512)
    lora_alpha: float = Field(16.0, gt=0, description="The change is scaled by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1)


class ContinualParameters(FullParameters):
    """Of a network that goes on learning from a new version."""

    keep: Literal["best", "last"] = Field(
        "best", description="Weights that are kept: the best on held-out examples of all versions, or the last."
    )


class LwfParameters(ContinualParameters):
    alpha: float = Field(1.0, ge=0, le=1000, description="Weight of the old model's answers to the new examples.")
    temperature: float = Field(2.0, gt=0, le=100, description="Softens those answers.")


class EwcParameters(ContinualParameters):
    ewc_lambda: float = Field(500.0, ge=0, description="Pull of each weight to its old value, times what it mattered.")
    sampled: int = Field(200, ge=1, le=100_000, description="Earlier examples that say what mattered.")


class ReplayParameters(ContinualParameters):
    mem_size: int = Field(200, ge=0, le=1_000_000, description="Earlier training examples that are learned again.")
    policy: Literal["balanced", "reservoir"] = Field(
        "balanced", description="As many of each old label, or each earlier example with the same chance."
    )
    share: float = Field(
        0.5, ge=0, lt=1, description="Of each epoch that is replayed, by repeating the buffer; 0: each once."
    )


class DerParameters(ReplayParameters):
    alpha: float = Field(0.5, ge=0, le=1000, description="Weight of the old model's logits on replayed examples.")
    beta: float = Field(1.0, ge=0, le=1000, description="Weight of their labels: 0 is DER, more is DER++.")


class SldaParameters(Parameters):
    shrinkage: float = Field(
        1e-2, gt=0, le=1, description="Share of the mean variance in the covariance that is inverted."
    )


class DistillParameters(FullParameters):
    """Of a network that learns from another model's answers."""

    alpha: float = Field(0.7, ge=0, le=1, description="Weight of the teacher's answers; the rest is the labels'.")
    temperature: float = Field(2.0, gt=0, le=100, description="Softens what teacher and student say.")
    features: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Weight of matching the teacher's pooled states, through a line that is dropped.",
    )
    unlabelled: bool = Field(True, description="Learn from training rows without a label, too.")
