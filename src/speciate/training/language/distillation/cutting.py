"""A smaller language model cut from a larger one: some of its layers, the rest as it was.

What is left begins with the weights of the layers that are kept, the first and the last among them and the others
evenly between (as Sanh et al. 2019 and Shleifer and Rush 2020 begin their students). It writes badly until it has
learned again.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.language import positions


class Cut(NamedTuple):
    model: Any
    kept: tuple[int, ...]
    """Layers of the larger one, from 0."""
    of: int


def places(layers: int, wanted: int) -> tuple[int, ...]:
    """Which of so many layers are kept, in their order.

    >>> places(30, 4), places(6, 6), places(5, 1)
    ((0, 10, 19, 29), (0, 1, 2, 3, 4, 5), (0,))
    """
    if wanted == 1:
        return (0,)
    return tuple(round(at * (layers - 1) / (wanted - 1)) for at in range(wanted))


def cut(model: Any, wanted: int, ref: str) -> Cut:
    """A new model with so many of its layers. INVALID where it has no more, or they are not one list."""
    path = _stack(model)
    if path is None:
        raise SpeciateError(
            Code.INVALID,
            f"The layers of {ref} ({type(model).__name__}) are not one list, so none can be left out.",
            "Call train_model again with a smaller base_model, and without hyperparameters.layers.",
        )
    layers = len(model.get_submodule(path))
    if wanted >= layers:
        raise SpeciateError(
            Code.INVALID,
            f"hyperparameters.layers is {wanted}, and {ref} has {layers}: a student of it has fewer.",
            f"Call train_model again with hyperparameters={{'layers': {max(1, layers // 2)}}}, or without.",
        )
    kept = places(layers, wanted)
    made = type(model)(_config(model.config, layers, kept)).to(next(model.parameters()).dtype)
    made.load_state_dict(_weights(model.state_dict(), path, kept))
    made.generation_config = copy.deepcopy(model.generation_config)
    positions.by_mask(made)
    return Cut(made.eval(), kept, layers)


def _stack(model: Any) -> str | None:
    """The name of the list of layers: the outermost that is as long as the configuration says."""
    import torch

    layers = getattr(model.config, "num_hidden_layers", None)
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == layers
    ]
    shortest = min((name.count(".") for name in found), default=0)
    outermost = [name for name in found if name.count(".") == shortest]
    return outermost[0] if len(outermost) == 1 else None


def _config(config: Any, layers: int, kept: tuple[int, ...]) -> Any:
    """What it says of each layer, such as its kind of attention, goes with that layer."""
    made = copy.deepcopy(config)
    for name, value in vars(made).items():
        if isinstance(value, list | tuple) and len(value) == layers and not name.startswith("_"):
            setattr(made, name, [value[place] for place in kept])
    made.num_hidden_layers = len(kept)
    return made


def _weights(found: dict[str, Any], path: str, kept: tuple[int, ...]) -> dict[str, Any]:
    renamed = {}
    for name, tensor in found.items():
        if not name.startswith(f"{path}."):
            renamed[name] = tensor
            continue
        number, _, rest = name.removeprefix(f"{path}.").partition(".")
        if int(number) in kept:
            renamed[f"{path}.{kept.index(int(number))}.{rest}"] = tensor
    return renamed
