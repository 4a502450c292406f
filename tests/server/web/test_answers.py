"""A person's answer on the page: signed as on the command line, bound to what was shown, given once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from speciate.governance import approval_keys, approvals, audit
from speciate.promotion import aliases
from speciate.server.control.dispatch import perform
from speciate.server.web import listener
from speciate.unix_sockets import Account
from tests.governance import people
from tests.governance.people import Signer
from tests.server.web.conftest import Served
from tests.server.web.reader import Answer, Reader


@pytest.fixture
def jane(served: Served) -> Iterator[Signer]:
    signer = Signer("jane")
    people.enroll(served.workspace, signer)
    yield signer
    people.forget(served.workspace)


def _fields(served: Served, reader: Reader, answer: str = "approve", **more: str) -> dict[str, str]:
    found = approvals.get(served.workspace.database, served.approval)
    return {"csrf": reader.get("/").csrf, "hash": found.hash, "answer": answer, **more}


def _sealed(signer: Signer) -> dict[str, Any]:
    return {"name": signer.key.name, "public": signer.key.public, "salt": "00", "nonce": "00", "sealed": "00"}


def _answer(served: Served, reader: Reader, signer: Signer, choice: str = "approve") -> Answer:
    fields = _fields(served, reader, choice)
    asked = json.loads(reader.post(f"/approvals/{served.approval}/question", fields).body)
    assert asked["required"]
    signature = signer.private.sign(bytes.fromhex(asked["message"])).hex()
    signed = {"challenge": asked["challenge"], "key": signer.key.fingerprint, "signature": signature}
    return reader.post(f"/approvals/{served.approval}/answer", fields | signed)


def _serves(served: Served) -> str:
    alias = aliases.read(served.workspace.database, "digits")
    assert alias
    return alias.model


def test_a_signed_approval_moves_the_alias_and_the_audit_names_who_and_how(served: Served, jane: Signer) -> None:
    reader = served.reader("decide", [_sealed(jane)])
    shown = reader.get(f"/approvals/{served.approval}").text
    assert "Let m@v2 serve?" in shown
    assert "m@v2 was measured" in shown
    assert "Passphrase of the key jane" in shown
    done = _answer(served, reader, jane)
    assert json.loads(done.body)["next"] == "/use-cases/digits/production"
    assert _serves(served) == "m@v2"
    row = audit.newest(served.workspace.database, "digits", 1)[0]
    assert row.action == "approve"
    assert row.actor.endswith("(web)")
    assert approval_keys.evidence_of(row)["signed"]["name"] == "jane"
    assert audit.verify(served.workspace.database).problems == ()
    assert "approved" in reader.get(f"/approvals/{served.approval}").text


def test_without_the_key_no_answer_counts(served: Served, jane: Signer) -> None:
    reader = served.reader("decide")
    path = f"/approvals/{served.approval}/answer"
    assert reader.post(path, _fields(served, reader, typed="yes")).status == 403
    eve = Signer("eve")
    assert _answer(served, reader, eve).status == 403
    asked = json.loads(reader.post(f"/approvals/{served.approval}/question", _fields(served, reader)).body)
    deny = jane.private.sign(bytes.fromhex(asked["message"])).hex()
    crossed = {"challenge": asked["challenge"], "key": jane.key.fingerprint, "signature": deny}
    assert reader.post(path, _fields(served, reader, "deny", **crossed)).status == 409, "signed for the other answer"
    assert approvals.get(served.workspace.database, served.approval).state == "pending"
    assert _serves(served) == "m@v1"


def test_what_is_stale_is_not_decided(served: Served) -> None:
    reader = served.reader("decide")
    stale = _fields(served, reader, typed="yes") | {"hash": "0" * 64}
    for path in ("question", "answer"):
        answer = reader.post(f"/approvals/{served.approval}/{path}", stale)
        assert (answer.status, "not what would be decided" in json.loads(answer.body)["error"]) == (409, True)
    assert _serves(served) == "m@v1"


def test_of_two_people_who_decide_at_once_the_first_counts(served: Served) -> None:
    one, two = served.reader("decide"), served.reader("decide")
    first, second = _fields(served, one, typed="yes"), _fields(served, two, "deny", typed="yes")
    assert one.post(f"/approvals/{served.approval}/answer", first).status == 200
    late = two.post(f"/approvals/{served.approval}/answer", second)
    assert late.status == 409
    assert "is approved, by" in json.loads(late.body)["error"]
    assert _serves(served) == "m@v2"


def test_where_nobody_enrolled_a_typed_yes_is_asked_for(served: Served) -> None:
    reader = served.reader("decide")
    path = f"/approvals/{served.approval}/answer"
    assert "Type yes" in reader.get(f"/approvals/{served.approval}").text
    for typed in ("", "no", "Yes!"):
        assert reader.post(path, _fields(served, reader, typed=typed)).status in (400, 403)
    denied = json.loads(reader.post(path, _fields(served, reader, "deny", typed="yes")).body)
    assert denied["state"] == "denied"
    assert _serves(served) == "m@v1"


def test_what_is_being_decided_when_the_pages_end_is_answered_and_an_open_page_holds_nothing_up(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, begun, decide = served.reader("decide"), threading.Event(), approvals.decide
    fields = _fields(served, reader, typed="yes")

    def slowly(*given: Any) -> Any:
        made = decide(*given)
        begun.set()
        time.sleep(2.0)
        return made

    monkeypatch.setattr(approvals, "decide", slowly)
    with ThreadPoolExecutor(2) as browsers:
        looks = browsers.submit(reader.get, "/events")
        answered = browsers.submit(reader.post, f"/approvals/{served.approval}/answer", fields)
        begun.wait(30)
        began = time.monotonic()
        served.pages.close()
        took = time.monotonic() - began
    assert (looks.result().status, took < listener._ANSWER_SECONDS) == (200, True)
    answer = answered.result()
    assert (answer.status, json.loads(answer.body)["state"]) == (200, "approved")


def test_a_session_that_looks_gets_no_sealed_key(served: Served, jane: Signer) -> None:
    told = list[tuple[str, Sequence[Mapping[str, Any]]]]()

    def note(level: str, account: Account, keys: Sequence[Mapping[str, Any]], signed: bool) -> str:
        told.append((level, keys))
        return "link"

    context = replace(served.control, open_pages=note)
    perform(context, {"action": "open", "keys": [_sealed(jane)], "uid": 0})
    asked: Any = perform(context, {"action": "question", "about": {"action": "open decide"}})
    perform(context, {"action": "open decide", "keys": [_sealed(jane)], "signed": jane.answer(asked)})
    assert [(level, len(keys)) for level, keys in told] == [("look", 0), ("decide", 1)]
    looks = served.reader("look")
    assert "Passphrase" not in looks.get(f"/approvals/{served.approval}").text
    assert "speciate open --decide" in looks.get(f"/approvals/{served.approval}").text


def test_a_rollback_is_one_form_and_names_who_and_why(served: Served) -> None:
    reader = served.reader("decide")
    reader.post(f"/approvals/{served.approval}/answer", _fields(served, reader, typed="yes"))
    fields = {"csrf": reader.get("/").csrf, "expected": "m@v2", "reason": "it was <b>slow</b>", "to": ""}
    assert reader.post("/use-cases/digits/rollback", fields).status == 303
    assert _serves(served) == "m@v1"
    again = reader.post("/use-cases/digits/rollback", fields)
    assert again.status == 409, "another version serves by now than was shown"
    shown = reader.get("/use-cases/digits/production")
    assert "it was <b>slow</b>" in shown.text or "it was &lt;b&gt;slow" in shown.html
    assert "<b>slow</b>" not in shown.html
