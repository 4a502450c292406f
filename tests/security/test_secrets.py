"""A key is nowhere but in its file and in the memory of the run that uses it: real daemon, real service, every byte."""

from __future__ import annotations

import ast
import http.server
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest

from speciate import sandbox, secrets
from speciate.sandbox import Sandbox
from speciate.server.dial import dial
from speciate.server.protocol import CONTROL, MCP, encode
from tests.server.processes import MODERN, Daemons, gone

KEY = "sk-planted-9c1f4e77Qzorvex"
FIXTURE = Path(__file__).with_name("keyed.py")
ROOT = Path(__file__).parents[2]
PRELOADS = ("", "classical") if sys.platform == "linux" else ("",)
"""Of a run that is executed, and of one that is a fork of a zygote."""


class Service:
    """On loopback. It keeps a request waiting until it is let go, then quotes the key that came with it."""

    def __init__(self) -> None:
        self.asked, self.release, self.got = threading.Event(), threading.Event(), list[str]()
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.got.append(self.headers["Authorization"])
                service.asked.set()
                service.release.wait(60)
                self.send_response(401)
                self.end_headers()
                self.wfile.write(f"{service.got[-1]} is not valid".encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


@pytest.fixture
def daemons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executed: None) -> Iterator[Daemons]:
    """Executed: a fork's environment is not shown as its own by the kernel."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    (daemons.workspace / "settings.toml").write_text("backup_minutes = 0.01\n")
    dial(daemons.workspace, CONTROL, action="status", fixtures=[str(FIXTURE)]).line.close()
    yield daemons
    daemons.close()


def test_a_key_that_a_run_uses_is_nowhere_else(daemons: Daemons, service: Service, tmp_path: Path) -> None:
    secrets.put("planted", [service.host], KEY)
    root, client = daemons.workspace, daemons.connect()
    told, jobs = list[Any](), list[str]()
    for preload in PRELOADS:
        service.asked.clear()
        told.append(client.call("start_asking", host=service.host, preload=preload))
        jobs.append(told[-1]["job"])
        assert service.asked.wait(60)
    assert service.got == [f"Bearer {KEY}"] * len(jobs)

    lines = _processes()  # while the runs wait for their answers
    ours = [line for line in lines if str(root) in line]  # daemon; supervisor, worker; zygote, its child, supervisor
    assert len(ours) >= 3 * len(jobs)
    assert sum("input()" in line for line in lines) >= len(jobs)  # each run's own child
    assert not [line for line in lines if KEY in line]
    assert _files(root) == []
    told += [client.call("get_job", job=job, log_lines=100) for job in jobs] + [client.call("list_jobs")]
    service.release.set()
    for job in jobs:
        ended = client.call("wait_for_job", job=job, timeout_seconds=45)
        assert (ended["state"], ended["error"]["message"]) == ("failed", "PermissionError in the run")
        log = client.call("get_job", job=job, log_lines=100)
        assert "Bearer [key] is not valid" in json.dumps(log["untrusted"])
        told += [ended, log, _resource(root, f"jobs/{job}/log")]
        assert "[key]" in str(told[-1])
    told += [client.call("get_status"), client.call("list_approvals")]
    assert KEY not in json.dumps(told)

    daemons.control("backup", target=str(tmp_path / "copy"))
    daemons.control("stop")
    for pid in daemons.pids():
        gone(pid)
    assert _files(root) == _files(tmp_path / "copy") == []
    assert (root / "daemon.log").exists()
    assert _tables(root) >= {"jobs", "job_plans", "events", "answers", "consents"}
    for preload, job in zip(PRELOADS, jobs, strict=True):
        assert ("zygote" in (root / "runs" / f"{job}.1" / "spec.json").read_text()) == bool(preload)


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "log").write_bytes(b"\x00\x01" + KEY.encode() + b"\xff")
    (tmp_path / f"name-{KEY}").touch()
    assert _files(tmp_path) == ["a/b/log", f"name-{KEY}"]
    assert any(KEY in line for line in _processes(f"import sys; '{KEY}'; print(flush=True); sys.stdin.read()"))


@pytest.mark.skipif(not sandbox.is_complete(), reason="this kernel lacks a layer of the sandbox")
def test_a_caged_process_cannot_read_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    secrets.put("planted", ["llm.example"], KEY)
    (tmp_path / "own").mkdir()
    program = (
        f"import os\ntry: print(open({str(secrets.file())!r}).read())\nexcept OSError as e: print(type(e).__name__)"
    )
    caged = sandbox.start([sys.executable, "-I", "-c", program], Sandbox((), tmp_path / "own"))
    try:
        assert caged.stdout.read().decode().strip() == "PermissionError"
    finally:
        caged.kill()


def test_no_tool_can_read_a_key_or_grant_a_consent() -> None:
    """They are not even imported there; and the one module in between tells only whether a key is missing."""
    forbidden = {
        "speciate.secrets",
        "speciate.governance.consents",
        "speciate.cli.key_commands",
        "speciate.cli.approval_commands",
    }
    for path in [*(ROOT / "tools").glob("*.py"), *(ROOT / "resources").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set[str]()
            if isinstance(node, ast.ImportFrom):
                modules = {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
            assert not modules & forbidden, f"{path.name} imports {modules & forbidden}"


def _processes(program: str | None = None) -> list[str]:
    """Command line and environment of every process that may be asked, but ours; with `program`, while it runs."""
    own = None
    if program:
        own = psutil.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1)
        own.stdout.readline()
    try:
        lines = []
        for pid in psutil.pids():
            if pid != os.getpid():
                parts = [_read(Path("/proc") / str(pid) / name) for name in ("cmdline", "environ")]
                lines.append(" ".join(parts))
        return lines
    finally:
        if own:
            own.communicate()


def _read(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it is gone, or another user's
        return ""


def _files(root: Path) -> list[str]:
    """Files below `root` with the key in their bytes or their names."""
    found = []
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if KEY in name or (path.is_file() and KEY.encode() in path.read_bytes()):
            found.append(name)
    return found


def _tables(root: Path) -> set[str]:
    """All tables of the catalog, in none of whose cells the key is: in its file they may be compressed."""
    with duckdb.connect(str(root / "catalog.duckdb"), read_only=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        for table in tables:
            assert KEY not in repr(connection.execute(f'SELECT * FROM "{table}"').fetchall()), table
    return set(tables)


def _resource(root: Path, name: str) -> dict[str, Any]:
    dialled = dial(root, MCP, client="python")
    parameters = {"uri": f"speciate://{name}", "_meta": MODERN}
    dialled.line.send(encode({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": parameters}))
    answer: dict[str, Any] = json.loads(dialled.line.receive())
    dialled.line.close()
    return answer
