"""A trainer of trl that learns from rewards, made durable and watched.

`rewarded(GRPOTrainer)` adds to `durable` what such a training needs beside: greedy answers to held-out questions every
so many steps (answers.py), of which the best decides what is kept (evaluations.py), as no loss says how good a policy
is; how its answers look; and the limits that end it where it pleases the reward alone (hacking.py decides, here it is
carried out).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.jobs.run import Stopped
from speciate.language import forms
from speciate.language.forms import Form
from speciate.training.language import checkpointing, judging
from speciate.training.language.checkpointing import Best
from speciate.training.language.durable_trainer import Durable, Ending
from speciate.training.language.reinforcement import answers, hacking, rewarding
from speciate.training.language.reinforcement.answers import Answers
from speciate.training.language.reinforcement.asking import Question
from speciate.training.language.reinforcement.evaluations import Evaluations, number, plain
from speciate.training.language.reinforcement.hacking import Held, Limits, Seen
from speciate.training.language.reinforcement.rewarding import Rewards
from speciate.training.language.reinforcement.wording import wording
from speciate.training.language.specs import RewardedParameters
from speciate.training.network.checkpoint import Tensors, match
from speciate.vocabulary import find_metric

_NAMED = {
    "reward": "reward", "length": "completions/mean_length", "cut": "completions/clipped_ratio",
    "distinct": "completions/distinct", "alike": "completions/alike", "entropy": "entropy", "kl": "kl",
    "no_spread": "rewards/no_spread",
}  # fmt: skip
"""Of a step: what trl, or `_calculate_rewards` here, calls it."""


class Asking(NamedTuple):
    """What a training by reward is judged by."""

    rewards: Rewards
    held: Sequence[Question]
    form: Form
    parameters: RewardedParameters
    held_rows: Any
    """The same as trl's trainers take them."""


def rewarded(trainer: type[Any]) -> type[Any]:
    """The class; `ask(asking)` and `begin(session)` come first, then `go`."""
    return type(f"Rewarded{trainer.__name__}", (_Rewarded, Durable, trainer), {})


