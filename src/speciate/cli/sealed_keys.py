"""A person's private key in a file of the config folder, sealed by a passphrase: scrypt, then AES-GCM.

It is written once, read by no daemon, and never leaves this process unsealed. A guess at the passphrase costs 128 MiB
and about half a second.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from speciate.environment import config_folder
from speciate.errors import Code, SpeciateError
from speciate.governance.approval_signatures import Key, public_key
from speciate.refs import check_name
from speciate.workspace.blobs import make_folder, sync_folder

SHORTEST = 12
_VERSION = 1
_COST = {"n": 1 << 17, "r": 8, "p": 1}
_MOST_COST = {"n": 1 << 20, "r": 16, "p": 4}
"""A file that asks for more is none of ours, and would take the machine's memory."""
_CONTEXT = b"speciate-approval-key-v1\0"
_LONGEST = 4096


class StoredKey(NamedTuple):
    """What lies in a person's folder for one key."""

    path: Path
    key: Key
    sealed: Mapping[str, Any]
    """Empty for a key of `ssh-keygen`."""
    ssh: Path | None
    """Where that one's public half lay when it was enrolled."""


def folder() -> Path:
    return config_folder() / "approval_keys"


def create(name: str, passphrase: str) -> tuple[StoredKey, Ed25519PrivateKey]:
    """Make a key and its file. Raises INVALID for a short passphrase, CONFLICT where a file of that name is there."""
    if len(passphrase) < SHORTEST:
        raise SpeciateError(
            Code.INVALID, f"The passphrase has fewer than {SHORTEST} characters.", "Five words in a row are a good one."
        )
    private, salt, nonce = Ed25519PrivateKey.generate(), secrets.token_bytes(16), secrets.token_bytes(12)
    public = private.public_key().public_bytes_raw()
    sealed = {
        "salt": salt.hex(), "nonce": nonce.hex(), **_COST,
        "sealed": _cipher(passphrase, salt, _COST).encrypt(nonce, private.private_bytes_raw(), _CONTEXT + public).hex(),
    }  # fmt: skip
    key = public_key(name, "sealed", public.hex())
    path = _write(name, {"version": _VERSION, "name": name, "kind": "sealed", "public": key.public, **sealed})
    return StoredKey(path, key, sealed, None), private


def remember(key: Key, ssh: Path) -> StoredKey:
    """Note where a key of `ssh-keygen` lies, unless that is noted."""
    for stored in all_keys():
        if stored.key.fingerprint == key.fingerprint:
            return stored
    fields = {"version": _VERSION, "name": key.name, "kind": "ssh", "public": key.public, "ssh": str(ssh)}
    return StoredKey(_write(key.name, fields), key, {}, ssh)


def unseal(stored: StoredKey, passphrase: str) -> Ed25519PrivateKey:
    """Raises REFUSED for a wrong passphrase, INVALID for a file that is not as it was written."""
    sealed = stored.sealed
    try:
        cost = {name: int(sealed[name]) for name in _COST}
        if any(not 0 < cost[name] <= most for name, most in _MOST_COST.items()):
            raise ValueError("its cost is none of ours")
        cipher = _cipher(passphrase, bytes.fromhex(sealed["salt"]), cost)
        context = _CONTEXT + bytes.fromhex(stored.key.public)
        raw = cipher.decrypt(bytes.fromhex(sealed["nonce"]), bytes.fromhex(sealed["sealed"]), context)
        return Ed25519PrivateKey.from_private_bytes(raw)
    except InvalidTag:
        raise SpeciateError(
            Code.REFUSED, f"The passphrase does not open the key {stored.key.name!r}.", "Repeat the command."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(stored.path, error) from None


def find(name: str) -> StoredKey | None:
    return next((stored for stored in all_keys() if stored.key.name == name), None)


def all_keys() -> Iterator[StoredKey]:
    """All keys by name. One that is damaged, a link or open to others is left out, and said on standard error: it must
    not keep the other keys from signing. Raises REFUSED for a folder that is open to others."""
    try:
        names = sorted(name for name in os.listdir(folder()) if name.endswith(".json"))
    except FileNotFoundError:
        return
    _check_private(folder().stat(), folder(), "700")
    for name in names:
        try:
            stored = _read(folder() / name)
        except SpeciateError as error:
            sys.stderr.write(f"This key is left out: {error}\n")
            continue
        yield stored


def _read(path: Path) -> StoredKey:
    """Not through a link, and only a file that is this name's alone: its content could be another's else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SpeciateError(
            Code.REFUSED, f"{path} cannot be opened as a key: {error.strerror}.", "A key file is no link; remove it."
        ) from None
    with open(descriptor, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            raise SpeciateError(
                Code.REFUSED,
                f"{path} is no file of its own: it has {info.st_nlink} names, or is none.",
                "Copy it to a new file of mode 0600, and remove this one.",
            )
        _check_private(info, path, "600")
        data = file.read(_LONGEST + 1)
    try:
        fields = json.loads(data)
        if len(data) > _LONGEST or fields["version"] != _VERSION:
            raise ValueError("it is of another version")
        key = public_key(str(fields["name"]), str(fields["kind"]), str(fields["public"]))
        sealed = {name: fields[name] for name in ("salt", "nonce", "sealed", *_COST)} if key.kind == "sealed" else {}
        return StoredKey(path, key, sealed, Path(fields["ssh"]) if key.kind == "ssh" else None)
    except (ValueError, KeyError, TypeError, SpeciateError) as error:
        raise _damaged(path, error) from None


def _write(name: str, fields: Mapping[str, object]) -> Path:
    check_name("key", name)
    path = folder() / f"{name}.json"
    for each in (config_folder(), folder()):
        make_folder(each, mode=0o700)
        _check_private(each.stat(), each, "700")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SpeciateError(
            Code.CONFLICT, f"There is a key {name!r} already: {path}.", "Choose another name: --name NAME"
        ) from None
    with open(descriptor, "w") as file:
        json.dump(fields, file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
    return path


def _check_private(info: os.stat_result, path: Path, mode: str) -> None:
    if info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise SpeciateError(
            Code.REFUSED,
            f"{path} must belong to you alone (mode 0{mode}): others could read or swap your key.",
            f"Where nobody did, run: chmod {mode} {path}; where somebody may have, revoke it: speciate key revoke",
        )


def _cipher(passphrase: str, salt: bytes, cost: dict[str, int]) -> AESGCM:
    return AESGCM(Scrypt(salt=salt, length=32, **cost).derive(passphrase.encode()))


def _damaged(path: Path, error: Exception) -> SpeciateError:
    return SpeciateError(
        Code.INVALID, f"{path} is not as it was written: {error}.", "Restore it, or enroll another key: speciate key"
    )
