"""The kinds of reward that there are, in one visible table, and how those of a run are opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from speciate.sandbox import CagePolicy
from speciate.training.language.rewards import functions, ruled
from speciate.training.language.rewards.exact import ExactMarker
from speciate.training.language.rewards.judged import ModelMarker
from speciate.training.language.rewards.numeric import NumericMarker
from speciate.training.language.rewards.programs import CodeMarker
from speciate.training.language.rewards.reward import Marker, Reward
from speciate.training.language.rewards.specs import RewardSpec
from speciate.training.language.rewards.watched import WatchedReward


class Place(NamedTuple):
    """Where rewards of a run work."""

    folder: Path
    """The run's own, in which cages make their scratch folders."""
    policy: CagePolicy = "required"
    device: str = "cpu"
    """Where models work that give rewards."""


KINDS: dict[str, Callable[[Any, Place], Marker]] = {
    "exact": lambda spec, _: ExactMarker(spec),
    "numeric": lambda spec, _: NumericMarker(spec),
    "regex": lambda spec, place: ruled.opened(spec, place.folder, place.policy),
    "json_schema": lambda spec, place: ruled.opened(spec, place.folder, place.policy),
    "math": lambda spec, place: ruled.opened(spec, place.folder, place.policy),
    "gym": lambda spec, place: ruled.opened(spec, place.folder, place.policy),
    "code": lambda spec, place: CodeMarker(spec, place.folder, place.policy),
    "python": lambda spec, place: functions.opened(spec, place.folder, place.policy),
    "model": lambda spec, place: ModelMarker(spec, place.device),
}
"""Kind -> what opens it, of its spec in specs.py."""
WITHOUT_A_CAGE = ("exact", "numeric", "model")
"""What these do with an answer cannot be made endless, and runs nothing of it."""


def open_rewards(
    specs: Sequence[RewardSpec], folder: Path, policy: CagePolicy = "required", device: str = "cpu"
) -> list[Reward]:
    """One reward for each spec, in order; each with a name of its own. Close each in the end.

    Raises INVALID, CONFLICT, NOT_FOUND, MISSING_EXTRA or UNAVAILABLE where one cannot be had; then none stays open.
    """
    place, opened = Place(folder, policy, device), list[Reward]()
    with ExitStack() as stack:
        for spec, name in zip(specs, names(specs), strict=True):
            reward = WatchedReward(name, KINDS[spec.kind](spec, place))
            stack.callback(reward.close)
            opened.append(reward)
        stack.pop_all()
    return opened


def names(specs: Sequence[RewardSpec]) -> list[str]:
    """Of each reward: its own, else its kind, with a number where another has it too."""
    wanted, seen = [spec.name or spec.kind for spec in specs], Counter[str]()
    found = []
    for name in wanted:
        seen[name] += 1
        found.append(name if wanted.count(name) == 1 else f"{name}-{seen[name]}")
    return found
