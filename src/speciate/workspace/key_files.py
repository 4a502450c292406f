"""Keys that a workspace makes for itself, outside it: 32 random bytes each, made at their first use.

They lie in the config folder of the account that runs the daemon, one file for each purpose and identity of a
workspace, for its owner's eyes alone. So a backup, an export or a copy of the workspace for somebody else carries none.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path

from speciate.environment import config_folder
from speciate.errors import Code, SpeciateError
from speciate.workspace.blobs import make_folder, sync_folder

BYTES = 32
_IDENTITY = re.compile(r"[0-9a-f]{32}")


def key_file(purpose: str, identity: str) -> Path:
    """`identity`: of the workspace. Raises ValueError for what is none."""
    if not _IDENTITY.fullmatch(identity):
        raise ValueError(f"{identity!r} is no identity of a workspace")
    return config_folder() / purpose / f"{identity}.key"


def read_key(file: Path, otherwise: str) -> bytes:
    """The key in a file that `key_file` names; made where there is none. `otherwise`: what follows if a person removes
    a damaged one. Raises REFUSED where the file is open to others, INVALID where it holds no key, OSError."""
    if not file.exists():
        make_folder(file.parent, mode=0o700)
        _make(file)
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as opened:
        info = os.fstat(opened.fileno())
        if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
            raise SpeciateError(Code.REFUSED, f"{file} must belong to you alone (mode 0600).", f"Run: chmod 600 {file}")
        text = opened.read(200)
    with contextlib.suppress(ValueError):
        if len(key := bytes.fromhex(text.decode().strip())) == BYTES:
            return key
    raise SpeciateError(Code.INVALID, f"{file} holds no key.", f"Restore it, or remove it: {otherwise}.")


def _make(file: Path) -> None:
    """Whole or not at all; of two that make it at once, the first one's stays."""
    temporary = file.with_name(f".{file.name}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as opened:
            opened.write(os.urandom(BYTES).hex() + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(file.parent)  # what is signed or hashed with it outlives a loss of power, so its name must
