"""What a person signs, and whether a signature is of it: an ed25519 key sealed by a passphrase, one of `ssh-keygen`, or
a passkey of a browser.

The daemon builds a statement from its own state, the command line from what it showed, and a later check from the row
of the audit. A signature is valid where all three are the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict

from speciate.errors import Code, SpeciateError
from speciate.governance import passkeys

NAMESPACE = "speciate-approval"
"""For `ssh-keygen -Y`: a signature for any other purpose is refused."""
_CONTEXT = b"speciate-approval-v1\0"
_SEALED: Final = "sealed"
_SSH: Final = "ssh"
PASSKEY: Final = "passkey"
Kind = Literal["sealed", "ssh", "passkey"]
_SSH_SECONDS = 20
_LONGEST_PUBLIC, _LONGEST_SIGNATURE = 4096, 16_384
_ARMOR = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_TOUCHED = 1
"""Flag of a hardware key's signature: somebody touched it (PROTOCOL.u2f of OpenSSH, SSH_SK_USER_PRESENCE_REQD)."""


class Key(NamedTuple):
    """The public half of a person's key."""

    fingerprint: str
    name: str
    kind: Kind
    public: str
    """32 bytes in hex digits, the line of an OpenSSH public key without its comment, or `passkeys.Passkey.line`."""

    @property
    def hardware(self) -> bool:
        """Whether it lies in hardware and signs with a touch."""
        return self.kind == _SSH and self.public.startswith("sk-")

    @property
    def bare(self) -> bool:
        """Whether nothing that we know of stands between it and a program: its file may have no passphrase, or an agent
        may have it open."""
        return self.kind == _SSH and not self.hardware


class Question(NamedTuple):
    """What would be done, as it is shown to a person."""

    decision: str
    """approve, deny, or the name of another action that needs a person."""
    action: str
    """What the decision is about: for an approval its action, else the same as `decision`."""
    arguments: Mapping[str, Any]
    shown: Mapping[str, Any]


class SignedAnswer(BaseModel):
    """A person's signed answer, with all that is needed to check it: kept in the evidence of an audit row."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    workspace: str
    """Identity of the catalog."""
    decision: str
    action: str
    arguments: Mapping[str, Any]
    shown: Mapping[str, Any]
    head: str
    """`NUMBER:HASH` of the last row of the audit when it was asked."""
    challenge: str
    until: float
    key: str
    """Fingerprint."""
    name: str
    """Name of the key as it was enrolled."""
    signature: str
    """Hex digits, the armored text of `ssh-keygen`, or what a browser answers for a passkey, as JSON."""

    def message(self) -> bytes:
        question = Question(self.decision, self.action, self.arguments, self.shown)
        return statement(self.workspace, question, self.head, self.challenge, self.until)


def canonical(value: Any) -> str:
    """The one way to write a JSON value. Raises ValueError for a number that is not finite."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def statement(workspace: str, question: Question, head: str, challenge: str, until: float) -> bytes:
    """The bytes that are signed."""
    return _CONTEXT + canonical(
        {
            "workspace": workspace, "decision": question.decision, "action": question.action,
            "arguments": _digest(question.arguments), "shown": _digest(question.shown), "head": head,
            "challenge": challenge, "until": until,
        }
    ).encode()  # fmt: skip


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(dict(value)).encode()).hexdigest()


def public_key(name: str, kind: str, public: str) -> Key:
    """Raises INVALID for what is no public key."""
    if kind == _SEALED and isinstance(public, str):
        try:
            raw = bytes.fromhex(public)
            Ed25519PublicKey.from_public_bytes(raw)
        except ValueError:
            raise _invalid_key_error(public) from None
        return Key(_fingerprint(raw), name, _SEALED, raw.hex())
    if kind == _SSH and isinstance(public, str) and len(public) <= _LONGEST_PUBLIC:
        words = public.split()
        try:
            blob = base64.b64decode(words[1], validate=True)
            if _ssh_string(blob)[0].decode() != words[0] or "\n" in public.strip() or not words[0].isascii():
                raise ValueError
        except (ValueError, IndexError, struct.error):
            raise _invalid_key_error(public) from None
        return Key(_fingerprint(blob), name, _SSH, f"{words[0]} {words[1]}")
    if kind == PASSKEY and isinstance(public, str) and len(public) <= _LONGEST_PUBLIC:
        try:
            passkey = passkeys.parse(public.strip())
        except (ValueError, IndexError, struct.error):
            raise _invalid_key_error(public) from None
        return Key(_fingerprint(passkey.line.encode()), name, PASSKEY, passkey.line)
    raise _invalid_key_error(public)


