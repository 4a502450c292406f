"""GGUF weights as an ordinary model folder (safetensors, tokenizer and chat template), converted once into the cache.

transformers dequantizes them on loading, so the weights keep the file's rounding: Q4_1 is 4 bits a weight and a scale
per 32. The folder is sealed, named by the file's content, and appears when it is complete.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.models import sealed

FOLDER = "converted"
"""Folder of converted weights in the workspace's cache."""
_VERSION = 1
"""Raise it when the same file gives another folder."""


def convert_gguf(file: Path, cache: Path, extra: dict[str, str] | None = None) -> Path:
    """The folder with the weights of a GGUF file; concurrent callers wait. `extra`: further files in it.

    Raises MISSING_EXTRA without the library `gguf`, INVALID for another file.
    """
    if importlib.util.find_spec("gguf") is None:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"Reading {file.name} needs the library 'gguf'.",
            "Run: pip install 'speciate[language]'",
        )
    folder = cache / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{file.stem}-{sealed.file_hash(file)[:12]}-{_VERSION}"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(".unfinished-*"):
            shutil.rmtree(left, ignore_errors=True)
        if not (made / sealed.MANIFEST).is_file():
            _convert(file, made, extra or {})
    return made


def _convert(file: Path, made: Path, extra: dict[str, str]) -> None:
    temporary = made.with_name(f".unfinished-{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        model, tokenizer = _read(file)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for name, text in extra.items():
            (temporary / name).write_text(text)
        sealed.seal(temporary)
        os.rename(temporary, made)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(file: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        given = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
        model: Any = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **given)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **given)
    except (ValueError, KeyError, OSError, NotImplementedError) as error:
        raise SpeciateError(
            Code.INVALID, f"{file.name} cannot be read: {type(error).__name__}.", "Use another base model.", str(error)
        ) from error
    model.hf_quantizer = None  # the quantizer refuses to save
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.to(torch.float16), tokenizer  # its scales are float16: little is lost, and half the disk is saved


def chat_template(folder: Path) -> str | None:
    """The chat template in a saved folder."""
    if (file := folder / "chat_template.jinja").is_file():
        return file.read_text()
    try:
        found = json.loads((folder / "tokenizer_config.json").read_text()).get("chat_template")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None
