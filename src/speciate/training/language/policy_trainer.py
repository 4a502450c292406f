"""A trl trainer that learns from rewards (GRPO, RLOO), made durable and watched for reward hacking.

`make_policy_trainer(GRPOTrainer)` adds greedy answers to held-out questions every so many steps, of which the best
evaluation decides what is kept, as no loss says how good a policy is; statistics of its answers; and the limits that
end it (reward_hacking.py decides, here it is carried out)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from speciate.jobs.run import Stopped
from speciate.models.language import causal_lm, chat_templates
from speciate.models.language.chat_templates import ChatFormat
from speciate.models.language.text_generation import GeneratedText, Sampling, generate
from speciate.training.language import answer_validation, reward_hacking, trainer_checkpoint
from speciate.training.language.durable_trainer import DurableTrainer, TrainerEnding
from speciate.training.language.questions import Question
from speciate.training.language.reward_hacking import (
    Evaluations,
    HeldOutEvaluation,
    Limits,
    StepStatistics,
    measure_wording,
    or_nan,
    or_none,
)
from speciate.training.language.trainer_checkpoint import Best
from speciate.training.language_hyperparameters import ReinforcementParameters
from speciate.training.networks.training_checkpoints import CheckpointFacts, Tensors, check_names
from speciate.training.rewards import reward_functions
from speciate.training.rewards.reward_functions import RewardFunctions
from speciate.training.rewards.tool_environment import EnvironmentHost
from speciate.vocabulary import find_metric

_LOGGED_NAMES = {
    "reward": "reward", "length": "completions/mean_length", "cut": "completions/clipped_ratio",
    "distinct": "completions/distinct", "alike": "completions/alike", "entropy": "entropy", "kl": "kl",
    "no_spread": "rewards/no_spread",
}  # fmt: skip
"""Figure of a step -> what trl, or `_calculate_rewards` here, calls it."""


class PolicyEvaluation(NamedTuple):
    """What a training by reward is judged by."""

    rewards: RewardFunctions
    held: Sequence[Question]
    form: ChatFormat
    parameters: ReinforcementParameters
    held_rows: Any
    """The held-out questions as trl's trainers take them."""


def make_policy_trainer(trainer: type[Any]) -> type[Any]:
    """The class; `ask(asking)` and `begin(session)` come first, then `go`."""
    return type(f"Rewarded{trainer.__name__}", (_PolicyTrainer, DurableTrainer, trainer), {})


