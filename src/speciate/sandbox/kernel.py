"""Which layers of the sandbox this kernel has, and what is refused where one is missing."""

from __future__ import annotations

import platform
import sys
from functools import cache
from typing import Literal, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.sandbox import syscall_filter

_NEEDED_ABI = 4
"""Landlock ABI that holds files (1), truncation (3) and TCP (4): Linux 6.7."""

SandboxPolicy = Literal["required", "where_possible"]
"""Whether our own code may read foreign bytes on a kernel that cannot sandbox it (settings.cage); others' may not."""


class Layer(NamedTuple):
    name: str
    there: bool
    needed: bool
    what: str


def layers() -> list[Layer]:
    """Each part of the sandbox, whether this kernel has it, and whether a sandbox is complete without it."""
    abi, machine, tried = _landlock_abi(), syscall_filter.machine(), syscall_filter.probe_support()
    landlock = (
        ("files", 1, "reads and writes stay in the listed folders"),
        ("truncation", 3, "files outside cannot be emptied"),
        ("network", 4, "no TCP connections, by Landlock as well"),
        ("devices", 5, "no device commands"),
        ("signals", 6, "no signals to processes outside, no connections to their abstract sockets"),
    )
    name = machine.name if machine else f"{platform.machine()}: system calls are known for x86-64 and arm64 alone"
    untried = "" if machine is None or machine.tried else ": its table of system calls was not tried on such a machine"
    filtered = (
        "no socket connects or listens: of all kinds only unix streams and pairs can be made; no watches, devices or "
        "limits of others (seccomp; tried now)"
    )
    return [
        *(Layer(what, abi >= least, least <= _NEEDED_ABI, says) for what, least, says in landlock),
        Layer("architecture", machine is not None, True, name + untried),
        Layer("filter", tried.filter, True, filtered),
        Layer("capabilities", tried.capabilities, True, "none for others' code, also where root starts it"),
    ]  # fmt: skip


def missing_layers() -> list[str]:
    """Layers that are needed and not there."""
    return [layer.name for layer in layers() if layer.needed and not layer.there]


def is_complete() -> bool:
    """Whether every needed layer is there."""
    return not missing_layers()


def check(policy: SandboxPolicy, *, code: bool = False) -> None:
    """Refuse where the kernel lacks a layer: UNAVAILABLE where `policy` requires them all.

    `code`: others' code is to run. It is REFUSED then whatever the policy says.
    """
    lacking = ", ".join(missing_layers())
    if not lacking:
        return
    if policy == "required":
        raise SpeciateError(
            Code.UNAVAILABLE,
            f"This kernel cannot sandbox {'code' if code else 'bytes'} of others (missing: {lacking}), and this "
            "workspace requires the sandbox.",
            "Run `speciate doctor`."
            + ("" if code else " To continue without it, a person sets cage = 'where_possible' in settings.toml."),
        )
    if code:
        raise SpeciateError(
            Code.REFUSED,
            f"Others' code runs in a complete sandbox only, and this kernel lacks: {lacking}. cage = 'where_possible' "
            "is for our own code that reads foreign bytes.",
            "Run `speciate doctor`, or run this on Linux 6.7 or newer with Landlock and seccomp, on x86-64 or arm64.",
        )


@cache
def _landlock_abi() -> int:
    if sys.platform != "linux":
        return 0
    try:
        import sandlock  # type: ignore[import-untyped]  # ships no types
    except (ImportError, OSError):  # not installed, or built for another libc
        return 0
    return int(sandlock.landlock_abi_version())
