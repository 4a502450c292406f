"""The tokens of a team over MCP: the same ones, the same roles, and none of them approves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from time import time
from typing import Any

import anyio
import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

import speciate.tools
from speciate import use_cases
from speciate.governance import authorization, tokens
from speciate.governance.roles import ACTS, ROLES, SCOPED, Role, act_of_tool
from speciate.predictions import prediction_ids
from speciate.server.mcp.app import Server, declarations
from speciate.server.mcp.library import Bearer, TeamDoor, message_called
from speciate.server.request_log import RequestLog
from speciate.settings import Team
from speciate.use_cases import Definition, Objective
from speciate.workspace.workspace import Workspace
from tests.governance.people import perform
from tests.server.apps import make_app
from tests.server.mcp.test_library import HELLO, PORT, READY, TOKEN, call

_ADDRESS = "https://speciate.example.com"
_LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
_WRITES = {
    "viewer": set[str](), "labeller": {"record_feedback"}, "approver": {"record_feedback", "rollback_model"},
}  # fmt: skip


@pytest.fixture
def server(workspace: Workspace) -> Server:
    workspace.settings = workspace.settings.model_copy(update={"team": Team(address=_ADDRESS)})
    return Server(make_app(workspace))


def issue(workspace: Workspace, role: Role, *scope: str) -> str:
    made = tokens.make()
    request = {"name": role, "role": role, "days": 9.0, "id": made.id, "digest": made.digest, "use_cases": [*scope]}
    perform(workspace, "token create", **request)
    return made.secret


def talk(
    server: Server, messages: Sequence[tuple[str, dict[str, Any]]], headers: Mapping[str, str] | None = None
) -> list[tuple[int, dict[str, Any]]]:
    """Each message by the bearer beside it, in one session."""

    async def main() -> list[tuple[int, dict[str, Any]]]:
        app = server.http_app(TOKEN, PORT)
        said = list[tuple[int, dict[str, Any]]]()
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=f"http://127.0.0.1:{PORT}") as client,
        ):
            session: dict[str, str] = {}
            for bearer, message in messages:
                sent = {"accept": "application/json, text/event-stream", "authorization": f"Bearer {bearer}"}
                answer = await client.post("/mcp", json=message, headers={**sent, **session, **(headers or {})})
                if found := answer.headers.get("mcp-session-id"):
                    session = {"mcp-session-id": found}
                lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
                said.append((answer.status_code, json.loads(lines[-1]) if lines else {}))
        return said

    return anyio.run(main)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_sees_and_calls_its_tools_alone(server: Server, workspace: Workspace, role: Role) -> None:
    secret = issue(workspace, role)
    asked = [
        HELLO,
        READY,
        _LIST,
        call(3, "list_jobs"),
        call(4, "define_use_case", name="x", task="text-classification"),
    ]
    _, _, (_, listed), (_, looked), (_, defined) = talk(server, [(secret, each) for each in asked])
    shown = {tool["name"]: tool["annotations"]["readOnlyHint"] for tool in listed["result"]["tools"]}
    writes = {name for name, read_only in shown.items() if not read_only}
    assert "get_status" in shown
    assert writes == _WRITES[role] if role != "admin" else writes > {"define_use_case", "train_model"}
    assert not looked["result"].get("isError")
    told = json.dumps(defined["result"])
    assert (f"The role {role} does not call define_use_case" in told) == (role != "admin")
    assert not {name for name in shown if "approve" in name or "token" in name or "policy" in name}


def test_a_token_for_a_use_case_changes_no_other_one(server: Server, workspace: Workspace) -> None:
    for name in ("digits", "films"):
        told = Definition(name=name, task="image-classification", objective=Objective(metric="accuracy"))
        workspace.database.transact(lambda tx, told=told: use_cases.define(tx, told, policy="auto"))
    secret = issue(workspace, "approver", "digits")
    answers = {name: prediction_ids.new_prediction_id(name, 1_700_000_000.0) for name in ("digits", "films")}
    mine, theirs = ({"prediction": answers[name], "label": "7"} for name in ("digits", "films"))
    changes = [
        ("rollback_model", {"use_case": "digits", "reason": "why not"}, False),
        ("rollback_model", {"use_case": "films", "reason": "why not"}, True),
        ("record_feedback", {"source": "human", **mine}, False),
        ("record_feedback", {"source": "human", **theirs}, True),
        ("record_feedback", {"source": "human", "labels": [mine]}, False),
        ("record_feedback", {"source": "human", "labels": [mine, theirs]}, True),
        ("record_feedback", {"source": "human", **mine, "labels": [theirs]}, True),
    ]  # fmt: skip
    asked = [call(at, tool, **arguments) for at, (tool, arguments, _) in enumerate(changes, start=3)]
    _, _, *said = talk(server, [(secret, each) for each in (HELLO, READY, *asked)])
    refused = ["This token is for digits, not for films" in json.dumps(each) for _, each in said]
    assert refused == [wanted for *_, wanted in changes]
    assert "this token" not in json.dumps(said[0]).lower(), "there is nothing to roll back"
    *_, (_, seen) = talk(server, [(secret, each) for each in (HELLO, READY, call(3, "get_status", use_case="films"))])
    assert not seen["result"].get("isError")


def test_every_tool_of_a_role_for_some_use_cases_names_one(server: Server) -> None:
    """Else a token for some would change all."""
    reached = {
        each.name: set(each.arguments.model_fields) for each in declarations(speciate.tools, "__tool__")
        if not each.read_only and any(act_of_tool(each.name, read_only=False) in ACTS[role] for role in SCOPED)
    }  # fmt: skip
    assert set(reached) == {"record_feedback", "rollback_model"}
    about = {name: names & {"use_case", "prediction", "labels"} for name, names in reached.items()}
    assert about == {"rollback_model": {"use_case"}, "record_feedback": {"prediction", "labels"}}


@pytest.mark.parametrize("role", ROLES)
def test_folders_of_this_machine_are_named_to_who_may_see_settings(
    server: Server, workspace: Workspace, role: Role
) -> None:
    secret = issue(workspace, role)
    *_, (_, told) = talk(server, [(secret, each) for each in (HELLO, READY, call(3, "get_status"))])
    assert (str(workspace.folders.root) in json.dumps(told)) == (role == "admin")


def test_a_session_gives_nobody_the_rights_of_who_began_it(server: Server, workspace: Workspace) -> None:
    admin, viewer = issue(workspace, "admin"), issue(workspace, "viewer")
    wanted = call(3, "define_use_case", name="x", task="text-classification")
    *_, (_, mine), (_, theirs) = talk(server, [(admin, HELLO), (admin, READY), (admin, _LIST), (viewer, wanted)])
    assert "define_use_case" in {tool["name"] for tool in mine["result"]["tools"]}
    assert "The role viewer does not call" in json.dumps(theirs["result"])


def test_a_token_that_is_over_or_never_was_is_refused(server: Server, workspace: Workspace) -> None:
    secret = issue(workspace, "admin")
    for wrong in (f"{secret}x", secret.replace("_", " "), "", tokens.make().secret):
        assert talk(server, [(wrong, HELLO)])[0][0] == 401
    assert talk(server, [(secret, HELLO)], {"host": "speciate.example.com"})[0][0] == 200
    assert talk(server, [(secret, HELLO)], {"host": "evil.example"})[0][0] == 421
    perform(workspace, "token revoke", name="admin")
    assert talk(server, [(secret, HELLO)])[0][0] == 401
    assert authorization.authority_of(workspace).tokens() == []


def test_a_stream_over_http_ends_with_its_token(server: Server, workspace: Workspace) -> None:
    secret, sent = issue(workspace, "viewer"), list[bytes]()
    team = TeamDoor(
        _ADDRESS, authorization.authority_of(workspace).find_token, RequestLog(workspace.folders.root, time)
    )

    async def events(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"before", "more_body": True})
        perform(workspace, "token revoke", name="viewer")
        await send({"type": "http.response.body", "body": b"after", "more_body": True})
        await send({"type": "http.response.body", "body": b"later", "more_body": True})

    async def hear(message: Message) -> None:
        sent.append(message.get("body", b""))

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    headers = [(b"authorization", f"Bearer {secret}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/mcp", "headers": headers}
    anyio.run(Bearer(events, TOKEN, team), scope, nothing, hear)
    assert b"".join(sent) == b"before"


def test_a_request_whose_handling_breaks_is_noted_all_the_same(server: Server, workspace: Workspace) -> None:
    secret = issue(workspace, "viewer")
    log = RequestLog(workspace.folders.root / "requests", time)
    team = TeamDoor(_ADDRESS, authorization.authority_of(workspace).find_token, log)

    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise RuntimeError("broken")

    async def body() -> Message:
        return {"type": "http.request", "body": json.dumps(_LIST).encode()}

    async def nobody(message: Message) -> None:
        raise AssertionError("nothing is answered")

    headers = [(b"authorization", f"Bearer {secret}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers}
    with pytest.raises(RuntimeError, match="broken"):
        anyio.run(Bearer(breaks, TOKEN, team), scope, body, nobody)
    (line,) = noted(workspace)
    assert (line["token"], line["status"], line["called"]) == ("viewer", None, "tools/list")


def test_this_machine_s_token_does_everything_as_before_and_is_not_noted(server: Server, workspace: Workspace) -> None:
    _, _, (_, listed) = talk(server, [(TOKEN, HELLO), (TOKEN, READY), (TOKEN, _LIST)])
    assert "train_model" in {tool["name"] for tool in listed["result"]["tools"]}
    assert not (workspace.folders.root / "requests").exists()


@pytest.mark.parametrize(
    "headers",
    [{"host": "speciate.example.com"}, {"x-forwarded-for": "203.0.113.5"}, {"forwarded": "for=203.0.113.5"}],
)
def test_this_machine_s_token_opens_nothing_to_the_network(
    server: Server, workspace: Workspace, headers: dict[str, str]
) -> None:
    assert talk(server, [(TOKEN, HELLO)], headers)[0][0] == 401
    assert talk(server, [(issue(workspace, "viewer"), HELLO)], headers)[0][0] == 200
    assert [each["token"] for each in noted(workspace)] == [None, "viewer"]


def test_a_request_is_noted_with_what_it_called_and_the_page_shows_it(server: Server, workspace: Workspace) -> None:
    secret = issue(workspace, "viewer")
    private = call(3, "query_dataset", dataset="a-private-name")
    resource = {"jsonrpc": "2.0", "id": 4, "method": "resources/read", "params": {"uri": "speciate://a-private-name"}}
    asked = [(secret, each) for each in (HELLO, READY, _LIST, private, resource)]
    talk(server, asked, {"x-forwarded-for": "198.51.100.1, 203.0.113.5"})
    lines = noted(workspace)
    assert [(each["token"], each["method"], each["path"], each["status"], each["peer"]) for each in lines] == [
        ("viewer", "POST", "/mcp", status, "203.0.113.5") for status in (200, 202, 200, 200, 200)
    ]
    assert [each["called"] for each in lines] == [
        "initialize", "notifications/initialized", "tools/list", "tools/call query_dataset", "resources/read",
    ]  # fmt: skip
    assert "private" not in json.dumps(lines)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'{"method": 7}', b'{"method": "a b"}', b'{"params": []}', b"[" * 9999]
)
def test_what_is_no_message_is_noted_as_none(body: bytes) -> None:
    assert message_called(body) == ""


def noted(workspace: Workspace) -> list[dict[str, Any]]:
    [day] = (workspace.folders.root / "requests").iterdir()
    return [json.loads(line) for line in day.read_text().splitlines()]
