"""Which other files a mesh or its materials name. Runs in caged processes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_LONGEST = 64 << 20
"""Bytes of a file that are looked through."""
_LIBRARY = re.compile(rb"(?m)^[ \t]*mtllib[ \t]+([^\r\n#]+)")
_MAP = re.compile(rb"(?mi)^[ \t]*(?:map_\w+|bump|disp|decal|refl|norm)[ \t]+([^\r\n#]+)")
_OPTION = re.compile(r"^-\w+(\s+(?:on|off|-?[\d.]+|\w(?=\s)))*\s+")


def named(payload: dict[str, Any]) -> dict[str, list[list[str]]]:
    """{paths} -> {names}: for each, the files that it names, as it writes them; none where it cannot be read."""
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
