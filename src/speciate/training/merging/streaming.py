"""Folders of safetensors with equal names and shapes, merged file by file and tensor by tensor into a new one.

It knows nothing of what the networks are: encoders with a head, language models in shards. At any time there is one
tensor of each model in memory, in float32; what is written has the type and the order of the first model's. Files
that are no weights are copied from the first folder.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models import sealed

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = ".safetensors"
COUNTED = "num_batches_tracked"
"""BatchNorm's only whole number; it plays no part in what a network computes."""
_METADATA = "__metadata__"
_LONGEST = 100_000_000
"""Bytes of a header: more is no header (as the format's own reader has it)."""


class Rule(Protocol):
    """How tensors of one name become one."""

    def __call__(self, name: str, tensors: Sequence[Tensor], base: Tensor | None) -> Tensor: ...


class Kept(NamedTuple):
    """A tensor in a file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def tensors(folder: Path) -> dict[str, Kept]:
    """All of a folder, by `file group/name` where a folder has several networks, such as a backbone and a head.

    Shards of one network (`model-00001-of-00002`) are one group. Raises INVALID for what is no such file.
    """
    found = {}
    for file in weight_files(folder):
        for name, entry in header(file)[0].items():
            if name != _METADATA:
                found[f"{_group(file)}/{name}"] = Kept(file, entry["dtype"], tuple(entry["shape"]))
    return found


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{WEIGHTS}"))


def header(file: Path) -> tuple[dict[str, Any], bytes]:
    """Parsed, and with its length in front as it stands in the file."""
    try:
        with foreign_files.open_file(file) as opened:
            length = opened.read(8)
            size = int.from_bytes(length, "little")
            if not 0 < size < _LONGEST:
                raise ValueError(f"its header would be {size} bytes long")
            text = opened.read(size)
        parsed: dict[str, Any] = json.loads(text)
        for name, entry in parsed.items():
            if name != _METADATA:
                _ = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SpeciateError(
            Code.INVALID, f"{file.name} is not a safetensors file: {error}", "Train the model again with train_model."
        ) from error
    return parsed, length + text


def merge(
    folders: Sequence[Path],
    base: Path | None,
    rule: Rule,
    out: Path,
    *,
    told: Callable[[str], None] = lambda name: None,
) -> None:
    """Write the new folder `out`, unsealed. Whoever calls has found the folders alike (alike.py).

    Raises INVALID where whole numbers differ, which no rule could bring together. `told` hears of each tensor.
    """
    out.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        readers = [_Reader(folder, stack) for folder in (*folders, *([base] if base else []))]
        for path in sorted(folders[0].iterdir()):
            if path.suffix == WEIGHTS:
                _file(path, readers[: len(folders)], readers[-1] if base else None, rule, out / path.name, told)
            elif path.is_file() and path.name not in (sealed.MANIFEST, sealed.CARD):
                shutil.copyfile(path, out / path.name)


class _Reader:
    """Tensors of a folder by their names; each file is opened once, and mapped, not read."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._kept, self._stack = tensors(folder), stack
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


def _file(
    path: Path, readers: Sequence[_Reader], base: _Reader | None, rule: Rule, out: Path, told: Callable[[str], None]
) -> None:
    """The header is that of the first: same names, types and places."""
    parsed, raw = header(path)
    places: Mapping[str, Any] = {name: entry for name, entry in parsed.items() if name != _METADATA}
    with out.open("wb") as file:
        file.write(raw)
        for name in sorted(places, key=lambda each: places[each]["data_offsets"][0]):
            whole = f"{_group(path)}/{name}"
            file.write(_bytes(_merged(whole, readers, base, rule)))
            told(whole)


def _merged(name: str, readers: Sequence[_Reader], base: _Reader | None, rule: Rule) -> Tensor:
    import torch

    found = [reader.get(name) for reader in readers]
    present = [tensor for tensor in found if tensor is not None]
    if len(present) != len(found):
        raise _unlike(name, "not every model has it")
    first = present[0]
    if not first.is_floating_point():
        if not name.endswith(COUNTED) and any(not torch.equal(first, other) for other in present[1:]):
            raise _unlike(name, "it holds whole numbers, which differ, and of those there is no mean")
        return first
    beginning = base.get(name) if base else None
    if beginning is not None and beginning.shape != first.shape:
        beginning = None  # a head for other labels
    merged = rule(name, [each.float() for each in present], None if beginning is None else beginning.float())
    if not bool(torch.isfinite(merged).all()):
        raise _unlike(name, "its merged numbers are not finite")
    return merged.to(first.dtype)


def _bytes(tensor: Tensor) -> bytes:
    import torch

    data: bytes = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return data


def _group(file: Path) -> str:
    """`model-00001-of-00002.safetensors` -> `model`."""
    stem = file.name.removesuffix(WEIGHTS)
    head, _, tail = stem.partition("-of-")
    return head.rpartition("-")[0] if tail.isdigit() else stem


def _unlike(name: str, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID, f"The weights {name!r} cannot be merged: {why}.", "Merge models of one base and architecture."
    )
