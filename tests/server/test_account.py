"""Who called, as the kernel says it: whatever a client calls itself."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import speciate
from speciate.server import account
from speciate.server.account import Account, admitted
from tests.server.processes import Daemons, end, report_of

_WHO = '''
from speciate.server.surface import App, Result, tool

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
        assert account.peer(here).uid == os.getuid()
        assert account.peer(here).groups >= {os.getgid()}
        assert account.peer(here).name == pwd.getpwuid(os.getuid()).pw_name


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
    assert admitted(peer, group) is may


def test_an_account_without_a_name_has_its_number() -> None:
    assert Account(424_242, frozenset()).name == "uid 424242"


def test_what_an_agent_leaves_over_mcp_names_the_account_and_not_what_it_calls_itself(tmp_path: Path) -> None:
    daemons = Daemons(tmp_path / "workspace")
    (tmp_path / "who.py").write_text(_WHO)
    command = [sys.executable, "-m", "speciate.server.daemon", f"--workspace={daemons.workspace}"]
    process = subprocess.Popen([*command, f"--fixture={tmp_path / 'who.py'}"], stdout=subprocess.PIPE)
    try:
        assert report_of(process) == {"won": True}
        name = pwd.getpwuid(os.getuid()).pw_name
        assert speciate.connect(daemons.workspace).call("tell_who") == {"who": f"{name} over MCP"}
    finally:
        end(process)
        daemons.close()
