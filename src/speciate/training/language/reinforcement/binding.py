"""Foreign files and models that a training by reward names, found and bound to their bytes before there is a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.sandbox import check
from speciate.training.hyperparameters import Parameters
from speciate.training.language.reinforcement import environment
from speciate.training.language.rewards import bound as rewards
from speciate.training.language.specs import GrpoParameters, RewardedParameters
from speciate.workspace.workspace import Workspace


def bound(parameters: Parameters, asked: Mapping[str, Any], workspace: Workspace) -> Parameters:
    """`asked`: the hyperparameters as they were given. Others than those of a training by reward stay as they are."""
    if not isinstance(parameters, RewardedParameters):
        return parameters
    own = False
    if isinstance(parameters, GrpoParameters) and parameters.environment is not None:
        check("required", code=True)  # whatever the settings, as for rewards
        described = environment.describe(parameters.environment)
        own = described.rewards
        update: dict[str, Any] = {"environment": environment.bound(parameters.environment)}
        if own and "rewards" not in asked:
            update["rewards"] = ()
        parameters = parameters.model_copy(update=update)
    if not parameters.rewards and not own:
        raise SpeciateError(
            Code.INVALID,
            "There is no reward: rewards is empty, and no environment has get_reward.",
            "Call train_model again with hyperparameters={'rewards': [{'kind': ...}]}, or without it.",
        )
    return parameters.model_copy(update={"rewards": rewards.bound(parameters.rewards, workspace)})
