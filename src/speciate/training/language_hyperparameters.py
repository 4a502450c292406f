"""The options of each method that trains a language model: one class per method, and the table of them.

`distill` and `sft` have classes of their own where the task is to write, or to answer about images."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from speciate.models.language.chat_templates import Learn
from speciate.training.hyperparameters import Parameters
from speciate.training.old_option_names import Options
from speciate.training.rewards.reward_spec import DEFAULT_REWARDS, RewardSpec

TrainedWeights = Literal["lora", "full"]
AskedPrecision = Literal["auto", "float32", "bfloat16"]
RequestedTemplate = Literal["auto", "chat", "plain"]


class LanguageParameters(Parameters):
    """Of every method that trains a language model."""

    changes: TrainedWeights = Field(
        "lora", description="lora: small changes to all linear layers, merged at the end. full: every weight."
    )
    r: int = Field(16, ge=1, le=1024, description="Of lora.")
    lora_alpha: float = Field(32.0, gt=0, description="Of lora: the change is scaled by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Of lora.")
    learning_rate: float | None = Field(
        None, gt=0, le=10, description="Its highest value; none: usual for the method, ten times more with lora."
    )
    num_train_epochs: int = Field(3, ge=1, le=1000, description="Passes over the training examples, at most.")
    max_steps: int | None = Field(None, ge=1, description="Steps of the optimizer, in place of epochs.")
    batch_size: int = Field(16, ge=1, le=4096, description="Examples in each step of the optimizer.")
    per_device_train_batch_size: int | None = Field(
        None, ge=1, description="Examples in memory at once, which divide a batch; the step stays the same."
    )
    max_length: int = Field(1024, ge=8, le=1_000_000, description="Longest example in tokens; the rest is cut off.")
    weight_decay: float = Field(0.0, ge=0, le=1)
    warmup_ratio: float = Field(0.05, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    max_grad_norm: float = Field(1.0, gt=0, description="Longest gradient, as L2 norm of all of it.")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Epochs without a lower loss on held-out examples before it ends; none: all epochs."
    )
    keep: Literal["best", "last"] = Field("best", description="Weights: the best on held-out examples, or the last.")
    precision: AskedPrecision = Field(
        "auto", description="In which it computes; auto: bfloat16 where the device has it and the model is not tiny."
    )
    gradient_checkpointing: bool = Field(
        False, description="Activations are computed again on the way back: slower, less memory."
    )
    template: RequestedTemplate = Field(
        "auto", description="auto: the chat template where there is one, else plain text."
    )
    chat_template: str | None = Field(
        None, max_length=100_000, description="Jinja, or 'chatml'; in place of the tokenizer's."
    )
    system: str | None = Field(None, max_length=20_000, description="Instructions where a conversation has none.")
    judged: int = Field(100, ge=0, le=100_000, description="Validation examples that the finished model answers.")

    @property
    def answer_length(self) -> int:
        """Tokens of the model's longest answer; kept with the model."""
        raise NotImplementedError

    def planned_steps(self, learned: int) -> int:
        """Of the optimizer, at most. `learned`: training examples."""
        return self.max_steps or self.num_train_epochs * math.ceil(learned / self.batch_size)


class SupervisedParameters(LanguageParameters):
    """Of methods that learn from answers that are given to them."""

    max_new_tokens: int = Field(256, ge=1, le=32_768, description="Longest answer of the model, kept with it.")

    @property
    def answer_length(self) -> int:
        return self.max_new_tokens


class SftParameters(SupervisedParameters):
    """Of imitation: the answers of the examples are learned word by word."""

    learn: Learn = Field(
        "completion", description="completion: the last answer. assistant: each turn of the assistant. all: every word."
    )
    packing: bool = Field(False, description="Several examples in one sequence of max_length, none sees another.")


class PairParameters(SupervisedParameters):
    """Of methods that learn which of two answers is better: the target is the better one."""

    rejected: str = Field("rejected", description="Column with the worse answer.")
    lora_dropout: float = Field(0.0, ge=0, le=0, description="None: trl takes all of it away from methods of pairs.")


class DpoParameters(PairParameters):
    loss_type: Literal["sigmoid", "ipo", "hinge", "robust"] = Field(
        "sigmoid", description="What the margin is put into."
    )
    beta: float = Field(0.1, gt=0, le=100, description="How near the model stays to the base model: more is nearer.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Of robust: share of pairs that may be the wrong way round."
    )
    rpo_alpha: float = Field(0.0, ge=0, le=100, description="Weight of learning the better answer word by word, too.")

    @model_validator(mode="after")
    def _smoothed(self) -> Self:
        if self.loss_type == "robust" and not self.label_smoothing:
            raise ValueError(
                "without label_smoothing robust is sigmoid: say the share of pairs that are the wrong way round"
            )
        if self.loss_type != "robust" and self.label_smoothing:
            raise ValueError(f"{self.loss_type} knows no label_smoothing: leave it out, or choose loss_type='robust'")
        return self


