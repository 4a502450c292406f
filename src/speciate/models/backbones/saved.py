"""A backbone in a model folder: `backbone.json`, `backbone.safetensors` and its own files, flat beside a head's.

Weights go by the module's own names and are loaded with every name matched: transformers' `from_pretrained` renames
keys on the way, and what does not match it initialises anew with no more than a warning.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models.backbones import exported
from speciate.models.backbones.contract import Backbone

SETTINGS, WEIGHTS = "backbone.json", "backbone.safetensors"


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


def load(folder: Path, rebuild: Callable[[dict[str, Any], Path], Backbone], base_model: str | None = None) -> Backbone:
    """The backbone of a sealed model folder, in eval mode. `base_model` replaces the ref that it came from.

    The caller has checked the folder's hashes. Raises INVALID where the weights are not those of the architecture.
    """
    from safetensors.torch import load_file

    settings = read(folder)
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


def holds(folder: Path) -> bool:
    """Whether a model with a backbone was saved here."""
    return (folder / SETTINGS).is_file()


def is_export(folder: Path) -> bool:
    """Whether its network is a file of another engine."""
    return holds(folder) and exported.ENTRY in read(folder)


def modality(folder: Path) -> str | None:
    said = read(folder).get("modality") if holds(folder) else None
    return said if isinstance(said, str) else None


def read(folder: Path) -> dict[str, Any]:
    """INVALID where it is no JSON object."""
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
