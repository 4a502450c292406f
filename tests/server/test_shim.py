"""Stdio clients whose daemon comes late, goes away, or never was. Real processes throughout."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters

from speciate.errors import SpeciateError
from tests import forks
from tests.server.processes import FIXTURE, Daemons, Stdio

Make = Callable[[], Stdio]


@pytest.fixture
def trace(tmp_path: Path) -> str:
    (tmp_path / "trace").mkdir()
    return str(tmp_path / "trace")


def test_clients_that_start_together_find_one_daemon(daemons: Daemons, client: Make) -> None:
    clients = [client() for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        for answer in threads.map(Stdio.initialize, clients):
            assert answer["result"]["serverInfo"]["name"] == "speciate"
    assert len(daemons.pids()) == 1
    assert daemons.control("status")["clients"] == 3
    assert [each.close() for each in clients] == [0] * 3


@pytest.mark.parametrize("modern", [False, True], ids=["handshake era", "stateless era"])
def test_an_open_connection_survives_kill_9_of_the_daemon(daemons: Daemons, client: Make, modern: bool) -> None:
    shell = client()
    if not modern:
        shell.initialize()
    assert shell.call("list_jobs", modern=modern)["structuredContent"] == {"jobs": []}
    for _ in range(2 if modern else 1):
        killed = daemons.kill()
        result = shell.call("list_jobs", modern=modern)
        assert result["structuredContent"] == {"jobs": []}
        assert daemons.pid() != killed
    assert shell.close() == 0


def test_a_waiting_call_that_only_reads_is_asked_again(daemons: Daemons, client: Make, trace: str) -> None:
    shell = client()
    shell.initialize()
    job = shell.call("start_work", {"key": "k", "seconds": 1.2, "trace": trace})["structuredContent"]["job"]
    waiting = shell.begin("wait_for_job", {"job": job, "timeout_seconds": 45})
    shell.call("list_jobs")  # the daemon has read what came before
    daemons.kill()
    result = shell.answer(waiting)["result"]
    assert result["structuredContent"]["state"] == "succeeded"


@pytest.mark.parametrize(
    ("point", "modern"),
    [
        pytest.param("submit_before_commit", False, id="before, handshake era"),
        pytest.param("submit_after_commit", True, id="after, stateless era"),
        pytest.param("submit_before_commit", True, id="before, stateless era", marks=pytest.mark.slow),
        pytest.param("submit_after_commit", False, id="after, handshake era", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_change_is_told_and_its_repeat_is_done_once(
    daemons: Daemons, client: Make, trace: str, point: str, modern: bool
) -> None:
    daemons.start(fault=f"{point}:kill")
    shell = client()
    if not modern:
        shell.initialize()
    arguments = {"key": "k", "seconds": 0, "trace": trace}
    interrupted = shell.call("start_work", arguments, modern=modern)
    assert interrupted["isError"]
    assert "same idempotency_key" in interrupted["content"][0]["text"]
    again = shell.call("start_work", arguments, modern=modern)
    assert not again.get("isError"), again["content"]
    job = again["structuredContent"]["job"]
    assert shell.call("start_work", arguments, modern=modern)["structuredContent"]["job"] == job
    jobs = shell.call("list_jobs", modern=modern)["structuredContent"]["jobs"]
    assert [each["job"] for each in jobs] == [job]


def test_subscriptions_of_the_handshake_era_go_on_with_the_next_daemon(
    daemons: Daemons, client: Make, trace: str
) -> None:
    shell = client()
    shell.initialize()
    job = shell.call("start_work", {"key": "k", "seconds": 1, "trace": trace})["structuredContent"]["job"]
    uri = f"speciate://jobs/{job}"
    shell.ask("resources/subscribe", {"uri": uri})
    daemons.kill()
    while (frame := shell.next()).get("method") != "notifications/resources/updated":
        pass
    assert frame["params"]["uri"] == uri


def test_frames_already_in_the_pipe_are_answered_although_input_ends_with_them(daemons: Daemons) -> None:
    lines = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
        '"clientInfo":{"name":"printf","version":"1"}}}\n'
        '{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
        '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"list_jobs","arguments":{}}}\n'
    )
    command = [sys.executable, "-m", "speciate.cli", "serve", "--workspace", str(daemons.workspace)]
    done = forks.run(command, given=lines)
    assert done.returncode == 0, done.stderr
    assert [line[:24] for line in done.stdout.splitlines()] == ['{"jsonrpc":"2.0","id":1,', '{"jsonrpc":"2.0","id":2,']


def test_without_a_daemon_the_first_request_is_answered_with_the_reason(daemons: Daemons, client: Make) -> None:
    daemons.workspace.mkdir()
    (daemons.workspace / "thesis.tex").touch()
    shell = client()
    error = shell.ask("initialize", {})["error"]
    assert "is not a workspace" in error["message"]
    assert shell.close() == 1


def test_a_workspace_that_is_mended_serves_the_same_client(daemons: Daemons, client: Make) -> None:
    daemons.workspace.mkdir()
    settings = daemons.workspace / "settings.toml"
    settings.write_text("policy = 1\n")
    shell = client()
    assert "settings.toml cannot be used" in shell.ask("initialize", {})["error"]["message"]
    settings.write_text("")
    assert "result" in shell.initialize()
    assert shell.close() == 0


@pytest.mark.slow  # test_random_kills has clients, too
def test_four_clients_finish_their_scripts_while_daemons_are_killed(daemons: Daemons, trace: str) -> None:
    async def script(number: int) -> None:
        arguments = ["-m", "speciate.cli", "serve", "--workspace", str(daemons.workspace), "--fixture", str(FIXTURE)]
        mode = ("legacy", "2026-07-28")[number % 2]
        async with Client(StdioServerParameters(command=sys.executable, args=arguments), mode=mode) as client:
            for step in range(5):
                call = {"key": f"{number}-{step}", "seconds": 0.1, "trace": trace}
                while (started := await client.call_tool("start_work", call)).is_error:
                    pass
                assert started.structured_content
                waited = await client.call_tool("wait_for_job", {"job": started.structured_content["job"]})
                assert not waited.is_error, waited.content

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as scripts:
                for number in range(4):
                    scripts.start_soon(script, number)
                tasks.start_soon(kill_now_and_then)
            tasks.cancel_scope.cancel()

    async def kill_now_and_then() -> None:
        for _ in range(4):
            await anyio.sleep(0.7)
            with contextlib.suppress(SpeciateError):  # between two daemons there is none
                await anyio.to_thread.run_sync(daemons.kill)

    anyio.run(run)
    assert len(daemons.pids()) <= 1


def test_the_shim_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, speciate.server.shim, speciate.server.client, speciate.cli;"
        "print([name for name in sys.modules if name.partition('.')[0] not in sys.stdlib_module_names"
        " and not name.startswith(('speciate', '_', 'sitecustomize'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
