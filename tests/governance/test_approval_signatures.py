"""What is signed, and the keys that sign it: those of ssh-keygen with the real program, a hardware key with a token of
software that follows OpenSSH's PROTOCOL.u2f."""

from __future__ import annotations

import base64
import hashlib
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from speciate.errors import Code, SpeciateError
from speciate.governance.approval_signatures import (
    NAMESPACE,
    Key,
    Question,
    canonical,
    check_signature,
    public_key,
    ssh_keygen,
    statement,
)
from tests.governance.people import Signer

needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
QUESTION = Question("approve", "promote", {"model": "m@v1"}, {"evidence": {"n": 1}})
PARTS: dict[str, Any] = {
    "workspace": "ab" * 16, "question": QUESTION, "head": "1:ff", "challenge": "cd" * 16, "until": 1_800_000_120.0,
}  # fmt: skip


def test_every_part_of_a_statement_counts() -> None:
    first = statement(**PARTS)
    others = {
        "workspace": "ac" * 16, "head": "2:ff", "challenge": "ce" * 16, "until": 1_800_000_121.0,
        "question": [
            QUESTION._replace(decision="deny"), QUESTION._replace(action="purge"),
            QUESTION._replace(arguments={"model": "m@v2"}), QUESTION._replace(shown={"evidence": {"n": 2}}),
        ],
    }  # fmt: skip
    made = {
        statement(**PARTS | {name: other})
        for name, given in others.items()
        for other in (given if isinstance(given, list) and name == "question" else [given])
    }
    assert first not in made
    assert len(made) == 8


def test_the_order_of_names_does_not_count_and_a_number_that_is_none_is_refused() -> None:
    assert canonical({"a": 1, "b": [1, 2]}) == canonical({"b": [1, 2], "a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        canonical({"a": float("nan")})


@pytest.mark.parametrize("signature", ["", "zz", "00" * 64, "0" * 20_000, 5, None])
def test_what_is_no_signature_is_refused(signature: Any) -> None:
    with pytest.raises(SpeciateError, match="is not of what would be done"):
        check_signature(Signer("ann").key, b"x", signature)


@pytest.mark.parametrize(
    ("kind", "public"),
    [
        ("sealed", ""), ("sealed", "00"), ("sealed", "zz" * 32), ("ssh", ""), ("ssh", "ssh-ed25519"),
        ("ssh", "ssh-ed25519 !!!!"), ("ssh", "ssh-rsa AAAAC3NzaC1lZDI1NTE5"), ("pgp", "x"),
        ("ssh", 'cert-authority ssh-ed25519 AAAA"\nother ssh-ed25519 AAAA'),
    ],
)  # fmt: skip
def test_what_is_no_public_key_is_refused(kind: str, public: str) -> None:
    with pytest.raises(SpeciateError, match="no public key") as caught:
        public_key("ann", kind, public)
    assert caught.value.code is Code.INVALID


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Key]:
    path = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ann at home", "-f", path], check=True)
    return path, public_key("ann", "ssh", path.with_suffix(".pub").read_text())


def signed(path: Path, message: bytes, namespace: str = NAMESPACE) -> str:
    command = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(path)]
    return subprocess.run(command, input=message, capture_output=True, check=True).stdout.decode()


@needs_ssh
def test_a_key_of_openssh_signs_this_and_nothing_else(pair: tuple[Path, Key], tmp_path: Path) -> None:
    path, key = pair
    message = statement(**PARTS)
    check_signature(key, message, signed(path, message))
    with pytest.raises(SpeciateError, match="is not of what would be done"):
        check_signature(key, message + b".", signed(path, message))
    with pytest.raises(SpeciateError, match="is not of what would be done"):
        check_signature(key, message, signed(path, message, "file"))
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    with pytest.raises(SpeciateError, match="is not of what would be done"):
        check_signature(key, message, signed(other, message))


@needs_ssh
def test_a_hardware_keys_signature_must_say_that_it_was_touched() -> None:
    token = Token()
    message = statement(**PARTS)
    check_signature(token.key, message, token.sign(message, flags=1))
    check_signature(token.key, message, token.sign(message, flags=5))
    with pytest.raises(SpeciateError, match="without a touch"):
        check_signature(token.key, message, token.sign(message, flags=0))
    forged = token.sign(message, flags=0, said=1)
    with pytest.raises(SpeciateError, match="is not of what would be done"):
        check_signature(token.key, message, forged)


def test_without_ssh_keygen_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpeciateError, match="ssh-keygen, and it is not installed") as caught:
        ssh_keygen()
    assert (caught.value.code, "openssh-client" in caught.value.recovery) == (Code.UNAVAILABLE, True)


class Token:
    """A security key in software."""

    _KIND, _APPLICATION = b"sk-ssh-ed25519@openssh.com", b"ssh:"

    def __init__(self) -> None:
        self._private = Ed25519PrivateKey.generate()
        public = self._private.public_key().public_bytes_raw()
        self._blob = _string(self._KIND) + _string(public) + _string(self._APPLICATION)
        self.key = public_key("ann", "ssh", f"{self._KIND.decode()} {base64.b64encode(self._blob).decode()} a comment")

    def sign(self, message: bytes, flags: int, said: int | None = None) -> str:
        """`said`: the flags that stand in the signature, where they are others than the signed ones."""
        hashed = hashlib.sha512(message).digest()
        wrapped = b"SSHSIG" + b"".join(map(_string, (NAMESPACE.encode(), b"", b"sha512", hashed)))
        counted = struct.pack(">BI", flags, 7)
        data = hashlib.sha256(self._APPLICATION).digest() + counted + hashlib.sha256(wrapped).digest()
        shown = struct.pack(">BI", flags if said is None else said, 7)
        inner = _string(self._KIND) + _string(self._private.sign(data)) + shown
        rest = b"".join(map(_string, (self._blob, NAMESPACE.encode(), b"", b"sha512", inner)))
        text = base64.encodebytes(b"SSHSIG" + struct.pack(">I", 1) + rest).decode()
        return f"-----BEGIN SSH SIGNATURE-----\n{text}-----END SSH SIGNATURE-----\n"


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
