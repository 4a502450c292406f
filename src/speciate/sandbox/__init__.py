"""The sandbox for foreign bytes and others' code: Landlock and limits by the library `sandlock`, a filter of system
calls of our own (`syscall_filter`), standard error by a pipe (`stderr_relay`), and the layers that this kernel has
(`kernel`).

`start` runs a command in it (`process`); `client` asks one of our modules in it that calls `serve`. Nothing here knows
what is run. Floor 1: errors and environment below. Imports nothing by itself: sandboxed processes need `serve` alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speciate.sandbox.kernel import Layer, SandboxPolicy, check, is_complete, layers
    from speciate.sandbox.process import Limits, Sandbox, SandboxedProcess, python, start

_KERNEL = ("Layer", "SandboxPolicy", "check", "is_complete", "layers")
__all__ = [
    "Layer",
    "Limits",
    "Sandbox",
    "SandboxPolicy",
    "SandboxedProcess",
    "check",
    "is_complete",
    "layers",
    "python",
    "start",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'speciate.sandbox' has no attribute {name!r}")
    return getattr(importlib.import_module(f"speciate.sandbox.{'kernel' if name in _KERNEL else 'process'}"), name)
