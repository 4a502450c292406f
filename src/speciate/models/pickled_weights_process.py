"""The sandboxed half of pickled_weights.py: reads pickles of torch (`torch.save`) and rebuilds nothing but tensors.

    ask: {"files": {source: target}}  ->  {target: names of its tensors}

A pickle is a program that calls what it names. Here it can name the types of torch's storages, three functions that
describe a tensor, and `OrderedDict`; anything else ends the reading. Descriptions are plain numbers, which are checked
against the bytes that are there, and torch is never imported. Both forms are read: the zip that torch writes since 1.6,
and the stream before it.
"""

from __future__ import annotations

import collections
import io
import json
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypedDict

import numpy as np

from speciate.errors import Code, SpeciateError
from speciate.sandbox.serve import serve

_TYPES: Mapping[str, tuple[str, int]] = {
    "FloatStorage": ("F32", 4), "HalfStorage": ("F16", 2), "BFloat16Storage": ("BF16", 2), "DoubleStorage": ("F64", 8),
    "LongStorage": ("I64", 8), "IntStorage": ("I32", 4), "ShortStorage": ("I16", 2), "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1), "BoolStorage": ("BOOL", 1),
}  # fmt: skip
"""torch's type of a storage -> safetensors' name for it, and its bytes."""
_NESTED = "state_dict"
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_LONGEST_PICKLE, _LONGEST_NAME, _MOST_SIDES = 64 << 20, 500, 16
_MOST_TIMES = 2
"""How much larger than the pickle what is written may be: a stride of 0 makes any size of one number."""
_PAD = 8


class ConversionRequest(TypedDict):
    files: Mapping[str, str]
    """Pickle -> the safetensors file to be written."""


class Inspection(TypedDict):
    tensors: int
    bytes: int
    """Bytes of the tensors."""
    names: list[str]
    """What the pickle refers to, such as `torch.FloatStorage`."""


class _StorageType(NamedTuple):
    dtype: str
    size: int


class _Storage(NamedTuple):
    kind: _StorageType
    key: str
    numbers: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.storage.kind.size


class _Builder:
    """A function that a pickle may call. It has no attributes that a pickle could set."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError("it sets an attribute of a function")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_ignored: Any) -> _Tensor:
    """`_ignored`: whether it needs a gradient, hooks and metadata."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor is of no storage")
    sides = _numbers(shape)
    steps = _numbers(strides)
    if len(sides) != len(steps) or not isinstance(offset, int) or offset < 0:
        raise pickle.UnpicklingError("a tensor's shape fits no strides")
    last = offset + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
    if math.prod(sides) and last >= storage.numbers:
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    return _Tensor(storage, offset, sides, steps)


