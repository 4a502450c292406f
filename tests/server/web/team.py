"""A team's pages as its proxy reaches them, without a browser."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from speciate.governance import authorization, tokens
from speciate.governance.roles import Role
from speciate.settings import Team
from tests.governance.people import perform
from tests.server.web.conftest import Served
from tests.server.web.reader import Answer, Reader

HOST = "speciate.example.com"
ORIGIN = f"https://{HOST}"


def serve(served: Served, *, proxies: tuple[str, ...] = ("127.0.0.1",)) -> int:
    """The port of the team's pages."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    team = Team(address=ORIGIN, port=port, proxies=proxies)
    served.workspace.settings = served.workspace.settings.model_copy(update={"team": team})
    return served.pages.serve_team(team)


def issue(served: Served, role: Role, name: str = "", *, days: float = 30.0, scope: Sequence[str] = ()) -> str:
    """A token's secret."""
    made = tokens.make()
    request: dict[str, Any] = {
        "name": name or f"some-{role}",
        "role": role,
        "days": days,
        "id": made.id,
        "digest": made.digest,
    }
    if scope:
        request["use_cases"] = list(scope)
    if authorization.authority_of(served.workspace).required:
        authorization.authority_of(served.workspace).issue(request, "a test", {})
    else:
        perform(served.workspace, "token create", **request)
    return made.secret


class Member(Reader):
    """A browser of the team, behind the proxy: what it sends comes with what the proxy adds."""

    def __init__(self, port: int, peer: str = "203.0.113.5") -> None:
        self.port, self.host, self.cookie, self.peer = port, HOST, "", peer

    def login(self, secret: str, *, after: str = "/", **headers: str) -> Answer:
        answer = self.post("/login", {"token": secret, "next": after}, **headers)
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, Any] | None = None) -> Answer:
        added = {"x-forwarded-for": self.peer, "x-forwarded-proto": "https"}
        if method != "GET":
            added["origin"] = ORIGIN
        return super().ask(method, path, body, {**added, **(headers or {})})
