"""The sandbox for foreign bytes and others' code: Landlock and limits by the library `sandlock`, our own filter of
system calls (syscall_filter.py), standard error by a pipe (stderr_relay.py), and the layers of this kernel (kernel.py).

`start` runs a command in it (process.py), or forks one of our modules from a parent that has made its imports
(warm.py). `client.py` asks one of our modules in it, which calls `serve`. Nothing here knows what is run. May use:
errors and environment. Imports nothing by itself: sandboxed processes need `serve` alone.
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
