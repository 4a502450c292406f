"""Kind `race`: which of several published models are worth an evaluation on the test split.

All answer the same validation examples, first 50, then 200, then all, each label in turn. After each round a model
leaves if it is surely worse than the best: the interval of their difference on the same examples excludes equality. The
test split is not touched. Answers are kept under the published labels, as evaluations keep them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets import versions
from speciate.errors import Code, SpeciateError
from speciate.evaluation import evaluate
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.evaluation.payload import EvaluationPayload
from speciate.jobs.job import Limits
from speciate.jobs.kinds import Kind, Plan
from speciate.workspace.workspace import Workspace

ROUNDS = (50, 200)
LEVEL = 0.99
"""Confidence level of the interval: there are several looks, and each at several models."""


class RaceSpec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    use_case: str
    dataset: str
    models: tuple[str, ...] = Field(min_length=1, max_length=20)
    budget_minutes: float | None = Field(None, gt=0)
    seed: int = 0


class RacePayload(BaseModel):
    model_config = ConfigDict(frozen=True)
    evaluation: EvaluationPayload
    """How the models are evaluated on the examples that decide."""
    refused: Mapping[str, str]
    """Models that cannot be asked, and why."""
    seconds: float | None
    seed: int


class Standing(NamedTuple):
    """A model after a round."""

    model: str
    value: float
    """Value of the metric, greater being better or not."""


def plan(spec: RaceSpec, workspace: Workspace) -> Plan[RacePayload]:
    """Each model is checked by itself: one that cannot be asked leaves, and the others race. INVALID if none can."""
    manifest = versions.resolve(workspace.database, spec.dataset)
    split = "validation" if manifest.splits.get("validation") else "train"
    refused: dict[str, str] = {}
    fitting = []

    def evaluation(models: Sequence[str]) -> Plan[Any]:
        asked = EvaluateSpec(
            models=tuple(models), dataset=f"{manifest.ref}:{split}", use_case=spec.use_case, baseline=models[0],
            latency=False, seed=spec.seed,
        )  # fmt: skip
        return evaluate.plan(asked, workspace)

    last: SpeciateError | None = None
    for model in spec.models:
        try:
            evaluation([model])
            fitting.append(model)
        except SpeciateError as error:
            refused[model], last = error.message, error
    if not fitting:
        raise last or SpeciateError(Code.INVALID, "There is no model to compare.")
    made = evaluation(fitting)
    payload = EvaluationPayload.model_validate(made.payload)
    payload = payload.model_copy(update={"models": tuple(one for one in payload.models if one.published is not None)})
    if not payload.models:
        raise SpeciateError(Code.INVALID, "None of these is a published model that answers as it is.")
    return Plan(
        payload=RacePayload(
            evaluation=payload, refused=refused, seconds=60 * spec.budget_minutes if spec.budget_minutes else None,
            seed=spec.seed,
        ),
        resources=made.resources,
        use_case=spec.use_case,
        preload=made.preload,
        resolved={"dataset": f"{manifest.ref}:{split}", "models": [one.name for one in payload.models]},
    )  # fmt: skip


def rounds(count: int) -> list[int]:
    """How many examples each round asks for.

    >>> rounds(120), rounds(30), rounds(1000)
    ([50, 120], [30], [50, 200, 1000])
    """
    return [*(size for size in ROUNDS if size < count), count]


def stratified_order(labels: Sequence[object], seed: int) -> list[int]:
    """Places in an order in which each label comes in turn, so that any beginning has all of them."""
    drawn = np.random.default_rng(seed).permutation(len(labels)).tolist()
    turns: dict[str, int] = {}
    keys = list[tuple[int, int, int]]()
    for place in drawn:
        label = repr(labels[place])
        turns[label] = turns.get(label, 0) + 1
        keys.append((turns[label], len(keys), place))
    return [place for _, _, place in sorted(keys)]


def surely_worse(low: float, high: float, sign: int) -> bool:
    """Whether an interval of (model - best) says that the model is worse. NaN says nothing."""
    return (high if sign > 0 else -low) < 0


KIND = Kind(
    name="race", spec=RaceSpec, plan=plan, run="speciate.evaluation.race_run:run", limits=Limits(silence_seconds=1800)
)
