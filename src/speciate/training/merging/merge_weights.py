"""How the tensors of one name in several models become one: pure, tensor by tensor, in float32.

    soup, greedy     the weighted mean                                      Wortsman et al. 2022
    slerp            along the arc between two                              Shoemake 1985
    task_arithmetic  base + sum of weight times (model - base)              Ilharco et al. 2023
    ties             the same of what is large and agrees in sign           Yadav et al. 2023
    dare             the same of a random part, scaled up to the whole      Yu et al. 2024

Departures: TIES and DARE look at each tensor by itself, as mergekit and peft do, where Yadav et al. take the largest
of the whole network; SLERP, too, has an angle for each tensor. A tensor that the base lacks (a head that came with
the task) has no change to speak of: it is averaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models import sealed
from speciate.tasks import input_ranges
from speciate.training.merging.merge_spec import MergeMethod

if TYPE_CHECKING:
    from torch import Tensor


_PARALLEL = 1 - 1e-6
"""Cosine from which on there is no arc to speak of, and the sine would be divided by nearly nothing."""


class Rule(NamedTuple):
    """`weights`: one for each model, as `specs.usual_weights` leaves them. `ids`: what chance depends on, beside the
    seed and the tensor's name; the order of the models is no part of it."""

    method: MergeMethod
    weights: tuple[float, ...]
    ids: tuple[str, ...] = ()
    density: float = 1.0
    scale: float = 1.0
    seed: int = 0

    def __call__(self, name: str, tensors: Sequence[Tensor], base: Tensor | None) -> Tensor:
        """(K,) float32 tensors of one shape -> one. `base`: None where it has none of this name."""
        if self.method in ("soup", "greedy") or (base is None and self.method != "slerp"):
            return weighted_mean(tensors, self.weights)
        if self.method == "slerp":
            return slerp(tensors[0], tensors[1], second_share(self.weights))
        assert base is not None, "the first case"
        changes = [tensor - base for tensor in tensors]
        match self.method:
            case "ties":
                return base + self.scale * agree_on_sign(
                    [keep_largest(each, self.density) for each in changes], self.weights
                )
            case "dare":
                ids = self.ids or tuple(map(str, range(len(tensors))))
                changes = [
                    drop_and_rescale(each, self.density, f"{self.seed} {own} {name}")
                    for own, each in zip(ids, changes, strict=True)
                ]
        return base + self.scale * weighted_total(changes, self.weights)


def second_share(weights: Sequence[float]) -> float:
    """How far on the way from the first of two to the second."""
    first, second = weights
    return second / (first + second)


