"""Base models that write text: where their weights lie, whether they are such, and how they are loaded.

A folder of transformers with a causal language model, safetensors and a tokenizer; or GGUF weights of a package, which
are converted into the cache first. Nothing is downloaded and no code of a folder runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.language import positions
from speciate.language.conversion import converted
from speciate.language.forms import CHATML
from speciate.models import packaged, weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_CAUSAL = ("ForCausalLM", "LMHeadModel")
"""How the names of such architectures end."""
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
Precision = Literal["float32", "bfloat16"]


def writes(folder: Path) -> bool:
    """Whether a folder holds a causal language model, as its config.json says, or GGUF weights of one."""
    if packaged_weights(folder) is not None:
        return True
    return is_named(config(folder), _CAUSAL)


def config(folder: Path) -> dict[str, Any]:
    """Its config.json; empty where there is none that can be read."""
    try:
        found = foreign_files.read_json(folder / "config.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_named(config: Mapping[str, Any], endings: str | tuple[str, ...]) -> bool:
    """Whether one of the architectures that it names ends so."""
    named = config.get("architectures")
    return isinstance(named, list) and any(isinstance(name, str) and name.endswith(endings) for name in named)


def check(folder: Path, ref: str) -> None:
    """INVALID where a language model cannot be trained from the folder. Reads headers alone."""
    if not writes(folder):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} writes no text: its config.json names no architecture that ends in ForCausalLM.",
            f"Use a causal language model: {' or '.join(f'pkg:{name}' for name in language_packages())}, path:/dir, or "
            "one that register_model fetched.",
        )
    if packaged_weights(folder) is None:
        weights.files(folder)
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


def ready(folder: Path, cache: Path) -> Path:
    """The folder that transformers reads: itself, or what its GGUF weights were converted to."""
    found = packaged_weights(folder)
    return folder if found is None else converted(found, cache)


def load_tokenizer(folder: Path, template: str | None = None) -> PreTrainedTokenizerBase:
    """`template`: instead of its own; `chatml` names the one that comes with this package. Pads on the left."""
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
    """In eval mode, on the processor. INVALID where weights are missing or left over."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    quiet: Any = logging.disable_progress_bar
    quiet()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, precision), local_files_only=True, trust_remote_code=False,
            use_safetensors=True, output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise unreadable(folder, f"{type(error).__name__}", error) from error
    model, said = loaded
    lost = sorted(said["missing_keys"]) + [str(each) for each in said["mismatched_keys"]]
    if lost:
        raise unreadable(folder, f"its weights lack {', '.join(map(str, lost[:3]))}")
    positions.by_mask(model)
    model.eval()
    return model  # type: ignore[no-any-return]


def longest(model: Any) -> int:
    """Tokens that a model can see."""
    return int(getattr(model.config, "max_position_embeddings", None) or 2048)


def unreadable(folder: Path, why: str, error: Exception | None = None) -> SpeciateError:
    """`error`: of a library, whose words may quote the files."""
    return SpeciateError(
        Code.INVALID,
        f"The language model in {folder} cannot be loaded: {why}",
        "Use another base model, or save this one again with save_pretrained.",
        str(error or ""),
    )