def _parameter(tensor: Any, *_ignored: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise pickle.UnpicklingError("a parameter is no tensor")
    return tensor


def _numbers(given: Any) -> tuple[int, ...]:
    if not isinstance(given, tuple | list) or len(given) > _MOST_SIDES:
        raise pickle.UnpicklingError("a tensor has no shape")
    if not all(type(each) is int and 0 <= each < 1 << 48 for each in given):
        raise pickle.UnpicklingError("a side of a tensor is no number")
    return tuple(given)


def _ordered(*pairs: Any) -> collections.OrderedDict[Any, Any]:
    return collections.OrderedDict(*pairs)


_KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Builder(_ordered),
    ("torch._utils", "_rebuild_tensor_v2"): _Builder(_tensor),
    ("torch._utils", "_rebuild_tensor"): _Builder(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Builder(_parameter),
    ("torch", "Size"): _Builder(tuple),
} | {("torch", name): _StorageType(*kind) for name, kind in _TYPES.items()}


class TensorUnpickler(pickle.Unpickler):
    """Raises UnpicklingError for whatever is no tensor. `found`: what the pickle referred to."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.found: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        shown = f"{module}.{name}"[:_LONGEST_NAME]
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it refers to {shown}, which is no tensor")
        self.found.add(shown)
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType() as kind, str(key), _, int(count)) if count >= 0:
                return _Storage(kind, key, count)
            case ("storage", _StorageType() as kind, str(key), _, int(count), None) if count >= 0:
                return _Storage(kind, key, count)
        raise pickle.UnpicklingError("it refers to something outside that is no storage")


class _Archive(NamedTuple):
    tensors: Mapping[str, _Tensor]
    names: frozenset[str]
    read: Callable[[_Storage], bytes]
    """The bytes of a storage."""


def _open(file: IO[bytes], size: int) -> _Archive:
    found = _open_zip(file) if zipfile.is_zipfile(file) else _open_legacy(file, size)
    if sum(each.bytes for each in found.tensors.values()) > _MOST_TIMES * size:
        raise pickle.UnpicklingError("its tensors are far larger than the file")
    return found


def _open_zip(file: IO[bytes]) -> _Archive:
    archive = zipfile.ZipFile(file)
    members = {each.filename: each for each in archive.infolist()}
    if any(each.compress_type != zipfile.ZIP_STORED for each in members.values()):
        raise pickle.UnpicklingError("its archive is compressed, which torch never writes")
    [pickled] = [
        name for name in members if name == "data.pkl" or (name.count("/") == 1 and name.endswith("/data.pkl"))
    ]
    root = pickled.removesuffix("data.pkl")
    if members[pickled].file_size > _LONGEST_PICKLE:
        raise pickle.UnpicklingError("its list of tensors is too long")
    if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
        raise pickle.UnpicklingError("its numbers are big-endian")
    unpickler = TensorUnpickler(io.BytesIO(archive.read(pickled)))
    tensors = _tensors(unpickler.load())

    def read(storage: _Storage) -> bytes:
        name = f"{root}data/{storage.key}"
        if name not in members or members[name].file_size < storage.numbers * storage.kind.size:
            raise pickle.UnpicklingError("a storage is cut")
        return archive.read(name)

    return _Archive(tensors, frozenset(unpickler.found), read)


def _open_legacy(file: IO[bytes], size: int) -> _Archive:
    """Four pickles (a magic number, the protocol, the machine, the tensors), the keys of the storages, and these."""
    file.seek(0)
    magic, protocol = (TensorUnpickler(file).load() for _ in range(2))
    if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
        raise pickle.UnpicklingError("it is no file of torch.save")
    machine = TensorUnpickler(file).load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise pickle.UnpicklingError("its numbers are big-endian")
    unpickler = TensorUnpickler(file)
    tensors = _tensors(unpickler.load())
    sizes = {each.storage.key: each.storage.kind.size for each in tensors.values()}
    places: dict[str, tuple[int, int]] = {}
    keys = TensorUnpickler(file).load()
    for key in keys:
        count = int.from_bytes(file.read(8), "little", signed=True)
        if key not in sizes or count < 0 or file.tell() + count * sizes[key] > size:
            raise pickle.UnpicklingError("a storage is cut, or of no tensor")
        places[key] = (file.tell(), count * sizes[key])
        file.seek(count * sizes[key], io.SEEK_CUR)

    def read(storage: _Storage) -> bytes:
        start, length = places.get(storage.key, (0, 0))
        if length < storage.numbers * storage.kind.size:
            raise pickle.UnpicklingError("a storage is cut")
        file.seek(start)
        return file.read(length)

    return _Archive(tensors, frozenset(unpickler.found), read)


def _tensors(found: Any) -> Mapping[str, _Tensor]:
    if isinstance(found, dict) and isinstance(found.get(_NESTED), dict):
        found = found[_NESTED]
    if not isinstance(found, dict) or not found:
        raise pickle.UnpicklingError("it holds no named tensors")
    for name, each in found.items():
        if not isinstance(name, str) or not name or len(name) > _LONGEST_NAME:
            raise pickle.UnpicklingError("a tensor has no name")
        if not isinstance(each, _Tensor):
            raise pickle.UnpicklingError(f"its entry {name[:80]!r} is no tensor")
    return found


def _in_order(tensor: _Tensor, stored: bytes) -> bytes:
    """The tensor's numbers, row by row."""
    size = tensor.storage.kind.size
    if not math.prod(tensor.shape):
        return b""
    numbers = np.frombuffer(stored, np.dtype(f"V{size}"))[tensor.offset :]
    strides = tuple(size * each for each in tensor.strides)
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides)).tobytes()


def convert(source: Path, target: Path) -> list[str]:
    """Write the tensors of a pickle as safetensors; their names."""
    with source.open("rb") as file, target.open("xb") as out:
        found = _open(file, source.stat().st_size)
        names, start = sorted(found.tensors), 0
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        for name in names:
            tensor = found.tensors[name]
            stop = start + tensor.bytes
            header[name] = {
                "dtype": tensor.storage.kind.dtype, "shape": list(tensor.shape), "data_offsets": [start, stop],
            }  # fmt: skip
            start = stop
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % _PAD)
        out.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            out.write(_in_order(found.tensors[name], found.read(found.tensors[name].storage)))
    return names


class InspectionRequest(TypedDict):
    files: Sequence[str]


def inspect(payload: InspectionRequest) -> Inspection:
    """The service of the pool: what would be converted. Raises REFUSED for a pickle that would not be."""
    tensors, size, names = 0, 0, set[str]()
    for each in payload["files"]:
        path = Path(each)
        try:
            with path.open("rb") as file:
                found = _open(file, path.stat().st_size)
        except Exception as error:  # the bytes may have been made to raise anything
            raise SpeciateError(
                Code.REFUSED,
                f"{path.name[:100]!r} is no pickle of tensors alone, so it is never converted.",
                "Use another model, or have its maker publish it as safetensors.",
                f"{type(error).__name__}: {error}"[:_LONGEST_NAME],
            ) from error
        tensors += len(found.tensors)
        size += sum(tensor.bytes for tensor in found.tensors.values())
        names |= found.names
    return {"tensors": tensors, "bytes": size, "names": sorted(names)}


class Conversion:
    def open(self, loading: None) -> None:
        """Nothing to load."""

    def answer(self, question: ConversionRequest) -> dict[str, list[str]]:
        return {target: convert(Path(source), Path(target)) for source, target in question["files"].items()}


if __name__ == "__main__":
    serve(Conversion())