def weighted_mean(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted; of one, and of equal ones, exactly that one: the differences from the first are summed."""
    whole, found = sum(weights), tensors[0].clone()
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        found += (weight / whole) * (tensor - tensors[0])
    return found


def weighted_total(changes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    found = weights[0] * changes[0]
    for change, weight in zip(changes[1:], weights[1:], strict=True):
        found += weight * change
    return found


def slerp(first: Tensor, second: Tensor, t: float) -> Tensor:
    """At t = 0 the first, at t = 1 the second, exactly. Where both point the same way, or one nowhere, a straight
    line is the limit of the arc."""
    import torch

    if t in (0, 1):
        return (second if t else first).clone()
    norms = first.norm() * second.norm()
    cosine = float((first * second).sum() / norms) if float(norms) > 0 else 1.0
    if abs(cosine) > _PARALLEL:
        return first + t * (second - first)
    angle = torch.arccos(torch.tensor(cosine, dtype=torch.float64))
    of_first = float(torch.sin((1 - t) * angle) / torch.sin(angle))
    of_second = float(torch.sin(t * angle) / torch.sin(angle))
    return of_first * first + of_second * second


def keep_largest(change: Tensor, density: float) -> Tensor:
    """Only the share `density` of the numbers, those that are largest in size; at least one."""
    count = max(1, round(density * change.numel()))
    if count >= change.numel():
        return change
    kept = change.abs().flatten().topk(count).indices
    found = change.new_zeros(change.numel())
    found[kept] = change.flatten()[kept]
    return found.view_as(change)


def agree_on_sign(changes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Number by number the mean of those changes whose sign is that of the weighted sum; 0 where none is left."""
    import torch

    sign = torch.sign(weighted_total(changes, weights))
    summed, counted = torch.zeros_like(sign), torch.zeros_like(sign)
    for change, weight in zip(changes, weights, strict=True):
        agrees = (torch.sign(change) == sign) & (change != 0)
        summed += weight * change * agrees
        counted += weight * agrees
    return torch.where(counted > 0, summed / counted.clamp(min=1e-12), torch.zeros_like(summed))


def drop_and_rescale(change: Tensor, density: float, chance: str) -> Tensor:
    """Each number is kept with the probability `density` and divided by it, else it is zero: the same on average."""
    import torch

    if density >= 1:
        return change
    seed = int.from_bytes(hashlib.sha256(chance.encode()).digest()[:8]) >> 1
    drawn = torch.rand(change.shape, generator=torch.Generator().manual_seed(seed))
    return change * (drawn < density) / density


WEIGHTS = ".safetensors"
BATCH_COUNTER = "num_batches_tracked"
"""BatchNorm's only whole number; it plays no part in what a network computes."""
_METADATA = "__metadata__"
_LONGEST_HEADER = 100_000_000
"""Bytes of a header: more is no header (as the format's own reader has it)."""


class MergeRule(Protocol):
    """How tensors of one name become one."""

    def __call__(self, name: str, tensors: Sequence[Tensor], base: Tensor | None) -> Tensor: ...


class StoredTensor(NamedTuple):
    """A tensor in a file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All of a folder, by `file group/name` where a folder has several networks, such as a backbone and a head.

    Shards of one network (`model-00001-of-00002`) are one group. Raises INVALID for what is no such file.
    """
    found = {}
    for file in weight_files(folder):
        for name, entry in read_header(file)[0].items():
            if name != _METADATA:
                found[f"{_file_group(file)}/{name}"] = StoredTensor(file, entry["dtype"], tuple(entry["shape"]))
    return found


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{WEIGHTS}"))


SafetensorsHeader = Mapping[str, Any]
"""Name -> {dtype, shape, data_offsets}, and the file's metadata, as the format has them."""


def read_header(file: Path) -> tuple[SafetensorsHeader, bytes]:
    """Parsed, and with its length in front as it stands in the file."""
    try:
        with foreign_files.open_file(file) as opened:
            length = opened.read(8)
            size = int.from_bytes(length, "little")
            if not 0 < size < _LONGEST_HEADER:
                raise ValueError(f"its header would be {size} bytes long")
            text = opened.read(size)
        parsed: SafetensorsHeader = json.loads(text)
        for name, entry in parsed.items():
            if name != _METADATA:
                _ = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SpeciateError(
            Code.INVALID, f"{file.name} is not a safetensors file: {error}", "Train the model again with train_model."
        ) from error
    return parsed, length + text


def merge_folders(
    folders: Sequence[Path],
    base: Path | None,
    rule: MergeRule,
    out: Path,
    *,
    on_tensor: Callable[[str], None] = lambda name: None,
) -> None:
    """Merge folders of safetensors with equal names and shapes, file by file and tensor by tensor, into a new one.

    Write the new folder `out`, unsealed. The caller has checked that the folders match.

    Raises INVALID where whole numbers differ, which no rule could bring together. `on_tensor` is called with the name
    of each tensor.

    Nothing is known of the networks: encoders with a head, language models in shards. At any time one tensor of each
    model is in memory, in float32; the result has the type and the order of the first model's. Files that are no
    weights are copied from the first folder.
    """
    out.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        readers = [_Reader(folder, stack) for folder in (*folders, *([base] if base else []))]
        for path in sorted(folders[0].iterdir()):
            if path.suffix == WEIGHTS:
                _merge_file(
                    path, readers[: len(folders)], readers[-1] if base else None, rule, out / path.name, on_tensor
                )
            elif path.is_file() and path.name not in (sealed.MANIFEST, sealed.CARD, input_ranges.FILE):
                shutil.copyfile(path, out / path.name)
    if all(seen := [input_ranges.load(folder) for folder in folders]):
        input_ranges.save(reduce(input_ranges.joined, seen), out)


class _Reader:
    """Tensors of a folder by their names; each file is opened once, and mapped, not read."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._kept, self._stack = stored_tensors(folder), stack
        self._open: dict[Path, Any] = {}

    def get(self, name: str) -> Tensor | None:
        from safetensors import safe_open

        kept = self._kept.get(name)
        if kept is None:
            return None
        if kept.file not in self._open:
            self._open[kept.file] = self._stack.enter_context(safe_open(str(kept.file), "pt"))
        found: Tensor = self._open[kept.file].get_tensor(name.partition("/")[2])
        return found


def _merge_file(
    path: Path,
    readers: Sequence[_Reader],
    base: _Reader | None,
    rule: MergeRule,
    out: Path,
    on_tensor: Callable[[str], None],
) -> None:
    """The header is that of the first: same names, types and places."""
    parsed, raw = read_header(path)
    places: Mapping[str, Any] = {name: entry for name, entry in parsed.items() if name != _METADATA}
    with out.open("wb") as file:
        file.write(raw)
        for name in sorted(places, key=lambda each: places[each]["data_offsets"][0]):
            whole = f"{_file_group(path)}/{name}"
            file.write(_to_bytes(_merge_tensors(whole, readers, base, rule)))
            on_tensor(whole)


def _merge_tensors(name: str, readers: Sequence[_Reader], base: _Reader | None, rule: MergeRule) -> Tensor:
    import torch

    found = [reader.get(name) for reader in readers]
    present = [tensor for tensor in found if tensor is not None]
    if len(present) != len(found):
        raise _unlike_error(name, "not every model has it")
    first = present[0]
    if not first.is_floating_point():
        if not name.endswith(BATCH_COUNTER) and any(not torch.equal(first, other) for other in present[1:]):
            raise _unlike_error(name, "it holds whole numbers, which differ, and of those there is no mean")
        return first
    beginning = base.get(name) if base else None
    if beginning is not None and beginning.shape != first.shape:
        beginning = None  # a head for other labels
    merged = rule(name, [each.float() for each in present], None if beginning is None else beginning.float())
    if not bool(torch.isfinite(merged).all()):
        raise _unlike_error(name, "its merged numbers are not finite")
    return merged.to(first.dtype)


def _to_bytes(tensor: Tensor) -> bytes:
    import torch

    data: bytes = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return data


def _file_group(file: Path) -> str:
    """`model-00001-of-00002.safetensors` -> `model`."""
    stem = file.name.removesuffix(WEIGHTS)
    head, _, tail = stem.partition("-of-")
    return head.rpartition("-")[0] if tail.isdigit() else stem


def _unlike_error(name: str, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID, f"The weights {name!r} cannot be merged: {why}.", "Merge models of one base and architecture."
    )
