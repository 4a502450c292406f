"""Passkeys: only a touch of a verified person, on our own page, for exactly these bytes, is a signature."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from speciate.errors import SpeciateError
from speciate.governance import approval_keys, audit, authorization
from speciate.governance.approval_signatures import Question, check_signature, public_key, statement
from speciate.governance.passkeys import Passkey
from speciate.workspace.workspace import Workspace
from tests.governance.people import Signer, ask, enroll, forget, perform

fido2 = pytest.importorskip("fido2", reason="the extra `passkeys` is not installed: no python-fido2")

from fido2.cose import ES256  # noqa: E402
from fido2.utils import websafe_encode  # noqa: E402
from fido2.webauthn import Aaguid, AttestedCredentialData  # noqa: E402

HOST, ORIGIN = "speciate.example.com", "https://speciate.example.com"
PRESENT, VERIFIED = 1, 4


class Authenticator:
    """One in software, which says of its person whatever it is told to."""

    def __init__(self, name: str, host: str = HOST) -> None:
        self.private, self.host = ec.generate_private_key(ec.SECP256R1()), host
        self.credential = hashlib.sha256(name.encode()).digest()
        public = ES256.from_cryptography_key(self.private.public_key())
        made = AttestedCredentialData.create(Aaguid(bytes(16)), self.credential, public)
        self.key = public_key(name, "passkey", Passkey(host, bytes(made)).line)

    @property
    def enrollment(self) -> dict[str, Any]:
        return {"name": self.key.name, "kind": self.key.kind, "public": self.key.public}

    def sign(self, message: bytes, *, flags: int = PRESENT | VERIFIED, **changed: Any) -> str:
        """`changed`: what a browser would say otherwise."""
        told = {
            "type": "webauthn.get", "challenge": websafe_encode(hashlib.sha256(message).digest()),
            "origin": f"https://{self.host}", "crossOrigin": False,
        }  # fmt: skip
        client = json.dumps({name: changed.get(name, value) for name, value in told.items()}).encode()
        host = changed.get("host", self.host)
        data = hashlib.sha256(host.encode()).digest() + bytes([flags]) + (7).to_bytes(4, "big")
        signature = self.private.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        name = websafe_encode(changed.get("credential", self.credential))
        response = {
            "clientDataJSON": websafe_encode(client), "authenticatorData": websafe_encode(data),
            "signature": websafe_encode(signature),
        }  # fmt: skip
        return json.dumps({"id": name, "rawId": name, "type": "public-key", "response": response})

    def answer(self, asked: dict[str, Any]) -> dict[str, str]:
        told = Question(**asked["question"])
        message = statement(asked["workspace"], told, asked["head"], asked["challenge"], asked["until"])
        return {"challenge": asked["challenge"], "key": self.key.fingerprint, "signature": self.sign(message)}


MINE = Authenticator("mine")


def holds(message: bytes, response: str, by: Authenticator = MINE) -> bool:
    try:
        check_signature(by.key, message, response)
    except SpeciateError:
        return False
    return True


def test_a_touch_signs_exactly_one_message() -> None:
    assert holds(b"approve this", MINE.sign(b"approve this"))
    assert not holds(b"approve that", MINE.sign(b"approve this"))
    assert not holds(b"approve this", Authenticator("eve").sign(b"approve this"))


@pytest.mark.parametrize(
    "changed",
    [
        {"flags": 0}, {"flags": PRESENT}, {"flags": VERIFIED}, {"type": "webauthn.create"}, {"type": "payment.get"},
        {"origin": "https://evil.example"}, {"origin": f"http://{HOST}"}, {"origin": f"https://x.{HOST}"},
        {"origin": f"https://{HOST}.evil.example"}, {"origin": f"https://evil@{HOST}.evil"}, {"crossOrigin": True},
        {"host": "evil.example"}, {"credential": b"another"}, {"challenge": "AAAA"}, {"challenge": ""},
    ],
)  # fmt: skip
def test_what_is_no_verified_person_on_our_own_page_is_no_signature(changed: dict[str, Any]) -> None:
    assert not holds(b"x", MINE.sign(b"x", **changed))


def test_on_this_machine_a_page_without_https_is_ours() -> None:
    local = Authenticator("local", "speciate-8000.localhost")
    assert holds(b"x", local.sign(b"x", origin="http://speciate-8000.localhost:8000"), local)
    assert not holds(b"x", local.sign(b"x", origin="http://speciate-9000.localhost:9000"), local)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "nonsense", '{"response": {}}', "[" * 5000, "x" * 20_000])
def test_what_is_no_answer_of_a_browser_is_no_signature(text: str) -> None:
    assert not holds(b"x", text)


def test_every_changed_byte_spoils_it() -> None:
    whole = json.loads(MINE.sign(b"x"))
    for name in ("authenticatorData", "signature", "clientDataJSON"):
        text = whole["response"][name]
        for place in range(0, len(text), 7):
            other = "A" if text[place] != "A" else "B"
            changed = {**whole["response"], name: text[:place] + other + text[place + 1 :]}
            assert not holds(b"x", json.dumps({**whole, "response": changed})), (name, place)


@pytest.mark.parametrize("line", ["", "host", f"{HOST} zz", f"{HOST} 00", f"{HOST} " + "00" * 100, "HOST " + "00" * 99])
def test_what_is_no_passkey_cannot_be_enrolled(line: str) -> None:
    with pytest.raises(SpeciateError, match="no public key"):
        public_key("x", "passkey", line)


def test_it_signs_what_only_a_person_may_do_and_the_trail_says_so(workspace: Workspace) -> None:
    ann = Signer("ann")
    enroll(workspace, ann)
    asked = ask(workspace, "key enroll", **MINE.enrollment)
    with pytest.raises(SpeciateError, match="not enrolled"):
        perform(workspace, "key enroll", **MINE.enrollment, signed=MINE.answer(asked))
    asked = ask(workspace, "key enroll", **MINE.enrollment)
    perform(workspace, "key enroll", **MINE.enrollment, signed=ann.answer(asked))
    asked = ask(workspace, "key revoke", key="ann")
    perform(workspace, "key revoke", key="ann", signed=MINE.answer(asked))
    rows = audit.all_rows(workspace.database)
    standing = approval_keys.replay_trail(rows, workspace.identity)
    assert (standing.problems, standing.signed) == ((), 3)
    assert set(standing.keys) == {MINE.key.fingerprint}
    forget(workspace)
    assert authorization.authority_of(workspace).problems == ()
    assert "no program can" in authorization.authority_of(workspace).sentence()
    forget(workspace)
