"""A team in real browsers, over HTTPS by a proxy: sign in, make a passkey, approve with a touch; and the nginx of the
documentation before real pages.

Needs Chromium and the extras `browser` and `passkeys`; the last test needs nginx. What is missing is said.
"""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from speciate.workspace.workspace import Workspace
from tests.server.processes import Daemons
from tests.server.terminals import PHRASE, enroll, sign, type_at
from tests.server.web.test_browser import WATCH, Tab, ask_for, chromium, note_problems
from tests.server.web.tls_proxy import certificate, proxied
from tests.serving.world import MODEL, USE_CASE, move, scaled, trained, version

pytest.importorskip("fido2", reason="the extra `passkeys` is not installed: no python-fido2")
pytestmark = pytest.mark.slow
__all__ = ["chromium"]
HOST = "speciate.example.com"
_AUTHENTICATOR = {
    "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
    "isUserVerified": True, "automaticPresenceSimulation": True,
}  # fmt: skip


class World(NamedTuple):
    daemons: Daemons
    approval: str
    port: int


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    workspace = Workspace(daemons.workspace)
    first = trained(workspace)
    second = version(workspace, first, scaled(1.01), "second")
    move(workspace, first.ref)
    approval = ask_for(workspace, first.ref, second)
    workspace.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    (daemons.workspace / "settings.toml").write_text(f'[team]\naddress = "https://{HOST}"\nport = {port}\n')
    enrolled = enroll(daemons.workspace, "--name", "jane")
    assert enrolled.status == 0, enrolled.text
    yield World(daemons, approval, port)
    daemons.close()


@pytest.fixture
def tabs(chromium: Any) -> Iterator[list[Any]]:
    """Contexts to close."""
    made = list[Any]()
    yield made
    for each in made:
        each.close()


def _token(world: World, name: str, role: str) -> str:
    screen = sign(world.daemons.workspace, "token", "create", name, "--role", role)
    assert screen.status == 0, screen.text
    found = re.search(r"speciate_[0-9a-f]{12}_[\w-]{43}", screen.text)
    assert found, screen.text
    return found[0]


def _member(chromium: Any, tabs: list[Any], proxy: int, secret: str) -> Tab:
    """A browser that signed in, with an authenticator that somebody touches."""
    context = chromium.new_context(ignore_https_errors=True, base_url=f"https://{HOST}:{proxy}")
    tabs.append(context)
    context.add_init_script(WATCH)
    page, problems = context.new_page(), list[str]()
    note_problems(page, problems)
    page.on("dialog", lambda dialog: dialog.accept())
    with_authenticator(page)
    page.goto("/approvals")
    assert "/login?next=" in page.url
    page.fill("input[name=token]", secret)
    page.click("button")
    page.wait_for_url("**/approvals")
    return Tab(page, problems, f"https://{HOST}:{proxy}")


def with_authenticator(page: Any) -> None:
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": _AUTHENTICATOR})


def test_an_approver_makes_a_passkey_and_approves_with_a_touch(
    world: World, chromium: Any, tabs: list[Any], tmp_path: Path
) -> None:
    with proxied(tmp_path, HOST, world.port) as proxy:
        _serve_at(world, proxy.port)
        tab = _member(chromium, tabs, proxy.port, _token(world, "ann", "approver"))
        page = tab.page
        page.click("text=Look and decide") if page.query_selector("text=Look and decide") else tab.go(
            f"/approvals/{world.approval}"
        )
        assert "None of these keys is a passkey of this site" in page.inner_text("main")
        page = tab.go("/keys")
        page.fill("input[name=name]", "ann-laptop")
        page.click("#make button")
        tab.until(lambda: page.is_visible("#elsewhere"), "the passkey is made")
        public = re.search(r"--passkey '([^']+)'", page.inner_text("#command"))
        assert public
        assert page.inner_text("#mark") in page.inner_text("main")
        enrolled = sign(world.daemons.workspace, "key", "enroll", "--name", "ann-laptop", "--passkey", public[1])
        assert enrolled.status == 0, enrolled.text
        assert page.inner_text("#mark") in enrolled.text, "the fingerprint that both see"
        page = tab.go(f"/approvals/{world.approval}")
        page.click("button[value=approve]")
        tab.until(lambda: page.url.endswith("/production"), "approved")
        assert f"{MODEL}@v2" in page.inner_text("#serves")
        rows = {row["action"]: row for row in world.daemons.control("trail", use_case=USE_CASE, most=9)["rows"]}
        assert (rows["approve"]["actor"], rows["approve"]["evidence"]["signed"]["name"]) == (
            "ann (token)",
            "ann-laptop",
        )
        assert world.daemons.control("audit", head=None)["problems"] == []
        assert type_at(["token", "revoke", "ann", "--workspace", str(world.daemons.workspace)], []).status == 0
        tab.go("/runs")
        assert "/login" in page.url, "the open session is over"
        tab.problems[:] = [each for each in tab.problems if "401" not in each]  # the stream of the page before
        assert tab.problems == []


