"""The key with which a workspace signs bundles of evidence: Ed25519, made at its first use.

It lies outside the workspace, in the config folder of the account that runs the daemon, one file for each identity, for
its owner's eyes alone: a backup or a copy of the workspace for somebody else does not carry it. It says that a bundle
comes from this account's workspace, no more: whoever runs programs with the account can sign with it. What a person
decided is signed by the person's own key (`approval_keys`), and those signatures are in the audit.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from speciate.environment import config_folder
from speciate.errors import Code, SpeciateError

_IDENTITY = re.compile(r"[0-9a-f]{32}")


class EvidenceKey(NamedTuple):
    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self.private.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return "EvidenceKey()"


def key_file(identity: str) -> Path:
    """Raises ValueError for what is no identity of a workspace."""
    if not _IDENTITY.fullmatch(identity):
        raise ValueError(f"{identity!r} is no identity of a workspace")
    return config_folder() / "evidence" / f"{identity}.key"


def evidence_key(identity: str) -> EvidenceKey:
    """The key of the workspace with this identity; made where there is none. Raises REFUSED where its file is open to
    others, INVALID where it cannot be read."""
    file = key_file(identity)
    for folder in (file.parent.parent, file.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not file.exists():
        _make(file)
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as opened:
        info = os.fstat(opened.fileno())
        if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
            raise SpeciateError(Code.REFUSED, f"{file} must belong to you alone (mode 0600).", f"Run: chmod 600 {file}")
        text = opened.read(200)
    try:
        return EvidenceKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text.decode().strip())))
    except ValueError:
        raise SpeciateError(
            Code.INVALID,
            f"{file} holds no key.",
            "Restore it, or remove it: the next bundle is then signed by a new key, with another fingerprint.",
        ) from None


def _make(file: Path) -> None:
    """Whole or not at all; of two that make it at once, the first one's stays."""
    temporary = file.with_name(f".{file.name}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as opened:
            opened.write(Ed25519PrivateKey.generate().private_bytes_raw().hex() + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
