"""Named points where the crash suite stops a process: `fault("after_commit_before_launch")`.

SPECIATE_FAULT is `POINT:ACTION` or `POINT:ACTION:FILE`; a point that it does not name is a comparison of two strings.
Actions: `kill` (as `kill -9` would), `exit` (with status 71, running no clean-up), `block` (until killed). With FILE
it happens once in all processes together: in the one that creates it. `POINT:break` switches off what a promise rests
on (`broken`), to show that the suite would notice.
"""

from __future__ import annotations

import os
import signal

from speciate.environment import keeps_test_hooks

_POINT = _ACTION = _ONCE = ""


def reread() -> None:
    """Reads the fault point again from the environment: a fork has another one than the process that imported this."""
    global _POINT, _ACTION, _ONCE
    _POINT, _ACTION, _ONCE = ((keeps_test_hooks() or "") + "::").split(":")[:3]


reread()


def fault(point: str) -> None:
    """Do nothing, unless this process was started to fail exactly here."""
    if point != _POINT or _ACTION == "break" or (_ONCE and not _first()):
        return
    if _ACTION == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif _ACTION == "exit":
        os._exit(71)
    elif _ACTION == "block":
        while True:
            signal.pause()
    else:
        raise ValueError(f"SPECIATE_FAULT names the action {_ACTION!r}; valid: kill, exit, block, break")


def _first() -> bool:
    try:
        os.close(os.open(_ONCE, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def broken(part: str) -> bool:
    """Whether this process was started with this very part of the design left out."""
    return part == _POINT and _ACTION == "break"
