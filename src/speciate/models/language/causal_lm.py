"""Causal language models: recognising a folder with one, loading model and tokenizer, and scoring texts with one
number.

A base model is a folder of transformers with safetensors and a tokenizer, or GGUF weights of a package, which are
converted into the cache first. Nothing is downloaded and no code of a folder runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models import model_folder, packaged
from speciate.models.backbones.contract import ModelConfig
from speciate.models.declared_size import check_declared_counts, check_declared_size, unfilled
from speciate.models.language.chat_templates import CHATML
from speciate.models.language.gguf import convert_gguf

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


_CAUSAL = ("ForCausalLM", "LMHeadModel")
"""Endings of the names of such architectures."""
_POSITION_TABLES = ("wpe", "position_embeddings", "embed_positions", "position_embedding")
"""Names of modules with a learned embedding for each position."""
_BATCH = 16
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
Precision = Literal["float32", "bfloat16"]


def is_causal_lm(folder: Path) -> bool:
    """Whether a folder holds a causal language model (by its config.json), or GGUF weights of one."""
    if packaged_weights(folder) is not None:
        return True
    return is_named(config(folder), _CAUSAL)


def config(folder: Path) -> ModelConfig:
    """The folder's config.json; empty if there is none that can be read."""
    try:
        found = foreign_files.read_json(folder / "config.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_named(config: Mapping[str, Any], endings: str | tuple[str, ...]) -> bool:
    """Whether a config names an architecture with one of these endings."""
    named = config.get("architectures")
    return isinstance(named, list) and any(isinstance(name, str) and name.endswith(endings) for name in named)


def check(folder: Path, ref: str) -> None:
    """Raise INVALID if a language model cannot be trained from the folder. Reads headers alone."""
    if not is_causal_lm(folder):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} writes no text: its config.json names no architecture that ends in ForCausalLM.",
            f"Use a causal language model: {' or '.join(f'pkg:{name}' for name in language_packages())}, path:/dir, or "
            "one that register_model fetched.",
        )
    if packaged_weights(folder) is None:
        model_folder.weight_files(folder)
        if not any((folder / name).is_file() for name in _TOKENIZERS):
            raise SpeciateError(
                Code.INVALID, f"{ref!r} has no tokenizer beside its weights.", "Save it with save_pretrained as well."
            )


def language_packages() -> list[str]:
    """Names of the packages whose weights write text."""
    return [name for name, entry in packaged.PACKAGED.items() if entry.task == "text-generation"]


def packaged_weights(folder: Path) -> Path | None:
    """The GGUF file of a package's folder."""
    entries = (entry for entry in packaged.PACKAGED.values() if entry.weights)
    return next(
        (folder / entry.weights for entry in entries if entry.weights and (folder / entry.weights).is_file()), None
    )


def transformers_folder(folder: Path, cache: Path) -> Path:
    """The folder that transformers reads: itself, or its converted GGUF weights."""
    found = packaged_weights(folder)
    return folder if found is None else convert_gguf(found, cache)


def load_tokenizer(folder: Path, template: str | None = None) -> PreTrainedTokenizerBase:
    """`template`: replaces its own; `chatml` names the one of this package. Pads on the left."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:
        raise unreadable(folder, f"its tokenizer: {type(error).__name__}", error) from error
    if not tokenizer.is_fast:
        raise unreadable(folder, "its tokenizer has no tokenizer.json, which tells where each token stands")
    if template is not None:
        tokenizer.chat_template = CHATML if template == "chatml" else template
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer  # type: ignore[no-any-return]


def load_model(folder: Path, precision: Precision = "float32") -> torch.nn.Module:
    """The model in eval mode, on the CPU. Raises INVALID if weights are missing or left over."""
    import torch
    from transformers import AutoModelForCausalLM

    model = load_complete(AutoModelForCausalLM, folder, dtype=getattr(torch, precision))
    number_positions_by_mask(model)
    model.eval()
    return model  # type: ignore[no-any-return]


def load_complete(auto_class: Any, folder: Path, **options: Any) -> Any:
    """A model of one of transformers' auto classes. Raises INVALID if weights are missing or of another shape."""
    model, info = load_pretrained(auto_class, folder, **options)
    lost = sorted(info["missing_keys"]) + [str(each) for each in info["mismatched_keys"]]
    if lost:
        raise unreadable(folder, f"its weights lack {', '.join(map(str, lost[:3]))}")
    return model


LoadingInfo = dict[str, Any]
"""transformers' `output_loading_info`: missing, unexpected and mismatched keys."""
ForwardArguments = dict[str, Any]
"""Keyword arguments of a network's `forward`: tensors, and flags of its class."""