class _PolicyTrainer(DurableTrainer):
    # The trainer's
    accelerator: Any
    processing_class: Any
    num_generations: int
    reward_weights: Any
    _metrics: Any

    def ask(self, asking: PolicyEvaluation) -> None:
        given = asking.parameters
        self._asking = asking
        self._limits = Limits(given.kl_limit, given.length_limit, given.stop_on_hacking)
        self.seen: list[StepStatistics] = []
        judged = [each.example for each in asking.held if each.reference is not None]
        self.evaluations = Evaluations([each.group or each.id for each in judged], given.keep_by)
        self.stopped: str | None = None
        """Why a limit ended it."""
        self._good: tuple[int, Tensors] | None = None
        self._ended_at = 0
        self._row: dict[str, float] = {}

    def go(self) -> TrainerEnding:
        ending = super().go()
        self._ended_at = ending.steps
        if self._why != "limit" or (self._best is not None and self._session.keep_best):
            return ending
        step, weights = (self._best.step, self._best.weights) if self._best else self._good or (0, {})
        if weights:
            trainer_checkpoint.copy_weights(weights, self.model)
            ending = ending._replace(step=step)
        return ending

    @property
    def kept_step(self) -> int:
        """Step whose weights are in place now; there may be no evaluation of that step."""
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
        said = measure_wording(completion_ids_list, self.num_generations)
        for name, value in zip(("p95_length", "distinct", "alike"), said, strict=True):
            self._metrics["train"][f"completions/{name}"].append(value)
        found = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # type: ignore[misc]
        rewards = reward_functions.weighted_sums(found.tolist(), self.reward_weights.tolist())
        self._metrics["train"]["rewards/no_spread"].append(reward_hacking.no_spread(rewards, self.num_generations))
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)  # type: ignore[misc]
        if "loss" in logs:
            self._row = {name: or_nan(logs.get(own)) for name, own in _LOGGED_NAMES.items()}

    def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
        """Greedy answers to the held-out questions. Raises Stopped between batches: the steps since the last checkpoint
        are made again, for this is part of the step before."""
        context, asking = self._session.context, self._asking
        self._chance.begin(0)
        with context.meter.stage("judging"):
            written, worth = self._answers()
            texts = [each.text for each in written]
            rewards = [each for each in asking.rewards.sums(asking.held, texts, worth) if math.isfinite(each)]
            metric = answer_validation.score_texts(context, [each.example for each in asking.held], texts)
        lengths = [each.tokens for each in written]
        reward = sum(rewards) / len(rewards) if rewards else math.nan
        sign = find_metric(context.payload.objective.metric).sign
        row = HeldOutEvaluation(
            self.state.global_step, reward, sign * metric.estimate.value if metric else math.nan,
            metric.estimate.standard_error if metric else math.nan, sum(lengths) / max(1, len(lengths)),
        )  # fmt: skip
        self._see(row, metric.scores if metric else [])
        figures = {
            "held_reward": reward, "held_metric": sign * row.metric, "held_length": row.length,
            "held_step": float(row.step),
        }  # fmt: skip
        self._log.judged(math.nan, sign * row.metric if math.isfinite(row.metric) else reward, figures)
        return {}

    def _answers(self) -> GreedyAnswers:
        asking, most = self._asking, self._asking.parameters.max_completion_length
        if asking.rewards.host is not None:
            return answer_in_environments(self, asking.held_rows, asking.rewards.host, most, self._between)
        texts = [chat_templates.render_prompt(self.processing_class, each.prompt, asking.form) for each in asking.held]
        return answer_alone(self, texts, most, self._between)

    def _between(self, done: int) -> None:
        context, many = self._session.context, len(self._asking.held)
        context.progress(done, many, "answers", f"step {self.state.global_step}: held-out examples are answered")
        if self._stop.made and done < many:
            raise Stopped

    def _see(self, row: HeldOutEvaluation, scores: list[float]) -> None:
        if not self.evaluations.see(row, scores):
            self._without_gain += 1
            return
        held = {"reward": row.reward, "metric": row.metric, "length": row.length}
        held = {name: value for name, value in held.items() if math.isfinite(value)}
        weights = trainer_checkpoint.copy_to_cpu(trainer_checkpoint.trained_weights(self.model))
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
            self.seen.append(StepStatistics(step=self.state.global_step, **self._row))
            self._row = {}
        self.stopped = reward_hacking.stop_reason(self.seen, self.evaluations.held, self._limits)
        if self.stopped is not None:
            self._why, self.control.should_training_stop = "limit", True
            self._session.context.meter.keep_if_due()
            return
        if self._epoch_ended:
            self._keep_good()
        super()._after_step()

    def _keep_good(self) -> None:
        """Where nothing is held out, and a limit may end it: the newest weights of which nothing is suspicious."""
        if (
            self._has_held
            or self._limits == Limits()
            or not reward_hacking.nothing_suspicious(self.seen, self.evaluations.held)
        ):
            return
        self._good = (
            self.state.global_step,
            trainer_checkpoint.copy_to_cpu(trainer_checkpoint.trained_weights(self.model)),
        )

    # State

    def more_state(self) -> tuple[CheckpointFacts, dict[str, Tensors]]:
        facts = {
            "seen": [[or_none(value) for value in each] for each in self.seen],
            **self.evaluations.state(),
            "stopped": self.stopped,
            "good": self._good[0] if self._good else None,
            "rewards": self._asking.rewards.state(),
        }
        return facts, {"good": self._good[1] if self._good else {}}

    def restore_more(self, facts: CheckpointFacts, tensors: Mapping[str, Tensors]) -> None:
        self.seen = [StepStatistics(int(each[0]), *map(or_nan, each[1:])) for each in facts["seen"]]
        self.evaluations.restore(facts, self._best.step if self._best else None)
        self.stopped = facts["stopped"]
        self._asking.rewards.restore(facts["rewards"])
        if facts["good"] is not None:
            check_names(tensors["good"], trainer_checkpoint.trained_weights(self.model), "good weights")
            self._good = facts["good"], trainer_checkpoint.copy_to_cpu(tensors["good"])


