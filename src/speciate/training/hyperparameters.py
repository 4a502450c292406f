"""The options of each method but those of language models: one class per method.

An option is called what scikit-learn, peft or transformers call it, where they have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from speciate.training.networks.optimizer import Schedule
from speciate.training.old_option_names import Options
from speciate.vocabulary import Family


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parameters(Options):
    """The options that every method takes."""

    folds: int = Field(5, ge=2, le=20, description="Grouped folds where there is no validation split.")
    horizon: int | None = Field(None, ge=1, description="Forecasting: number of future steps.")
    order: tuple[str, ...] = Field(
        (), description="Ordinal labels from low to high; default: by their leading numbers."
    )
    positive_label: str | None = Field(None, description="Anomaly detection: the label of anomalies.")
    normal_share: float = Field(
        0.95, gt=0, lt=1, description="Anomaly detection: share of normal examples below the threshold."
    )


_ONLY_FOR: Mapping[str, Family] = {
    "horizon": "forecasting", "order": "ordinal", "positive_label": "anomaly", "normal_share": "anomaly",
    "dimensions": "retrieval",
}  # fmt: skip


def in_use(parameters: BaseModel, family: Family) -> dict[str, Any]:
    """The options that say something for a task of this family, as JSON: without those of other families, empty ones,
    and weights of arrived rows as they are by default. `list_options` has them all."""
    shown = parameters.model_dump(mode="json", exclude={"arrived_weight"})
    if isinstance(parameters, HeadParameters) and parameters.arrived_weight != ARRIVED_WEIGHTS:
        shown["arrived_weight"] = list(parameters.arrived_weight)
    return {
        name: value
        for name, value in shown.items()
        if _ONLY_FOR.get(name, family) == family and value not in (None, "", [], {})
    }


MOST_SEED = 2**32 - 1
"""The largest that scikit-learn takes."""
AskedPrecision = Literal["auto", "float32", "bfloat16"]


Learners = Literal[
    "logistic", "ridge", "svm", "boosting", "neighbours", "linear", "as-they-are", "discriminant", "covariance",
    "isolation", "trees", "boosting-absolute", "means",
]  # fmt: skip


ARRIVED_WEIGHTS = (1.0, 2.0, 4.0)


_REFIT = "Learn what was chosen once more, from validation examples as well; its value is from before. "


class HeadParameters(Parameters):
    """Options of methods whose learners take seconds, so that what is chosen is learned again at other weights."""

    refit: bool | None = Field(None, description=f"{_REFIT}Default: yes, where there is time.")

    arrived_weight: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = Field(
        ARRIVED_WEIGHTS, min_length=1, max_length=8,
        description="Weights (sample_weight) of rows with a value in the column `arrived`, to choose from.",
    )  # fmt: skip

    @field_validator("arrived_weight", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value


class ClassicalParameters(HeadParameters):
    candidates: tuple[Learners, ...] = Field(
        (), description="Learners to try; default: all that suit the task and the size of the data."
    )
    parts: tuple[str, ...] = Field((), description="Mixed rows: the parts that the model may see; default: all.")
    tabm: bool | None = Field(None, description="Tables: whether TabM, a network, is tried, too; needs torch.")
    thorough: bool | None = Field(
        None, description="Tables: whether many configurations are tried, until the budget ends."
    )


class ProbeParameters(HeadParameters):
    C: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.3, 1.0, 3.0, 10.0),
        min_length=1,
        description="Inverse regularisation strengths of the head to try: several, unlike scikit-learn's.",
    )
    encoders: tuple[str, ...] = Field(
        (),
        max_length=8,
        description="Mixed rows: further base models; each part is read by those that suit it.",
    )


class FullParameters(Parameters):
    """Options of `full`, and of every method that trains a network."""

    folds: int = Field(3, ge=2, le=20, description="Grouped folds where there is no validation split.")
    learning_rate: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (), max_length=16,
        description="Tried by successive halving; default: the base model's usual rate, a third and three times it.",
    )  # fmt: skip
    num_train_epochs: int = Field(30, ge=1, le=10_000, description="Most passes over the training examples.")
    early_stopping_patience: int = Field(
        6, ge=1, description="Epochs without a better value on held-out examples before training ends."
    )
    batch_size: int = Field(
        32, ge=1, le=4096, description="Examples in each step of the optimizer, on all devices together."
    )
    per_device_train_batch_size: int | None = Field(
        None, ge=1, description="Examples in memory at once; batch_size stays. Not with retrieval or BatchNorm."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay; not of norms and biases.")
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    lr_scheduler_type: Schedule = Field(
        "cosine", description="The learning rate after the warm-up: cosine falls to 0, constant stays."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this L2 norm.")
    precision: AskedPrecision = Field(
        "auto", description="auto: bfloat16 where a few steps show that it is faster here and as good."
    )
    dimensions: int = Field(128, ge=2, le=4096, description="Retrieval: size of each vector.")
    head: Literal["auto", "published", "new"] = Field(
        "auto",
        description="full, lora: keep the base model's published head or put a new one on.",
    )
    refit: bool | None = Field(None, description=f"{_REFIT}Default: no, as it takes one more training.")

    @field_validator("learning_rate", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value


class LoraParameters(FullParameters):
    """Options of `lora`: adapters beside a base model's weights, merged into them at the end."""

    adapter_type: Literal["lora", "dora", "ia3"] = Field("lora", description="peft's LoRA, DoRA or IA3.")
    r: int = Field(8, ge=1, le=512, description="Rank of the adapters.")
    lora_alpha: float = Field(16.0, gt=0, description="Adapters are scaled by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapters.")