class KtoParameters(PairParameters):
    batch_size: int = Field(16, ge=2, le=4096, description="Answers in each step of the optimizer, good and bad.")
    per_device_train_batch_size: int | None = Field(
        None, ge=2, description="Answers in memory at once, which divide a batch and measure the distance (KL)."
    )
    beta: float = Field(0.1, gt=0, le=100, description="How near the model stays to the base model: more is nearer.")
    desirable_weight: float = Field(1.0, ge=0, le=100, description="Of better answers.")
    undesirable_weight: float = Field(1.0, ge=0, le=100, description="Of worse answers.")

    def planned_steps(self, learned: int) -> int:
        """Each pair gives two answers."""
        return super().planned_steps(2 * learned)


class OrpoParameters(PairParameters):
    beta: float = Field(0.1, gt=0, le=100, description="Of the odds ratio, beside learning the better answer.")


class SimpoParameters(PairParameters):
    beta: float = Field(2.0, gt=0, le=100, description="Scale of the mean log-probability of a token.")
    simpo_gamma: float = Field(0.5, ge=0, le=100, description="By which the better answer should lead.")


class RewardParameters(SupervisedParameters):
    """Of a model that gives answers a number: the target is the better answer, the column `rejected` the worse one."""

    center_rewards_coefficient: float = Field(
        0.0, ge=0, le=100,
        description="Pull of the two numbers' sum to nothing (Eisenstein et al. 2023): 0.01 keeps them near 0.",
    )  # fmt: skip


class ReinforcementParameters(LanguageParameters):
    """Of methods that learn from what their own answers are worth (reinforcement learning)."""

    rewards: tuple[RewardSpec, ...] = Field(
        DEFAULT_REWARDS, max_length=16, description="What an answer is worth: the weighted sum of these."
    )
    num_generations: int = Field(
        8, ge=2, le=256, description="Answers to each question, which are compared with each other alone."
    )
    batch_size: int = Field(
        32,
        ge=2,
        le=4096,
        description="Answers in each step of the optimizer: to batch_size / num_generations questions.",
    )
    num_train_epochs: int = Field(1, ge=1, le=1000, description="Passes over the training questions, at most.")
    max_length: int = Field(
        1024, ge=8, le=1_000_000, description="Longest question in tokens; longer ones are left out."
    )
    temperature: float = Field(
        1.0, gt=0, le=5, description="Of those answers: lower ones are more alike, so less is learned of them."
    )
    top_p: float = Field(1.0, gt=0, le=1, description="Of the likeliest tokens that have this share together.")
    top_k: int = Field(0, ge=0, description="Of so many likeliest tokens; 0: of all.")
    max_completion_length: int = Field(
        128,
        ge=1,
        le=32_768,
        description="Longest answer, while it learns and afterwards: most of the time goes into it.",
    )
    beta: float = Field(
        0.02, ge=0, le=100,
        description="Pull to the base model, by the distance of their words (KL). 0: none, and it is not measured.",
    )  # fmt: skip
    num_iterations: int = Field(1, ge=1, le=16, description="Times that a set of answers is learned from.")
    epsilon: float = Field(
        0.2, gt=0, lt=1, description="Change of a word's probability that is learned at once, at most."
    )
    mask_truncated_completions: bool = Field(
        False, description="Answers that are cut at max_completion_length are not learned from."
    )
    judge_every: int = Field(
        20, ge=1, description="Steps between evaluations: greedy answers to `judged` validation examples."
    )
    keep_by: Literal["metric", "reward"] = Field(
        "metric",
        description="What `keep` and `early_stopping_patience` go by on validation examples; then the other one.",
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Evaluations without a better value on validation examples before it ends; none: all."
    )
    kl_limit: float | None = Field(
        None, gt=0, description="Nats a token from the base model, the mean of eight steps, at which it ends."
    )
    length_limit: float | None = Field(None, gt=0, description="Tokens of a mean answer at which it ends.")
    stop_on_hacking: bool = Field(
        False, description="End where the reward is pleased alone, as the report's `watched` says it."
    )

    @property
    def answer_length(self) -> int:
        return self.max_completion_length

    def planned_steps(self, learned: int) -> int:
        return self.max_steps or self.num_train_epochs * (learned // max(1, self.batch_size // self.num_generations))

    def evaluations(self, steps: int) -> int:
        """Times that held-out questions are answered: before the first step, on the way, and of the finished model."""
        return 2 + math.ceil(steps / self.judge_every)


class EnvironmentSpec(Options):
    file: str = Field(
        description="path/to/env.py:Class, with reset(**row), tools as methods, get_reward() if it likes; in a cage."
    )
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="Of the file; none: as it is at the call.")
    seconds: float = Field(10.0, gt=0, le=3600, description="For one call.")
    max_tool_calling_iterations: int = Field(4, ge=1, le=100, description="Times that tools are called in one answer.")
    weight: float = Field(1.0, ge=-1000, le=1000, description="Of get_reward, in the sum of all rewards.")


