"""Clients whose environment is not the daemon's: they reach it all the same, at once, and never start a second one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from speciate.environment import runtime_folder, socket_path
from speciate.errors import Code, SpeciateError
from speciate.server.control.action import PersonAction
from speciate.server.control.dispatch import ACTIONS
from speciate.server.dial import dial
from speciate.server.protocol import ASKED_ONCE, CONTROL, encode
from tests import forks
from tests.server.processes import Daemons, Stdio, gone
from tests.server.test_daemon import until

AT_ONCE = 15.0
"""Seconds; a client that finds no daemon gives up after 60."""


@pytest.fixture
def places(daemons: Daemons) -> Iterator[dict[str, dict[str, str]]]:
    """Environments as of a login, of cron (nothing), of sudo (another's folder), and with a TMPDIR."""
    daemons.workspace.mkdir()
    with tempfile.TemporaryDirectory(prefix="places-", dir="/tmp") as short:
        yield made_below(Path(short))


def made_below(folder: Path) -> dict[str, dict[str, str]]:
    for name in ("login", "temporary", "other"):
        (folder / name).mkdir(mode=0o700)
    (folder / "other" / "speciate").mkdir()
    if os.getuid() == 0:
        os.chown(folder / "other" / "speciate", 12345, -1)
    return {
        "login": {"XDG_RUNTIME_DIR": str(folder / "login")},
        "cron": {},
        "TMPDIR": {"TMPDIR": str(folder / "temporary")},
        "sudo": {"XDG_RUNTIME_DIR": str(folder / "other")},
        "nowhere": {"XDG_RUNTIME_DIR": "/proc/no/such/folder"},
    }


def environment(place: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("XDG_RUNTIME_DIR", "TMPDIR")}
    return kept | place


def command(daemons: Daemons, place: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "speciate.cli", arguments[0], "--workspace", str(daemons.workspace)]
    return forks.run([*program, *arguments[1:]], env=environment(place), timeout=90)


def test_a_daemon_is_reached_from_every_environment_and_stopped(
    daemons: Daemons, places: dict[str, dict[str, str]]
) -> None:
    assert command(daemons, places["login"], "call", "list_jobs").returncode == 0
    [pid] = daemons.pids()
    for name, place in places.items():
        began = time.monotonic()
        asked = command(daemons, place, "status")
        assert asked.returncode == 0, (name, asked.stderr)
        assert json.loads(asked.stdout)["pid"] == pid, name
        assert time.monotonic() - began < AT_ONCE, name
    stopped = command(daemons, places["TMPDIR"], "stop")
    assert (stopped.returncode, stopped.stderr) == (0, "")
    deadline = time.monotonic() + AT_ONCE
    while daemons.pids():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_clients_of_different_environments_that_start_together_start_one_daemon(
    daemons: Daemons, places: dict[str, dict[str, str]]
) -> None:
    with ThreadPoolExecutor(len(places)) as threads:
        done = list(threads.map(lambda place: command(daemons, place, "call", "list_jobs"), places.values()))
    assert [each.returncode for each in done] == [0] * len(places), [each.stderr for each in done]
    assert len(daemons.pids()) == 1


def test_a_client_of_the_sdk_which_passes_few_variables_on_reaches_the_daemon_that_a_shell_started(
    daemons: Daemons, places: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in places["TMPDIR"].items():
        monkeypatch.setenv(name, value)
    assert command(daemons, places["TMPDIR"], "call", "list_jobs").returncode == 0

    async def ask() -> Any:
        arguments = ["-m", "speciate.cli", "serve", "--workspace", str(daemons.workspace)]
        async with Client(StdioServerParameters(command=sys.executable, args=arguments)) as client:
            return (await client.call_tool("list_jobs", {})).structured_content

    assert anyio.run(ask) == {"jobs": []}
    assert len(daemons.pids()) == 1
    assert command(daemons, places["TMPDIR"], "stop").returncode == 0


def test_a_card_that_a_dead_daemon_left_stands_in_nobodys_way(
    daemons: Daemons, places: dict[str, dict[str, str]]
) -> None:
    daemons.start(environment=places["login"])
    daemons.kill()
    assert command(daemons, places["TMPDIR"], "call", "list_jobs").returncode == 0
    assert command(daemons, places["login"], "status").returncode == 0


@pytest.mark.parametrize(
    "card", [b"", b"null", b"{}", b'{"socket": 5}', b'{"socket": "../x"}', b'{"socket": "/a\\u0000b"}', b"\xff" * 99]
)
def test_a_card_that_says_nothing_is_passed_over(daemons: Daemons, card: bytes) -> None:
    daemons.workspace.mkdir()
    (daemons.workspace / "daemon.json").write_bytes(card)
    with pytest.raises(SpeciateError, match="No daemon serves"):
        dial(daemons.workspace, CONTROL, start=False, action="status")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a socket away")
def test_a_socket_that_belongs_to_somebody_else_is_told_nothing(daemons: Daemons, tmp_path: Path) -> None:
    daemons.workspace.mkdir()
    path = tmp_path / "foreign.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        os.chown(path, 12345, -1)
        (daemons.workspace / "daemon.json").write_text(json.dumps({"socket": str(path)}))
        with pytest.raises(SpeciateError, match="No daemon serves"):
            dial(daemons.workspace, CONTROL, start=False, action="status")
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a socket away")
def test_a_daemon_of_another_user_is_named_at_once(
    daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemons.workspace.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "foreign.sock"))
        os.chown(tmp_path / "foreign.sock", 12345, -1)
        (daemons.workspace / "daemon.json").write_text(json.dumps({"socket": str(tmp_path / "foreign.sock")}))
        monkeypatch.setattr("speciate.server.dial._start", lambda *_: False)  # whoever it is holds the lock
        with pytest.raises(SpeciateError, match="uid 12345"):
            dial(daemons.workspace, CONTROL, action="status")


@pytest.mark.parametrize("named", [True, False], ids=["by the card", "at the usual place"])
def test_what_a_daemon_refuses_with_is_raised_at_once(daemons: Daemons, tmp_path: Path, *, named: bool) -> None:
    daemons.workspace.mkdir()
    path = tmp_path / "s" if named else socket_path(daemons.workspace)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        (daemons.workspace / "daemon.json").write_text(json.dumps({"socket": str(path)}))

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b'{"ok": false, "code": "unavailable", "message": "Too many.", "recovery": ""}\n')

        with ThreadPoolExecutor(1) as threads:
            threads.submit(refuse)
            with pytest.raises(SpeciateError, match="Too many"):
                dial(daemons.workspace, CONTROL, action="status")
    path.unlink()


