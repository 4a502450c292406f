"""Rewards as trl's trainers call them, and the weighted sum of their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from speciate.training.language.questions import Question
from speciate.training.language_hyperparameters import EnvironmentSpec
from speciate.training.rewards.reward import Reward
from speciate.training.rewards.reward_spec import RewardSpec
from speciate.training.rewards.reward_table import open_rewards
from speciate.training.rewards.tool_environment import EnvironmentHost, describe_environment
from speciate.training.training_context import TrainingContext

ENVIRONMENT = "environment"


class RewardFunctions(NamedTuple):
    opened: list[Reward]
    weights: list[float]
    host: EnvironmentHost | None = None
    """Host of an environment, which may say itself what an answer was worth: that is the last of the functions and
    weights."""

    def functions(self, questions: Sequence[Question]) -> list[Callable[..., list[float | None]]]:
        """One function for each reward, under its name. trl hands each the column `place` of the questions of
        `asking.rows`."""
        found = [_reward_function(each, questions) for each in self.opened]
        return [*found, _of_environments] if self._own else found

    @property
    def _own(self) -> bool:
        return self.host is not None and self.host.described.rewards

    def sums(
        self, questions: Sequence[Question], answers: Sequence[str], environments: Sequence[float | None] = ()
    ) -> list[float]:
        """Weighted sum of each answer's rewards, as trl sums them: what a reward does not say counts as 0, NaN where
        none says anything. `environments`: what they said themselves."""
        by_reward = [_score_answers(each, questions, answers) for each in self.opened]
        by_reward += [list(environments)] if self._own else []
        return weighted_sums(list(zip(*by_reward, strict=True)), self.weights)

    def report(self) -> Mapping[str, object]:
        found = {each.name: each.failures.report() for each in self.opened}
        return {**found, ENVIRONMENT: self.host.report()} if self.host else found

    def state(self) -> Mapping[str, Any]:
        """What was counted, as JSON."""
        return {
            each.name: [each.failures.requests, dict(each.failures.counted), dict(each.failures.examples)]
            for each in self.opened
        } | ({ENVIRONMENT: self.host.state()} if self.host else {})

    def restore(self, state: Mapping[str, Any]) -> None:
        if self.host is not None:
            self.host.restore(state[ENVIRONMENT])
        for each in self.opened:
            if each.name in state:
                count, counted, examples = state[each.name]
                each.failures.requests = count
                each.failures.counted.clear()
                each.failures.counted.update(counted)
                each.failures.examples.update(examples)


@contextmanager
def open_reward_functions(
    context: TrainingContext,
    specs: Sequence[RewardSpec],
    environment: EnvironmentSpec | None,
    questions: Sequence[Question],
) -> Iterator[RewardFunctions]:
    """Opened for a run. `questions`: of an environment by their `place`. Raises what `open_rewards` and
    `describe_environment` raise."""
    folder = context.run.folder.path
    host = (
        EnvironmentHost(environment, describe_environment(environment), questions, folder, "required")
        if environment
        else None
    )
    opened = open_rewards(specs, folder, device=context.payload.device)
    weights = [spec.weight for spec in specs]
    if environment is not None and host is not None and host.described.rewards:
        weights.append(environment.weight)
    try:
        yield RewardFunctions(opened, weights, host)
    finally:
        for each in opened:
            each.close()
        if host is not None:
            host.close()


def _of_environments(environments: Sequence[Any], **named: Any) -> list[float | None]:
    return [each._reward() for each in environments]


_of_environments.__name__ = ENVIRONMENT


def _reward_function(reward: Reward, questions: Sequence[Question]) -> Callable[..., list[float | None]]:
    def function(completions: Sequence[Any], place: Sequence[int], **named: Any) -> list[float | None]:
        return _score_answers(reward, [questions[one] for one in place], [answer_text(each) for each in completions])

    function.__name__ = reward.name
    return function


def answer_text(completion: Any) -> str:
    """The text of an answer as trl has it: a list with a message, or the text itself."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def _score_answers(reward: Reward, questions: Sequence[Question], answers: Sequence[str]) -> list[float | None]:
    return reward.score(
        [each.prompt for each in questions], answers, [each.reference for each in questions],
        [each.example.columns for each in questions],
    )  # fmt: skip


def weighted_sums(said: Sequence[Sequence[float | None]], weights: Sequence[float]) -> list[float]:
    """Weighted sum of each answer's rewards, where those that say nothing (None or NaN) count as 0; NaN where none says
    anything."""
    return [_sum(values, weights) for values in said]


def _sum(values: Sequence[float | None], weights: Sequence[float]) -> float:
    pairs = zip(values, weights, strict=True)
    known = [value * weight for value, weight in pairs if value is not None and not math.isnan(value)]
    return sum(known) if known else math.nan