class GrpoParameters(ReinforcementParameters):
    environment: EnvironmentSpec | None = Field(
        None, description="Tools that the model calls while it answers; chat templates that trl knows alone."
    )
    loss_type: Literal["dapo", "dr_grpo", "grpo", "bnpo", "cispo"] = Field(
        "dapo",
        description="What each word counts: dapo as every other; grpo as its answer's share, which favours length.",
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="Rewards are divided by their spread: in a question's answers, in a step's, or not."
    )
    epsilon_high: float | None = Field(
        None, gt=0, le=10, description="As epsilon, of words that become likelier; none: the same. DAPO has 0.28."
    )
    importance_sampling_level: Literal["token", "sequence"] = Field(
        "token", description="What is limited by epsilon; sequence is GSPO."
    )


class RlooParameters(ReinforcementParameters):
    beta: float = Field(
        0.05, ge=0, le=100, description="Pull to the base model, taken from the reward (KL of an answer)."
    )
    normalize_advantages: bool = Field(False, description="Advantages of a step get mean 0 and spread 1.")


LANGUAGE_PARAMETERS: dict[str, type[LanguageParameters]] = {
    "sft": SftParameters,
    "dpo": DpoParameters,
    "kto": KtoParameters,
    "orpo": OrpoParameters,
    "simpo": SimpoParameters,
    "reward": RewardParameters,
    "grpo": GrpoParameters,
    "rloo": RlooParameters,
}
"""Method -> its options. A method that is entered here is entered in recipes/recipe_table.py, too."""


class LanguageDistillParameters(SupervisedParameters):
    """Of a language model that learns from others: `distill` for text-generation."""

    changes: TrainedWeights = Field("full", description="full: every weight. lora: small changes to all linear layers.")
    answers: Literal["given", "teacher", "student"] = Field(
        "given",
        description="Whose answers are learned from. given: the dataset's. teacher: those that it writes to the same "
        "questions. student: those that the student writes while it learns (on-policy).",
    )
    weight: float | None = Field(
        None, ge=0, le=1,
        description="Of the teacher's chances of what comes next (of one teacher where it has another vocabulary); the "
        "rest learns the answers word by word. None: 1, or 0 where answers are the teacher's, of another vocabulary.",
    )  # fmt: skip
    beta: float | None = Field(
        None, ge=0, le=1,
        description="From the teacher's chances. 0: all it may say (forward KL). 1: its likeliest (reverse KL). "
        "Between: Jensen-Shannon. None: 1 for the student's answers, else 0.",
    )  # fmt: skip
    temperature: float = Field(1.0, gt=0, le=100, description="Of both models' chances, and of the student's answers.")
    lmbda: float = Field(
        1.0, gt=0, le=1, description="Of steps that learn from the student's answers; the others from the dataset's."
    )
    num_hidden_layers: int | None = Field(
        None, ge=1, description="The student keeps so many of its base model's, evenly spread; none: all of them."
    )
    unlabelled: bool = Field(True, description="Learn from questions without an answer, unless answers are given.")
    control: bool = Field(False, description="Train the same student on the dataset's answers alone, to be compared.")

    @model_validator(mode="after")
    def _chances_of_own_answers(self) -> Self:
        if self.answers == "student" and self.weight not in (None, 1):
            raise ValueError("of the student's own answers nothing is learned word by word: leave weight out")
        if self.answers != "student" and self.lmbda != 1:
            raise ValueError("lmbda is about answers='student' alone")
        return self


def learns_unlabelled(parameters: Parameters) -> bool:
    """Whether a student learns from questions alone: its teacher answers them, or it does itself."""
    if not isinstance(parameters, LanguageDistillParameters):
        return False
    return parameters.unlabelled and parameters.answers != "given" and parameters.lmbda == 1


TEXT_TASKS = ("text-generation",)
LANGUAGE_VARIANTS: dict[str, type[LanguageParameters]] = {"distill": LanguageDistillParameters}
"""Method -> its options where the task is to write text; other tasks have the method, too."""


VISION_TASK = "image-text-to-text"


class VisionSftParameters(SupervisedParameters):
    """Of `sft` for image-text-to-text: the answers of the examples are learned word by word."""

    learn: Literal["completion", "assistant"] = Field(
        "completion", description="completion: the last answer. assistant: each turn of the assistant."
    )
    eyes: Literal["kept", "learned"] = Field(
        "kept", description="kept: what sees stays as it is. learned: it changes as the rest does."
    )
    side: int | None = Field(
        None, ge=16, le=16_384,
        description="Longest side of a picture in pixels, from now on: larger ones are made smaller.",
    )  # fmt: skip
    max_length: int = Field(
        2048, ge=8, le=1_000_000,
        description="Longest example in tokens, those of its pictures among them; longer ones are left out, never cut.",
    )  # fmt: skip
    batch_size: int = Field(8, ge=1, le=4096, description="Examples in each step of the optimizer.")
    template: Literal["auto", "chat"] = Field("auto", description="The chat template of the processor, always.")
    chat_template: str | None = Field(
        None, max_length=100_000, description="Jinja, in place of the processor's: contents are lists of parts."
    )


VISION_VARIANTS: dict[str, type[LanguageParameters]] = {"sft": VisionSftParameters}
"""The methods that learn it."""
