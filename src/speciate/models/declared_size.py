"""Whether a network is as large as its weights: a config of a kilobyte may declare one that no memory holds.

`from_pretrained` takes memory for what a config declares and only then tells which weights were missing. So the network
is built without memory first, on torch's device `meta`, and its size compared with the files' headers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.models.model_folder import WeightCount, count_weights

_TIMES, _SPARE = 8, 10_000_000
"""Numbers that a network may have for each in its files, and beyond that: files pack several numbers into one, leave
tied weights out, and lack a head that is laid anew."""
_USUAL_LAYERS = 512
"""Layers that may share weights, whatever the number of tensors."""
_LAYERS = ("layers", "blocks", "depth", "depths")
"""Last words of the names under which configs declare layers."""


def check_declared_size(folder: Path, config: Any, build: Callable[[], Any]) -> None:
    """Raise INVALID where the config declares many more layers or weights than the files in the folder hold.

    `config`: of transformers. `build`: makes the network from it. What cannot be built is left to the loading.
    """
    held = count_weights(folder)
    if held is None:
        return
    layers = _most_layers(config.to_dict())
    if layers > max(_USUAL_LAYERS, held.tensors):
        raise _too_large(folder, f"{layers:,} layers", held)
    import torch

    try:
        with torch.device("meta"):
            numbers = sum(each.numel() for each in build().parameters())
    except Exception:  # noqa: BLE001 - any library's; the loading tells of it
        return
    if numbers > _TIMES * held.numbers + _SPARE:
        raise _too_large(folder, f"{numbers:,} weights", held)


def _most_layers(settings: Mapping[str, Any]) -> int:
    """The most layers that one entry declares, in nested configs too; a list counts together.

    >>> _most_layers({"num_hidden_layers": 12, "vision_config": {"depths": [2, 2, 6, 2]}, "vocab_size": 30_000})
    12
    """
    found = [0]
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found.append(_most_layers(value))
        elif str(name).rpartition("_")[2] in _LAYERS:
            listed = value if isinstance(value, list | tuple) else [value]
            found.append(sum(each for each in listed if type(each) is int and each > 0))
    return max(found)


def _too_large(folder: Path, declared: str, held: WeightCount) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The config in {folder.name!r} declares {declared}, and its files hold {held.numbers:,} weights in "
        f"{held.tensors:,} tensors.",
        "Use another model, or have its maker publish the whole of it, as save_pretrained writes it.",
    )
