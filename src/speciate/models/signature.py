"""Who signed a model version: `model.sig` beside its files, in the format of OpenSSF Model Signing.

The library `model-signing` writes it and verifies all of it (cli/signing_commands.py). At every load this module checks
the same envelope in milliseconds: its signature (DSSE over ECDSA) by one of the keys that a person named, and that it
lists exactly what files.json lists. sealed.py checks the files against files.json before they are read. The card
(model.json) is not signed, as nothing that loads a model believes it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.models import sealed
from speciate.models.model_card import ModelCard

SIGNATURE = "model.sig"
UNSIGNED = (sealed.CARD, SIGNATURE)
"""Files of a version's folder that a signature does not cover."""
_HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
_LONGEST = 16 << 20  # bytes of a signature that are read

State = Literal["none", "valid", "unknown_key", "broken"]


class SignatureCheck(NamedTuple):
    state: State
    key: str | None
    """sha256 of the public key that the signature names."""
    signer: str | None
    """The file of that key, where a person named it."""
    why: str


def verify(folder: Path, keys: Sequence[Path]) -> SignatureCheck:
    """Check the signature of a sealed folder by these public keys. Raises MISSING_EXTRA if there is a signature and no
    `cryptography`; NOT_FOUND or INVALID for a key that cannot be read."""
    path = folder / SIGNATURE
    if not path.is_file():
        return SignatureCheck("none", None, None, f"It has no {SIGNATURE}.")
    try:
        if path.stat().st_size > _LONGEST:
            raise ValueError("it is too long")
        bundle = json.loads(path.read_bytes())
        named = str(bundle["verificationMaterial"]["publicKey"]["hint"])
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        kind = str(envelope["payloadType"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        return SignatureCheck("broken", None, None, f"{SIGNATURE} cannot be read: {error}.")
    known = {fingerprint(key): key for key in keys}
    if named not in known:
        return SignatureCheck(
            "unknown_key", named, None, f"It is signed by the key {named[:16]}, which nobody named here."
        )
    signer = known[named].name
    if not _is_valid(known[named], signature, _encoded(kind, payload)):
        return SignatureCheck("broken", named, signer, f"{SIGNATURE} was not made by the key that it names.")
    if (why := _differs(folder, payload)) is not None:
        return SignatureCheck("broken", named, signer, why)
    return SignatureCheck("valid", named, signer, f"Signed by {signer} ({named[:16]}).")


def check(folder: Path, card: ModelCard, keys: Sequence[Path]) -> None:
    """Raise REFUSED if the version is not signed by one of these keys, was changed since, or was replaced."""
    found = verify(folder, keys)
    why = found.why
    if found.state == "valid":
        if hashlib.sha256((folder / sealed.MANIFEST).read_bytes()).hexdigest() == card.id:
            return
        why = "The folder holds another model than the one that was registered."
    raise SpeciateError(
        Code.REFUSED,
        f"{card.ref} is not loaded, as this workspace wants signatures. {why}",
        f"A person signs it on a terminal: speciate sign {card.ref} --key PRIVATE.pem",
    )


def fingerprint(key: Path) -> str:
    """sha256 of the public key as PEM, as signatures name it."""
    pem = _public(key).public_bytes(*_pem())
    return hashlib.sha256(pem).hexdigest()


def _is_valid(key: Path, signature: bytes, text: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    public = _public(key)
    try:
        public.verify(signature, text, ec.ECDSA(getattr(hashes, _HASHES[public.curve.name])()))
    except InvalidSignature:
        return False
    return True


def _differs(folder: Path, payload: bytes) -> str | None:
    """How the signed list differs from files.json; None if it does not."""
    try:
        listed = {
            str(each["name"]): str(each["digest"]) for each in json.loads(payload)["predicate"]["resources"]
            if each["algorithm"] == "sha256"
        }  # fmt: skip
        manifest = (folder / sealed.MANIFEST).read_bytes()
        wanted = {**json.loads(manifest), sealed.MANIFEST: hashlib.sha256(manifest).hexdigest()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"What was signed cannot be compared: {error}."
    changed = sorted(name for name in {*listed, *wanted} if listed.get(name) != wanted.get(name))
    return f"{changed[0]!r} is not what was signed." if changed else None


def _encoded(kind: str, payload: bytes) -> bytes:
    """The bytes that a DSSE signature covers: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md"""
    return b"DSSEv1 %d %b %d %b" % (len(kind.encode()), kind.encode(), len(payload), payload)


def _public(key: Path) -> Any:
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise SpeciateError(
            Code.MISSING_EXTRA, "Signatures need the package 'cryptography'.", "Run: pip install 'speciate[signing]'"
        ) from None
    try:
        public = load_pem_public_key(key.read_bytes())
    except FileNotFoundError:
        raise SpeciateError(Code.NOT_FOUND, f"There is no key {key}.", "Mend public_keys in settings.toml.") from None
    except ValueError as error:
        raise _no_key(key) from error
    if getattr(getattr(public, "curve", None), "name", None) not in _HASHES:
        raise _no_key(key)
    return public


def _no_key(key: Path) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{key} holds no public key of the curves {', '.join(_HASHES)}.",
        "Make one: openssl ecparam -name prime256v1 -genkey -noout -out private.pem; "
        "openssl ec -in private.pem -pubout -out public.pem",
    )


def _pem() -> tuple[Any, Any]:
    from cryptography.hazmat.primitives import serialization

    return serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