SLOW_ACTION = """
import time
from pathlib import Path
from speciate.server.control.action import OpenAction
from speciate.server.control.dispatch import ACTIONS
from speciate.server.control.messages import Request

def slow(context, request):
    (here := Path(__file__).parent / "begun").write_text("begun")
    for _ in range(500):
        if here.exists():
            time.sleep(0.01)
    return {"done": True}

def register(server):
    ACTIONS["slow"] = OpenAction(Request, slow, "a test's")
"""


def test_what_a_leaving_daemon_has_begun_is_answered(daemons: Daemons, tmp_path: Path) -> None:
    daemons.workspace.mkdir()
    begun = tmp_path / "begun"
    (fixture := tmp_path / "slow_action.py").write_text(SLOW_ACTION)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(dial, daemons.workspace, CONTROL, fixtures=[fixture], action="slow")
        until(begun.exists)
        [pid] = daemons.pids()
        daemons.control("stop")
        until(lambda: not socket_path(daemons.workspace).exists())
        begun.unlink()
        dialled = asked.result(AT_ONCE)
    dialled.line.close()
    assert dialled.answer["result"] == {"done": True}
    gone(pid)
    assert not begun.exists(), "asked again of another daemon"


@pytest.mark.parametrize("action", ["stop", "policy"])
def test_a_daemon_that_is_to_end_does_so_where_nobody_hears_its_answer(daemons: Daemons, action: str) -> None:
    daemons.workspace.mkdir()
    daemons.start()
    [pid] = daemons.pids()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(socket_path(daemons.workspace)))
        client.sendall(encode({"protocol": CONTROL, "action": action, "policy": "person"}))
    gone(pid, AT_ONCE)
    assert daemons.pids() == []