def _serve_at(world: World, proxy: int) -> None:
    """The address with the proxy's port, which a test cannot choose to be 443."""
    text = f'[team]\naddress = "https://{HOST}:{proxy}"\nport = {world.port}\n'
    (world.daemons.workspace / "settings.toml").write_text(text)
    world.daemons.control("stop")
    while world.daemons.pids():
        time.sleep(0.05)


def test_a_passkey_on_this_machine_is_signed_for_by_the_passphrase(
    world: World, chromium: Any, tabs: list[Any]
) -> None:
    arguments = ["open", "--decide", "--no-browser", "--workspace", str(world.daemons.workspace)]
    screen = type_at(arguments, [("(nothing: no): ", PHRASE)])
    link = re.search(r"http://speciate-\d+\.localhost:\d+/open#[\w-]+", screen.text)
    assert link, screen.text
    context = chromium.new_context()
    tabs.append(context)
    page, problems = context.new_page(), list[str]()
    page.on("pageerror", lambda error: problems.append(str(error)))
    with_authenticator(page)
    page.goto(link[0])
    page.wait_for_url("**/", timeout=30_000)
    tab = Tab(page, problems, page.url.rstrip("/"))
    tab.go("/keys")
    page.fill("input[name=name]", "this-browser")
    page.click("#make button")
    tab.until(lambda: page.is_visible("#sign"), "the passkey is made")
    page.fill("input[name=passphrase]", PHRASE)
    page.click("#sign button")
    tab.until(lambda: "this-browser" in page.inner_text("main dl"), "it is enrolled")
    tab.go(f"/approvals/{world.approval}")
    page.select_option("select[name=key]", label="this-browser (passkey)")
    page.click("button[value=deny]")
    tab.until(lambda: "denied" in page.inner_text("main"), "denied with a touch")
    rows = world.daemons.control("trail", use_case=USE_CASE, most=9)["rows"]
    assert [row["evidence"]["signed"]["name"] for row in rows if row["action"] == "deny"] == ["this-browser"]
    assert world.daemons.control("audit", head=None)["problems"] == []
    assert problems == []


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx is installed here (on Debian: apt install nginx)")
def test_the_nginx_of_the_documentation_serves_the_pages(world: World, tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "pages.md").read_text()
    written = re.search(r"```nginx\n(.*?)```", text, re.DOTALL)
    assert written
    chain, private = certificate(tmp_path, HOST)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    site = written[1]
    for stands, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"), ("127.0.0.1:8790", f"127.0.0.1:{world.port}"),
        ("/etc/letsencrypt/live/speciate.example.com/fullchain.pem", str(chain)),
        ("/etc/letsencrypt/live/speciate.example.com/privkey.pem", str(private)),
    ):  # fmt: skip
        assert stands in site
        site = site.replace(stands, here)
    temporary = "".join(f"{each}_temp_path {tmp_path}/{each};\n" for each in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))  # fmt: skip
    outside = f"daemon off; pid {tmp_path}/pid; error_log stderr;\nevents {{}}\n"
    (tmp_path / "nginx.conf").write_text(f"{outside}http {{ access_log off;\n{temporary}{site}\n}}")
    secret = _token(world, "ann", "viewer")
    server = subprocess.Popen(["nginx", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)])
    try:
        latest = time.monotonic() + 20
        while time.monotonic() < latest:
            with socket.socket() as found:
                if found.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        assert "303" in _said(port, "GET / HTTP/1.1", "")
        form = f"token={secret}&next=/"
        kind = "Content-Type: application/x-www-form-urlencoded\r\n"
        head = f"{kind}Origin: https://{HOST}\r\nX-Forwarded-For: 6.6.6.6\r\nContent-Length: {len(form)}\r\n"
        said = _said(port, "POST /login HTTP/1.1", head, form)
        cookie = re.search(r"set-cookie: (__Host-speciate=[\w-]+)", said)
        assert cookie, said
        assert "Use cases" in _said(port, "GET / HTTP/1.1", f"Cookie: {cookie[1]}\r\n")
        assert "retry: 2000" in _said(port, "GET /events HTTP/1.1", f"Cookie: {cookie[1]}\r\n", seconds=3)
    finally:
        server.terminate()
        server.wait(20)
    noted = "".join(each.read_text() for each in (world.daemons.workspace / "requests").iterdir())
    assert "6.6.6.6" not in noted
    assert '"peer": "127.0.0.1"' in noted


def _said(port: int, first: str, head: str, body: str = "", *, seconds: float = 10) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=seconds) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        connection.sendall(f"{first}\r\nHost: {HOST}\r\nConnection: close\r\n{head}\r\n{body}".encode())
        said = b""
        try:
            while piece := connection.recv(65_536):
                said += piece
        except TimeoutError:
            pass
        return said.decode(errors="replace")
