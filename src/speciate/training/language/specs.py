"""What can be set of a training of a language model: a class per method, in one table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from speciate.language.forms import Learn
from speciate.training.hyperparameters import Parameters

Changes = Literal["lora", "full"]
AskedTemplate = Literal["auto", "chat", "plain"]


class LanguageParameters(Parameters):
    """Of every method that trains a language model."""

    changes: Changes = Field(
        "lora", description="lora: small changes to all linear layers, merged at the end. full: every weight."
    )
    rank: int = Field(16, ge=1, le=1024, description="Of lora.")
    alpha: float = Field(32.0, gt=0, description="Of lora: the change is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Of lora.")
    learning_rate: float | None = Field(
        None, gt=0, le=10, description="Its highest value; none: usual for the method, ten times more with lora."
    )
    epochs: int = Field(3, ge=1, le=1000, description="Passes over the training examples, at most.")
    steps: int | None = Field(None, ge=1, description="Steps of the optimizer, in place of epochs.")
    batch_size: int = Field(16, ge=1, le=4096, description="Examples in each step of the optimizer.")
    micro_batch: int | None = Field(
        None, ge=1, description="Examples in memory at once, which divide a batch; the step stays the same."
    )
    max_length: int = Field(1024, ge=8, le=1_000_000, description="Longest example in tokens; the rest is cut off.")
    weight_decay: float = Field(0.0, ge=0, le=1)
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip: float = Field(1.0, gt=0, description="Longest gradient, as L2 norm of all of it.")
    patience: int | None = Field(
        None, ge=1, description="Epochs without a lower loss on held-out examples before it ends; none: all epochs."
    )
    keep: Literal["best", "last"] = Field("best", description="Weights: the best on held-out examples, or the last.")
    recompute: bool = Field(False, description="Activations are computed again on the way back: slower, less memory.")
    template: AskedTemplate = Field("auto", description="auto: the chat template where there is one, else plain text.")
    chat_template: str | None = Field(
        None, max_length=100_000, description="Jinja, or 'chatml'; in place of the tokenizer's."
    )
    system: str | None = Field(None, max_length=20_000, description="Instructions where a conversation has none.")
    max_new_tokens: int = Field(256, ge=1, le=32_768, description="Longest answer of the model, kept with it.")
    judged: int = Field(100, ge=0, le=100_000, description="Validation examples that the finished model answers.")


class SftParameters(LanguageParameters):
    """Of imitation: the answers of the examples are learned word by word."""

    learn: Learn = Field(
        "completion", description="completion: the last answer. assistant: each turn of the assistant. all: every word."
    )
    packing: bool = Field(False, description="Several examples in one sequence of max_length, none sees another.")


class PairParameters(LanguageParameters):
    """Of methods that learn which of two answers is better: the target is the better one."""

    rejected: str = Field("rejected", description="Column with the worse answer.")


class DpoParameters(PairParameters):
    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = Field("sigmoid", description="What the margin is put into.")
    beta: float = Field(0.1, gt=0, le=100, description="How near the model stays to the base model: more is nearer.")
    smoothing: float = Field(0.0, ge=0, lt=0.5, description="Share of pairs that may be the wrong way round.")
    imitation: float = Field(0.0, ge=0, le=100, description="Weight of learning the better answer word by word, too.")


class KtoParameters(PairParameters):
    beta: float = Field(0.1, gt=0, le=100, description="How near the model stays to the base model: more is nearer.")
    good_weight: float = Field(1.0, ge=0, le=100, description="Of better answers.")
    bad_weight: float = Field(1.0, ge=0, le=100, description="Of worse answers.")


class OrpoParameters(PairParameters):
    weight: float = Field(0.1, gt=0, le=100, description="Of the odds ratio, beside learning the better answer.")


class SimpoParameters(PairParameters):
    beta: float = Field(2.0, gt=0, le=100, description="Scale of the mean log-probability of a token.")
    margin: float = Field(0.5, ge=0, le=100, description="By which the better answer should lead.")


LANGUAGE_PARAMETERS: dict[str, type[LanguageParameters]] = {
    "sft": SftParameters,
    "dpo": DpoParameters,
    "kto": KtoParameters,
    "orpo": OrpoParameters,
    "simpo": SimpoParameters,
}
"""Method -> what can be set of it. A method that is entered here is entered in recipes.py, too."""
