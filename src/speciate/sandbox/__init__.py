"""The sandbox for foreign bytes and others' code: Landlock and limits by the library `sandlock`, our own filter of
system calls (syscall_filter.py), standard error by a pipe (stderr_relay.py), and the layers of this kernel (kernel.py).

`start` runs a command in it (process.py). Nothing here knows what is run. May use: errors and environment.
"""

from speciate.sandbox.kernel import Layer, SandboxPolicy, check, is_complete, layers
from speciate.sandbox.process import Limits, Sandbox, SandboxedProcess, python, start

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
