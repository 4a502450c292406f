"""Rewards as trl's trainers ask for them, and the weighted sum of what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from speciate.training.language.asking import Question
from speciate.training.language.rewards.reward import Reward
from speciate.training.language.rewards.specs import RewardSpec
from speciate.training.language.rewards.table import open_rewards
from speciate.training.study import Study


class Rewards(NamedTuple):
    opened: list[Reward]
    weights: list[float]

    def functions(self, asked: Sequence[Question]) -> list[Callable[..., list[float | None]]]:
        """One for each reward, of its name. trl hands each the column `place` of the questions of `asking.rows`."""
        return [_function(each, asked) for each in self.opened]

    def sums(self, asked: Sequence[Question], answers: Sequence[str]) -> list[float]:
        """Of each answer, as trl sums them: what a reward does not say counts as 0, NaN where none says anything."""
        by_reward = [_score(each, asked, answers) for each in self.opened]
        return [_sum(values, self.weights) for values in zip(*by_reward, strict=True)]

    def told(self) -> dict[str, Any]:
        return {each.name: each.failures.told() for each in self.opened}

    def state(self) -> dict[str, Any]:
        """What was counted, as JSON."""
        return {
            each.name: [each.failures.asked, dict(each.failures.counted), dict(each.failures.examples)]
            for each in self.opened
        }

    def restore(self, state: dict[str, Any]) -> None:
        for each in self.opened:
            if each.name in state:
                asked, counted, examples = state[each.name]
                each.failures.asked = asked
                each.failures.counted.clear()
                each.failures.counted.update(counted)
                each.failures.examples.update(examples)


@contextmanager
def rewards(study: Study, specs: Sequence[RewardSpec]) -> Iterator[Rewards]:
    """Opened for a run. Raises what `open_rewards` raises."""
    opened = open_rewards(specs, study.run.folder.path)
    try:
        yield Rewards(opened, [spec.weight for spec in specs])
    finally:
        for each in opened:
            each.close()


def _function(reward: Reward, asked: Sequence[Question]) -> Callable[..., list[float | None]]:
    def function(completions: Sequence[Any], place: Sequence[int], **named: Any) -> list[float | None]:
        return _score(reward, [asked[one] for one in place], [said(each) for each in completions])

    function.__name__ = reward.name
    return function


def said(completion: Any) -> str:
    """The text of an answer as trl has it: a list with a message, or the text itself."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def _score(reward: Reward, asked: Sequence[Question], answers: Sequence[str]) -> list[float | None]:
    return reward.score(
        [each.asked for each in asked], answers, [each.truth for each in asked],
        [each.example.columns for each in asked],
    )  # fmt: skip


def _sum(values: Sequence[float | None], weights: Sequence[float]) -> float:
    known = [value * weight for value, weight in zip(values, weights, strict=True) if value is not None]
    return sum(known) if known else math.nan
