"""Deciding again in a session that a person opened for it: an enrolled key signs, here in the browser.

A session stops deciding when it was left alone, and where its daemon was started anew. A person at a terminal opened
it; the signature says that a person is there now. One that was opened for looking alone gets no further.
"""

from __future__ import annotations

from collections.abc import Mapping

from speciate.errors import Code, SpeciateError
from speciate.governance import authorization
from speciate.server.web.pages.keys import passkeys_here, sealed_here, to_sign
from speciate.server.web.visit import Visit, field


def decide_again(visit: Visit) -> Mapping[str, object]:
    authority = authorization.authority_of(visit.app.workspace)
    marks = {key.public: key.fingerprint for key in authority.keys.values()}
    return {
        "title": "Decide again", "opened": visit.opened_to_decide, "sealed": sealed_here(visit, marks),
        "passkeys": passkeys_here(visit, list(authority.keys.values())), "required": authority.required,
    }  # fmt: skip


def question(visit: Visit) -> Mapping[str, object]:
    """What is signed; nothing changes by asking."""
    _check(visit)
    return to_sign(visit, visit.perform("question", about={"action": "open decide"}))


def answer(visit: Visit) -> Mapping[str, object]:
    """A link to a session that decides, which the browser follows. Raises REFUSED without a signature."""
    _check(visit)
    signed = {name: field(visit, name) for name in ("challenge", "key", "signature")}
    made = visit.perform("open decide", keys=[dict(each) for each in visit.session.keys], signed=signed)
    return {"state": "signed", "reason": "", "next": made["url"]}


def _check(visit: Visit) -> None:
    authority = authorization.authority_of(visit.app.workspace)
    if not visit.opened_to_decide or not authority.required:
        raise SpeciateError(Code.REFUSED, "This session was not opened for deciding by a key.", visit.how)
