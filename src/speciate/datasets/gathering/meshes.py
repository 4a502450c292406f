"""Meshes as they lie in folders: an .obj with the .mtl that it names and its textures, or a .gltf with its buffers and
images, is one example. Files that no mesh names are excluded.

The names are read in a sandboxed process, and only files of the listing are taken.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict
from urllib.parse import unquote

from speciate.datasets.sources.listing import ExcludedFile, Listing, SourceFile
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.modalities.image import IMAGE

_NAMES = "speciate.datasets.gathering.meshes:read_mesh_names"
_MAIN = (".obj", ".gltf")
_MATERIALS, _BUFFERS = ".mtl", ".bin"
_SECONDS = 300.0
_AT_ONCE = 500
_LONGEST = 64 << 20
"""Bytes of a file that are searched."""
_LIBRARY = re.compile(rb"(?m)^[ \t]*mtllib[ \t]+([^\r\n#]+)")
_MAP = re.compile(rb"(?mi)^[ \t]*(?:map_\w+|bump|disp|decal|refl|norm)[ \t]+([^\r\n#]+)")
_OPTION = re.compile(r"^-\w+(\s+(?:on|off|-?[\d.]+|\w(?=\s)))*\s+")


def is_meshes(files: Sequence[SourceFile]) -> bool:
    """Whether all files are meshes or belong to them, and there are more files than meshes."""
    names = [file.name.lower() for file in files]
    beside = (_MATERIALS, _BUFFERS)
    return (
        any(name.endswith(_MAIN) for name in names)
        and any(name.endswith(beside) for name in names)
        and all(name.endswith((*_MAIN, *beside, *IMAGE.suffixes)) for name in names)
    )


class MeshFiles(TypedDict):
    paths: list[str]


class MeshNames(TypedDict):
    names: list[list[str]]
    """Names in each file, in the order of the files."""


def gather(found: Listing, context: SourceContext) -> Listing:
    """The listing with one entry for each mesh."""
    main = [file for file in found.files if file.name.lower().endswith(_MAIN)]
    beside = {file.name: file for file in found.files if _is_beside(file)}
    if not beside:
        return found
    named = _ask_for_mesh_names(main, beside, found, context)
    kept = [
        _with_parts(file, [beside[name] for name in named.get(file.name, ())])
        for file in found.files
        if file.name not in beside
    ]
    used = {name for names in named.values() for name in names}
    excluded = [ExcludedFile(name, "No mesh names it.") for name in beside if name not in used]
    return found._replace(files=kept, excluded=[*found.excluded, *excluded])


def _is_beside(file: SourceFile) -> bool:
    return file.name.lower().endswith((_MATERIALS, _BUFFERS, *IMAGE.suffixes))


def _ask_for_mesh_names(
    main: Sequence[SourceFile], beside: dict[str, SourceFile], found: Listing, context: SourceContext
) -> dict[str, list[str]]:
    """Name of a mesh -> the names of the files that belong to it."""
    folded = {name.casefold(): name for name in beside}  # a name that was written on a system that folds case
    wanted: dict[str, list[str]] = {}
    sources = [*main, *(file for file in beside.values() if file.name.lower().endswith(_MATERIALS))]
    for start in range(0, len(sources), _AT_ONCE):
        chunk = sources[start : start + _AT_ONCE]
        answer = context.pool.ask(
            _NAMES, MeshFiles(paths=[str(file.path) for file in chunk]), _SECONDS, readable=found.readable
        )
        for file, names in zip(chunk, answer["names"], strict=True):
            there = [_path_in_source(file.name, str(name)) for name in names]
            wanted[file.name] = [name for each in there if (name := folded.get(each.casefold())) is not None]
    return {file.name: _files_reached(wanted, file.name) for file in main}


def _path_in_source(file: str, name: str) -> str:
    """The path of `name`, written in `file`, below the source; a path out of it is in no listing."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(file), name.replace("\\", "/")))


def _files_reached(wanted: dict[str, list[str]], name: str) -> list[str]:
    """What a mesh names, and what its materials name, in order."""
    direct = wanted.get(name, [])
    return list(dict.fromkeys([*direct, *(texture for each in direct for texture in wanted.get(each, []))]))


def _with_parts(file: SourceFile, others: Sequence[SourceFile]) -> SourceFile:
    """Names from the folder that the parts share, so that the same mesh elsewhere has the same bytes."""
    if not others:
        return file
    shared = posixpath.commonpath([posixpath.dirname(each.name) or "." for each in (file, *others)])
    base = "" if shared == "." else shared
    parts = [(posixpath.relpath(each.name, base or "."), each.path) for each in (file, *others)]
    return file._replace(parts=tuple(parts))


def read_mesh_names(payload: MeshFiles) -> MeshNames:
    """The names that each file mentions, as it writes them; none if it cannot be read."""
    return {"names": [_names(Path(path)) for path in payload["paths"]]}


def _names(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST)
    except OSError:
        return []
    if path.suffix.lower() == ".gltf":
        return _addresses(data)
    if path.suffix.lower() == ".mtl":
        return [_without_options(_text(name)) for name in _MAP.findall(data)]
    libraries = [_text(name) for name in _LIBRARY.findall(data)]
    return [name for line in libraries for name in dict.fromkeys((line, *line.split()))]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace").strip().strip("\"'")


def _without_options(name: str) -> str:
    """`-bm 0.5 -clamp on wood.png` -> `wood.png`"""
    while (rest := _OPTION.sub("", name, count=1)) != name:
        name = rest
    return name


def _addresses(data: bytes) -> list[str]:
    try:
        tree = json.loads(data)
        entries = [*tree.get("buffers", []), *tree.get("images", [])]
        addresses = [entry["uri"] for entry in entries if isinstance(entry.get("uri"), str)]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return []
    return [unquote(address) for address in addresses if not address.startswith("data:")]
