"""Every route against everybody who may not: each is refused, and only then is anything looked at."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import pytest

from speciate.governance import approvals
from speciate.governance.page_sessions import (
    DECIDE_SECONDS,
    LINK_SECONDS,
    LONGEST_DECIDE_SECONDS,
    LONGEST_SECONDS,
    SESSION_SECONDS,
    Grant,
    PageAccount,
    Sessions,
)
from speciate.governance.roles import ACTS, Act
from speciate.server.web import guard
from speciate.server.web.guard import FILES, IncomingRequest, host_name, local_front, refusal
from speciate.server.web.routes import READS, SENDS, WRITES
from speciate.unix_sockets import own_account
from tests.conftest import ManualClock
from tests.server.web.conftest import Served
from tests.server.web.reader import Answer, Reader

_HOLE = re.compile(r"\{\w+(:int)?\}")


def filled(path: str) -> str:
    return _HOLE.sub(lambda hole: "1" if hole[1] else "x", path)


READ = [filled(each.path) for each in (*READS, *SENDS)] + ["/events", "/nothing/here"]
WRITE = [filled(each.path) for each in WRITES] + ["/leave"]


class Attacker(NamedTuple):
    name: str
    headers: Callable[[Reader], dict[str, str]]
    refused: tuple[int, ...]


ATTACKERS = (
    Attacker("nobody", lambda reader: {"cookie": ""}, (401,)),
    Attacker("a made-up session", lambda reader: {"cookie": f"speciate-{reader.port}=AAAA"}, (401,)),
    Attacker("the cookie of another port", lambda reader: {"cookie": reader.cookie.replace("speciate-", "speciate-9")},
             (401,)),
    Attacker("a bearer token", lambda reader: {"cookie": "", "authorization": "Bearer x"}, (401,)),
    Attacker("another host name", lambda reader: {"host": "evil.example"}, (403,)),
    Attacker("the bare address", lambda reader: {"host": f"127.0.0.1:{reader.port}"}, (403,)),
    Attacker("another origin", lambda reader: {"origin": "http://evil.example"}, (403,)),
    Attacker("another port of the name", lambda reader: {"origin": f"http://{reader.host[:-1]}"}, (403,)),
    Attacker("a sandboxed frame", lambda reader: {"origin": "null"}, (403,)),
    Attacker("another site", lambda reader: {"sec-fetch-site": "cross-site"}, (403,)),
    Attacker("another name of this site", lambda reader: {"sec-fetch-site": "same-site"}, (403,)),
)  # fmt: skip


def test_every_route_refuses_every_attacker(served: Served) -> None:
    reader, let_through = served.reader("decide"), list[str]()
    csrf = reader.get("/").csrf
    for attacker in ATTACKERS:
        headers = attacker.headers(reader)
        for path in READ:
            answer = reader.ask("GET", path, headers=headers)
            if answer.status not in attacker.refused:
                let_through.append(f"{attacker.name} GET {path}: {answer.status}")
        for path in WRITE:
            answer = reader.post(path, {"csrf": csrf, "action": "cancel", "attempt": "1"}, **headers)
            if answer.status not in attacker.refused:
                let_through.append(f"{attacker.name} POST {path}: {answer.status}")
    assert let_through == []


def test_every_write_needs_the_token_of_its_session_and_a_named_origin(served: Served) -> None:
    reader, other = served.reader("decide"), served.reader("decide")
    mine, theirs = reader.get("/").csrf, other.get("/").csrf
    for path in WRITE:
        for fields in ({}, {"csrf": ""}, {"csrf": theirs}, {"csrf": mine[:-1]}):
            assert reader.post(path, fields).status == 403, (path, fields)
        assert reader.post(path, {"csrf": mine}, origin="").status == 403, path
        as_json = reader.ask("POST", path, b'{"csrf": "x"}', {"content-type": "application/json"})
        assert as_json.status == 403, path


def test_a_session_that_looks_changes_nothing(served: Served) -> None:
    reader = served.reader("look")
    csrf = reader.get("/").csrf
    for path in (filled(each.path) for each in WRITES):
        assert reader.post(path, {"csrf": csrf}).status == 403, path  # to decide again, too: it never did
    found = approvals.get(served.workspace.database, served.approval)
    fields = {"csrf": csrf, "answer": "approve", "hash": found.hash, "typed": "yes"}
    assert reader.post(f"/approvals/{served.approval}/answer", fields).status == 403
    assert approvals.get(served.workspace.database, served.approval).state == "pending"


def test_no_route_but_the_writes_takes_a_post_and_none_of_them_a_get(served: Served) -> None:
    reader = served.reader("decide")
    csrf = reader.get("/").csrf
    assert {reader.post(path, {"csrf": csrf}).status for path in READ} <= {404, 405}
    assert {reader.get(path).status for path in WRITE} <= {404, 405}


def test_every_answer_brings_the_policy_and_forbids_frames_and_stores(served: Served) -> None:
    reader = served.reader()
    paths = ("/", "/approvals", "/nothing", f"{FILES}/page.js", "/open")
    assert reader.get(f"{FILES}/none.js").headers["cache-control"] == "no-store", "what is not there yet is not kept"
    answers = [(path, reader.get(path)) for path in paths]
    answers += [("/", reader.get("/", cookie="")), ("/", reader.get("/", host="evil.example"))]
    for path, answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search("unsafe|data:|http:|https:|\\*", policy)
        kept = "public, max-age=31536000, immutable" if path.startswith("/static/") else "no-store"
        assert answer.headers["cache-control"] == kept
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_link_is_spent_once_and_not_by_looking_at_it(served: Served) -> None:
    link = served.link()
    first, second = Reader(link), Reader(link)
    assert first.ask("GET", "/open", headers={"cookie": ""}).status == 200
    assert first.sign_in().get("/").status == 200
    with pytest.raises(AssertionError, match="was used"):
        second.sign_in()
    assert "HttpOnly" in _cookie(served)
    assert "SameSite=strict" in _cookie(served)


def test_nobody_fills_the_memory_with_a_key(served: Served) -> None:
    link = served.link()
    assert Reader(link).ask("POST", "/open", body=b"k" * 50_000).status == 413
    assert Reader(link).sign_in().get("/").status == 200


def _cookie(served: Served) -> str:
    reader = Reader(served.link())
    answer: Answer = reader.ask("POST", "/open", body=reader._key.encode())
    return answer.headers["set-cookie"]


def test_leaving_ends_the_session(served: Served) -> None:
    reader = served.reader()
    assert reader.post("/leave", {"csrf": reader.get("/").csrf}).status == 200
    assert reader.get("/").status == 401


def test_times_of_links_sessions_and_deciding(clock: ManualClock) -> None:
    sessions = Sessions(clock.monotonic)
    grant = Grant(PageAccount(*own_account()), "decide")
    late = sessions.new_link(grant)
    clock.advance(LINK_SECONDS + 1)
    assert sessions.begin(late) is None
    cookie = sessions.begin(sessions.new_link(grant))
    assert cookie is not None
    session = sessions.find(cookie)
    assert session is not None
    assert Act.ANSWER in sessions.acts(session)
    clock.advance(DECIDE_SECONDS + 1)
    assert sessions.acts(session) == ACTS["look"]
    sessions.use(session)
    assert sessions.acts(session) == ACTS["look"], "what is over is not begun by use"
    clock.advance(SESSION_SECONDS)
    assert sessions.find(cookie) is None


def test_use_makes_a_session_last_and_nothing_makes_it_last_for_ever(clock: ManualClock) -> None:
    sessions = Sessions(clock.monotonic)
    cookie = sessions.begin(sessions.new_link(Grant(PageAccount(*own_account()), "decide")))
    assert cookie
    session = sessions.find(cookie)
    assert session is not None
    decided = lasted = 0.0
    while sessions.find(cookie):
        decided += DECIDE_SECONDS / 2 if Act.ANSWER in sessions.acts(session) else 0.0
        lasted += DECIDE_SECONDS / 2
        clock.advance(DECIDE_SECONDS / 2)
        sessions.use(session)
    assert (decided, lasted) == (LONGEST_DECIDE_SECONDS, LONGEST_SECONDS)


def test_a_link_from_elsewhere_is_answered_with_one_of_our_own(served: Served) -> None:
    reader = served.reader()
    answer = reader.ask(
        "GET", "/runs?state=failed", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    )
    assert answer.status == 403
    assert 'href="/runs?state=failed"' in answer.html
    nasty = reader.ask(
        "GET", "/a%22%3E%3Cb?%22%3E%3Cscript%3E", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    )
    assert "<script" not in nasty.html.partition("page.css")[2]


def test_the_guard_alone_decides_by_the_request() -> None:
    ours, front = IncomingRequest("GET", "/", host=host_name(8000)), local_front(8000)
    assert refusal(ours, front, None) is not None
    assert refusal(ours._replace(path="/static/page.css"), front, None) is None
    assert refusal(ours._replace(path="/static/../runs"), front, None) is None, "the router knows no such file"
    assert refusal(ours._replace(host="speciate-8000.localhost"), front, None) is not None
    assert refusal(ours._replace(host="speciate-8000.localhost:80000"), front, None) is not None
    assert "unsafe" not in guard.POLICY
