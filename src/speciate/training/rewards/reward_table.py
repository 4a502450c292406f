"""Kind of reward -> its implementation, in one visible table; how a plan binds rewards, and how a run opens them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.sandbox import SandboxPolicy, check
from speciate.training.rewards import plain_rewards, reward_rules, sandboxed_rewards
from speciate.training.rewards.plain_rewards import ExactScorer, ModelScorer, NumericScorer
from speciate.training.rewards.reward import AnswerScorer, Reward, WatchedReward
from speciate.training.rewards.reward_spec import (
    CodeReward,
    GymReward,
    MathReward,
    ModelReward,
    PythonReward,
    RegexReward,
    RewardSpec,
    SchemaReward,
)
from speciate.training.rewards.sandboxed_rewards import CodeRewardScorer
from speciate.workspace.workspace import Workspace


class RewardPlace(NamedTuple):
    """Where rewards of a run work."""

    folder: Path
    """The run's own, in which sandboxes make their scratch folders."""
    policy: SandboxPolicy = "required"
    device: str = "cpu"
    """Where models work that give rewards."""


REWARD_KINDS: dict[str, Callable[[Any, RewardPlace], AnswerScorer]] = {
    "exact": lambda spec, _: ExactScorer(spec),
    "numeric": lambda spec, _: NumericScorer(spec),
    "regex": lambda spec, place: sandboxed_rewards.open_rule_reward(spec, place.folder, place.policy),
    "json_schema": lambda spec, place: sandboxed_rewards.open_rule_reward(spec, place.folder, place.policy),
    "math": lambda spec, place: sandboxed_rewards.open_rule_reward(spec, place.folder, place.policy),
    "gym": lambda spec, place: sandboxed_rewards.open_rule_reward(spec, place.folder, place.policy),
    "code": lambda spec, place: CodeRewardScorer(spec, place.folder, place.policy),
    "python": lambda spec, place: sandboxed_rewards.open_python_reward(spec, place.folder, place.policy),
    "model": lambda spec, place: ModelScorer(spec, place.device),
}
"""Kind -> the scorer of its spec (reward_spec.py)."""
WITHOUT_SANDBOX = ("exact", "numeric", "model")
"""These run nothing of an answer, and no answer makes them endless: they need no sandbox."""


def open_rewards(
    specs: Sequence[RewardSpec], folder: Path, policy: SandboxPolicy = "required", device: str = "cpu"
) -> list[Reward]:
    """One reward for each spec, in order; each with a name of its own. Close each in the end.

    Raises INVALID, CONFLICT, NOT_FOUND, MISSING_EXTRA or UNAVAILABLE where one cannot be had; then none stays open.
    """
    place, opened = RewardPlace(folder, policy, device), list[Reward]()
    with ExitStack() as stack:
        for spec, name in zip(specs, reward_names(specs), strict=True):
            reward = WatchedReward(name, REWARD_KINDS[spec.kind](spec, place))
            stack.callback(reward.close)
            opened.append(reward)
        stack.pop_all()
    return opened


def reward_names(specs: Sequence[RewardSpec]) -> list[str]:
    """Name of each reward: its own, else its kind, with a number where another has it too."""
    wanted, seen = [spec.name or spec.kind for spec in specs], Counter[str]()
    found = []
    for name in wanted:
        seen[name] += 1
        found.append(name if wanted.count(name) == 1 else f"{name}-{seen[name]}")
    return found


def bind_rewards(specs: Sequence[RewardSpec], workspace: Workspace) -> tuple[RewardSpec, ...]:
    """Find what rewards name, and bind files to the bytes that they have now. For a plan, in the daemon.

    Raises NOT_FOUND, INVALID or MISSING_EXTRA for what would make a run fail.
    """
    return tuple(_bind_reward(each, workspace) for each in specs)


def reward_columns(specs: Sequence[RewardSpec]) -> dict[str, str]:
    """Columns that rewards read, each with the kind that does: a dataset must have them, and no model may see them."""
    return {each.column: each.kind for each in specs if isinstance(each, GymReward | CodeReward)}


def _bind_reward(spec: RewardSpec, workspace: Workspace) -> RewardSpec:
    if isinstance(spec, ModelReward):
        return plain_rewards.bind_model_reward(spec, workspace)
    if isinstance(spec, RegexReward):
        _check_pattern(spec.pattern)
    if isinstance(spec, SchemaReward):
        reward_rules.check_schema(spec.json_schema)
    if isinstance(spec, RegexReward | SchemaReward | MathReward | GymReward):
        sandboxed_rewards.check_library(spec)
    if spec.kind not in WITHOUT_SANDBOX:
        check("required", code=True)  # whatever the settings: what models wrote runs in it
    return sandboxed_rewards.bind_python_reward(spec) if isinstance(spec, PythonReward) else spec


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise SpeciateError(
            Code.INVALID,
            f"pattern {pattern[:60]!r} of a reward is no regular expression: {error}.",
            "Mend it, then call again.",
        ) from error
