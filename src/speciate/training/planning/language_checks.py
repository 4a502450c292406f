"""Checks of methods that train language models, before there is a job: columns, rewards, bound files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from speciate.datasets.versions import Manifest
from speciate.errors import CallAgain, Code, SpeciateError, closest
from speciate.sandbox import check
from speciate.tasks.families.preference import REJECTED
from speciate.training.hyperparameters import Parameters
from speciate.training.language.questions import needs_reference
from speciate.training.language_hyperparameters import (
    GrpoParameters,
    PairParameters,
    ReinforcementParameters,
    RewardParameters,
)
from speciate.training.rewards import reward_table as rewards
from speciate.training.rewards import tool_environment
from speciate.training.rewards.reward_table import reward_columns
from speciate.workspace.workspace import Workspace

if TYPE_CHECKING:
    pass


def check_pair_columns(manifest: Manifest, parameters: Parameters, method: str, target: str | None) -> None:
    """INVALID where one is not there, or is shown to the model."""
    if not isinstance(parameters, PairParameters | RewardParameters):
        return
    fixed = isinstance(parameters, RewardParameters)
    column = REJECTED if isinstance(parameters, RewardParameters) else parameters.rejected
    if column not in manifest.columns:
        raise SpeciateError(
            Code.INVALID,
            f"{method!r} learns from pairs, and {manifest.ref} has no column {column!r} with the worse answers; "
            f"{closest(column, manifest.columns)}",
            "Make one: curate_dataset(steps=[{'op': 'derive', ...}]), or {'op': 'preferences', ...} from judgements."
            if fixed
            else "Call train_model again with hyperparameters={'rejected': COLUMN}, or with method='sft'.",
        )
    if column in manifest.inputs:
        raise SpeciateError(
            Code.INVALID,
            f"The column {column!r} of {manifest.ref} is an input: the model would see the worse answer.",
            "Call create_dataset again with inputs that leave it out.",
        )


def _with_batch(size: int, purpose: str = "") -> CallAgain:
    return CallAgain("train_model", {"hyperparameters": {"batch_size": size}}, purpose)


def check_reward_data(manifest: Manifest, parameters: Parameters, target: str | None) -> None:
    """INVALID, before there is a job, where a training by reward cannot begin. `target` None: conversations teach."""
    if not isinstance(parameters, ReinforcementParameters):
        return
    if parameters.batch_size % parameters.num_generations:
        raise SpeciateError(
            Code.INVALID,
            f"batch_size={parameters.batch_size} answers are no whole number of questions with "
            f"{parameters.num_generations} answers each (`num_generations`).",
            next=[
                _with_batch(parameters.num_generations * max(1, parameters.batch_size // parameters.num_generations))
            ],
        )
    if parameters.kl_limit is not None and not parameters.beta:
        raise SpeciateError(
            Code.INVALID,
            "kl_limit needs the distance to the base model, which is not measured where beta is 0.",
            next=[
                CallAgain("train_model", {"hyperparameters": {"kl_limit": None}}),
                CallAgain("train_model", {"hyperparameters": {"beta": 0.001}}, "or more"),
            ],
        )
    many, each = manifest.splits.get("train", 0), parameters.batch_size // parameters.num_generations
    if many < each:
        raise SpeciateError(
            Code.INVALID,
            f"A step asks {each} questions, and {manifest.ref} has {many} training examples.",
            next=[_with_batch(max(1, many) * parameters.num_generations, "or less")],
        )
    for column, kind in reward_columns(parameters.rewards).items():
        if column not in manifest.columns:
            raise SpeciateError(
                Code.INVALID,
                f"The reward {kind!r} reads the column {column!r}, which {manifest.ref} does not have; "
                f"{closest(column, manifest.columns)}",
                "Call train_model again with another `column` in the reward, or with a dataset that has it.",
            )
        if column in manifest.inputs:
            raise SpeciateError(
                Code.INVALID,
                f"The reward {kind!r} reads the column {column!r} of {manifest.ref}, which is an input: the model "
                "would see what it is judged by.",
                "Call create_dataset again with inputs that leave it out.",
            )
    lacking = _why_no_references(manifest, target)
    needing = [spec.name or spec.kind for spec in parameters.rewards if needs_reference(spec)]
    if needing and lacking:
        raise SpeciateError(
            Code.INVALID,
            f"The reward {needing[0]!r} compares with the true answer, and {manifest.ref} has none: {lacking}.",
            "Name the column with target; or call train_model again with other rewards, such as "
            "hyperparameters={'rewards': [{'kind': 'model', 'model': 'JUDGE@v1'}]}.",
        )


def _why_no_references(manifest: Manifest, target: str | None) -> str | None:
    """Why no example has one, as far as the manifest tells; None where some may."""
    if target is None or target in manifest.columns:
        return None
    if not any(label.strip() for label in manifest.labels) and not manifest.numeric:
        return "no column is its answer, and it has no labels"
    return None


def bind_reward_parameters(parameters: Parameters, asked: Mapping[str, Any], workspace: Workspace) -> Parameters:
    """Find the files and models that rewards name, and bind them to their bytes, before there is a job.

    `asked`: the hyperparameters as they were given. Parameters of other methods are returned as they are.
    """
    if not isinstance(parameters, ReinforcementParameters):
        return parameters
    own = False
    if isinstance(parameters, GrpoParameters) and parameters.environment is not None:
        check("required", code=True)  # whatever the settings, as for rewards
        described = tool_environment.describe_environment(parameters.environment)
        own = described.rewards
        update: dict[str, object] = {"environment": tool_environment.bind_environment(parameters.environment)}
        if own and "rewards" not in asked:
            update["rewards"] = ()
        parameters = parameters.model_copy(update=update)
    if not parameters.rewards and not own:
        raise SpeciateError(
            Code.INVALID,
            "There is no reward: rewards is empty, and no environment has get_reward.",
            "Call train_model again with hyperparameters={'rewards': [{'kind': ...}]}, or without it.",
        )
    return parameters.model_copy(update={"rewards": rewards.bind_rewards(parameters.rewards, workspace)})