class PipelineParameters(LoraParameters):
    """Options of `lora` where images are drawn from texts: of the adapters, and of drawing."""

    refit: Literal[False] | None = Field(
        None, description="Not with this method: validation captions show what it draws."
    )

    num_inference_steps: int = Field(25, ge=1, le=1000, description="Steps of DDIM by which an image is drawn.")
    guidance_scale: float = Field(
        5.0, ge=1, le=50, description="How far an image is led away from the empty caption; 1: not at all."
    )
    sample_prompts: tuple[Annotated[str, Field(min_length=1, max_length=300)], ...] = Field(
        (), max_length=16, description="Texts that are drawn while it trains; default: captions of the dataset."
    )


class ContinualParameters(FullParameters):
    """Options of continual learning: a network is trained on with a new version."""

    keep: Literal["best", "last"] = Field(
        "best", description="Keep the weights that are best on held-out examples of all versions, or the last."
    )
    refit: Literal[False] | None = Field(
        None, description="Not with this method: by held-out examples later versions tell what they forget."
    )


class LwfParameters(ContinualParameters):
    alpha: float = Field(1.0, ge=0, le=1000, description="Weight of the earlier model's answers to the new examples.")
    temperature: float = Field(2.0, gt=0, le=100, description="Softens the probabilities of both models.")


class EwcParameters(ContinualParameters):
    ewc_lambda: float = Field(
        500.0, ge=0, description="Pull of each weight to its earlier value, times its Fisher information."
    )
    sampled: int = Field(
        200, ge=1, le=100_000, description="Earlier examples on which the Fisher information is measured."
    )


class ReplayParameters(ContinualParameters):
    mem_size: int = Field(200, ge=0, le=1_000_000, description="Earlier training examples that are learned again.")
    policy: Literal["balanced", "reservoir"] = Field(
        "balanced", description="Draw as many of each earlier label, or each earlier example with equal probability."
    )
    share: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Share of each epoch that is replayed, by repeating the buffer; 0: each example once.",
    )


class DerParameters(ReplayParameters):
    alpha: float = Field(
        0.5, ge=0, le=1000, description="Weight of matching the earlier model's logits on replayed examples."
    )
    beta: float = Field(
        1.0, ge=0, le=1000, description="Weight of the labels of replayed examples: 0 is DER, more is DER++."
    )


class SldaParameters(Parameters):
    shrinkage: float = Field(1e-2, gt=0, le=1, description="Shrinkage of the covariance towards its mean variance.")


class DistillParameters(FullParameters):
    """Options of `distill` for networks: learn from the answers of teachers."""

    refit: Literal[False] | None = Field(
        None, description="Not with this method: teachers answer training examples alone."
    )

    alpha: float = Field(
        0.7, ge=0, le=1, description="Weight of the teacher's answers; 1 - alpha is that of the labels."
    )
    temperature: float = Field(2.0, gt=0, le=100, description="Softens the probabilities of teacher and student.")
    features: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Weight of matching the teacher's pooled states, through a linear layer that is dropped.",
    )
    unlabelled: bool = Field(True, description="Also learn from training rows without a label.")
