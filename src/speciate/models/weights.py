"""The safetensors files of a model folder, as far as their headers tell: no library is needed."""

from __future__ import annotations

import json
import math
from pathlib import Path

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models.backbones import saved

_LONGEST_HEADER = 16 << 20
"""Bytes; that of a file with 80,000 tensors has 8 million."""


def files(folder: Path) -> list[Path]:
    """Raises NOT_FOUND where there are none."""
    found = [folder / saved.WEIGHTS] if saved.holds(folder) else sorted(folder.glob("model*.safetensors"))
    if not found:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{folder} holds no weights: it has no model.safetensors.",
            "Save them with save_pretrained: weights in other formats can run code and are not read.",
        )
    return found


def count(file: Path) -> int:
    """Numbers in it. Raises INVALID where it is no such file."""
    return sum(map(math.prod, _shapes(file)))


def check_folder(folder: Path) -> None:
    """Of a folder that a caller named, what a plan can tell: kinds and sizes of what lies in it, and the headers of its
    weights. REFUSED, or INVALID where a file of weights is none."""
    foreign_files.check_folder(folder)
    for file in folder.glob("*.safetensors"):
        if file.is_file():
            count(file)


def has_matrix(folder: Path) -> bool:
    """Without one, a network has no linear layer; with one it may have."""
    return any(len(shape) == 2 for file in files(folder) for shape in _shapes(file))


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
