"""A backbone in a model folder: `backbone.json`, `backbone.safetensors` and its own files, flat beside a head's.

Weights go by the module's own names and every name must match on loading: transformers' `from_pretrained` renames keys
on the way, and initialises keys that do not match with no more than a warning. Facts that the headers of safetensors
files tell (parameters, shapes) are read without a library.
"""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models.backbones import exported
from speciate.models.backbones.contract import Backbone, BackboneSettings, Rebuild
from speciate.models.diffusion import pipeline_folder

NETWORK = "model.onnx"
SETTINGS, WEIGHTS = "backbone.json", "backbone.safetensors"
_LONGEST_HEADER = 16 << 20
"""Bytes; the header of a file with 80,000 tensors has 8 million."""


def save(backbone: Backbone, folder: Path) -> None:
    """Write the backbone's part of a model folder. The same backbone gives the same bytes."""
    from safetensors.torch import save_file

    settings = backbone.settings() | {"width": backbone.width}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1, sort_keys=True))
    for name, content in backbone.files().items():
        (folder / name).write_bytes(content)
    state = backbone.module.state_dict()
    # Copies, as tied weights share memory, which the format refuses.
    save_file({name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)}, folder / WEIGHTS)


def load(folder: Path, rebuild: Rebuild, base_model: str | None = None) -> Backbone:
    """The backbone of a sealed model folder, in eval mode. `base_model` replaces the ref that it came from.

    The caller has checked the folder's hashes. Raises INVALID where the weights are not those of the architecture.
    """
    from safetensors.torch import load_file

    settings = read_settings(folder)
    named = settings | ({"base_model": base_model} if base_model else {})
    if exported.ENTRY in settings:
        return exported.load(named, folder, rebuild)
    backbone = rebuild(named, folder)
    try:
        backbone.module.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (OSError, RuntimeError) as error:
        raise SpeciateError(
            Code.INVALID,
            f"The weights in {folder / WEIGHTS} are not those of {settings['base_model']!r}: {error}",
            "Train the model again with train_model.",
        ) from error
    backbone.module.eval()
    return backbone


def has_backbone(folder: Path) -> bool:
    """Whether a model with a backbone was saved here."""
    return (folder / SETTINGS).is_file()


def is_export(folder: Path) -> bool:
    """Whether its network is a file of another engine."""
    return has_backbone(folder) and exported.ENTRY in read_settings(folder)


def modality(folder: Path) -> str | None:
    found = read_settings(folder).get("modality") if has_backbone(folder) else None
    return found if isinstance(found, str) else None


def read_settings(folder: Path) -> BackboneSettings:
    """Raises INVALID if the file is no JSON object."""
    try:
        settings: Any = foreign_files.read_json(folder / SETTINGS)
        if isinstance(settings, dict):
            return settings
        why = "it is no JSON object"
    except (OSError, ValueError) as error:
        why = str(error)[:200]
    raise SpeciateError(
        Code.INVALID, f"{folder / SETTINGS} cannot be read: {why}.", "Train the model again with train_model."
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files with the weights. Raises NOT_FOUND without any."""
    found = [folder / WEIGHTS] if has_backbone(folder) else sorted(folder.glob("model*.safetensors"))
    if not found and (folder / NETWORK).is_file():
        return [folder / NETWORK]
    found = found or pipeline_folder.weight_files(folder)
    if not found:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{folder} holds no weights: it has no model.safetensors.",
            "Save them with save_pretrained: weights in other formats can run code and are not read.",
        )
    return found


def count_parameters(file: Path) -> int:
    """Numbers in a safetensors file; 0 for an ONNX network, whose worker alone reads it. Raises INVALID for another
    file."""
    if file.name == NETWORK:
        return 0
    return sum(map(math.prod, _shapes(file)))


class WeightCount(NamedTuple):
    tensors: int
    numbers: int


def count_weights(folder: Path) -> WeightCount | None:
    """What all safetensors files in a folder hold; None without one. A file that is none is left to who loads it.

    Links are followed, as who loads them does: some package managers install by links. `check_weights` refuses those
    of others.
    """
    shapes: list[tuple[int, ...]] = []
    for file in folder.glob("*.safetensors"):
        with contextlib.suppress(SpeciateError):
            shapes += _shapes(file.resolve())
    return WeightCount(len(shapes), sum(map(math.prod, shapes))) if shapes else None


def check_weights(folder: Path) -> None:
    """Check a folder that a caller named, as far as a plan can: kinds and sizes of its entries, and the headers of its
    weights. Raises REFUSED, or INVALID for weights that are no safetensors file."""
    foreign_files.check_folder(folder)
    for file in folder.glob("*.safetensors"):
        if file.is_file():
            count_parameters(file)


def has_matrix(folder: Path) -> bool:
    """Whether there is a weight matrix. Without one, a network has no linear layer; with one it may have."""
    return any(len(shape) == 2 for file in weight_files(folder) for shape in _shapes(file))


def _shapes(file: Path) -> list[tuple[int, ...]]:
    try:
        with foreign_files.open_file(file) as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError(f"its header would have {length:,} bytes, more than {_LONGEST_HEADER:,}")
            header = json.loads(opened.read(length))
        return [tuple(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise SpeciateError(
            Code.INVALID, f"{file} is not a safetensors file: {error}", "Save the model again with save_pretrained."
        ) from error