DEFECT = """
from pathlib import Path
from speciate.server.control.action import OpenAction
from speciate.server.control.dispatch import ACTIONS
from speciate.server.control.messages import Request

def fail(context, request):
    with Path(__file__).with_name("asked").open("a") as file:
        file.write("once ")
    raise RuntimeError("a secret")

def register(server):
    ACTIONS["fail"] = OpenAction(Request, fail, "a test's")
"""


def test_an_action_that_fails_by_a_defect_is_refused_once_without_what_the_error_quotes(
    daemons: Daemons, tmp_path: Path
) -> None:
    daemons.workspace.mkdir()
    (fixture := tmp_path / "defect.py").write_text(DEFECT)
    with pytest.raises(SpeciateError, match="RuntimeError") as told:
        dial(daemons.workspace, CONTROL, fixtures=[os.fspath(fixture)], action="fail")
    assert (told.value.code, (tmp_path / "asked").read_text()) == (Code.INTERNAL, "once ")
    assert "secret" not in f"{told.value.message} {told.value.recovery}"
    assert "RuntimeError: a secret" in (daemons.workspace / "daemon.log").read_text()


@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("action", ["status", "approve", "fingerprint"])
def test_what_a_person_decides_is_asked_once_of_a_daemon_that_ends(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch, action: str, *, reads: bool
) -> None:
    """A daemon that has not read it did not do it: then it may be asked again."""
    daemons.workspace.mkdir()
    monkeypatch.setattr("speciate.server.dial._start", lambda *_: False)  # the next daemon is this test's, too
    monkeypatch.setattr("speciate.server.dial._PATIENCE_SECONDS", 2.0)
    once = reads and action != "status"
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as threads:
        listener.bind(str(path := socket_path(daemons.workspace)))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as first:
                first.recv(65536 if reads else 1)
                if once:
                    listener.close()
            if not once:
                with listener.accept()[0] as second:
                    second.recv(65536)
                    second.sendall(b'{"ok": true, "result": {"asked": "twice"}}\n')

        served = threads.submit(serve)
        if once:
            with pytest.raises(SpeciateError, match=f"ended before it answered: `{action}` is done, or it is") as told:
                dial(daemons.workspace, CONTROL, action=action)
            assert ("asks you again" in told.value.recovery) == (action == "approve"), "the other one asks nobody"
        else:
            dialled = dial(daemons.workspace, CONTROL, action=action)
            dialled.line.close()
            assert dialled.answer["result"] == {"asked": "twice"}
        served.result(AT_ONCE)
    path.unlink()


def test_every_action_that_a_person_decides_is_asked_once() -> None:
    decided = {name for name, action in ACTIONS.items() if isinstance(action, PersonAction)}
    assert decided | {"fingerprint"} == ASKED_ONCE


def test_a_runtime_folder_that_is_anothers_is_passed_over(
    places: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "open"))
    (tmp_path / "open" / "speciate").mkdir(parents=True)
    (tmp_path / "open" / "speciate").chmod(0o777)
    assert not runtime_folder().is_relative_to(tmp_path / "open")
    monkeypatch.setenv("XDG_RUNTIME_DIR", places["login"]["XDG_RUNTIME_DIR"])
    assert socket_path(tmp_path).is_relative_to(places["login"]["XDG_RUNTIME_DIR"])


def test_a_shim_goes_on_where_its_next_daemon_was_started_from_another_environment(
    daemons: Daemons, places: dict[str, dict[str, str]]
) -> None:
    shell = Stdio(daemons.workspace, environment=places["login"])
    shell.initialize()
    shell.process.send_signal(signal.SIGSTOP)  # or it may start the next daemon itself, in its own environment
    os.kill(served := daemons.pids()[0], signal.SIGKILL)
    gone(served)  # the lock is free once it is gone, not once it was told to go
    daemons.start(environment=environment(places["TMPDIR"]))
    shell.process.send_signal(signal.SIGCONT)
    assert shell.call("list_jobs")["structuredContent"] == {"jobs": []}
    assert shell.close() == 0
    for pipe in (shell.process.stdout, shell.process.stderr):
        assert pipe
        pipe.close()
