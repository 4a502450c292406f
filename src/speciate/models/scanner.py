"""A scanner for pickles as a tripwire, where one is installed: it never allows anything, and what it finds refuses.

What may be loaded is decided by trust.py, which takes no pickle whatever a scanner says of it: scanners are evaded.
But a folder in which one finds a pickle that runs code was made to do harm, and its other files are not to be believed
either. The library picklescan reads opcodes and runs nothing.
"""

from __future__ import annotations

import importlib.metadata
import logging
import stat
from pathlib import Path
from typing import Any, NamedTuple

from speciate import foreign_files
from speciate.errors import Code, SpeciateError

_PACKAGE = "picklescan"
_LARGEST = 4 << 30  # bytes of a file that is looked into
_LEFT_OUT = (".7z", ".safetensors", ".json")
"""What the scanner would unpack to disk first, and what trust.py checks by its own format."""
_SHOWN = 5


class Scanned(NamedTuple):
    by: str | None
    """Name and version; None where no scanner is installed."""
    files: int
    """With pickles in them, or such as could have."""
    unread: tuple[str, ...] = ()
    """Files that it could not read."""


def scan(folder: Path) -> Scanned:
    """All files at the top of a folder, those too that would not be taken. REFUSED where one runs code when it is
    unpickled."""
    try:
        from picklescan.scanner import scan_bytes
    except ImportError:
        return Scanned(None, 0)
    logging.getLogger(_PACKAGE).setLevel(logging.CRITICAL)  # what it says quotes foreign names
    files, unread = 0, []
    for path in sorted(folder.iterdir()):
        said = path.lstat()
        if not stat.S_ISREG(said.st_mode) or said.st_size > _LARGEST or path.suffix.lower() in _LEFT_OUT:
            continue
        try:
            with foreign_files.open_file(path) as opened:
                found: Any = scan_bytes(opened, str(path), path.suffix)
        except Exception:  # noqa: BLE001 - of the library, on bytes that were made to confuse it
            unread.append(path.name)
            continue
        files += found.scanned_files
        unread += [path.name] if found.scan_err else []
        if found.issues_count:
            raise _refused(path.name, found)
    return Scanned(f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)}", files, tuple(unread))


def _refused(name: str, found: Any) -> SpeciateError:
    called = sorted({f"{each.module}.{each.name}"[:80] for each in found.globals if each.safety.name == "Dangerous"})
    return SpeciateError(
        Code.REFUSED,
        f"The model is not safe to load: {_PACKAGE} found code in {name!r}, which calls "
        f"{', '.join(called[:_SHOWN])!r}. Pickles are never taken, and of this folder nothing else is either.",
        "Do not use what this publisher made; find another model with search_models.",
    )
