"""Rewards as hyperparameters: a frozen model per kind, told apart by `kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from speciate.training.hyperparameters import Frozen


class _Spec(Frozen):
    weight: float = Field(1.0, ge=-1000, le=1000, description="In the sum of all rewards.")
    name: str | None = Field(None, max_length=64, description="In reports; none: its kind.")


Where = Literal["whole", "last_line", "after", "tags", "boxed"]


class _ResultReward(_Spec):
    where: Where = Field(
        "whole",
        description="Where in the answer the result stands: whole, last_line, after `marker`, in <answer> tags, boxed.",
    )
    marker: str = Field("####", min_length=1, max_length=100, description="Of where='after'; the last one counts.")


class ExactReward(_ResultReward):
    """1 where the result is the target, else 0."""

    kind: Literal["exact"] = "exact"
    normalise: bool = Field(True, description="Case, spaces and what stands around a result do not count.")


class NumericReward(_ResultReward):
    """1 where the last number of the result is the target's, within the tolerance, else 0."""

    kind: Literal["numeric"] = "numeric"
    tolerance: float = Field(1e-6, ge=0, description="Largest difference.")
    relative: float = Field(0.0, ge=0, le=1, description="Or as a share of the target; the larger of the two counts.")


class _SandboxedReward(_Spec):
    seconds: float = Field(
        30.0, gt=0, le=3600, description="For one call, a batch of answers; its process is then ended and begun anew."
    )


class RegexReward(_ResultReward, _SandboxedReward):
    """1 where the result fits a regular expression as a whole, else 0: its form, not whether it is right."""

    kind: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1, max_length=2000)


class SchemaReward(_ResultReward, _SandboxedReward):
    """1 where the result is JSON that fits a schema, `partial` where it is other JSON, else 0."""

    kind: Literal["json_schema"] = "json_schema"
    json_schema: Mapping[str, Any] | bool = Field(True, description="Draft 2020-12; true: any JSON.")
    partial: float = Field(0.0, ge=0, le=1, description="For JSON that does not fit.")
    equal: bool = Field(False, description="1 only where it is also equal to the target, which is JSON.")


class MathReward(_ResultReward, _SandboxedReward):
    """1 where the result is worth the same as the target (math-verify: LaTeX, fractions, sets, intervals), else 0."""

    kind: Literal["math"] = "math"


class GymReward(_ResultReward, _SandboxedReward):
    """What a task of reasoning-gym itself gives for the result, 0 to 1."""

    kind: Literal["gym"] = "gym"
    column: str = Field("entry", description="Column with the task's entry, as source='gym:NAME' makes it.")


class CodeReward(_Spec):
    """1 where the program in the answer passes the example's tests, each run in a sandbox of its own, else 0."""

    kind: Literal["code"] = "code"
    column: str = Field("tests", description="Column with the tests: Python's asserts, run after the program.")
    seconds: float = Field(10.0, gt=0, le=600, description="For one program with its tests.")


class PythonReward(_SandboxedReward):
    """What your function gives, in a sandbox: FUNCTION(questions, answers, truths, columns) -> a list of numbers."""

    kind: Literal["python"] = "python"
    file: str = Field(description="path/to/file.py:FUNCTION")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="Of the file; none: as it is at the call.")


class ModelReward(_Spec):
    """What a model that method='reward' made gives for the answer: a number on a scale of its own."""

    kind: Literal["model"] = "model"
    model: str = Field(description="name or name@v3 of a model with task 'preference'.")
    folder: str | None = Field(None, description="Where it lies; found at the call.")
    sealed: str | None = Field(None, description="Its id; found at the call.")


RewardSpec = Annotated[
    ExactReward | NumericReward | RegexReward | SchemaReward | MathReward | GymReward | CodeReward | PythonReward
    | ModelReward,
    Field(discriminator="kind"),
]  # fmt: skip
"""A kind that is entered here is entered in reward_table.py, too."""
REWARD_SPECS: dict[str, type[Frozen]] = {
    each.model_fields["kind"].default: each for each in get_args(get_args(RewardSpec)[0])
}  # fmt: skip
DEFAULT_REWARDS: tuple[RewardSpec, ...] = (ExactReward(),)
