"""The key with which a workspace signs bundles of evidence: Ed25519, made at its first use.

It lies outside the workspace (workspace/key_files.py): a backup or a copy of the workspace for somebody else does not
carry it. It says that a bundle comes from this account's workspace, no more: whoever runs programs with the account can
sign with it. What a person decided is signed by the person's own key (`approval_keys`), and those signatures are in the
audit.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from speciate.workspace import key_files

_OTHERWISE = "the next bundle is then signed by a new key, with another fingerprint"


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
    return key_files.key_file("evidence", identity)


def evidence_key(identity: str) -> EvidenceKey:
    """The key of the workspace with this identity; made where there is none. Raises REFUSED where its file is open to
    others, INVALID where it cannot be read."""
    return EvidenceKey(Ed25519PrivateKey.from_private_bytes(key_files.read_key(key_file(identity), _OTHERWISE)))
