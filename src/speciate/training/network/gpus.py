"""Which GPUs a run computes on: those that no other run of the workspace has.

A lock on a file for each says so, held as long as the run or a fork of it lives. The scheduler has seen to it that
there are enough; this only says which.
"""

from __future__ import annotations

import fcntl
import os
from itertools import count
from pathlib import Path

from speciate.environment import show_gpus

FOLDER = "gpus"
"""Below a workspace's cache."""


def take(folder: Path, wanted: int) -> list[int]:
    """So many numbers from 0 on. From here on torch sees these alone; to be called before it looks."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[int] = []
    for number in count():
        if len(taken) == wanted:
            break
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # kept open: the kernel frees it with the last process
            taken.append(number)
        except BlockingIOError:
            os.close(lock)
    show_gpus(taken)
    return taken
