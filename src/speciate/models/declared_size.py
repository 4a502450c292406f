"""Whether a network is as large as its weights: a config of a kilobyte may declare one that no memory holds.

Libraries take memory for what a config declares, some as they read it, and only then tell which weights were missing.
So its counts are read first. Then the network is built without memory, on torch's device `meta`, and compared with the
files' headers. A table that a network computes before it has a weight of that size, VideoMAE's positions, is counted by
the config.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models.model_folder import WeightCount, count_weights

_TIMES, _SPARE = 8, 10_000_000
"""Numbers that a network may have for each in its files, and beyond that: files pack several numbers into one, leave
tied weights out, and lack a head that is laid anew."""
_SPARE_BYTES = 1 << 30
"""Room for tables that a network computes and no file holds: masks and positions."""
_MODULES, _USUAL_MODULES = 16, 5_000
"""Parts that a network may have for each tensor in its files, and where those are few."""
_USUAL_LAYERS = 512
"""Layers that may share weights, whatever the number of tensors."""
_MOST_LABELS = 1_000_000
"""Labels without a name that a config may declare: libraries make up a name for each as they read it."""


def check_declared_counts(folder: Path) -> None:
    """Raise INVALID where config.json declares many more labels, layers or positions than a network can have. To be
    called before a library reads it."""
    try:
        settings = foreign_files.read_json((folder / "config.json").resolve())
    except (OSError, ValueError):
        return  # the library tells of it
    if not isinstance(settings, dict):
        return
    held = count_weights(folder) or WeightCount(0, 0)
    if (labels := _most(settings, _labels)) > _MOST_LABELS:
        raise _too_large(folder, f"{labels:,} labels", held)
    if (layers := _most(settings, _layers)) > max(_USUAL_LAYERS, held.tensors):
        raise _too_large(folder, f"{layers:,} layers", held)
    if (numbers := _position_numbers(settings)) > _SPARE:
        raise _too_large(folder, f"a table of positions of {numbers:,} numbers", held)


def check_declared_size(folder: Path, build: Callable[[], Any]) -> None:
    """Raise INVALID where a network has many more parts or weights than the files in its folder hold.

    `build` makes it. What cannot be built is left to the loading.
    """
    held = count_weights(folder)
    if held is None:
        return
    import torch

    try:
        with torch.random.fork_rng(devices=[]), unfilled(), torch.device("meta"), _no_more_than(held):
            numbers = sum(each.numel() for each in build().parameters())
    except _Beyond as beyond:
        raise _too_large(folder, str(beyond), held) from None
    except Exception:  # noqa: BLE001 - any library's; the loading tells of it
        return
    if numbers > _TIMES * held.numbers + _SPARE:
        raise _too_large(folder, f"{numbers:,} weights", held)


class _Beyond(BaseException):
    """That no library takes for an error of its own."""


def unfilled() -> contextlib.AbstractContextManager[object]:
    """Around torch's device `meta`, which has no memory: no weight is drawn and no position counted there, and a tensor
    like one of it is made by its shape. torch would import its compiler or sympy for that: 0.8 CPU seconds, 90 MB."""
    import torch
    from torch.nn import init
    from torch.overrides import TorchFunctionMode

    drawing = {torch.Tensor.normal_, torch.Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_}

    class Unfilled(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            named = kwargs or {}
            if func in drawing and (tensor := args[0] if args else named["tensor"]).is_meta:
                return tensor
            counts = func is torch.arange and named.keys() <= {"device", "dtype"}
            if counts and named.get("device") == torch.device("meta") and (count := _count(args)):
                return torch.empty(count, dtype=named.get("dtype") or torch.int64, device="meta")
            alike = func is torch.empty_like and len(args) == 1 and named.keys() <= {"device"}
            if alike and args[0].is_meta and args[0].is_contiguous():
                return torch.empty(args[0].shape, dtype=args[0].dtype, device=named.get("device", "meta"))
            return func(*args, **named)

    return Unfilled()


def _count(numbers: Sequence[Any]) -> int:
    """Numbers in the range that these whole ones span; 0 where torch has to say what they are, or why they are none.

    >>> _count([2, 9, 3]), _count([9, 2]), _count([0, 9, 0]), _count([10**19]), _count([0.5])
    (3, 0, 0, 0, 0)
    """
    if not 0 < len(numbers) < 4 or any(type(each) is not int for each in numbers):
        return 0
    try:
        return len(range(*numbers))
    except (ValueError, OverflowError):  # a step of 0, or more than a machine counts
        return 0


@contextlib.contextmanager
def _no_more_than(held: WeightCount) -> Iterator[None]:
    """Raise `_Beyond` as soon as this thread builds too much: a million layers take minutes also without memory.
    Weights may be laid twice and tied later."""
    from torch.nn.modules import module as torch_module

    here, numbers = threading.get_ident(), 2 * (_TIMES * held.numbers + _SPARE)
    limits = {
        "parts": max(_USUAL_MODULES, _MODULES * held.tensors),
        "weights": numbers,
        "bytes beside its weights": _SPARE_BYTES + 4 * numbers,
    }
    found = dict.fromkeys(limits, 0)

    def add(what: str, amount: int) -> None:
        found[what] += amount
        if threading.get_ident() == here and found[what] > limits[what]:
            raise _Beyond(f"more than {limits[what]:,} {what}")

    with contextlib.ExitStack() as hooks:
        for handle in (
            torch_module.register_module_module_registration_hook(lambda *_: add("parts", 1)),
            torch_module.register_module_parameter_registration_hook(
                lambda module, name, weight: None if weight is None else add("weights", weight.numel())
            ),
            torch_module.register_module_buffer_registration_hook(
                lambda module, name, table: None if table is None else add("bytes beside its weights", table.nbytes)
            ),
        ):
            hooks.callback(handle.remove)
        yield


def _most(settings: Mapping[str, Any], count: Callable[[str, Any], int]) -> int:
    """The most that one entry declares, in nested configs too.

    >>> _most({"num_hidden_layers": 12, "vision_config": {"depths": [2, 2, 6, 2]}, "vocab_size": 30_000}, _layers)
    12
    """
    found = [0]
    for name, value in settings.items():
        found.append(_most(value, count) if isinstance(value, Mapping) else count(str(name), value))
    return max(found)


def _labels(name: str, value: Any) -> int:
    return value if name in ("num_labels", "num_classes") and type(value) is int else 0


def _layers(name: str, value: Any) -> int:
    """How many layers an entry declares. A list of depths counts together, another one names layers by their numbers.

    >>> _layers("depths", [2, 2, 6]), _layers("n_layer", 9), _layers("moe_layers", [1, 3, 5]), _layers("max_depth", 9)
    (10, 9, 5, 0)
    """
    first, last = name.partition("_")[0], name.rpartition("_")[2]
    if first in ("max", "min") or last not in ("layer", "layers", "blocks", "depth", "depths"):
        return 0
    numbers = [each for each in (value if isinstance(value, list) else [value]) if type(each) is int and each > 0]
    together = last in ("depth", "depths") or {"num", "numb", "n"} & set(name.split("_"))
    return sum(numbers) if together else max(numbers, default=0)


_VIDEOS = {"image_size": 224, "patch_size": 16, "num_frames": 16, "tubelet_size": 2, "hidden_size": 768}
"""What VideoMAE takes for an entry that a config lacks."""


def _position_numbers(settings: Mapping[str, Any]) -> int:
    """Numbers of the largest table of positions that VideoMAE computes for a config, nested ones too.

    >>> _position_numbers({"num_frames": 9}), _position_numbers({"encoder": {"model_type": "videomae"}})
    (0, 1204224)
    """
    found = [_position_numbers(value) for value in settings.values() if isinstance(value, Mapping)]
    if "videomae" in f"{settings.get('model_type')} {settings.get('architectures')}".lower():
        size, patch, frames, tubelet, hidden = (_whole(settings.get(name, usual)) for name, usual in _VIDEOS.items())
        found.append((size // max(1, patch)) ** 2 * (frames // max(1, tubelet)) * hidden)
    return max(found, default=0)


def _whole(value: Any) -> int:
    """The number; the first where each direction has its own, 0 where it is none, which the library refuses."""
    first = value[0] if isinstance(value, list) and value else value
    return first if type(first) is int else 0


def _too_large(folder: Path, declared: str, held: WeightCount) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The config in {folder.name!r} declares {declared}, and its files hold {held.numbers:,} weights in "
        f"{held.tensors:,} tensors.",
        "Use another model, or have its maker publish the whole of it, as save_pretrained writes it.",
    )