def load_pretrained(auto_class: Any, folder: Path, why: str = "", **options: Any) -> tuple[Any, LoadingInfo]:
    """A model of one of transformers' auto classes with its loading info, from safetensors in the folder, without a
    network and without code of the folder. Raises INVALID, with `why` before the name of the library's error."""
    from transformers import AutoConfig
    from transformers.utils import logging

    quiet: Any = logging.disable_progress_bar
    quiet()
    try:
        check_declared_counts(folder)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        check_declared_size(folder, lambda: auto_class.from_config(config))
        with unfilled():
            model, info = auto_class.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True,
                **options,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise unreadable(folder, f"{why}{type(error).__name__}", error) from error
    return model, info


def longest(model: Any) -> int:
    """Tokens of a model's context."""
    return int(getattr(model.config, "max_position_embeddings", None) or 2048)


def unreadable(folder: Path, why: str, error: Exception | None = None) -> SpeciateError:
    """`error`: a library's, whose message may quote the files."""
    return SpeciateError(
        Code.INVALID,
        f"The language model in {folder} cannot be loaded: {why}",
        "Use another base model, or save this one again with save_pretrained.",
        str(error or ""),
    )


def number_positions_by_mask(model: Any) -> None:
    """From now on a forward pass without position ids and without a cache numbers positions from the first token that
    is not padding. For models with a learned embedding of each position (GPT-2).

    By default transformers numbers positions from the left edge, padding included. Its `generate` passes position ids;
    trl's trainers (1.16), which pad prompts on the left, do not, so such a model would learn at other positions than
    those at which it answers. Rotary embeddings depend on distances alone, which padding does not change.
    """
    backbone = model.base_model
    if _has_learned_positions(backbone) and "position_ids" in inspect.signature(backbone.forward).parameters:
        backbone.register_forward_pre_hook(_add_positions, with_kwargs=True)


def _has_learned_positions(backbone: Any) -> bool:
    """Whether it looks positions up by number in a plain embedding. A special class (OPT's) handles padding itself."""
    import torch

    return any(
        type(module) is torch.nn.Embedding and name.rpartition(".")[2] in _POSITION_TABLES
        for name, module in backbone.named_modules()
    )


def _add_positions(
    backbone: Any, given: tuple[Any, ...], named: ForwardArguments
) -> tuple[tuple[Any, ...], ForwardArguments]:
    mask = named.get("attention_mask")
    unnumbered = named.get("position_ids") is None and named.get("past_key_values") is None
    if unnumbered and mask is not None and mask.dim() == 2:
        named = named | {"position_ids": (mask.long().cumsum(-1) - 1).clamp(min=0)}
    return given, named


class ScoringModel(NamedTuple):
    """A language model with a head of one output, which gives a text one number: transformers' sequence classification
    reads it at the last token that is not padding."""

    model: Any
    head: str
    """The name of the module with one output; empty if no head is fresh."""


def load_scoring_model(folder: Path, seed: int | None = None) -> ScoringModel:
    """The model in eval mode and float32, on the CPU. `seed`: of a fresh head, which a folder of a causal language
    model gets. Raises INVALID if weights are missing, and if the head is and there is no seed."""
    import torch
    from transformers import AutoModelForSequenceClassification

    more = {} if seed is None else {"num_labels": 1}
    with torch.random.fork_rng():
        torch.manual_seed(seed or 0)
        model, info = load_pretrained(
            AutoModelForSequenceClassification, folder, "with one output, ", dtype=torch.float32, **more
        )  # fmt: skip
    fresh = sorted({name.rpartition(".")[0] for name in info["missing_keys"]})
    if info["mismatched_keys"] or len(fresh) > (seed is not None):
        raise unreadable(folder, f"its weights lack {', '.join(fresh[:3]) or 'their shape'}")
    model.eval()
    return ScoringModel(model, fresh[0] if fresh else "")


def score_texts(model: Any, ids: Sequence[Sequence[int]], pad: int | None, longest: int) -> list[float]:
    """A number for each list of tokens, in their order; lists of similar length are computed together. Raises
    ValueError for one that is longer than the context."""
    import torch

    for each in ids:
        if len(each) > longest:
            raise ValueError(f"a text of {len(each):,} tokens, where the model can see {longest:,}")
    padding = pad or 0
    model.config.get_text_config().pad_token_id = padding
    device = next(model.parameters()).device
    found = [0.0] * len(ids)
    order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))
    for start in range(0, len(order), _BATCH):
        places = order[start : start + _BATCH]
        width = len(ids[places[0]])
        tokens = torch.tensor([[*ids[place], *[padding] * (width - len(ids[place]))] for place in places])
        mask = torch.tensor([[1] * len(ids[place]) + [0] * (width - len(ids[place])) for place in places])
        with torch.inference_mode():
            scores = model(input_ids=tokens.to(device), attention_mask=mask.to(device)).logits[:, 0].double().cpu()
        for place, score in zip(places, scores.tolist(), strict=True):
            found[place] = float(score)
    return found
