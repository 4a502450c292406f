"""Who called, as the kernel says it: whatever a client calls itself."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from speciate import unix_sockets
from speciate.cli import confirmation
from speciate.unix_sockets import Account, ForeignSocket, may_connect, may_succeed
from tests import forks
from tests.server.processes import Daemons, end, report_of

_WHO = '''
from speciate.server.tool_api import App, Result, tool

class Who(Result):
    who: str

@tool(read_only=True)
def tell_who(app: App) -> Who:
    """Who calls."""
    return Who(who=app.caller.client)

def register(server):
    server.add(tell_who.__tool__)
'''


def test_the_peer_of_a_socket_is_this_account() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert unix_sockets.peer_account(here).uid == os.getuid()
        assert unix_sockets.peer_account(here).groups >= {os.getgid()}
        assert unix_sockets.peer_account(here).name == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize(
    ("peer", "group", "may"),
    [
        (Account(os.getuid(), frozenset()), None, True),
        (Account(0, frozenset()), None, True),
        (Account(4242, frozenset({7})), None, False),
        (Account(4242, frozenset({7})), 8, False),
        (Account(4242, frozenset({7})), 7, True),
    ],
)
def test_its_own_user_root_and_the_group_may_call(peer: Account, group: int | None, *, may: bool) -> None:
    assert may_connect(peer, group) is may


def test_whoever_is_only_served_does_not_end_the_daemon_with_a_newer_version() -> None:
    me, root, member = (Account(uid, frozenset({7})) for uid in (os.getuid(), 0, 4242))
    assert [may_succeed(each, 7) for each in (me, root, member)] == [True, True, False]
    assert may_succeed(member, None), "without a group only its own user and root are admitted at all"


def test_an_account_without_a_name_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Account(424_242, frozenset()).name == "uid 424242"
    monkeypatch.setattr(os, "getuid", lambda: 424_242)
    assert confirmation.account_name() == "uid 424242"


def test_a_client_asks_the_kernel_who_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same reading as the daemon's, on each system; and it speaks to nobody of whom the kernel does not tell."""
    monkeypatch.chdir(tmp_path)
    with unix_sockets.listen(Path("s"), 1):
        monkeypatch.setattr(unix_sockets, "peer_account", lambda connection: Account(4242, frozenset()))
        with pytest.raises(ForeignSocket, match="uid 4242"):
            unix_sockets.connect(Path("s"), {os.getuid()})
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        monkeypatch.delattr(socket, "SO_PEERCRED")
        with pytest.raises(OSError, match="nothing here knows"):
            unix_sockets.connect(Path("s"), {os.getuid()})


def test_what_an_agent_leaves_over_mcp_names_the_account_and_not_what_it_calls_itself(tmp_path: Path) -> None:
    daemons = Daemons(tmp_path / "workspace")
    (tmp_path / "who.py").write_text(_WHO)
    command = [sys.executable, "-m", "speciate.server.daemon", f"--workspace={daemons.workspace}"]
    process = forks.start([*command, f"--fixture={tmp_path / 'who.py'}"], stdout=subprocess.PIPE)
    try:
        assert report_of(process) == {"won": True}
        name = pwd.getpwuid(os.getuid()).pw_name
        assert daemons.connect().call("tell_who") == {"who": f"{name} over MCP"}
    finally:
        end(process)
        daemons.close()
