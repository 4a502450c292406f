"""On what a training ran: enough to tell why its repetition elsewhere gives other numbers."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import speciate
from speciate.environment import cores, processor

_LIBRARIES = (
    "numpy",
    "scikit-learn",
    "scipy",
    "torch",
    "transformers",
    "timm",
    "peft",
    "trl",
    "tokenizers",
    "pillow",
    "pyarrow",
)
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Flags of the processor that change what numerical libraries compute, or how fast."""


Environment = dict[str, Any]
"""What a training ran on and with: versions of libraries by their names, and properties of the machine."""


def record(threads: int) -> Environment:
    """Flat: name -> value."""
    return {
        "speciate": speciate.__version__,
        "code": code(),
        "python": platform.python_version(),
        **{name: found for name in _LIBRARIES if (found := _version(name))},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": " ".join(flag for flag in _FLAGS if flag in processor_flags()),
        "cores": cores(),
        "threads": threads,
        **_accelerator(),
    }


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, list[object]]:
    """Name -> [before, after], of what is not the same."""
    return {
        name: [before.get(name), after.get(name)]
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


@cache
def code() -> str:
    """sha256 over this package's source files, so that unreleased code is told apart, too."""
    root = Path(speciate.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@cache  # to parse what a package says of itself takes milliseconds
def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


@cache
def processor_flags() -> frozenset[str]:
    return frozenset(next((line for line in processor().splitlines() if line.startswith("flags")), "").split())


def _accelerator() -> Mapping[str, str]:
    """Name of the accelerator, only where torch is loaded already: asking would load it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {"accelerator": torch.cuda.get_device_name(0)}
