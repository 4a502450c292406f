"""Pages of a team: the table of roles row by row, and attacks on sign-in, sessions, proxy and roles."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import speciate.tools
from speciate import use_cases
from speciate.errors import SpeciateError
from speciate.governance import approval_keys, approvals, audit, authorization, tokens
from speciate.governance.page_sessions import TokenAccount
from speciate.governance.roles import ACTS, ROLES, Act, Role, act_of_tool
from speciate.governance.token_tries import Throttle
from speciate.predictions import prediction_ids
from speciate.server.control import dispatch
from speciate.server.control.action import PersonAction
from speciate.server.mcp.app import declarations
from speciate.server.request_log import Request, RequestLog
from speciate.server.web.guard import FILES, IncomingRequest, inside, refusal, team_front
from speciate.server.web.pages.trail import HIDDEN, without_settings
from speciate.server.web.routes import OTHERS, READS, SENDS, WRITES, act_of
from speciate.server.web.site import Site
from speciate.settings import Team
from speciate.use_cases import Definition, Objective
from speciate.workspace.database import Transaction
from tests.conftest import ManualClock
from tests.governance import people
from tests.governance.people import Signer, perform
from tests.security.test_approvals import REQUESTS
from tests.server.web.conftest import Served
from tests.server.web.team import HOST, ORIGIN, Member, issue, serve
from tests.server.web.test_attacks import filled

NOT_OF_THE_ROLE = "This session may not do this"
WHO_WRITES: dict[str, set[str]] = {
    "/approvals/{id}/question": {"approver", "admin"},
    "/approvals/{id}/answer": {"approver", "admin"},
    "/keys/begin": {"approver", "admin"},
    "/keys/made": {"approver", "admin"},
    "/keys/enroll": {"approver", "admin"},
    "/decide/question": set(),
    "/decide/answer": set(),
    "/runs/{job}/control": {"admin"},
    "/use-cases/{name}/rollback": {"approver", "admin"},
    "/use-cases/{name}/label": {"labeller", "approver", "admin"},
    "/use-cases/{name}/undo": {"labeller", "approver", "admin"},
    "/use-cases/{name}/watch": {"admin"},
}
WHO_READS = {"/requests": {"admin"}, "/settings": {"admin"}, "/keys": {"approver", "admin"}, "/decide": set[str]()}
"""Every other page is for everybody who signed in."""
WHO_CALLS: dict[Act, set[str]] = {
    Act.LOOK: {"viewer", "labeller", "approver", "admin"},
    Act.LABEL: {"labeller", "approver", "admin"},
    Act.ROLL_BACK: {"approver", "admin"},
    Act.RUN: {"admin"},
    Act.WATCH: {"admin"},
    Act.WORK: {"admin"},
}


@pytest.fixture
def port(served: Served) -> int:
    return serve(served)


@pytest.fixture
def jane(served: Served) -> Iterator[Signer]:
    signer = Signer("jane")
    people.enroll(served.workspace, signer)
    yield signer
    people.forget(served.workspace)


def member(served: Served, port: int, role: Role, name: str = "") -> Member:
    made = Member(port)
    assert made.login(issue(served, role, name)).status == 303
    return made


# The table


@pytest.mark.parametrize("role", ROLES)
def test_each_role_does_what_the_table_says_and_nothing_else(served: Served, port: int, role: Role) -> None:
    who = member(served, port, role)
    csrf, wrong = who.get("/").csrf, list[str]()
    for path in (each.path for each in (*READS, *SENDS)):
        told = NOT_OF_THE_ROLE in who.get(filled(path)).html
        if told == (role in WHO_READS.get(path, set(ROLES))):
            wrong.append(f"GET {path}")
    for path in (each.path for each in WRITES):
        answer = who.post(filled(path), {"csrf": csrf}, accept="application/json")
        if (NOT_OF_THE_ROLE in answer.html) == (role in WHO_WRITES[path]):
            wrong.append(f"POST {path}: {answer.status}")
        assert answer.status >= 400 or json.loads(answer.body) == {"undone": None}, "an empty form does nothing"
    assert wrong == []


def test_every_route_stands_in_the_table_and_what_stands_in_none_is_not_answered(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {each.path for each in WRITES} == set(WHO_WRITES)
    assert {each.path for each in READS if each.act is not Act.LOOK} == set(WHO_READS)
    assert all(each.act is not Act.LOOK for each in WRITES)
    assert [(method, act) for method, _, act in OTHERS] == [("GET", Act.LOOK), ("POST", Act.LOOK)]
    assert act_of("GET", "/hidden") is None
    application = Site.application

    def with_a_hidden_route(site: Site, note: object) -> object:
        made = application(site, note)  # type: ignore[arg-type]
        made.router.routes.insert(0, Route("/hidden", lambda request: PlainTextResponse("secret")))
        return made

    monkeypatch.setattr(Site, "application", with_a_hidden_route)
    who = member(served, serve(served), "admin")
    answer = who.get("/hidden")
    assert (answer.status, "secret" in answer.text) == (404, False)


def test_every_tool_is_an_act_and_most_are_for_an_admin_alone() -> None:
    tools = {each.name: each.read_only for each in declarations(speciate.tools, "__tool__")}
    for name, read_only in tools.items():
        act = act_of_tool(name, read_only=read_only)
        assert {role for role in ROLES if act in ACTS[role]} == WHO_CALLS[act], name
    other = {name for name, read_only in tools.items() if act_of_tool(name, read_only=read_only) is not Act.WORK}
    assert {name for name in other if not tools[name]} == {
        "record_feedback", "rollback_model", "control_job", "watch_use_case",
    }  # fmt: skip
    assert act_of_tool("a_new_one", read_only=False) is Act.WORK


# Approvals


def _fields(served: Served, who: Member, **more: str) -> dict[str, str]:
    found = approvals.get(served.workspace.database, served.approval)
    return {"csrf": who.get("/").csrf, "hash": found.hash, "answer": "approve", **more}


def test_no_token_answers_an_approval_by_itself(served: Served, port: int) -> None:
    """A program may hold it, and where no key is enrolled a terminal asks for a typed yes."""
    path, signed = f"/approvals/{served.approval}/answer", {"signature": "00", "challenge": "x", "key": "y"}
    for role in ("approver", "admin"):
        who = member(served, port, role)
        assert "Make one" in who.get(f"/approvals/{served.approval}").text
        for choice in ("approve", "deny"):
            for more in ({"typed": "yes"}, signed, {**signed, "typed": "yes"}, {}):
                answer = who.post(path, _fields(served, who, **more) | {"answer": choice})
                assert answer.status == (400 if not more else 403), more
    assert approvals.get(served.workspace.database, served.approval).state == "pending"


def test_no_token_enrolls_the_first_key(served: Served, port: int) -> None:
    who, eve = member(served, port, "admin"), Signer("eve")
    csrf = who.get("/").csrf
    assert who.post("/keys/begin", {"csrf": csrf, "name": "mine"}).status == 403
    asked = people.ask(served.workspace, "key enroll", **eve.enrollment)
    account = TokenAccount.of(authorization.authority_of(served.workspace).tokens()[0])
    request = {"action": "key enroll", **eve.enrollment, "signed": eve.answer(asked)}
    with pytest.raises(SpeciateError, match="No key is enrolled"):
        dispatch.perform(served.control, request, account)
    assert not authorization.authority_of(served.workspace).required


@pytest.mark.parametrize("action", [name for name, each in dispatch.ACTIONS.items() if isinstance(each, PersonAction)])
def test_no_action_of_a_person_is_done_for_a_token_where_no_key_is_enrolled(
    served: Served, port: int, action: str
) -> None:
    """Also where a page forgets to look: the rule stands where all of them end."""
    issue(served, "admin")
    account = TokenAccount.of(authorization.authority_of(served.workspace).tokens()[0])
    request = {"action": action, "id": served.approval, "hash": "x", **REQUESTS[action]}
    with pytest.raises(SpeciateError, match="No key is enrolled here"):
        dispatch.perform(served.control, request, account)
    assert approvals.get(served.workspace.database, served.approval).state == "pending"


def test_an_approver_answers_with_a_key_and_the_audit_names_both(served: Served, port: int, jane: Signer) -> None:
    who = member(served, port, "approver", "ann")
    base = f"/approvals/{served.approval}"
    assert who.post(f"{base}/answer", _fields(served, who, typed="yes")).status == 403
    asked = json.loads(who.post(f"{base}/question", _fields(served, who)).body)
    signature = jane.private.sign(bytes.fromhex(asked["message"])).hex()
    signed = {"challenge": asked["challenge"], "key": jane.key.fingerprint, "signature": signature}
    labeller = member(served, port, "labeller")
    assert labeller.post(f"{base}/answer", _fields(served, labeller, **signed)).status == 403
    done = json.loads(who.post(f"{base}/answer", _fields(served, who, **signed)).body)
    assert done["state"] == "approved"
    row = audit.newest(served.workspace.database, "digits", 1)[0]
    assert (row.action, row.actor) == ("approve", "ann (token)")
    assert approval_keys.evidence_of(row)["signed"]["name"] == "jane"


# Tokens for some use cases


def _films(served: Served) -> None:
    told = Definition(name="films", task="image-classification", objective=Objective(metric="accuracy"))
    served.workspace.database.transact(lambda tx: use_cases.define(tx, told, policy="auto"))


def test_a_token_for_another_use_case_changes_nothing_here(served: Served, port: int, jane: Signer) -> None:
    _films(served)
    who = Member(port)
    assert who.login(issue(served, "approver", "ann", scope=["films"])).status == 303
    csrf, answer = who.get("/").csrf, prediction_ids.new_prediction_id("digits", 1_700_000_000.0)
    label = {"csrf": csrf, "prediction": answer, "label": "7", "drawn": "random", "model": "m@v1"}
    moved = {"csrf": csrf, "expected": "m@v1", "reason": "why not"}
    asked = _fields(served, who)
    for path, fields in (
        ("/use-cases/digits/rollback", moved), ("/use-cases/digits/label", label), ("/use-cases/films/label", label),
        (f"/approvals/{served.approval}/question", asked), (f"/approvals/{served.approval}/answer", asked),
        ("/use-cases/digits/undo", {"csrf": csrf}),
    ):  # fmt: skip
        answered = who.post(path, fields)
        assert (answered.status, NOT_OF_THE_ROLE in answered.html) == (403, True), path
    page = who.get(f"/approvals/{served.approval}")
    assert "Its role is approver, for films" in page.text
    assert "approver of films" in page.text
    assert 'id="answer"' not in page.html
    assert "why not" not in str(audit.all_rows(served.workspace.database))
    assert who.post("/keys/begin", {"csrf": csrf, "name": "mine"}).status == 200, "what an enrolled key will sign"


def test_a_token_for_this_use_case_does_what_its_role_does(served: Served, port: int, jane: Signer) -> None:
    who = Member(port)
    assert who.login(issue(served, "approver", "ann", scope=["digits"])).status == 303
    base = f"/approvals/{served.approval}"
    asked = json.loads(who.post(f"{base}/question", _fields(served, who)).body)
    signature = jane.private.sign(bytes.fromhex(asked["message"])).hex()
    signed = {"challenge": asked["challenge"], "key": jane.key.fingerprint, "signature": signature}
    assert json.loads(who.post(f"{base}/answer", _fields(served, who, **signed)).body)["state"] == "approved"


def test_the_rule_of_a_token_for_some_use_cases_stands_where_all_answers_end(
    served: Served, port: int, jane: Signer
) -> None:
    """Also where a page forgets to look, and for what is of no use case."""
    _films(served)
    issue(served, "approver", "ann", scope=["films"])
    account = TokenAccount.of(authorization.authority_of(served.workspace).tokens()[0])
    for action in ("approve", "deny"):
        with pytest.raises(SpeciateError, match="The token is for films"):
            dispatch.perform(served.control, {"action": action, "id": served.approval, "hash": "x"}, account)
    with pytest.raises(SpeciateError, match="this is of the whole workspace"):
        dispatch.perform(served.control, {"action": "host", "add": True, "host": "a.example"}, account)
    assert approvals.get(served.workspace.database, served.approval).state == "pending"


# Sign-in and sessions


def test_signing_in_makes_a_new_session_and_ends_the_one_before(served: Served, port: int) -> None:
    secret, who = issue(served, "viewer"), Member(port)
    planted = "__Host-speciate=planted-by-somebody-else"
    who.cookie = planted
    answer = who.login(secret)
    first = who.cookie
    assert first != planted
    assert Member(port).get("/", cookie=planted).status == 303
    for part in ("__Host-speciate=", "HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert part in answer.headers["set-cookie"]
    assert "Domain" not in answer.headers["set-cookie"]
    assert who.login(secret).status == 303
    assert who.cookie != first
    assert who.get("/", cookie=first).status == 303, "that one was left behind"
    assert who.get("/").status == 200
    assert who.post("/leave", {"csrf": who.get("/").csrf}).status == 303
    assert who.get("/").headers["location"].startswith("/login")


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"origin": "https://evil.example"}, 403), ({"origin": ""}, 403), ({"origin": "null"}, 403),
     ({"origin": f"http://{HOST}"}, 403), ({"sec-fetch-site": "cross-site"}, 403), ({"host": "evil.example"}, 403),
     ({"host": "speciate-8000.localhost:8000"}, 403), ({"x-forwarded-proto": "http"}, 403),
     ({"x-forwarded-proto": ""}, 403)],
)  # fmt: skip
def test_nobody_signs_a_browser_in_from_elsewhere(
    served: Served, port: int, headers: dict[str, str], status: int
) -> None:
    who = Member(port)
    assert who.login(issue(served, "admin"), **headers).status == status
    assert who.cookie == ""


def test_a_revoked_or_expired_token_ends_its_open_sessions(served: Served, port: int, clock: ManualClock) -> None:
    ann, bob = member(served, port, "admin", "ann"), Member(port)
    assert bob.login(issue(served, "approver", "bob", days=1 / 24)).status == 303
    csrf = ann.get("/").csrf
    perform(served.workspace, "token revoke", name="ann")
    assert ann.get("/").status == 303
    assert ann.get("/events").status == 303
    assert ann.post("/use-cases/digits/watch", {"csrf": csrf, "enabled": "no"}).status == 401
    assert bob.get("/").status == 200
    clock.advance(3601)
    assert bob.get("/").status == 303
    again = issue(served, "viewer", "ann")
    assert ann.get("/").status == 303, "another token of the same name does not take the session up"
    assert ann.login(again).status == 303


def test_a_stream_ends_with_its_token(served: Served, port: int) -> None:
    who = member(served, port, "viewer", "ann")
    perform(served.workspace, "token revoke", name="ann")
    assert who.get("/events").status == 303
    who = member(served, port, "viewer", "bob")
    ended = threading.Timer(0.7, perform, [served.workspace, "token revoke"], {"name": "bob"})
    ended.start()
    assert who.get("/events").body.startswith(b"retry: 2000"), "it was answered, and came to its end"
    ended.join()


def test_tokens_are_not_guessed_and_not_tried_for_ever(served: Served, port: int, clock: ManualClock) -> None:
    secret = issue(served, "admin")
    eve = Member(port, peer="198.51.100.7")
    for number in range(10):
        who = Member(port, peer=f"{number}.{number}.{number}.{number}, 198.51.100.7")  # what she says of herself
        assert who.login(f"{secret[:-1]}{'ab'[secret[-1] == 'a']}").status == 403
    answer = eve.login(secret)
    assert (answer.status, "retry-after" in answer.headers) == (429, True)
    assert Member(port).login(secret).status == 303, "nobody else is kept out"
    clock.advance(61)
    assert eve.login(secret).status == 303


def test_a_provider_s_customer_counts_once(clock: ManualClock) -> None:
    throttle = Throttle(clock.monotonic)
    for number in range(10):
        throttle.note(f"2001:db8:1:2::{number}")
    assert throttle.waits("2001:db8:1:2:ffff::1") == 61
    assert throttle.waits("2001:db8:1:3::1") == 0
    for number in range(20_000):
        throttle.note(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(throttle._wrong) <= 10_000


@pytest.mark.parametrize(
    ("asked", "goes"),
    [("/runs?state=failed", "/runs?state=failed"), ("//evil.example", "/"), ("/\\evil.example", "/"),
     ("https://evil.example", "/"), ("/a\r\nset-cookie: x=y", "/"), ("", "/"), ("/login", "/"), ("javascript:1", "/")],
)  # fmt: skip
def test_signing_in_leads_to_a_page_of_ours(served: Served, port: int, asked: str, goes: str) -> None:
    assert inside(asked) == goes
    assert Member(port).login(issue(served, "viewer"), after=asked).headers["location"] == goes
    assert "evil" not in Member(port).get("/login?next=https://evil.example").html
    assert "twelve hours after its last use" in Member(port).get("/login").html


# The proxy


def test_who_is_not_the_proxy_is_not_answered_whatever_it_says(served: Served) -> None:
    secret, port = issue(served, "admin"), serve(served, proxies=("10.0.0.0/8", "fd00::/8"))
    who = Member(port, peer="10.0.0.1")
    for path in ("/", "/login", f"{FILES}/page.js", "/open"):
        assert who.get(path).status == 403, path
    assert who.login(secret, **{"x-real-ip": "10.0.0.1", "forwarded": "for=10.0.0.1"}).status == 403


@pytest.mark.parametrize(
    ("peer", "protocol", "proxies", "may"),
    [("127.0.0.1", "https", ("127.0.0.1",), True), ("::ffff:127.0.0.1", "https", ("127.0.0.1",), True),
     ("127.0.0.2", "https", ("127.0.0.1",), False), ("10.1.2.3", "https", ("10.0.0.0/8",), True),
     ("", "https", ("0.0.0.0/0",), False), ("unix", "https", ("0.0.0.0/0",), False), ("::1", "https", ("::1",), True),
     ("127.0.0.1", "http", ("127.0.0.1",), False), ("127.0.0.1", "https, http", ("127.0.0.1",), False),
     ("127.0.0.1", None, ("127.0.0.1",), False)],
)  # fmt: skip
def test_whom_the_guard_takes_for_the_proxy(
    peer: str, protocol: str | None, proxies: tuple[str, ...], may: bool
) -> None:
    front = team_front(Team(address=ORIGIN, proxies=proxies))
    asked = IncomingRequest("GET", "/login", host=HOST, peer=peer, protocol=protocol)
    assert (refusal(asked, front, None) is None) == may
    assert refusal(asked, front._replace(proxies=()), None) is not None


def test_each_front_takes_its_own_hosts_and_cookies_alone(served: Served, port: int) -> None:
    who, local = member(served, port, "admin"), served.reader("decide")
    value = who.cookie.partition("=")[2]
    for cookie in (who.cookie, f"speciate-{local.port}={value}"):
        assert local.get("/", cookie=cookie).status == 401
    assert local.get("/", host=HOST, cookie=who.cookie).status == 403
    theirs = local.cookie.partition("=")[2]
    for cookie in (local.cookie, f"__Host-speciate={theirs}"):
        assert who.get("/", cookie=cookie).status == 303
    assert who.get("/", host=local.host, cookie=local.cookie).status == 403
    assert who.get("/open").status == 404
    assert local.get("/login").status == 404
    assert who.get("/", cookie="", authorization=f"Bearer {issue(served, 'admin', 'eve')}").status == 303
    assert "max-age" in who.get("/").headers["strict-transport-security"]
    assert "strict-transport-security" not in local.get("/").headers


def test_every_request_is_noted_under_the_token_and_without_its_words(served: Served, port: int) -> None:
    ann, admin = member(served, port, "viewer", "ann"), member(served, port, "admin")
    ann.get("/data/films/v1/examples?q=a-private-word")
    ann.get("/examples/a-private-person?in=films@v1")
    ann.get("/media/films/v1/a-private-person/thumb.png")
    ann.post("/use-cases/digits/watch", {"csrf": "x"})
    ann.get(f"{FILES}/page.js")
    Member(port).get("/runs")
    [day] = (served.workspace.folders.root / "requests").iterdir()
    lines = day.read_text().splitlines()
    noted = [(each["token"], each["role"], each["method"], each["path"], each["status"], each["peer"])
             for each in map(json.loads, lines)]  # fmt: skip
    peer = "203.0.113.5"
    for line in (
        ("ann", "viewer", "POST", "/login", 303, peer), ("ann", "viewer", "GET", "/data/films/v1/examples", 404, peer),
        ("ann", "viewer", "POST", "/use-cases/digits/watch", 403, peer), (None, None, "GET", "/runs", 303, peer),
    ):  # fmt: skip
        assert line in noted
    assert not any("private" in line or "/static/" in line for line in lines)
    folder, now = served.workspace.folders.root / "requests", served.workspace.clock.now
    RequestLog(folder, now).add(Request(None, "POST", "/mcp", None, peer, "tools/call predict"))
    page = admin.get("/requests").text
    assert "POST /mcp tools/call predict" in page
    assert "ann viewer" in page
    assert "/data/films/v1/examples" in page


def test_nobody_fills_the_disk_with_requests(served: Served, port: int) -> None:
    folder = served.workspace.folders.root / "requests"
    ann = member(served, port, "viewer", "ann")
    [day] = folder.iterdir()
    with day.open("ab") as file:
        file.truncate(16 << 20)
    before = day.stat().st_size
    Member(port).get("/runs")
    assert day.stat().st_size == before
    ann.get("/runs")
    assert day.stat().st_size > before
    assert day.stat().st_mode & 0o077 == 0


def test_a_forged_csrf_or_another_s_changes_nothing(served: Served, port: int) -> None:
    ann, bob = member(served, port, "admin", "ann"), member(served, port, "admin", "bob")
    theirs = bob.get("/").csrf
    for path in (filled(each.path) for each in WRITES):
        for fields in ({}, {"csrf": theirs}, {"csrf": ""}):
            assert ann.post(path, fields).status == 403, path


def test_the_frame_names_who_and_what_and_offers_what_the_role_may(served: Served, port: int) -> None:
    viewer, admin = member(served, port, "viewer", "ann").get("/"), member(served, port, "admin").get("/")
    assert "ann · speciate" in viewer.text
    assert "viewer" in viewer.text
    assert "Settings" not in viewer.text
    assert "Settings" in admin.text
    assert "Sign out" in viewer.text
    assert ORIGIN not in viewer.html


def test_evidence_without_settings_keeps_the_rest() -> None:
    evidence = {
        "differences": ["roots is [/srv/x]"], "signed": {"name": "jane", "shown": {"settings": {"a": 1}}},
        "rows": [{"private_hosts": ["10.9.8.7"]}, 3],
    }  # fmt: skip
    assert without_settings(evidence) == {
        "differences": HIDDEN, "signed": {"name": "jane", "shown": {"settings": HIDDEN}},
        "rows": [{"private_hosts": HIDDEN}, 3],
    }  # fmt: skip


def _send(tx: Transaction) -> None:
    for host in ("/srv/depot", "s3.lab/scans", "api.example.org"):
        row = audit.append_row(
            tx, actor="job-a", action="send", use_case="*", before=None, after=f"lesions to {host}",
            evidence={"datasets": ["lesions"], "host": host, "shown": {"host": host}},
        )  # fmt: skip
        tx.event(f"host:{host}", "data.sent", {"audit": row.hash})


def test_folders_and_hosts_of_the_settings_are_shown_to_who_may_see_settings(served: Served, port: int) -> None:
    workspace, folder = served.workspace, "/srv/a-private-folder"
    changed = {"roots": [Path(folder)], "private_hosts": ("10.9.8.7",)}
    workspace.settings = workspace.settings.model_copy(update=changed)
    people.enroll(workspace, Signer("jane"))
    try:
        ann, admin = (Member(port) for _ in range(2))
        for each, name in ((ann, "viewer"), (admin, "admin")):
            made = tokens.make()
            request = {"name": name, "role": name, "days": 9.0, "id": made.id, "digest": made.digest}
            authorization.authority_of(workspace).issue(request, "a test", {})
            assert each.login(made.secret).status == 303
        workspace.database.transact(_send)
        for said in (folder, "/srv/depot", "s3.lab/scans"):
            assert said in admin.get("/audit").text
        told = ann.get("/audit").text
        assert "key enroll" in told
        for said in (folder, "10.9.8.7", "/srv/depot", "s3.lab/scans"):
            assert said not in told
        for said in ("lesions to for who may see settings", "api.example.org"):
            assert said in told
        assert str(workspace.folders.root) not in ann.get("/").text
    finally:
        people.forget(workspace)