class _Rewarded(Durable):
    # The trainer's
    accelerator: Any
    processing_class: Any
    num_generations: int
    reward_weights: Any
    _metrics: Any

    def ask(self, asking: Asking) -> None:
        given = asking.parameters
        self._asking = asking
        self._limits = Limits(given.kl_limit, given.length_limit, given.stop_on_hacking)
        self.seen: list[Seen] = []
        judged = [each.example for each in asking.held if each.truth is not None]
        self.evaluations = Evaluations([each.group or each.id for each in judged], given.keep_by)
        self.stopped: str | None = None
        """Why a limit ended it."""
        self._good: tuple[int, dict[str, Any]] | None = None
        self._ended_at = 0
        self._row: dict[str, float] = {}

    def go(self) -> Ending:
        ending = super().go()
        self._ended_at = ending.steps
        if self._why != "limit" or (self._best is not None and self._session.keep_best):
            return ending
        step, weights = (self._best.step, self._best.weights) if self._best else self._good or (0, {})
        if weights:
            checkpointing.copy_weights(weights, self.model)
            ending = ending._replace(step=step)
        return ending

    @property
    def kept_step(self) -> int:
        """Whose weights are in place now; there may be no evaluation of that step."""
        return self.evaluations.kept.step if self._best_is_kept else self._ended_at

    @property
    def chosen_of(self) -> int:
        """Evaluations of which the best decided what is kept; 1 where it is the last whatever they said."""
        return len(self.evaluations.held) if self._best_is_kept else 1

    @property
    def _best_is_kept(self) -> bool:
        return self._best is not None and (self._session.keep_best or self._why == "limit")

    # What the trainer calls

    def _resumed(self) -> str | None:
        folder = super()._resumed()
        if folder is None:
            if self._has_held:
                self.evaluate()
            self._keep_good()
        return folder

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        said = wording(completion_ids_list, self.num_generations)
        for name, value in zip(("p95_length", "distinct", "alike"), said, strict=True):
            self._metrics["train"][f"completions/{name}"].append(value)
        found = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # type: ignore[misc]
        rewards = rewarding.weighted(found.tolist(), self.reward_weights.tolist())
        self._metrics["train"]["rewards/no_spread"].append(hacking.no_spread(rewards, self.num_generations))
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)  # type: ignore[misc]
        if "loss" in logs:
            self._row = {name: number(logs.get(own)) for name, own in _NAMED.items()}

    def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
        """Greedy answers to the held-out questions. Raises Stopped between batches: the steps since the last checkpoint
        are made again, for this is part of the step before."""
        study, asking = self._session.study, self._asking
        self._chance.begin(0)
        with study.tally.stage("judging"):
            written, worth = self._answers()
            texts = [each.text for each in written]
            rewards = [each for each in asking.rewards.sums(asking.held, texts, worth) if math.isfinite(each)]
            metric = judging.of_texts(study, [each.example for each in asking.held], texts)
        lengths = [each.tokens for each in written]
        reward = sum(rewards) / len(rewards) if rewards else math.nan
        sign = find_metric(study.payload.objective.metric).sign
        row = Held(
            self.state.global_step, reward, sign * metric.estimate.value if metric else math.nan,
            metric.estimate.standard_error if metric else math.nan, sum(lengths) / max(1, len(lengths)),
        )  # fmt: skip
        self._see(row, metric.scores if metric else [])
        figures = {
            "held_reward": reward, "held_metric": sign * row.metric, "held_length": row.length,
            "held_step": float(row.step),
        }  # fmt: skip
        self._told.judged(math.nan, sign * row.metric if math.isfinite(row.metric) else reward, figures)
        return {}

    def _answers(self) -> Answers:
        asking, most = self._asking, self._asking.parameters.max_new_tokens
        if asking.rewards.host is not None:
            return answers.in_environments(self, asking.held_rows, asking.rewards.host, most, self._between)
        texts = [forms.asked(self.processing_class, each.asked, asking.form) for each in asking.held]
        return answers.alone(self, texts, most, self._between)

    def _between(self, done: int) -> None:
        study, many = self._session.study, len(self._asking.held)
        study.progress(done, many, "answers", f"step {self.state.global_step}: held-out examples are answered")
        if self._stop.made and done < many:
            raise Stopped

    def _see(self, row: Held, scores: list[float]) -> None:
        if not self.evaluations.see(row, scores):
            self._without_gain += 1
            return
        held = {"reward": row.reward, "metric": row.metric, "length": row.length}
        held = {name: value for name, value in held.items() if math.isfinite(value)}
        weights = checkpointing.apart(checkpointing.weights(self.model))
        self._best, self._without_gain = Best(row.step, -self.evaluations.rank(row)[0], weights, held), 0

    # Between two steps

    @property
    def _has_held(self) -> bool:
        return bool(self._asking.held)

    @property
    def _epoch_ended(self) -> bool:
        """Whether held-out questions are answered after this step."""
        done = self.state.global_step
        return bool(done % self._asking.parameters.judge_every == 0 or done >= self.state.max_steps)

    def _after_step(self) -> None:
        if self._row:
            self.seen.append(Seen(step=self.state.global_step, **self._row))
            self._row = {}
        self.stopped = hacking.stops(self.seen, self.evaluations.held, self._limits)
        if self.stopped is not None:
            self._why, self.control.should_training_stop = "limit", True
            self._session.study.tally.keep_if_due()
            return
        if self._epoch_ended:
            self._keep_good()
        super()._after_step()

    def _keep_good(self) -> None:
        """Where nothing is held out, and a limit may end it: the newest weights of which nothing is suspicious."""
        if self._has_held or self._limits == Limits() or not hacking.calm(self.seen, self.evaluations.held):
            return
        self._good = self.state.global_step, checkpointing.apart(checkpointing.weights(self.model))

    # State

    def more_state(self) -> tuple[dict[str, Any], dict[str, Tensors]]:
        facts = {
            "seen": [[plain(value) for value in each] for each in self.seen],
            **self.evaluations.state(),
            "stopped": self.stopped,
            "good": self._good[0] if self._good else None,
            "rewards": self._asking.rewards.state(),
        }
        return facts, {"good": self._good[1] if self._good else {}}

    def restore_more(self, facts: dict[str, Any], tensors: Mapping[str, Tensors]) -> None:
        self.seen = [Seen(int(each[0]), *map(number, each[1:])) for each in facts["seen"]]
        self.evaluations.restore(facts, self._best.step if self._best else None)
        self.stopped = facts["stopped"]
        self._asking.rewards.restore(facts["rewards"])
        if facts["good"] is not None:
            match(tensors["good"], checkpointing.weights(self.model), "good weights")
            self._good = facts["good"], checkpointing.apart(tensors["good"])
