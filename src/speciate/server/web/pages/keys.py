"""Keys that sign what a person decides: which are enrolled, and a passkey that this browser makes.

A new passkey counts once its enrollment is signed: by an enrolled key, here or on a terminal. The first key of a
workspace signs for itself, which a session of a team may not: whoever holds a token would be the one who approves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.governance import authorization, passkeys
from speciate.governance.approval_signatures import PASSKEY, Key, Question, public_key, statement
from speciate.refs import check_name
from speciate.server.control.action import Answer
from speciate.server.web.visit import Visit, field

_SECONDS = 300.0


def listed(visit: Visit) -> Mapping[str, object]:
    authority = authorization.authority_of(visit.app.workspace)
    return {
        "title": "Signing keys", "keys": sorted(authority.keys.values(), key=lambda key: key.name),
        "worth": authority.sentence(), "problems": authority.problems, "first": not authority.required,
    }  # fmt: skip


def begin(visit: Visit) -> Mapping[str, object]:
    """What the browser is asked for."""
    name, authority = check_name("key", field(visit, "name")), authorization.authority_of(visit.app.workspace)
    if visit.front.team and not authority.required:  # `perform` would refuse the enrollment
        raise SpeciateError(
            Code.REFUSED,
            "The first key of a workspace vouches for all others, and is enrolled on the machine itself.",
            "There: speciate key enroll, or speciate open --decide",
        )
    user = sha256(f"{visit.app.workspace.identity} {name}".encode()).digest()[:16]
    known = [passkeys.parse(key.public) for key in authority.keys.values() if key.kind == PASSKEY]
    here = [each for each in known if each.host == visit.front.site]
    options, state = passkeys.begin(visit.front.site, name, user, here)
    until = visit.app.workspace.clock.monotonic() + _SECONDS
    visit.parts.passkeys.hold(visit.session.csrf, passkeys.PendingPasskey(state, name, until))
    return options


def made(visit: Visit) -> Mapping[str, object]:
    """What the browser made, and the question whose signature enrolls it."""
    pending = visit.parts.passkeys.take(visit.session.csrf)
    if pending is None or pending.until <= visit.app.workspace.clock.monotonic():
        raise SpeciateError(Code.CONFLICT, "No passkey was asked for in the last five minutes.", "Load the page again.")
    passkey = passkeys.made(visit.front.site, pending.state, field(visit, "response"))
    key = public_key(pending.name, PASSKEY, passkey.line)
    told = {"name": key.name, "kind": key.kind, "public": key.public}
    asked = visit.perform("question", about={"action": "key enroll", **told})
    command = f"speciate key enroll --name {key.name} --passkey '{key.public}'"
    return {**told, "fingerprint": key.fingerprint, "command": command, **to_sign(visit, asked)}


def enroll(visit: Visit) -> Mapping[str, object]:
    names = ("challenge", "key", "signature")
    made = visit.perform(
        "key enroll", name=field(visit, "name"), kind=PASSKEY, public=field(visit, "public"),
        signed={name: field(visit, name) for name in names},
    )  # fmt: skip
    return {"key": made["key"], "next": "/keys"}


def to_sign(visit: Visit, asked: Answer) -> Mapping[str, object]:
    """What is signed, and what of this browser can: the session's sealed keys, and passkeys of these pages."""
    told = Question(**asked["question"])
    message = statement(asked["workspace"], told, asked["head"], asked["challenge"], asked["until"])
    usable = [public_key(each["name"], each["kind"], each["public"]) for each in asked["keys"]]
    sealed = sealed_here(visit, {key.public: key.fingerprint for key in usable})
    return {
        "message": message.hex(), "challenge": asked["challenge"], "keys": sealed, "required": bool(usable),
        "passkeys": [
            {"fingerprint": key.fingerprint, "name": key.name, "id": passkeys.parse(key.public).id}
            for key in passkeys_here(visit, usable)
        ],
    }  # fmt: skip


def passkeys_here(visit: Visit, keys: Sequence[Key]) -> list[Key]:
    """Passkeys that a browser gives to these pages: each is bound to the host that it was made on."""
    return [key for key in keys if key.kind == PASSKEY and passkeys.parse(key.public).host == visit.front.site]


def sealed_here(visit: Visit, marks: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """Keys that came with the session, still sealed. `marks`: public half -> fingerprint."""
    known = [key for key in visit.session.keys if str(key.get("public")) in marks]
    return [{**key, "fingerprint": marks[str(key["public"])]} for key in known]
