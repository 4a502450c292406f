"""The process that owns a workspace: its election, its life and its end. Real processes throughout."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import psutil
import pytest

from speciate.cli import daemon_commands
from speciate.environment import socket_path
from speciate.errors import Code, SpeciateError
from speciate.loop.watch import rows as watches
from speciate.loop.watch.definition import Trigger, Watch
from speciate.server.dial import dial
from speciate.server.protocol import CONTROL, MCP, encode
from speciate.workspace.lock import Lock, LockHeldError
from speciate.workspace.workspace import Workspace
from tests import forks
from tests.server.processes import Daemons, Stdio, end, report_of


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    """One daemon that serves, for tests that neither end it nor change its workspace."""
    daemons = Daemons(tmp_path_factory.mktemp("serving") / "workspace")
    daemons.start()
    yield daemons
    daemons.close()


@pytest.mark.durable
def test_of_several_candidates_one_serves_and_the_others_give_way(daemons: Daemons) -> None:
    candidates = [daemons.candidate() for _ in range(4)]
    reports = [report_of(candidate) for candidate in candidates]
    assert sorted(report["won"] for report in reports) == [False, False, False, True]
    losers = [candidate for candidate, report in zip(candidates, reports, strict=True) if not report["won"]]
    assert [loser.wait() for loser in losers] == [75, 75, 75]
    (winner,) = [candidate for candidate in candidates if candidate not in losers]
    assert daemons.pid() == winner.pid


def test_a_loser_imports_nothing_heavy(serving: Daemons) -> None:
    code = (
        "import sys; from speciate.server import daemon; status = daemon.main();"
        "heavy = {'duckdb', 'mcp', 'pydantic', 'anyio'} & set(sys.modules); assert (status, heavy) == (75, set())"
    )
    subprocess.run([sys.executable, "-c", code, "--workspace", str(serving.workspace)], check=True, capture_output=True)


def test_only_its_owner_can_reach_it(serving: Daemons) -> None:
    path = socket_path(serving.workspace)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert serving.workspace.stat().st_mode & 0o077 == 0
    assert (serving.workspace / "daemon.log").stat().st_mode & 0o077 == 0


def test_every_spelling_of_a_folder_finds_the_same_daemon(serving: Daemons, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(serving.workspace)
    assert socket_path(tmp_path / "link") == socket_path(serving.workspace / ".." / "workspace")
    dialled = dial(tmp_path / "link", CONTROL, start=False, action="status")
    dialled.line.close()
    assert dialled.answer["result"]["pid"] == serving.pid()


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    daemons = Daemons(tmp_path.joinpath(*["a-rather-long-folder-name"] * 8) / "workspace")
    try:
        daemons.start()
        assert len(str(daemons.workspace)) > 200
        assert daemons.control("status")["workspace"] == str(daemons.workspace)
    finally:
        daemons.close()


SECRET = {"HF_TOKEN": "leak-me", "CUDA_VISIBLE_DEVICES": "7", "PYTHONPATH": "/tmp"}


@pytest.fixture(scope="module")
def first_caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemons, Stdio]]:
    """A client with SECRET in its environment, and the daemon that it started."""
    daemons = Daemons(tmp_path_factory.mktemp("called") / "workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forks, "executes", True)
        shell = Stdio(daemons.workspace, environment=SECRET)
        shell.initialize()
    yield daemons, shell
    status = shell.close()
    end(shell.process)
    daemons.close()
    assert status == 0


def test_nothing_of_the_first_callers_environment_reaches_the_daemon(first_caller: tuple[Daemons, Stdio]) -> None:
    daemons, _ = first_caller
    daemon = psutil.Process(daemons.pid())
    assert not set(SECRET) & set(daemon.environ())
    assert daemon.cwd() == "/"
    assert str(daemons.workspace) in daemon.cmdline()


def test_a_daemon_belongs_to_nobody_so_that_a_client_cannot_take_it_along(first_caller: tuple[Daemons, Stdio]) -> None:
    daemons, shell = first_caller
    daemon = psutil.Process(daemons.pid())
    assert daemon.pid not in {child.pid for child in psutil.Process(shell.process.pid).children(recursive=True)}
    assert os.getsid(daemon.pid) != os.getsid(shell.process.pid)


def test_the_card_tells_who_serves(serving: Daemons) -> None:
    card = json.loads((serving.workspace / "daemon.json").read_text())
    assert [card["pid"]] == serving.pids()
    assert set(card) == {"pid", "start_time", "boot_id", "version", "socket"}


def test_scratch_that_a_kill_left_goes_when_it_starts(daemons: Daemons) -> None:
    Workspace(daemons.workspace).close()
    left = daemons.workspace / "cache" / "scratch-left"
    (left / "work").mkdir(parents=True)
    (left / ".lock").touch()
    daemons.start()
    until(lambda: not left.exists())


def test_it_leaves_when_idle_and_stays_while_a_client_is_there(daemons: Daemons) -> None:
    daemons.workspace.mkdir()
    (daemons.workspace / "settings.toml").write_text("idle_exit_minutes = 0.005\n")
    process = daemons.start()
    held = dial(daemons.workspace, MCP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.6)
    held.line.close()
    assert process.wait(10) == 0
    assert not socket_path(daemons.workspace).exists()


def test_it_stays_while_a_job_is_unfinished(daemons: Daemons, tmp_path: Path, client: Callable[[], Stdio]) -> None:
    daemons.workspace.mkdir()
    (daemons.workspace / "settings.toml").write_text("idle_exit_minutes = 0.005\n")
    process = daemons.start()
    held = dial(daemons.workspace, MCP)  # a client takes its time to start
    shell = client()
    shell.initialize()
    held.line.close()
    (trace := tmp_path / "trace").mkdir()
    shell.call("start_work", {"key": "k", "seconds": 0.8, "trace": str(trace)})
    shell.close()
    assert process.wait(20) == 0
    workspace = Workspace(daemons.workspace)
    assert workspace.database.read("SELECT state FROM jobs") == [("succeeded",)]
    workspace.close()


def test_it_stays_while_a_use_case_is_watched(daemons: Daemons) -> None:
    daemons.workspace.mkdir()
    workspace = Workspace(daemons.workspace)
    watch = Watch(use_case="triage", triggers=(Trigger(on="data_shift"),))
    workspace.database.transact(lambda tx: watches.define(tx, watch, enabled=True, by="ada", asked=False))
    workspace.close()
    (daemons.workspace / "settings.toml").write_text("idle_exit_minutes = 0.005\n")
    process = daemons.start()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.6)
    assert [each["use_case"] for each in daemons.control("watches")["watches"]] == ["triage"]
    with contextlib.suppress(SpeciateError):  # it may leave before it has answered
        daemons.control("watch switch", use_case="triage", enabled=False)
    assert process.wait(20) == 0


def test_a_replaced_lock_file_ends_the_daemon_at_once(daemons: Daemons) -> None:
    process = daemons.start()
    lock = daemons.workspace / "daemon.lock"
    lock.rename(lock.with_name("gone"))
    lock.touch()
    assert process.wait(10) == 74


def test_a_daemon_that_nobody_can_reach_makes_room(daemons: Daemons) -> None:
    process = daemons.start()
    socket_path(daemons.workspace).unlink()
    assert daemons_started_by_a_call(daemons) != process.pid
    assert process.wait(1) == 0


def daemons_started_by_a_call(daemons: Daemons) -> int:
    dialled = dial(daemons.workspace, CONTROL, action="status")
    dialled.line.close()
    return int(dialled.answer["result"]["pid"])


def test_a_newer_client_gets_a_new_daemon_and_an_older_one_is_served(daemons: Daemons) -> None:
    process = daemons.start()
    older = hello(daemons, {"protocol": MCP, "version": "0.0.1"})
    assert older["ok"]
    newer = hello(daemons, {"protocol": MCP, "version": "99.0"})
    assert newer == {"ok": False, "code": "draining"}
    assert process.wait(20) == 0


def test_another_protocol_gets_the_remedy(serving: Daemons) -> None:
    answer = hello(serving, {"protocol": "mcp/2", "version": "3.0"})
    assert not answer["ok"]
    assert "'mcp/2'" in answer["message"]
    assert "pip install -U speciate" in answer["recovery"]


def test_nonsense_on_the_socket_hurts_nobody(serving: Daemons) -> None:
    for nonsense in (b"\n", b"[]\n", b"{}\n", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 3_000_000):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(socket_path(serving.workspace)))
            try:
                connection.sendall(nonsense)
                connection.recv(100)
            except ConnectionError:
                pass
    assert serving.control("status")["clients"] == 0


def hello(daemons: Daemons, message: dict[str, str]) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path(daemons.workspace)))
        connection.sendall(encode(dict(message)))
        answer: dict[str, object] = json.loads(connection.makefile("rb").readline())
        return answer


def test_sigterm_ends_it_in_order(daemons: Daemons) -> None:
    process = daemons.start()
    process.terminate()
    assert process.wait(20) == 0
    assert "left in order" in (daemons.workspace / "daemon.log").read_text()


def test_stop_frees_the_workspace(daemons: Daemons) -> None:
    process = daemons.start()
    with pytest.raises(LockHeldError):
        Lock(daemons.workspace)
    daemons.control("stop")
    assert process.wait(20) == 0
    Lock(daemons.workspace).release()


def test_no_child_of_the_daemon_holds_its_lock(daemons: Daemons, tmp_path: Path, client: Callable[[], Stdio]) -> None:
    daemons.start()
    shell = client()
    shell.initialize()
    (trace := tmp_path / "trace").mkdir()
    shell.call("start_work", {"key": "k", "seconds": 5, "trace": str(trace), "preload": "classical"})
    shell.call("ask_pool", {"value": 1})
    until(lambda: any(trace.iterdir()))
    shell.close()  # or it would start the next daemon
    daemons.kill()
    lock = Lock(daemons.workspace)
    lock.release()


# What a workspace must not be


def refused(daemons: Daemons) -> dict[str, object]:
    """What a candidate says before it ends."""
    process = daemons.candidate()
    report = report_of(process)
    assert process.wait() == 1
    return report


def test_a_folder_full_of_something_else_is_left_alone(daemons: Daemons) -> None:
    daemons.workspace.mkdir()
    (daemons.workspace / "thesis.tex").touch()
    report = refused(daemons)
    assert report["code"] == "refused"
    assert "'thesis.tex'" in str(report["message"])
    assert [path.name for path in daemons.workspace.iterdir()] == ["thesis.tex"]


def test_a_catalog_that_another_program_has_open_is_left_alone(daemons: Daemons) -> None:
    Workspace(daemons.workspace).close()
    with duckdb.connect(str(daemons.workspace / "catalog.duckdb")) as other:
        other.execute("CREATE TABLE of_another_program (x INTEGER)")  # so that there is a log as well
        report = refused(daemons)
    assert report["code"] == "unavailable"
    assert "held by another process" in str(report["message"])


def test_a_database_of_something_else_is_left_alone(daemons: Daemons) -> None:
    daemons.workspace.mkdir()
    with duckdb.connect(str(daemons.workspace / "catalog.duckdb")) as other:
        other.execute("CREATE TABLE recipes (name VARCHAR)")
    report = refused(daemons)
    assert report["code"] == "invalid"
    assert "not a speciate catalog" in str(report["message"])


def test_a_file_that_is_no_database_is_left_alone(daemons: Daemons) -> None:
    daemons.workspace.mkdir()
    (daemons.workspace / "catalog.duckdb").write_bytes(b"nothing of the kind" * 1000)
    assert refused(daemons)["code"] == "invalid"
    assert (daemons.workspace / "catalog.duckdb").read_bytes().startswith(b"nothing")


def test_a_newer_schema_asks_for_a_newer_speciate(daemons: Daemons) -> None:
    Workspace(daemons.workspace).close()
    with duckdb.connect(str(daemons.workspace / "catalog.duckdb")) as connection:
        connection.execute("UPDATE meta SET value = '999' WHERE key = 'schema'")
    report = refused(daemons)
    assert report["code"] == "newer_schema"
    assert "pip install -U speciate" in str(report["recovery"])


def test_broken_settings_name_the_file_and_the_line(daemons: Daemons) -> None:
    daemons.workspace.mkdir()
    (daemons.workspace / "settings.toml").write_text('policy = "nobody"\n')
    report = refused(daemons)
    assert report["code"] == "invalid"
    assert "policy" in str(report["message"])
    with pytest.raises(SpeciateError) as caught:
        dial(daemons.workspace, MCP)
    assert caught.value.code is Code.INVALID


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("mount"), reason="only root can mount a small disk")
def test_a_full_disk_is_said_and_loses_nothing(daemons: Daemons, client: Callable[[], Stdio]) -> None:
    daemons.workspace.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(daemons.workspace)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this machine lets nobody mount: " + made.stderr.decode().strip())
    try:
        daemons.start()
        shell = client()
        shell.initialize()
        first = shell.call("define_use_case", use_case("before"))
        fill(daemons.workspace / "ballast")
        answers = [shell.call("define_use_case", use_case(f"full-{number}")) for number in range(40)]
        refused = [answer["content"][0]["text"] for answer in answers if answer["isError"]]
        assert refused
        assert all("full" in text or "same idempotency_key" in text for text in refused), set(refused)
        (daemons.workspace / "ballast").unlink()
        again = shell.call("define_use_case", use_case("before"))
        assert again["structuredContent"] == first["structuredContent"]
        assert not shell.call("define_use_case", use_case("after"))["isError"]
        kept = {each["name"] for each in shell.call("get_status")["structuredContent"]["use_cases"]}
        done = {f"full-{number}" for number, answer in enumerate(answers) if not answer["isError"]}
        assert kept >= done | {"before", "after"}
    finally:
        daemons.close()
        subprocess.run(["umount", "-l", str(daemons.workspace)], check=True)


def use_case(name: str) -> dict[str, object]:
    """Arguments of a change that needs some room on the disk."""
    objective = {"metric": "accuracy", "target": 0.9}
    return {
        "name": name, "task": "text-classification", "objective": objective, "description": "x" * 1000,
        "idempotency_key": name,
    }  # fmt: skip


def fill(path: Path) -> None:
    """Take up the whole disk."""
    size = 1 << 20
    with path.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2


@pytest.mark.parametrize(("serving", "status", "said"), [(7, 1, "is still ending"), (8, 0, "has ended")])
def test_stop_waits_for_the_process_that_it_told_and_for_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    serving: int, status: int, said: str,
) -> None:  # fmt: skip
    """Process 7 was told; `serving` is named by the card while somebody holds the lock."""
    lock = Lock(tmp_path)
    (tmp_path / "daemon.json").write_text(json.dumps({"pid": serving}))
    monkeypatch.setattr(daemon_commands, "ask_daemon", lambda arguments, action: {"pid": 7})
    monkeypatch.setattr(daemon_commands, "_END_SECONDS", 0.1)
    assert daemon_commands.stop(argparse.Namespace(workspace=str(tmp_path))) == status
    assert f"Process 7 {said}" in capsys.readouterr().out
    lock.release()
    assert daemon_commands.stop(argparse.Namespace(workspace=str(tmp_path))) == 0
