"""The request for a training and what its run is handed: frozen models, light to import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError, closest
from speciate.evaluation.endpoints.pricing import USD_PER_CORE_HOUR
from speciate.models.diffusion.pipeline_folder import TEXT_TO_IMAGE
from speciate.sample_size import LEVEL
from speciate.tasks.task import TaskTerms
from speciate.training.hyperparameters import (
    MOST_SEED,
    ClassicalParameters,
    DerParameters,
    DistillParameters,
    EwcParameters,
    Frozen,
    FullParameters,
    LoraParameters,
    LwfParameters,
    Parameters,
    PipelineParameters,
    ProbeParameters,
    ReplayParameters,
    SldaParameters,
)
from speciate.training.language_hyperparameters import (
    LANGUAGE_PARAMETERS,
    LANGUAGE_VARIANTS,
    TEXT_TASKS,
    VISION_TASK,
    VISION_VARIANTS,
    LanguageParameters,
)
from speciate.training.old_option_names import with_new_names
from speciate.use_cases import Aim

Method = Literal["classical", "probe", "lora", "full", "sft", "dpo", "kto", "orpo", "simpo", "reward", "grpo", "rloo"]
"""What a plan tries by itself."""
PriorModelMethod = Literal["replay", "der", "lwf", "ewc", "slda", "distill"]
"""Methods that need another model: they train one on, or one teaches."""
STREAMING: PriorModelMethod = "slda"
CONTINUAL = ("replay", "der", "lwf", "ewc", "slda")


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


METHOD_DESCRIPTIONS: dict[str, str] = {
    "classical": "Counts, pixels or columns with the usual learners: seconds, and hard to beat on small data.",
    "probe": "Frozen vectors of a base model, computed once and cached, with a linear head.",
    "lora": "Small changes to a base model's weights (LoRA, DoRA, IA3): less memory than full.",
    "full": "Every weight of a network is trained: most expensive, and best where there are many examples.",
    "sft": "Supervised fine-tuning: a language model learns the answers word by word, by LoRA or in every weight.",
    "dpo": "A language model learns from pairs which of two answers is better, and stays near the base model.",
    "kto": "A language model learns from answers that are good or bad, and stays near the base model.",
    "orpo": "A language model learns the better of two answers and to prefer it, without a second copy in memory.",
    "simpo": "A language model learns from pairs which of two answers is better, without a second copy in memory.",
    "reward": "A language model learns to score answers; other methods can be trained by its scores.",
    "grpo": "A language model learns from rewards of its own answers: most expensive, as it writes them all the while.",
    "rloo": "As grpo, with each answer as a whole in place of its words.",
    "replay": "A network is trained further on a new version, together with earlier examples: hard to beat.",
    "der": "Replay that also matches the earlier model's scores of the replayed examples.",
    "lwf": "A network is trained further on a new version, and matches the earlier model's answers to its examples.",
    "ewc": "A network is trained further on a new version while important weights are pulled to their earlier values.",
    "slda": "A mean for each label and one covariance of frozen vectors, updated by each new version in seconds.",
    "distill": "A student learns from the answers of one teacher or several, beside the labels or without any.",
}
"""Method -> one line about it, for plans and list_options."""


def parameters_of(method: str, task: str) -> type[AnyParameters]:
    """The options of a method; some methods have others where the task is to write text or to draw images."""
    if method == "lora" and task == TEXT_TO_IMAGE:
        return PipelineParameters
    forms = LANGUAGE_VARIANTS if task in TEXT_TASKS else VISION_VARIANTS if task == VISION_TASK else {}
    written = forms.get(method)
    return written or PARAMETERS[method]


def read_parameters(method: str, task: str, hyperparameters: Mapping[str, object]) -> AnyParameters:
    """The options of a method, read from what a caller gave. Raises INVALID, with the names that are close."""
    form = parameters_of(method, task)
    try:
        return form.model_validate(with_new_names(form, hyperparameters))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = f"hyperparameters.{place} is {first['input']!r}: {first['msg']}."
        if not place:  # of several together
            message = f"hyperparameters: {first['msg'].removeprefix('Value error, ')}."
        elif place not in form.model_fields and first["type"] == "extra_forbidden":
            others = [name for name, other in PARAMETERS.items() if place in other.model_fields]
            where = f"; {' and '.join(map(repr, others))} have it" if others else ""
            message = f"{method!r} has no hyperparameter {place!r}{where}; {closest(place, form.model_fields)}"
        raise SpeciateError(
            Code.INVALID,
            message,
            f"Call again without it or with another; list_options(kind='method', name={method!r}) explains each.",
        ) from error


class RequestedResources(Frozen):
    """What a training may use of the machine; what is left open is decided for it."""

    cpu: float | None = Field(None, gt=0, le=1024, description="Cores.")
    memory_mb: int | None = Field(None, gt=0)
    gpu: int | None = Field(None, ge=0, le=64, description="GPUs together (lora, full); default: one if any.")
    place: str | None = Field(None, description="A cluster.")
    nodes: int | None = Field(None, ge=1, le=64, description="Nodes of it that train one network together.")

    @model_serializer(mode="wrap")
    def _leave_usual_out(self, dump: SerializerFunctionWrapHandler) -> Mapping[str, Any]:
        """JSON as it was before there were places and nodes, where the run is on this machine, or one node."""
        found: Mapping[str, Any] = dump(self)
        return {name: value for name, value in found.items() if value is not None or name not in ("place", "nodes")}

    @field_validator("place")
    @classmethod
    def _empty_is_none(cls, place: str | None) -> str | None:
        return place or None

    @property
    def is_open(self) -> bool:
        """Whether a rule of settings.toml may say where the training runs."""
        return self.place is None and self.nodes is None


class TrainSpec(Frozen):
    """What `like` does not say must be there: `train.resolve_recipe` sees to it."""

    name: str = ""
    dataset: str = ""
    method: Method | PriorModelMethod | None = None
    base_model: str | None = None
    task: str | None = None
    use_case: str | None = None
    target: str | None = None
    """Column to learn; default: the use case's, else the dataset's label."""
    hyperparameters: Mapping[str, Any] = Field(default_factory=dict)
    seed: int = Field(0, ge=0, le=MOST_SEED)
    budget_minutes: float | None = Field(None, gt=0)
    budget_usd: float | None = Field(None, gt=0)
    """Most that this machine's time may cost."""
    like: str | None = None
    """A model version whose recipe is repeated, but for what is named beside."""
    continue_from: str | None = None
    """A model version whose network is trained further."""
    teacher: tuple[str, ...] = ()
    """Models that teach; together where there are several."""
    resources: RequestedResources = RequestedResources()
    verdict_level: float | None = Field(None, gt=0, lt=1)
    """Level of the intervals of the verdict that comes after it, where `specialize` knows it. Not kept in a recipe."""

    @field_validator("teacher", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Objective(Frozen):
    """What the training is chosen by, and whether that is enough for the use case."""

    metric: str
    target: float | None = None
    positive_label: str | None = None
    aim: Aim = "pass"
    test_examples: int | None = None
    """What a verdict will rest on; None: not known."""
    level: float = LEVEL
    """Level of the intervals of that verdict."""


class RepeatedModel(Frozen):
    """The version whose recipe is repeated, and what is compared with it."""

    model: str
    id: str
    metrics: dict[str, float]
    environment: Mapping[str, Any]
    dataset: str | None


class Candidate(Frozen):
    """A training to try, in TrainSpec's words. `like` needs nothing beside it."""

    method: Method | None = None
    base_model: str | None = None
    continue_from: str | None = None
    like: str | None = None
    encoders: tuple[str, ...] | None = None
    """For mixed rows: base models beside the first."""
    tabm: bool | None = None
    """For tables: `classical` with TabM, too."""
    thorough: bool | None = None
    """For tables: `classical` with many configurations, until the budget ends."""


class Teacher(Frozen):
    """A model that teaches, resolved."""

    model: str
    id: str
    folder: str
    method: str
    parameters: int | None
    bytes: int | None
    learned_from: tuple[Manifest, ...] | None = ()
    """Data that it learned from, as `Payload.base_learned_from`."""


class PartEncoder(Frozen):
    """A base model that reads parts of mixed rows, resolved."""

    base_model: str
    folder: str | None
    license: str | None = None
    learned_from: tuple[Manifest, ...] | None = ()
    """Data that it learned from, as `Payload.base_learned_from`."""


class Payload(Frozen):
    """Everything resolved: the run needs nothing of the catalog."""

    spec: TrainSpec
    manifest: Manifest
    dataset: str
    """Ref of the dataset, with its version."""
    task: str
    target: str | None
    """None: the examples themselves teach."""
    objective: Objective
    terms: TaskTerms = TaskTerms()
    parameters: SerializeAsAny[Parameters]
    license: str | None = None
    """License of the base model."""
    base_folder: str | None = None
    """Where a base model with weights lies."""
    base_learned_from: tuple[Manifest, ...] | None = ()
    """Data of this workspace that its weights learned from; None where they are not known any more."""
    base_learned_validation: bool = False
    """Whether they learned from validation examples of these data, too."""
    part_encoders: tuple[PartEncoder, ...] = ()
    """For mixed rows: the base model, and those beside it."""
    head: Literal["published", "new"] | None = None
    """Whether the head that a base model was published with is kept; None where it has none for this task."""
    teachers: tuple[Teacher, ...] = ()
    repeats: RepeatedModel | None = None
    dearer: tuple[Candidate, ...] = ()
    """What could be tried after this one, cheapest first."""
    threads: int
    """Threads of each process."""
    processes: int = Field(1, ge=1)
    """Processes that train a network together, each on a device of its own."""
    nodes: int = Field(1, ge=1)
    """Machines on which they are, as many on each."""
    device: Literal["cpu", "cuda"] = "cpu"
    memory_mb: int | None = None
    """Megabytes at most; None: what the machine has."""
    usd_per_core_hour: float = USD_PER_CORE_HOUR
    """What this machine's time costs."""
    length: float = 1.0
    """Length of a mean example, in the unit of planning/estimates.py: only for comparing datasets."""

    @field_serializer("dearer")
    def _dump_dearer(self, dearer: tuple[Candidate, ...]) -> list[Mapping[str, object]]:
        """As stored: a method and its base model."""
        return [candidate.model_dump(include={"method", "base_model"}) for candidate in dearer]

    @model_validator(mode="before")
    @classmethod
    def _parameters_of_the_method(cls, values: Any) -> Any:
        """JSON of parameters is read as those of the method: several methods' would fit."""
        if isinstance(values, dict) and isinstance(values.get("parameters"), dict):
            spec = values["spec"]
            method = spec["method"] if isinstance(spec, dict) else spec.method
            values = values | {"parameters": parameters_of(method, values["task"]).model_validate(values["parameters"])}
        return values
