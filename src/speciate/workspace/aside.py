"""What a repair of the catalog kept: `backups/torn-N` (salvage.py) and `backups/replaced-N` (rebuild.py).

Each says in a file of its own how far the catalog had come when the repair was done. A purge deletes those from before
it, and no later ones; one that says nothing is from before everything. By events and not by times: clocks are set.
"""

from __future__ import annotations

from pathlib import Path

from speciate.workspace.blobs import write_durably

_NOTE = "event"


def folders(backups: Path) -> list[Path]:
    return sorted(path for kind in ("torn", "replaced") for path in backups.glob(f"{kind}-*") if path.is_dir())


def events_of(folder: Path) -> int:
    """The number of the catalog's newest event when the repair was done; 0 where it is not said."""
    return _noted(folder) or 0


def note(folder: Path, events: int) -> None:
    write_durably(folder / _NOTE, str(events).encode())


def unfinished(backups: Path) -> Path | None:
    """Of a log that was cut by somebody who was killed before `settle`; the newest."""
    torn = [path for path in folders(backups) if path.name.startswith("torn-") and _noted(path) is None]
    return max(torn, key=lambda path: path.stat().st_mtime_ns, default=None)


def settle(backups: Path, events: int, *, clean: bool) -> None:
    """Say of what lies there that it is from before now, when the catalog has so many events. `clean`: the catalog's
    file, of which torn folders hold a copy, has no cells any more that somebody wanted forgotten (rewriting.py)."""
    for folder in folders(backups):
        known = _noted(folder)
        if known is None and folder.name.startswith("torn-"):
            note(folder, events if clean else 0)
        elif known is not None and known > events:  # numbers are given anew after a repair
            note(folder, events)


def _noted(folder: Path) -> int | None:
    try:
        return int((folder / _NOTE).read_text())
    except (OSError, ValueError):
        return None
