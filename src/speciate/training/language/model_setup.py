"""The language model that is trained: base model, LoRA configuration, the arguments that every trl trainer gets.

A recipe takes `load_base_model(context, parameters)`, makes its trainer with `trainer_arguments(...)` and
`lora_config(...)`, trains it durably, and returns `finished_predictor(...)`. transformers' Trainer makes the steps;
durable_trainer.py makes them resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.models import sealed
from speciate.models.language import causal_lm
from speciate.models.language.chat_templates import ChatFormat
from speciate.models.language.text_generation import Sampling
from speciate.refs import model_ref
from speciate.tasks.language_predictor import LanguagePredictor
from speciate.training.language.durable_trainer import TrainerSession, micro_batch
from speciate.training.language_hyperparameters import LanguageParameters
from speciate.training.networks.trial_steps import has_native_bfloat16
from speciate.training.training_context import TrainingContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_LORA_RATE_TIMES = 10.0
"""The usual learning rate of low-rank changes, of that of all weights (Schulman et al. 2025, "LoRA Without Regret")."""
_HELD_OUT_AT_ONCE = 8
"""Held-out examples: whatever the micro-batch, as the mean loss depends on it. Without gradients they take less room
than one example that is learned."""
_TINY_BYTES = 40_000_000
"""Bytes of weights up to which converting them costs as much as bfloat16 saves (two blocks of width 64: no gain)."""
_NO_MATTER_TO_STEPS = {"per_device_train_batch_size", "judged", "max_new_tokens", "max_completion_length"}
"""Options that a later attempt may change: what is learned stays the same."""
_NAMES_IN_DIGESTS = {
    "TokenizedExample(": "Lesson(", "TokenizedSplits(": "Lessons(", "PairTokens(prompt=": "Tokens(asked=",
    "ChatFormat(": "Form(",
}  # fmt: skip
"""What `repr` says now -> what it said when the first digests were written: checkpoints stay those of their data."""
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


class LoadedModel(NamedTuple):
    model: Any
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    """Where the weights lie that it begins with."""
    longest: int
    """Tokens that it can see."""


def load_base_model(context: TrainingContext, parameters: LanguageParameters) -> LoadedModel:
    """The base model, loaded in float32. INVALID where it is none."""
    assert context.payload.base_folder is not None, "the plan refuses fresh weights"
    folder = causal_lm.transformers_folder(Path(context.payload.base_folder), context.folders.cache)
    tokenizer = causal_lm.load_tokenizer(folder, parameters.chat_template)
    model: Any = causal_lm.load_model(folder)
    model.config.use_cache = False
    return LoadedModel(model, tokenizer, folder, causal_lm.longest(model))


def lora_config(parameters: LanguageParameters, task: str = "CAUSAL_LM", **more: Any) -> Any:
    """The configuration of peft, as trl's trainers take it; None where every weight learns."""
    if parameters.changes == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=parameters.r, lora_alpha=parameters.lora_alpha, lora_dropout=parameters.lora_dropout,  # type: ignore[arg-type]  # a float does
        target_modules="all-linear", task_type=task, **more,
    )  # fmt: skip


TrainerArguments = dict[str, Any]
"""Arguments of a configuration of trl or transformers; each class has its own and checks them."""


def trainer_arguments(context: TrainingContext, parameters: LanguageParameters, usual_rate: float) -> TrainerArguments:
    """What every configuration of trl is given. `usual_rate`: of the method, where every weight learns.

    trl's own defaults recompute activations and compute in bfloat16 whatever the device.
    """
    on_cpu = context.payload.device == "cpu"
    micro = micro_batch(parameters.batch_size, parameters.per_device_train_batch_size, context.run.memory_retries)
    rate = parameters.learning_rate or usual_rate * (_LORA_RATE_TIMES if parameters.changes == "lora" else 1)
    scratch = context.run.checkpoints / "trainer"
    return {
        "output_dir": str(scratch),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": min(_HELD_OUT_AT_ONCE, parameters.batch_size),
        "gradient_accumulation_steps": parameters.batch_size // micro,
        "num_train_epochs": parameters.num_train_epochs,
        "max_steps": parameters.max_steps or -1,
        "learning_rate": rate,
        "lr_scheduler_type": _SCHEDULES[parameters.lr_scheduler_type],
        "warmup_steps": min(parameters.warmup_ratio, 0.999),  # below 1 it is a share
        "weight_decay": parameters.weight_decay,
        "max_grad_norm": parameters.max_grad_norm,
        "seed": context.payload.spec.seed,
        "data_seed": context.payload.spec.seed,
        "use_cpu": on_cpu,
        "bf16": _in_bfloat16(context, parameters),
        "gradient_checkpointing": parameters.gradient_checkpointing,
        "dataloader_pin_memory": not on_cpu,
        "logging_nan_inf_filter": False,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "eval_strategy": "no",  # durable_trainer.py says when
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _in_bfloat16(context: TrainingContext, parameters: LanguageParameters) -> bool:
    """A function of model and device alone, so that an attempt that resumes computes as the one before it."""
    if parameters.precision != "auto":
        return parameters.precision == "bfloat16"
    assert context.payload.base_folder is not None
    weights = (each for each in Path(context.payload.base_folder).iterdir() if each.suffix in (".safetensors", ".gguf"))
    return sum(each.stat().st_size for each in weights) > _TINY_BYTES and has_native_bfloat16(context.payload.device)


def make_session(
    context: TrainingContext, parameters: LanguageParameters, learner: LoadedModel, data: str, **more: Any
) -> TrainerSession:
    """`data`: what `digest` says of the examples as they are learned."""
    known = parameters.model_dump(mode="json", exclude=_NO_MATTER_TO_STEPS)
    identity: Mapping[str, Any] = {
        "method": context.payload.spec.method,
        "parameters": known,
        "seed": context.payload.spec.seed,
        "base": _base_identity(context, learner.folder),
        "data": data,
    }
    return TrainerSession(
        context, identity, type(parameters), parameters.early_stopping_patience, parameters.keep == "best", **more
    )


def _base_identity(context: TrainingContext, folder: Path) -> str:
    """What says in a checkpoint whether a later attempt begins with the same weights."""
    if (folder / sealed.MANIFEST).is_file():
        return sealed.check(folder)
    named = context.payload.spec.base_model or ""
    return named if model_ref(named).source == "path" else str(folder)  # each attempt has a copy of its own


def digest(*parts: Any) -> str:
    """sha256 of what repr says of it, with the classes' names as checkpoints know them."""
    found = hashlib.sha256()
    for part in parts:
        text = repr(part)
        for name, former in _NAMES_IN_DIGESTS.items():
            text = text.replace(name, former)
        found.update(text.encode())
    return found.hexdigest()


def finished_predictor(
    context: TrainingContext,
    trainer: Any,
    learner: LoadedModel,
    chat_format: ChatFormat,
    parameters: LanguageParameters,
) -> LanguagePredictor:
    """The model as it is served."""
    sampling = Sampling(max_new_tokens=parameters.answer_length)
    return LanguagePredictor(merge_adapters(trainer), learner.tokenizer, chat_format, sampling, context.payload.task)


def merge_adapters(trainer: Any) -> Any:
    """The model of a trainer with its changes in its weights, on the processor."""
    model = trainer.model
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model = model.cpu().eval()
    model.config.use_cache = True
    return model