_QUESTIONS_TOGETHER = 16
"""Questions that are played together."""


class GreedyAnswers(NamedTuple):
    """Greedy answers to held-out questions, by the model alone or in its environments."""

    written: list[GeneratedText]
    worth: list[float | None]
    """What their environments say of each; empty where there are none, or they say nothing."""


def answer_alone(trainer: Any, texts: Sequence[str], most: int, between: Callable[[int], None]) -> GreedyAnswers:
    """`most`: tokens of an answer. `between` is called between batches, with how many are answered."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    training, cached = model.training, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    try:
        written = generate(
            model, trainer.processing_class, texts, Sampling(max_new_tokens=most), longest=causal_lm.longest(model),
            between=between,
        )  # fmt: skip
    finally:
        model.train(training)
        model.config.use_cache = cached
    counted = [each._replace(tokens=each.tokens + each.finished) for each in written]  # trl counts the end, too
    return GreedyAnswers(counted, [])


def answer_in_environments(
    trainer: Any, rows: Any, host: EnvironmentHost, most: int, between: Callable[[int], None]
) -> GreedyAnswers:
    """As `alone`, of rows as trl takes them: as trl's `_generate_and_score_completions` (1.16) goes about it, but
    greedily."""
    from transformers import GenerationConfig

    make: Any = GenerationConfig
    drawn = trainer.generation_config
    same = {name: getattr(drawn, name) for name in ("max_new_tokens", "eos_token_id", "pad_token_id", "bos_token_id")}
    trainer.generation_config = make(**same, do_sample=False, disable_compile=True)
    training = trainer.accelerator.unwrap_model(trainer.model).training
    trainer.model.eval()
    found = GreedyAnswers([], [])
    try:
        for start in range(0, len(rows), _QUESTIONS_TOGETHER):
            between(start)
            places = range(start, min(len(rows), start + _QUESTIONS_TOGETHER))
            some = _answer_with_tools(trainer, [dict(rows[place]) for place in places], host, most)
            found.written.extend(some.written)
            found.worth.extend(some.worth)
    finally:
        trainer.generation_config = drawn
        trainer.model.train(training)
        trainer._metrics["eval"].clear()
    return found


def _answer_with_tools(
    trainer: Any, rows: Sequence[Mapping[str, Any]], host: EnvironmentHost, most: int
) -> GreedyAnswers:
    """An environment for each of `question_rows`, with its tools where trl looks for them."""
    pool = trainer._environment_pool[None]
    pool += [host.kind() for _ in range(len(rows) - len(pool))]
    trainer.environments = pool[: len(rows)]
    trainer._batch_environments = [None] * len(rows)
    names = [each.name for each in host.described.tools]
    trainer._sync_tool_dicts = [{name: getattr(each, name) for name in names} for each in trainer.environments]
    trainer._async_tool_dicts = [{} for _ in rows]
    prompts = []
    for each, row in zip(trainer.environments, rows, strict=True):
        said, prompt = each.reset(**row), row["prompt"]
        last = prompt[-1] | {"content": prompt[-1]["content"] + (said or "")}
        prompts.append([*prompt[:-1], last])
    found = trainer._generate(prompts)
    written = [
        GeneratedText(reward_functions.answer_text(completion), len(ids), len(ids) < most, len(asked))
        for asked, ids, completion in zip(found[0], found[1], found[3], strict=True)
    ]
    return GreedyAnswers(written, [each._reward() for each in trainer.environments] if host.described.rewards else [])
