"""The request for a merge and what its run is handed: frozen models, light to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.models.model_card import Recipe
from speciate.training.hyperparameters import MOST_SEED

MergeMethod = Literal["soup", "greedy", "slerp", "task_arithmetic", "ties", "dare"]
METHODS: tuple[MergeMethod, ...] = get_args(MergeMethod)
METHODS_ON_A_BASE: tuple[MergeMethod, ...] = ("task_arithmetic", "ties", "dare")
"""Methods that need the weights that all models began with."""
_USUAL_TASK_WEIGHT = 0.4
"""Weight of each model's change, where nothing says better (Ilharco et al. 2023)."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MergeParameters(_Frozen):
    density: float | None = Field(
        None, gt=0, le=1, description="ties: share of the largest changes that stay (0.2); dare: of all (0.5)."
    )
    scale: float = Field(1.0, gt=0, description="ties, dare: times the merged change.")
    seed: int = Field(0, ge=0, le=MOST_SEED, description="dare: of what is excluded.")

    def settled(self, method: MergeMethod) -> MergeParameters:
        usual = {"ties": 0.2, "dare": 0.5}.get(method, 1.0)
        return self.model_copy(update={"density": self.density or usual})


class MergeSpec(_Frozen):
    name: str
    models: tuple[str, ...]
    method: MergeMethod
    weights: tuple[float, ...] | None = None
    dataset: str | None = None
    """Dataset whose validation split measures, and chooses in a greedy soup; default: the version that all learned
    from."""
    hyperparameters: Mapping[str, Any] = Field(default_factory=dict)


class Member(_Frozen):
    ref: str
    id: str
    folder: str


class MergePayload(_Frozen):
    """Everything resolved: the run needs nothing of the catalog."""

    name: str
    method: MergeMethod
    members: tuple[Member, ...]
    weights: tuple[float, ...]
    parameters: MergeParameters
    base: str | None = None
    """The nearest version that all members began with."""
    base_folder: str | None = None
    base_has_head: bool = False
    card: Mapping[str, Any]
    """Fields of the new version's card that its members decide."""
    recipe: Recipe
    """Recipe of the first member's training: its task, terms and target."""
    manifest: Manifest | None = None
    """Dataset to measure on, and to count the statistics of BatchNorm anew."""
    learned_from: tuple[Manifest, ...] | None = ()
    """Data of this workspace that the members learned from; None where they are not known any more."""
    counts_batches: bool = False
    """Whether there is BatchNorm in it."""
    threads: int = 1


def usual_weights(method: MergeMethod, models: Sequence[str], given: Sequence[float] | None) -> tuple[float, ...]:
    """Shares that sum to 1; for task arithmetic and DARE factors of each model's change as they are.

    Raises INVALID for another number of them than of models, and for what a mean cannot have.
    """
    count = len(models)
    if method == "greedy" and given:
        raise _invalid("A greedy soup finds out itself who is in it, so it takes no weights", "Leave weights out.")
    if given is None:
        return (_USUAL_TASK_WEIGHT if method == "task_arithmetic" else 1 / count,) * count
    if len(given) != count:
        raise _invalid(f"There are {count} models and {len(given)} weights", "Give one weight for each model.")
    if method in ("task_arithmetic", "dare"):
        return tuple(given)
    if min(given) < 0 or sum(given) <= 0:
        raise _invalid(
            f"weights are {list(given)}: {method!r} takes a mean, whose weights are not negative and not all 0",
            "Give such weights, or method='task_arithmetic', which can also take a change away.",
        )
    return tuple(each / sum(given) for each in given)


def _invalid(what: str, then: str) -> SpeciateError:
    return SpeciateError(Code.INVALID, f"{what}.", then)
