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
    """Options of every method that trains a language model."""

    changes: TrainedWeights = Field(
        "lora", description="lora: adapters beside all linear layers, merged at the end. full: every weight."
    )
    r: int = Field(16, ge=1, le=1024, description="LoRA: rank of the adapters.")
    lora_alpha: float = Field(32.0, gt=0, description="LoRA: adapters are scaled by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="LoRA: dropout before the adapters.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description="Peak learning rate; default: the usual one of the method, ten times as much with LoRA.",
    )
    num_train_epochs: int = Field(3, ge=1, le=1000, description="Most passes over the training examples.")
    max_steps: int | None = Field(None, ge=1, description="Steps of the optimizer, in place of epochs.")
    batch_size: int = Field(
        16, ge=1, le=4096, description="Examples in each step of the optimizer, with gradient accumulation."
    )
    per_device_train_batch_size: int | None = Field(
        None, ge=1, description="Examples in memory at once, a divisor of batch_size, which stays."
    )
    max_length: int = Field(
        1024, ge=8, le=1_000_000, description="Longest example in tokens; longer ones are truncated."
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's weight decay.")
    warmup_ratio: float = Field(0.05, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="The learning rate after the warm-up; constant is transformers' constant_with_warmup."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this L2 norm.")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Epochs without a lower loss on held-out examples before training ends; default: never."
    )
    keep: Literal["best", "last"] = Field(
        "best", description="Keep the weights that are best on held-out examples, or the last."
    )
    precision: AskedPrecision = Field(
        "auto", description="auto: bfloat16 where the device has it and the model is not tiny."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: slower, less memory."
    )
    template: RequestedTemplate = Field("auto", description="auto: the chat template if there is one, else plain text.")
    chat_template: str | None = Field(
        None, max_length=100_000, description="Jinja, or 'chatml'; replaces the tokenizer's."
    )
    system: str | None = Field(None, max_length=20_000, description="System message of conversations that have none.")
    judged: int = Field(
        100, ge=0, le=100_000, description="Validation examples that the finished model answers, to measure the metric."
    )

    @property
    def answer_length(self) -> int:
        """Tokens of the model's longest answer; kept with the model."""
        raise NotImplementedError

    def planned_steps(self, learned: int) -> int:
        """Steps of the optimizer, at most. `learned`: training examples."""
        return self.max_steps or self.num_train_epochs * math.ceil(learned / self.batch_size)


class SupervisedParameters(LanguageParameters):
    """Options of methods that learn from given answers."""

    max_new_tokens: int = Field(256, ge=1, le=32_768, description="Longest answer in tokens; kept with the model.")

    @property
    def answer_length(self) -> int:
        return self.max_new_tokens


class SftParameters(SupervisedParameters):
    """Options of `sft`: learn the answers of the examples word by word."""

    learn: Learn = Field(
        "completion",
        description="Targets. completion: the last answer. assistant: each turn of the assistant. all: all tokens.",
    )
    packing: bool = Field(
        False, description="Put several examples into one sequence of max_length; none attends to another."
    )


class PairParameters(SupervisedParameters):
    """Options of methods that learn which of two answers is better: the target is the better one."""

    rejected: str = Field("rejected", description="Column with the worse answer.")
    lora_dropout: float = Field(0.0, ge=0, le=0, description="Always 0: trl disables dropout in methods of pairs.")


class DpoParameters(PairParameters):
    loss_type: Literal["sigmoid", "ipo", "hinge", "robust"] = Field(
        "sigmoid", description="trl's loss of the margin between the two answers."
    )
    beta: float = Field(0.1, gt=0, le=100, description="Pull to the base model: more stays nearer.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="For loss_type=robust: share of pairs whose order may be wrong."
    )
    rpo_alpha: float = Field(
        0.0, ge=0, le=100, description="Weight of the SFT loss on the better answer, beside the pair loss."
    )

    @model_validator(mode="after")
    def _smoothed(self) -> Self:
        if self.loss_type == "robust" and not self.label_smoothing:
            raise ValueError("loss_type='robust' needs label_smoothing: the share of pairs whose order may be wrong")
        if self.loss_type != "robust" and self.label_smoothing:
            raise ValueError(
                f"loss_type={self.loss_type!r} has no label_smoothing: leave it out, or choose loss_type='robust'"
            )
        return self


class KtoParameters(PairParameters):
    batch_size: int = Field(
        16, ge=2, le=4096, description="Answers in each step of the optimizer, better and worse ones."
    )
    per_device_train_batch_size: int | None = Field(
        None, ge=2, description="Answers in memory at once, a divisor of batch_size; they measure the distance (KL)."
    )
    beta: float = Field(0.1, gt=0, le=100, description="Pull to the base model: more stays nearer.")
    desirable_weight: float = Field(1.0, ge=0, le=100, description="Weight of better answers.")
    undesirable_weight: float = Field(1.0, ge=0, le=100, description="Weight of worse answers.")

    def planned_steps(self, learned: int) -> int:
        """Each pair gives two answers."""
        return super().planned_steps(2 * learned)


class OrpoParameters(PairParameters):
    beta: float = Field(
        0.1, gt=0, le=100, description="Weight of the odds ratio, beside the SFT loss on the better answer."
    )


class SimpoParameters(PairParameters):
    beta: float = Field(2.0, gt=0, le=100, description="Scale of the mean log-probability per token.")
    simpo_gamma: float = Field(0.5, ge=0, le=100, description="Margin by which the better answer should lead.")


class RewardParameters(SupervisedParameters):
    """Options of `reward`: score answers. The target is the better answer, the column `rejected` the worse one."""

    center_rewards_coefficient: float = Field(
        0.0, ge=0, le=100,
        description="Pull of the two scores' sum to 0 (Eisenstein et al. 2023): 0.01 keeps them near 0.",
    )  # fmt: skip


class ReinforcementParameters(LanguageParameters):
    """Options of methods that learn from rewards of their own answers (reinforcement learning)."""

    rewards: tuple[RewardSpec, ...] = Field(
        DEFAULT_REWARDS,
        max_length=16,
        description="An answer is worth the weighted sum of these; each has its weight, in place of reward_weights.",
    )
    num_generations: int = Field(
        8, ge=2, le=256, description="Answers to each question, which are compared with each other."
    )
    batch_size: int = Field(
        32,
        ge=2,
        le=4096,
        description="Answers in each step of the optimizer, to batch_size / num_generations questions.",
    )
    num_train_epochs: int = Field(1, ge=1, le=1000, description="Most passes over the training questions.")
    max_length: int = Field(
        1024, ge=8, le=1_000_000, description="Longest question in tokens; longer ones are excluded."
    )
    temperature: float = Field(
        1.0, gt=0, le=5, description="Sampling temperature: at lower ones answers differ less, and less is learned."
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Sample from the most likely tokens that have this probability together."
    )
    top_k: int = Field(0, ge=0, description="Sample from so many most likely tokens; 0: from all.")
    max_completion_length: int = Field(
        128,
        ge=1,
        le=32_768,
        description="Longest answer in tokens, in training and afterwards; most of the time goes into it.",
    )
    beta: float = Field(
        0.02, ge=0, le=100,
        description="Pull to the base model, by the KL divergence per token. 0: none, and it is not measured.",
    )  # fmt: skip
    num_iterations: int = Field(1, ge=1, le=16, description="Times that a set of answers is learned from.")
    epsilon: float = Field(
        0.2, gt=0, lt=1, description="Clipping range: the most that a token's probability ratio changes at once."
    )
    mask_truncated_completions: bool = Field(
        False, description="Do not learn from answers that are cut at max_completion_length."
    )
    judge_every: int = Field(
        20, ge=1, description="Steps between evaluations: greedy answers to `judged` validation examples."
    )
    keep_by: Literal["metric", "reward"] = Field(
        "metric",
        description="What `keep` and `early_stopping_patience` compare on validation examples; ties by the other.",
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Evaluations without a better value before training ends; default: never."
    )
    kl_limit: float | None = Field(
        None, gt=0, description="Nats per token from the base model, the mean of eight steps, at which training ends."
    )
    length_limit: float | None = Field(None, gt=0, description="Mean answer length in tokens at which training ends.")
    stop_on_hacking: bool = Field(
        False, description="End at signs of reward hacking, as the report's `watched` has them."
    )

    @property
    def answer_length(self) -> int:
        return self.max_completion_length

    def planned_steps(self, learned: int) -> int:
        return self.max_steps or self.num_train_epochs * (learned // max(1, self.batch_size // self.num_generations))

    def evaluations(self, steps: int) -> int:
        """Times that held-out questions are answered: before the first step, in between, and by the finished model."""
        return 2 + math.ceil(steps / self.judge_every)


class EnvironmentSpec(Options):
    file: str = Field(
        description="path/to/env.py:Class, with reset(**row), tools as methods, maybe get_reward(); runs in a sandbox."
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="Of the file; default: as it is at the call."
    )
    seconds: float = Field(10.0, gt=0, le=3600, description="Time limit of one call.")
    max_tool_calling_iterations: int = Field(4, ge=1, le=100, description="Rounds of tool calls in one answer.")
    weight: float = Field(1.0, ge=-1000, le=1000, description="Weight of get_reward in the sum of all rewards.")


class GrpoParameters(ReinforcementParameters):
    environment: EnvironmentSpec | None = Field(
        None, description="Tools that the model calls while it answers; only with chat templates that trl knows."
    )
    loss_type: Literal["dapo", "dr_grpo", "grpo", "bnpo", "cispo"] = Field(
        "dapo",
        description="Weight of tokens. dapo: all alike. grpo: by share of their answer, which favours length.",
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="Divide rewards by their spread: within a question, within a step, or not."
    )
    epsilon_high: float | None = Field(
        None,
        gt=0,
        le=10,
        description="As epsilon, for tokens that become more likely; default: epsilon. DAPO has 0.28.",
    )
    importance_sampling_level: Literal["token", "sequence"] = Field(
        "token", description="What epsilon clips; sequence is GSPO."
    )


class RlooParameters(ReinforcementParameters):
    beta: float = Field(
        0.05, ge=0, le=100, description="Pull to the base model, subtracted from the reward (KL of an answer)."
    )
    normalize_advantages: bool = Field(False, description="Scale the advantages of a step to mean 0 and spread 1.")


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
    """Options of `distill` for text-generation: a language model learns from others."""

    changes: TrainedWeights = Field("full", description="full: every weight. lora: adapters beside all linear layers.")
    answers: Literal["given", "teacher", "student"] = Field(
        "given",
        description="Answers to learn from. given: the dataset's. teacher: its own answers to the same questions. "
        "student: those that the student writes while it learns (on-policy).",
    )
    weight: float | None = Field(
        None, ge=0, le=1,
        description="Weight of the teacher's next-token probabilities (one teacher, if of another vocabulary); the "
        "rest is the SFT loss. Default: 1, or 0 for answers of a teacher with another vocabulary.",
    )  # fmt: skip
    beta: float | None = Field(
        None, ge=0, le=1,
        description="Divergence from the teacher, as in GKD. 0: forward KL. 1: reverse KL. Between: generalised "
        "Jensen-Shannon. Default: 1 for the student's answers, else 0.",
    )  # fmt: skip
    temperature: float = Field(
        1.0, gt=0, le=100, description="Softens both models' probabilities; also samples the student's answers."
    )
    lmbda: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of steps that learn from the student's answers, as in GKD; the others from the dataset's.",
    )
    num_hidden_layers: int | None = Field(
        None, ge=1, description="The student keeps so many layers of its base model, evenly spread; default: all."
    )
    unlabelled: bool = Field(True, description="Also learn from questions without an answer, unless answers=given.")
    control: bool = Field(
        False, description="Also train the same student on the dataset's answers alone, for comparison."
    )

    @model_validator(mode="after")
    def _check_own_answers(self) -> Self:
        if self.answers == "student" and self.weight not in (None, 1):
            raise ValueError("the student's own answers have no SFT loss: leave weight out")
        if self.answers != "student" and self.lmbda != 1:
            raise ValueError("lmbda applies only to answers='student'")
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
    """Options of `sft` for image-text-to-text: learn the answers of the examples word by word."""

    learn: Literal["completion", "assistant"] = Field(
        "completion", description="Targets. completion: the last answer. assistant: each turn of the assistant."
    )
    eyes: Literal["kept", "learned"] = Field(
        "kept", description="Vision encoder. kept: frozen. learned: trained as the rest."
    )
    side: int | None = Field(
        None, ge=16, le=16_384,
        description="Longest side of an image in pixels, from now on; larger ones are resized.",
    )  # fmt: skip
    max_length: int = Field(
        2048, ge=8, le=1_000_000,
        description="Longest example in tokens, with those of its images; longer ones are excluded, never cut.",
    )  # fmt: skip
    batch_size: int = Field(8, ge=1, le=4096, description="Examples in each step of the optimizer.")
    template: Literal["auto", "chat"] = Field("auto", description="Always the processor's chat template.")
    chat_template: str | None = Field(
        None, max_length=100_000, description="Jinja, replaces the processor's: contents are lists of parts."
    )


VISION_VARIANTS: dict[str, type[LanguageParameters]] = {"sft": VisionSftParameters}
"""The methods that learn it."""
