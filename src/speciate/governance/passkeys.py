"""Passkeys (WebAuthn) as keys that sign what a person decides: made and used in a browser, checked by python-fido2.

The challenge of an assertion is the sha256 of the statement, so a touch signs exactly one question. A person must have
been there and been verified (PIN, finger, face), and the page must have been the one that the passkey was made on.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from speciate.errors import Code, SpeciateError

if TYPE_CHECKING:
    from fido2.server import Fido2Server
    from fido2.webauthn import AttestedCredentialData

_LONGEST_HOST = 253
_LONGEST_RESPONSE = 8192
_MOST_PENDING = 200


class Passkey(NamedTuple):
    """The public half, as the line `HOST CREDENTIAL` has it."""

    host: str
    """Host of the pages that it was made on (the relying party's id)."""
    credential: bytes
    """As authenticators write it: its id and its public key (WebAuthn, attested credential data)."""

    @property
    def line(self) -> str:
        return f"{self.host} {self.credential.hex()}"

    @property
    def id(self) -> str:
        """The credential's id, in hex digits."""
        return _credential(self).credential_id.hex()


def parse(line: str) -> Passkey:
    """Raises ValueError for what is no passkey."""
    host, _, rest = line.partition(" ")
    if not host or len(host) > _LONGEST_HOST or host != host.lower() or not host.isascii():
        raise ValueError("no host name")
    found = Passkey(host, bytes.fromhex(rest))
    try:
        whole = bytes(_credential(found))
    except _WRONG as error:
        raise ValueError("no credential") from error
    if whole != found.credential or found.line != line:
        raise ValueError("no credential")
    return found


def begin(host: str, name: str, user: bytes, known: list[Passkey]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What the browser is asked for a new passkey (`CredentialCreationOptions` as JSON), and what `made` needs."""
    from fido2.webauthn import PublicKeyCredentialUserEntity, ResidentKeyRequirement, UserVerificationRequirement

    entity = PublicKeyCredentialUserEntity(id=user, name=name, display_name=name)
    options, state = _server(host).register_begin(
        entity, [_credential(each) for each in known], resident_key_requirement=ResidentKeyRequirement.DISCOURAGED,
        user_verification=UserVerificationRequirement.REQUIRED,
    )  # fmt: skip
    return dict(options), state


def made(host: str, state: Mapping[str, Any], response: str) -> Passkey:
    """The passkey that a browser made. `response`: its `RegistrationResponse` as JSON. Raises INVALID."""
    try:
        found = _server(host).register_complete(state, _parse(response))
    except _WRONG as error:
        raise SpeciateError(
            Code.INVALID, f"This is no new passkey of {host}: {error}.", "Load the page again and repeat."
        ) from None
    assert found.credential_data is not None, "the library refuses a registration without"
    return Passkey(host, bytes(found.credential_data))


def is_signed(passkey: Passkey, message: bytes, response: str) -> bool:
    """Whether a verified person signed this message with it. `response`: an `AuthenticationResponse` as JSON."""
    from fido2.utils import websafe_encode
    from fido2.webauthn import UserVerificationRequirement

    challenge = websafe_encode(hashlib.sha256(message).digest())
    state = {"challenge": challenge, "user_verification": UserVerificationRequirement.REQUIRED}
    try:
        given = _parse(response)
        _server(passkey.host).authenticate_complete(state, [_credential(passkey)], given)
    except _WRONG:
        return False
    return True


_WRONG = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
"""What the library raises for anything that is not as it should be."""


def _parse(response: str) -> dict[str, Any]:
    if len(response) > _LONGEST_RESPONSE:
        raise ValueError("too long")
    found = json.loads(response)
    given = found["response"]["clientDataJSON"]
    if not isinstance(given, str):
        raise TypeError("no client data")
    from fido2.utils import websafe_decode

    if json.loads(websafe_decode(given)).get("crossOrigin"):
        raise ValueError("asked for in a frame of another origin")
    return dict(found)


def _credential(passkey: Passkey) -> AttestedCredentialData:
    found: AttestedCredentialData = _library().AttestedCredentialData(passkey.credential)
    return found


def _server(host: str) -> Fido2Server:
    library = _library()
    from fido2.server import Fido2Server

    entity = library.PublicKeyCredentialRpEntity(id=host, name="speciate")
    return Fido2Server(entity, verify_origin=lambda origin: is_origin_of(host, origin))


def is_origin_of(host: str, origin: str) -> bool:
    """Whether a page of this origin is one of ours: over HTTPS, or by a name of the browser's own machine."""
    parts = urlsplit(origin)
    return parts.hostname == host and (
        parts.scheme == "https" or (parts.scheme == "http" and host.endswith(".localhost"))
    )


def _library() -> Any:
    """Raises UNAVAILABLE where the extra is not installed."""
    try:
        import fido2.webauthn
    except ImportError:
        raise SpeciateError(
            Code.UNAVAILABLE,
            "Passkeys are checked by python-fido2, and it is not installed.",
            "Install it where the daemon runs: pip install 'speciate[passkeys]', then: speciate stop",
        ) from None
    return fido2.webauthn


class PendingPasskey(NamedTuple):
    state: Mapping[str, Any]
    name: str
    until: float
    """By the monotonic clock."""


class PendingPasskeys:
    """What browsers were asked to make, by session. In memory alone. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, PendingPasskey] = {}

    def hold(self, session: str, pending: PendingPasskey) -> None:
        with self._lock:
            self._held.pop(session, None)
            while len(self._held) >= _MOST_PENDING:
                del self._held[next(iter(self._held))]
            self._held[session] = pending

    def take(self, session: str) -> PendingPasskey | None:
        with self._lock:
            return self._held.pop(session, None)
