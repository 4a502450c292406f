"""Who a process is, in a way that survives reuse of its pid, and how to signal it safely. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def identity(pid: int) -> str:
    """`PID START BOOT`: unique on this machine for ever. Empty where the process is gone (or a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return _identity_elsewhere(pid)
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] == "Z":
        return ""
    return f"{pid} {fields[19]} {_boot_id()}"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "-"


def _identity_elsewhere(pid: int) -> str:
    if Path("/proc/self").exists():
        return ""
    try:  # macOS: no /proc; the pid alone is what there is
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    return f"{pid} - -"


def signal_group(who: str, number: signal.Signals) -> bool:
    """Signal the process group led by `who`, if that very process still leads it. Says whether it was sent."""
    if not who:
        return False
    pid = int(who.split(maxsplit=1)[0])
    if identity(pid) != who:
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
        return True
    return False
