"""How much room there is: of the disk that holds the workspace, above what stays free, and of the workspace's quota.

What is free is asked of the system each time. What the workspace takes is only looked at where there is a quota, for
that means looking at every file: not more often than a twentieth of the time, and between two looks whatever the disk
lost is counted as the workspace's.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from speciate.settings import Disk

GB = 1 << 30
_LOOK_SECONDS, _SHARE_OF_TIME = 30.0, 20.0
_BACK = 0.25
"""Spare room as a share of the floor, from which a shortage counts as over: or runs would stop and start in turns."""


class DiskSpace(NamedTuple):
    """Bytes."""

    total: int
    free: int
    floor: int
    """Bytes that must stay free."""
    quota: int | None = None
    used: int | None = None
    """Bytes that the workspace takes; None where there is no quota."""

    @property
    def spare(self) -> int:
        """May still be written; negative where it is too much already."""
        above = self.free - self.floor
        return above if self.quota is None or self.used is None else min(above, self.quota - self.used)

    @property
    def low(self) -> bool:
        """Whether whoever writes must stop."""
        return self.spare < 0

    @property
    def enough(self) -> bool:
        """Whether those that had to stop may go on."""
        return self.spare >= _BACK * self.floor

    def short(self) -> str:
        """What there is too little of, in words."""
        if self.quota is not None and self.used is not None and self.quota - self.used <= self.free - self.floor:
            quota = format_bytes(self.quota)
            return f"the workspace takes {format_bytes(self.used)} of the {quota} that settings.toml allows it"
        return f"the workspace's disk has {format_bytes(self.free)} free, and {format_bytes(self.floor)} must stay free"


class _Measurement(NamedTuple):
    used: int
    free: int
    """Free bytes of the disk at that time."""
    again: float


class DiskGauge:
    """`usage` says what a folder's disk has, as (total, free); tests set it."""

    def __init__(self, root: Path, settings: Disk) -> None:
        self._root, self._settings = root, settings
        self.usage: Callable[[Path], tuple[int, int]] = _usage
        self.monotonic: Callable[[], float] = time.monotonic
        self._looked: _Measurement | None = None

    def look(self) -> DiskSpace:
        """Raises OSError where the disk is gone."""
        total, free = self.usage(self._root)
        floor, quota = int(self._settings.stop_below_gb * GB), self._settings.quota_gb
        if quota is None:
            return DiskSpace(total, free, floor)
        return DiskSpace(total, free, floor, int(quota * GB), self._used(free))

    def _used(self, free: int) -> int:
        began = self.monotonic()
        looked = self._looked
        if looked is None or began >= looked.again:
            used = measure_used(self._root)
            ended = self.monotonic()
            looked = self._looked = _Measurement(
                used, free, ended + max(_LOOK_SECONDS, _SHARE_OF_TIME * (ended - began))
            )
        return looked.used + max(0, looked.free - free)


def measure_used(folder: Path) -> int:
    """Bytes of disk of all files below; a file with several names counts once."""
    total, seen, folders = 0, set[tuple[int, int]](), [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    info = entry.stat(follow_symlinks=False)
                    if (key := (info.st_dev, info.st_ino)) not in seen:
                        seen.add(key)
                        total += 512 * info.st_blocks
        except OSError:  # it went while we looked
            continue
    return total


def format_bytes(count: int) -> str:
    """Bytes as people say them: 1.5 GB."""
    for unit, size in (("TB", 1 << 40), ("GB", GB), ("MB", 1 << 20)):
        if abs(count) >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1024:.3g} kB"


def _usage(folder: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(folder)
    return usage.total, usage.free
