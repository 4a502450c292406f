"""What is asked of a training, and what its run is handed: frozen models, light to import."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from speciate.datasets.versions import Manifest
from speciate.evaluation.prices import USD_PER_CORE_HOUR
from speciate.tasks.contract import Terms
from speciate.training.hyperparameters import Frozen, Parameters
from speciate.training.language.distillation.specs import LANGUAGE_FORMS, WRITTEN
from speciate.training.language.specs import LANGUAGE_PARAMETERS, LanguageParameters
from speciate.training.language.vision.specs import SEEING, SEEING_FORMS
from speciate.training.network.schedule import Schedule

MOST_SEED = 2**32 - 1
"""As scikit-learn takes them."""
Method = Literal["classical", "probe", "lora", "full", "sft", "dpo", "kto", "orpo", "simpo", "reward", "grpo", "rloo"]
"""What a plan tries by itself."""
Further = Literal["replay", "der", "lwf", "ewc", "slda", "distill"]
"""Methods that need another model: they go on from one, or one teaches."""
STREAMING: Further = "slda"
CONTINUAL = ("replay", "der", "lwf", "ewc", "slda")
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
    strengths: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.3, 1.0, 3.0, 10.0), min_length=1, description="Inverse regularisation strengths of the head to try."
    )


class FullParameters(Parameters):
    """Of a network whose weights all learn."""

    folds: int = Field(3, ge=2, le=20, description="Grouped folds where there is no validation split.")
    learning_rate: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (), max_length=16,
        description="Tried by successive halving; none: what suits the base model, and three times more and less.",
    )  # fmt: skip
    epochs: int = Field(30, ge=1, le=10_000, description="Passes over the training examples, at most.")
    patience: int = Field(6, ge=1, description="Epochs without a better value on held-out examples before it ends.")
    batch_size: int = Field(32, ge=1, le=4096, description="Examples in each step of the optimizer.")
    micro_batch: int | None = Field(
        None, ge=1, description="Examples in memory at once; the step stays the same. Not with retrieval or BatchNorm."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Pull to zero of weights; not of norms and biases.")
    warmup: float = Field(0.1, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    schedule: Schedule = Field(
        "cosine", description="The learning rate after that: it falls to nothing, or stays as it is (constant)."
    )
    clip: float = Field(1.0, gt=0, description="Longest gradient, as L2 norm of all of it.")
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

    form: Literal["lora", "dora", "ia3"] = Field("lora", description="peft's LoRA, DoRA or IA3.")
    rank: int = Field(8, ge=1, le=512)
    alpha: float = Field(16.0, gt=0, description="The change is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1)


class GoingOnParameters(FullParameters):
    """Of a network that goes on learning from a new version."""

    keep: Literal["best", "last"] = Field(
        "best", description="Weights that are kept: the best on held-out examples of all versions, or the last."
    )


class LwfParameters(GoingOnParameters):
    alpha: float = Field(1.0, ge=0, le=1000, description="Weight of the old model's answers to the new examples.")
    temperature: float = Field(2.0, gt=0, le=100, description="Softens those answers.")


class EwcParameters(GoingOnParameters):
    strength: float = Field(500.0, ge=0, description="Pull of each weight to its old value, times what it mattered.")
    sampled: int = Field(200, ge=1, le=100_000, description="Earlier examples that say what mattered.")


class ReplayParameters(GoingOnParameters):
    buffer_size: int = Field(200, ge=0, le=1_000_000, description="Earlier training examples that are learned again.")
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


AnyParameters = (
    ClassicalParameters | ProbeParameters | LoraParameters | FullParameters | SldaParameters | LanguageParameters
)
PARAMETERS: dict[str, type[AnyParameters]] = {
    "classical": ClassicalParameters,
    "probe": ProbeParameters,
    "lora": LoraParameters,
    "full": FullParameters,
    **LANGUAGE_PARAMETERS,
    "replay": ReplayParameters,
    "der": DerParameters,
    "lwf": LwfParameters,
    "ewc": EwcParameters,
    "slda": SldaParameters,
    "distill": DistillParameters,
}


def parameters_of(method: str, task: str) -> type[AnyParameters]:
    """What can be set of a method: of some it is another thing where the task is to write."""
    forms = LANGUAGE_FORMS if task in WRITTEN else SEEING_FORMS if task == SEEING else {}
    written = forms.get(method)
    return written or PARAMETERS[method]


class Room(Frozen):
    """What a training may use of the machine; what is left open is decided for it."""

    cpu: float | None = Field(None, gt=0, le=1024, description="Cores, and so many threads.")
    memory_mb: int | None = Field(None, gt=0)
    gpu: int | None = Field(
        None, ge=0, le=64, description="GPUs that learn together, for lora and full; default: one where there is any."
    )


class TrainSpec(Frozen):
    """What `like` does not say must be there: `repetition.filled` sees to it."""

    name: str = ""
    dataset: str = ""
    method: Method | Further | None = None
    base_model: str | None = None
    task: str | None = None
    use_case: str | None = None
    target: str | None = None
    """Column to learn; default: the use case's, else the dataset's label."""
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(0, ge=0, le=MOST_SEED)
    budget_minutes: float | None = Field(None, gt=0)
    budget_usd: float | None = Field(None, gt=0)
    """Of this machine's time."""
    like: str | None = None
    """A model version whose recipe is repeated, but for what is named beside."""
    continue_from: str | None = None
    """A model version whose network is trained on."""
    teacher: tuple[str, ...] = ()
    """Models that teach; together where there are several."""
    resources: Room = Room()

    @field_validator("teacher", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Objective(Frozen):
    """What the training is chosen by, and whether that is enough for the use case."""

    metric: str
    target: float | None = None
    positive_label: str | None = None


class Repeated(Frozen):
    """The version whose recipe is repeated, and what is compared with it."""

    model: str
    id: str
    metrics: dict[str, float]
    environment: dict[str, Any]
    dataset: str | None


class Option(Frozen):
    """A way to train: a method, and the base model that it needs."""

    method: Method
    base_model: str | None = None


class Teacher(Frozen):
    """A model that teaches, resolved."""

    model: str
    id: str
    folder: str
    method: str
    parameters: int | None
    bytes: int | None
    learned_from: tuple[Manifest, ...] | None = ()
    """As `base_learned_from`."""


class Payload(Frozen):
    """Everything resolved: the run needs nothing of the catalog."""

    spec: TrainSpec
    manifest: Manifest
    dataset: str
    """With its version."""
    task: str
    target: str | None
    """None: the examples themselves teach."""
    objective: Objective
    terms: Terms = Terms()
    parameters: SerializeAsAny[Parameters]
    license: str | None = None
    """Of the base model."""
    base_folder: str | None = None
    """Where a base model with weights lies."""
    base_learned_from: tuple[Manifest, ...] | None = ()
    """Data of this workspace that its weights learned from; None where they are not known any more."""
    teachers: tuple[Teacher, ...] = ()
    repeats: Repeated | None = None
    dearer: tuple[Option, ...] = ()
    """What could be tried after this one, cheapest first."""
    threads: int
    """Of each process."""
    processes: int = Field(1, ge=1)
    """That train a network together, each on a device of its own."""
    device: Literal["cpu", "cuda"] = "cpu"
    memory_mb: int | None = None
    """At most; None: what the machine has."""
    usd_per_core_hour: float = USD_PER_CORE_HOUR
    """What this machine's time costs."""
    length: float = 1.0
    """Of a mean example, as `lengths` in estimate.py has it: compared between datasets only."""

    @model_validator(mode="before")
    @classmethod
    def _parameters_of_the_method(cls, values: Any) -> Any:
        """JSON of parameters is read as those of the method: several methods' would fit."""
        if isinstance(values, dict) and isinstance(values.get("parameters"), dict):
            spec = values["spec"]
            method = spec["method"] if isinstance(spec, dict) else spec.method
            values = values | {"parameters": parameters_of(method, values["task"]).model_validate(values["parameters"])}
        return values
