"""Models of the transformers library: with fresh weights, from a published folder, or empty to be filled.

Folders that we saved ourselves are never read with `from_pretrained`: model_folder.py says why. Foreign code in a
folder is never run. transformers is imported without libraries that none of our networks need (lean_import.py)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciate.errors import Code, SpeciateError
from speciate.models.backbones import lean_import
from speciate.models.backbones.contract import ModelConfig, seeded
from speciate.models.declared_size import check_declared_counts, check_declared_size, unfilled

if TYPE_CHECKING:
    import torch


_OF_THE_PUBLISHER = (
    "_name_or_path", "transformers_version", "dtype", "architectures", "auto_map", "id2label", "label2id", "use_cache",
)  # fmt: skip
"""Entries of a config that do not affect the states."""


def build_fresh(config: Any, seed: int) -> torch.nn.Module:
    """A model with random weights: the same for the same seed, in any state of the generator."""
    with seeded(seed):
        return _make(config)


def load_published(folder: Path) -> torch.nn.Module:
    """The encoder in a transformers folder, in float32 and eval mode.

    Raises NOT_FOUND without one, INVALID if it cannot be read or a weight of the encoder is missing.
    """
    from transformers.utils import logging

    config = published_config(folder)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the library has no types here
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its important warnings are raised below
    import torch

    check_declared_size(folder, lambda: _make(config))
    try:
        with unfilled():
            whole, report = _networks().AutoModel.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False,
                dtype=torch.float32, output_loading_info=True, **_without_pooler(config),
            )  # fmt: skip
    except Exception as error:
        raise unreadable(folder, f"{type(error).__name__}", error) from error
    module: torch.nn.Module = _encoder(whole, config)
    part = "" if module is whole else "encoder."
    if missing := sorted(name for name in report["missing_keys"] if name.startswith(part)):
        raise unreadable(folder, f"it lacks {len(missing)} weights, such as {missing[0]!r}.")
    module.eval()
    return module


def published_config(folder: Path) -> Any:
    """Raises NOT_FOUND or INVALID."""
    if not (folder / "config.json").is_file():
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{folder} holds no model: it has no config.json.",
            "Give the path of a folder with config.json and model.safetensors.",
        )
    check_declared_counts(folder)
    try:
        config = _library().AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise unreadable(folder, f"{type(error).__name__}", error) from error
    return _stateless(config)


def build_empty(config: Any) -> torch.nn.Module:
    """A network with meaningless weights, to be loaded by model_folder.py."""
    return build_fresh(config, 0)


def config_of(settings: Mapping[str, Any]) -> Any:
    return _stateless(_library().AutoConfig.for_model(**settings))


def settings_of(config: Any) -> ModelConfig:
    """The whole config as JSON, defaults too: those of another version of the library may differ."""
    return {name: value for name, value in config.to_dict().items() if name not in _OF_THE_PUBLISHER}


def unreadable(folder: Path, why: str, error: Exception | None = None) -> SpeciateError:
    """`error`: a library's, whose message may quote the files."""
    return SpeciateError(
        Code.INVALID,
        f"{folder} cannot be read as a model of transformers: {why}",
        "Give the path of a folder that save_pretrained wrote: config.json, model.safetensors, a tokenizer.",
        str(error or ""),
    )


def _library() -> Any:
    lean_import.hide_libraries()
    import transformers

    return transformers


def _networks() -> Any:
    """The library, for more than configs."""
    lean_import.import_networks()
    return _library()


def _stateless(config: Any) -> Any:
    """Decoders cache nothing for a next token: there is none."""
    config.use_cache = False
    return config


def _make(config: Any) -> torch.nn.Module:
    whole = _networks().AutoModel.from_config(config, **_without_pooler(config))
    module: torch.nn.Module = _encoder(whole, config)
    return module


def _encoder(module: Any, config: Any) -> Any:
    return module.get_encoder() if getattr(config, "is_encoder_decoder", False) else module


def _without_pooler(config: Any) -> Mapping[str, bool]:
    """Leaves out a pooling layer if the class allows it: its weights are often missing and never used here."""
    made: Any = _networks().MODEL_MAPPING[type(config)]
    first = made[0] if isinstance(made, tuple) else made
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(first).parameters else {}
