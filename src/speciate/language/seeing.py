"""Base models that see pictures and write text: whether a folder holds one, and how model and processor are loaded.

A folder of transformers with a model of its auto class for image-text-to-text, safetensors, and a processor: tokenizer,
what becomes of pictures, and a chat template. Nothing is downloaded and no code of a folder runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciate.errors import Code, SpeciateError
from speciate.language.bases import config, is_named, unreadable
from speciate.models import weights

if TYPE_CHECKING:
    import torch

_SEES = ("vision_config", "visual", "vision_tower")
"""Entries of a config.json, one of which such models have."""
_WRITES = ("ForConditionalGeneration", "ForCausalLM", "ForVision2Seq", "ForImageTextToText")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_USUAL_LENGTH = 2048


def sees(folder: Path) -> bool:
    """Whether a folder holds a model that writes about pictures, as its config.json says."""
    found = config(folder)
    return is_named(found, _WRITES) and any(name in found for name in _SEES)


def check(folder: Path, ref: str) -> None:
    """INVALID where a model that sees cannot be trained from the folder. Reads headers alone."""
    if not sees(folder):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} writes nothing about pictures: its config.json names no architecture that sees and writes.",
            "Use a folder of a vision-language model with safetensors (path:/dir), or one that register_model fetched.",
        )
    weights.files(folder)
    if not any((folder / name).is_file() for name in _PROCESSORS):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} has no processor beside its weights ({' or '.join(_PROCESSORS)}), so nothing says what becomes "
            "of pictures.",
            "Save it with save_pretrained of the model's processor as well.",
        )


def load_processor(folder: Path, template: str | None = None) -> Any:
    """`template`: Jinja in place of its own. Pads on the left."""
    from transformers import AutoProcessor

    load: Any = AutoProcessor.from_pretrained
    try:
        processor: Any = load(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise unreadable(folder, f"its processor: {type(error).__name__}", error) from error
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        raise unreadable(
            folder, f"its processor is a {type(processor).__name__}, which does not take pictures and text"
        )
    processor.chat_template = template or processor.chat_template or tokenizer.chat_template
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return processor


def load_model(folder: Path) -> torch.nn.Module:
    """In eval mode and float32, on the processor. INVALID where weights are missing."""
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    quiet: Any = logging.disable_progress_bar
    quiet()
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise unreadable(folder, f"{type(error).__name__}", error) from error
    model, said = loaded
    lost = sorted(said["missing_keys"]) + [str(each) for each in said["mismatched_keys"]]
    if lost:
        raise unreadable(folder, f"its weights lack {', '.join(map(str, lost[:3]))}")
    model.eval()
    if model.config.is_encoder_decoder or getattr(model.config.get_text_config(), "is_encoder_decoder", False):
        raise unreadable(folder, "it reads with one network and writes with another, which is not learned here")
    return model  # type: ignore[no-any-return]


def longest(model: Any) -> int:
    """Tokens that a model can see, those of pictures among them."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or _USUAL_LENGTH)


def eyes(model: Any) -> tuple[str, Any] | None:
    """The part of the model that sees, with its name; None where it is not apart from the rest."""
    found = model.get_encoder(modality="image")
    return next(((name, each) for name, each in model.named_modules() if name and each is found), None)


def check_template(processor: Any, what: str) -> None:
    """INVALID where nothing says how a conversation is written, or when an answer ends."""
    if not processor.chat_template:
        raise SpeciateError(
            Code.INVALID,
            f"The processor of {what} has no chat template, which says where in a conversation pictures stand.",
            "Call train_model again with hyperparameters={'chat_template': JINJA}, or with an instruction-tuned model.",
        )
    if processor.tokenizer.eos_token_id is None:
        raise SpeciateError(
            Code.INVALID,
            f"The tokenizer of {what} has no end of text (eos_token), so a model could not learn to stop.",
            "Name a base model whose tokenizer_config.json says eos_token.",
        )
