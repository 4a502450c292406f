"""Rewards opened from what a caller writes, and asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from speciate.modalities.messages import Message
from speciate.training.rewards.reward import Reward
from speciate.training.rewards.reward_spec import RewardSpec
from speciate.training.rewards.reward_table import open_rewards

QUESTION = (Message("user", "How many?"),)


def read(*given: dict[str, Any]) -> list[RewardSpec]:
    return TypeAdapter(list[RewardSpec]).validate_python(list(given))


@contextmanager
def opened(folder: Path, spec: dict[str, Any]) -> Iterator[Reward]:
    (reward,) = open_rewards(read(spec), folder)
    try:
        yield reward
    finally:
        reward.close()


def ask(
    reward: Reward, answers: Sequence[str], truths: Sequence[str | None] | None = None,
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> list[float | None]:  # fmt: skip
    count = len(answers)
    return reward.score([QUESTION] * count, answers, truths or [None] * count, columns or [{}] * count)
