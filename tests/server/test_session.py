"""What the shim keeps of a connection, as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from speciate.server.session import WAIT_SECONDS, WAITING_TOOL, Session
from tests.server.processes import LEGACY, MODERN


def frame(method: str, identifier: int | str | None = None, **params: Any) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(message | ({} if identifier is None else {"id": identifier})).encode() + b"\n"


def answer(identifier: int | str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": identifier, "result": {}}).encode() + b"\n"


def call(tool: str, identifier: int, **meta: Any) -> bytes:
    return frame("tools/call", identifier, name=tool, arguments={}, **({"_meta": meta} if meta else {}))


@pytest.fixture
def session() -> Session:
    """Of the older era, initialized."""
    session = Session()
    session.read_only = {"get_job"}
    session.sent(frame("initialize", 1, **LEGACY), delivered=True)
    assert session.received(answer(1))
    session.sent(frame("notifications/initialized"), delivered=True)
    return session


def test_the_handshake_is_replayed_under_an_id_of_our_own_whose_answer_stays_here(
    session: Session,
) -> None:
    opening = session.opening()
    assert opening
    replayed = json.loads(opening)
    assert replayed["method"] == "initialize"
    assert replayed["params"] == LEGACY
    assert session.replaying
    assert not session.received(answer(replayed["id"]))
    assert not session.replaying
    assert session.replay() == [frame("notifications/initialized")]


def test_a_handshake_that_was_not_answered_is_simply_asked_again() -> None:
    session = Session()
    hello = frame("initialize", 1, **LEGACY)
    session.sent(hello, delivered=True)
    assert session.opening() is None
    assert session.replay() == [hello]


def test_a_handshake_that_was_refused_is_not_replayed() -> None:
    """A client whose probe timed out says initialize to a daemon of the newer era, and goes on in that era."""
    session = Session()
    session.sent(frame("initialize", 1, **LEGACY), delivered=True)
    assert session.received(
        json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32022, "message": "no"}}).encode()
    )
    assert session.opening() is None
    assert session.replay() == []


def test_calls_that_only_read_are_repeated_and_others_are_answered_with_advice(session: Session) -> None:
    session.sent(call("get_job", 2), delivered=True)
    session.sent(call("promote_model", 3), delivered=True)
    (interrupted,) = map(json.loads, session.interrupted())
    assert interrupted["id"] == 3
    assert interrupted["result"]["isError"]
    assert "same idempotency_key" in interrupted["result"]["content"][0]["text"]
    assert "resultType" not in interrupted["result"]
    assert session.replay()[1:] == [call("get_job", 2)]


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({"job": "j", "timeout_seconds": 5}, 2.0),
        ({"job": "j"}, WAIT_SECONDS - 3),
        ({"job": "j", "timeout_seconds": 1}, 0.0),
    ],
)
def test_a_wait_that_is_repeated_waits_for_the_rest_of_its_time(arguments: dict[str, Any], left: float) -> None:
    now = [100.0]
    session = Session(lambda: now[0])
    session.read_only = {WAITING_TOOL}
    session.sent(frame("tools/call", 7, name=WAITING_TOOL, arguments=arguments), delivered=True)
    now[0] += 3
    (again,) = session.replay()
    assert json.loads(again)["params"]["arguments"] == {"job": "j", "timeout_seconds": left}
    assert len(session.replay()) == 1


@pytest.mark.parametrize("arguments", [[1], {"timeout_seconds": "long"}, None, 5])
def test_a_wait_that_the_daemon_will_refuse_is_repeated_as_it_is(arguments: Any) -> None:
    session = Session()
    session.read_only = {WAITING_TOOL}
    session.sent(frame("tools/call", 7, name=WAITING_TOOL, arguments=arguments), delivered=True)
    assert len(session.replay()) == 1


def test_the_waiting_tool_is_the_one_that_the_server_has() -> None:
    tool = json.loads((Path(__file__).parents[1] / "surface" / "wait_for_job.json").read_text())
    assert tool["inputSchema"]["properties"]["timeout_seconds"]["default"] == WAIT_SECONDS


def test_a_change_that_no_daemon_has_heard_of_is_simply_asked(session: Session) -> None:
    session.sent(call("promote_model", 3), delivered=False)
    assert session.interrupted() == []
    assert session.replay()[1:] == [call("promote_model", 3)]
    assert len(session.interrupted()) == 1


def test_the_newer_era_gets_its_result_type() -> None:
    session = Session()
    session.sent(call("promote_model", 3, **MODERN), delivered=True)
    assert session.opening() is None
    (interrupted,) = map(json.loads, session.interrupted())
    assert interrupted["result"]["resultType"] == "complete"


def test_what_was_answered_or_cancelled_is_not_asked_again(session: Session) -> None:
    session.sent(call("get_job", 2), delivered=True)
    session.sent(call("get_job", 3), delivered=True)
    session.received(answer(2))
    session.sent(frame("notifications/cancelled", requestId=3), delivered=True)
    assert not session.owed
    assert session.replay() == [frame("notifications/initialized")]


def test_subscriptions_are_taken_again_unless_they_were_given_up(session: Session) -> None:
    for number, uri in enumerate(("speciate://a", "speciate://b"), 2):
        session.sent(frame("resources/subscribe", number, uri=uri), delivered=True)
        session.received(answer(number))
    session.sent(frame("resources/unsubscribe", 4, uri="speciate://a"), delivered=True)
    session.received(answer(4))
    _, subscribe = map(json.loads, session.replay())
    assert subscribe["params"] == {"uri": "speciate://b"}
    assert not session.received(answer(subscribe["id"]))


def test_a_listening_request_is_repeated_but_owes_no_answer() -> None:
    session = Session()
    listen = frame("subscriptions/listen", 5, _meta=MODERN)
    session.sent(listen, delivered=True)
    assert not session.owed
    assert session.replay() == [listen]


def test_without_a_daemon_every_open_request_hears_why(session: Session) -> None:
    session.sent(frame("tools/list", 2), delivered=True)
    session.sent(call("get_job", 3), delivered=True)
    listed, called = map(json.loads, session.give_up("the disk is full"))
    assert listed["error"]["message"] == "the disk is full"
    assert called["result"]["content"][0]["text"] == "the disk is full"
    assert not session.owed


def test_requests_of_the_daemon_pass_and_answers_to_them_owe_nothing(session: Session) -> None:
    assert session.received(frame("elicitation/create", 1))
    session.sent(answer(1), delivered=True)
    assert not session.owed


def test_what_is_no_frame_passes_unharmed(session: Session) -> None:
    for line in (b"nonsense\n", b"[1, 2]\n", b"\xff\n", b"\n"):
        session.sent(line, delivered=True)
        assert session.received(line)
