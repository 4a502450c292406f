"""Folders whose weights are pickles alone: a person approves their bytes, and a sandboxed process writes the tensors as
safetensors. No other process opens such a file but to hash it.

What was approved is bound to the sha256 of each file. The job that converts copies the files, hashes the copies and
refuses any other content; so neither the folder nor its path is trusted between the answer and the job.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from speciate import foreign_files
from speciate.errors import Call, Code, SpeciateError
from speciate.refs import JobId
from speciate.sandbox.client import Access, AnswerTimeout, ProcessDied, RemoteError, SandboxClient
from speciate.sandbox.kernel import SandboxPolicy
from speciate.sandbox.process import Limits

_PICKLED = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
_INDEX, _NEW_INDEX = "pytorch_model.bin.index.json", "model.safetensors.index.json"
_MODULE = "speciate.models.pickled_weights_process"
_SECONDS = 1800.0
_PIECE, _MEBIBYTE = 1 << 20, 1 << 20
_MEMORY_MB = 1024
"""Megabytes of memory beside four times the largest file."""


class PickledFile(TypedDict):
    sha256: str
    bytes: int


PickledFiles = Mapping[str, PickledFile]
"""By their names."""


class StartedConversion(TypedDict):
    """What an approval leads to."""

    model: str
    job: JobId


class _Copy(NamedTuple):
    sha256: str
    bytes: int


def pickled_names(names: Iterable[str]) -> tuple[str, ...]:
    """The weights of a folder that has no others; () of any other folder."""
    names = tuple(names)
    if any(name.endswith((".safetensors", ".onnx")) for name in names):
        return ()
    return tuple(sorted(name for name in names if _PICKLED.fullmatch(name)))


def superseded(names: Iterable[str]) -> tuple[str, ...]:
    """Files that say where pickled weights lie, which the conversion writes anew."""
    return tuple(name for name in names if name == _INDEX)


def hash_files(folder: Path, names: Iterable[str]) -> PickledFiles:
    """Digest and size of each of the files as they are now. Raises as foreign_files.py does."""
    found: dict[str, PickledFile] = {}
    for name in names:
        sha, size = _read(folder, name, None)
        found[name] = {"sha256": sha, "bytes": size}
    return found


def convert(
    folder: Path, approved: Mapping[str, str], target: Path, scratch: Path, policy: SandboxPolicy
) -> tuple[str, ...]:
    """Write the tensors of the approved files into `target`; the names of the safetensors. `approved`: file -> sha256.

    REFUSED where a file is not what was approved, or holds anything but tensors.
    """
    copies = scratch / "pickles"
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(parents=True)
    sizes = []
    for name, sha in approved.items():
        found = _read(folder, name, copies)
        sizes.append(found.bytes)
        if found.sha256 != sha:
            raise SpeciateError(
                Code.REFUSED,
                f"{name!r} is not what was approved: its sha256 is {found.sha256[:12]}..., not {sha[:12]}....",
                "Call register_model again: a person is then asked about the bytes that are there now.",
            )
    largest = max(sizes) // _MEBIBYTE + 1
    limits = Limits(memory_mb=_MEMORY_MB + 4 * largest, file_mb=2 * largest + 64, open_files=64)
    client = SandboxClient(_MODULE, scratch, policy, Access((copies,), limits, code=False))
    try:
        wanted = {str(copies / name): str(client.scratch / converted_name(name)) for name in approved}
        client.open(None, _SECONDS)
        written = client.ask({"files": wanted}, _SECONDS)
        names = [converted_name(name) for name in approved]
        foreign_files.copy(client.scratch, names, target)
    except RemoteError as error:
        raise _unreadable("it holds what is no tensor", str(error)) from error
    except (AnswerTimeout, ProcessDied) as error:
        raise _unreadable("the process that read it ended", str(error)) from error
    finally:
        client.end()
        shutil.rmtree(copies, ignore_errors=True)
    if len(names) > 1:
        _write_index(target, {Path(path).name: tensors for path, tensors in _named(written).items()})
    return tuple(names)


def converted_name(name: str) -> str:
    return f"model{name.removeprefix('pytorch_model').removesuffix('.bin')}.safetensors"


def refuse(folder: Path, names: Iterable[str]) -> None:
    """Raise REFUSED, with the call that asks a person, for a folder with pickled weights alone."""
    pickled = pickled_names(names)
    if pickled:
        raise SpeciateError(
            Code.REFUSED,
            f"{str(folder)!r} is not safe to load: its weights are pickles ({', '.join(map(repr, pickled[:3]))}), "
            "which can run code.",
            "register_model asks a person whether their tensors may be converted to safetensors in a sandbox; then use "
            "that model.",
            next=[Call("register_model", {"name": _name_of(folder), "source": f"path:{folder}"})],
        )


def _name_of(folder: Path) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", folder.name.lower()).strip("-")[:40] or "converted"


def _named(written: Any) -> Mapping[str, list[str]]:
    """What the process says that it wrote; it has met foreign bytes."""
    if not isinstance(written, dict) or not all(isinstance(each, list) for each in written.values()):
        raise _unreadable("the process that read it gave no list of tensors", "")
    return {str(path): [str(name) for name in tensors] for path, tensors in written.items()}


def _write_index(target: Path, tensors: Mapping[str, list[str]]) -> None:
    where = {name: file for file, names in sorted(tensors.items()) for name in names}
    size = sum((target / file).stat().st_size for file in tensors)
    (target / _NEW_INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=1))


def _read(folder: Path, name: str, target: Path | None) -> _Copy:
    """Hash a file, and copy what is hashed."""
    hasher, size = hashlib.sha256(), 0
    try:
        place = foreign_files.open_folder(folder)
        try:
            with foreign_files.open_file(folder / name, place) as file:
                out = (target / name).open("xb") if target else None
                while piece := file.read(_PIECE):
                    hasher.update(piece)
                    size += len(piece)
                    if out:
                        out.write(piece)
                if out:
                    out.close()
        finally:
            os.close(place)
    except OSError as error:
        raise foreign_files.unreadable(folder / name, error) from error
    return _Copy(hasher.hexdigest(), size)


def _unreadable(why: str, foreign: str) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"The pickle cannot be converted: {why}.",
        "Use another model, or have its maker publish it as safetensors.",
        foreign[:300],
    )