def check_signature(key: Key, message: bytes, signature: str) -> None:
    """Raises REFUSED where this key did not sign this message, UNAVAILABLE where nothing here can tell."""
    if not isinstance(signature, str) or len(signature) > _LONGEST_SIGNATURE:
        raise _wrong_signature_error(key)
    if key.kind == _SSH:
        _check_ssh(key, message, signature)
        return
    if key.kind == PASSKEY:
        if not passkeys.is_signed(passkeys.parse(key.public), message, signature):
            raise _wrong_signature_error(key)
        return
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        raise _wrong_signature_error(key) from None


def _check_ssh(key: Key, message: bytes, signature: str) -> None:
    """By `ssh-keygen -Y verify` against this one key. A hardware key's signature must say that it was touched, which
    `ssh-keygen` itself does not ask for."""
    if key.hardware and not _has_touch_flag(signature):
        raise SpeciateError(
            Code.REFUSED,
            f"The key {key.name!r} signed without a touch, so a program may have done it alone.",
            "Make a hardware key without the option no-touch-required, and enroll that one.",
        )
    with tempfile.TemporaryDirectory(prefix="speciate-verify-") as folder:
        allowed, armored = Path(folder, "allowed_signers"), Path(folder, "signature")
        allowed.write_text(f'person namespaces="{NAMESPACE}" {key.public}\n')
        armored.write_text(signature)
        files = ("-f", str(allowed), "-s", str(armored))
        command = [ssh_keygen(), "-Y", "verify", "-I", "person", "-n", NAMESPACE, *files]
        try:
            ran = subprocess.run(command, input=message, capture_output=True, timeout=_SSH_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise SpeciateError(
                Code.UNAVAILABLE, f"ssh-keygen did not answer within {_SSH_SECONDS} s.", "Repeat the call."
            ) from None
    if ran.returncode != 0:
        raise _wrong_signature_error(key)


def ssh_keygen() -> str:
    """Raises UNAVAILABLE where it is not installed."""
    if found := shutil.which("ssh-keygen"):
        return found
    raise SpeciateError(
        Code.UNAVAILABLE,
        "Keys of OpenSSH need the program ssh-keygen, and it is not installed.",
        "Install the OpenSSH client (on Debian: apt install openssh-client), then repeat the call.",
    )


def _has_touch_flag(signature: str) -> bool:
    """The flags behind the signature in an SSHSIG (PROTOCOL.sshsig): magic, version, key, namespace, reserved, hash
    algorithm, and the signature itself, which for hardware keys ends in a byte of flags and a counter."""
    begin, end = _ARMOR
    try:
        body = signature.strip().removeprefix(begin).removesuffix(end)
        blob = base64.b64decode("".join(body.split()), validate=True)
        rest = blob[len(b"SSHSIG") + 4 :]
        for _ in range(4):
            _, rest = _ssh_string(rest)
        inner, _ = _ssh_string(rest)
        _, inner = _ssh_string(inner)
        _, inner = _ssh_string(inner)
        return bool(inner[0] & _TOUCHED)
    except (ValueError, struct.error, IndexError):
        return False


def _ssh_string(blob: bytes) -> tuple[bytes, bytes]:
    """The string that a blob of SSH begins with, and what follows it. Raises struct.error or ValueError."""
    (length,) = struct.unpack_from(">I", blob)
    if length > len(blob) - 4:
        raise ValueError("cut off")
    return blob[4 : 4 + length], blob[4 + length :]


def _fingerprint(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()[:32]


def _invalid_key_error(public: object) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"This is no public key: {str(public)[:80]!r}.",
        "Name the .pub file of an OpenSSH key with --ssh, or leave that out for a key with a passphrase.",
    )


def _wrong_signature_error(key: Key) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"The signature of the key {key.name!r} is not of what would be done.",
        "Ask again: repeat the command on a terminal.",
    )
