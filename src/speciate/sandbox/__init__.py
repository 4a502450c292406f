"""The sandbox for foreign bytes and others' code: Landlock and limits by the library `sandlock`, a filter of system
calls of our own (`filter`), standard error by a pipe (`relay`), and what this kernel has of it (`kernel`).

`start` runs a command in it (`processes`). Nothing here knows what is run. Floor 1: errors and environment below.
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
