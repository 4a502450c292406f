"""Real daemons and real stdio clients of one workspace, for the tests of this folder."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

import speciate
from speciate.errors import SpeciateError
from speciate.server.client import Client
from speciate.server.dial import dial
from speciate.server.protocol import CONTROL
from tests import forks

FIXTURE = Path(__file__).parents[1] / "crash" / "fixture.py"
LEGACY = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


CLI = [sys.executable, "-m", "speciate.cli"]
Process = subprocess.Popen[bytes] | forks.Fork


class Daemons:
    """The daemons of one workspace, whoever starts them."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self._started: list[Process] = []

    def candidate(self, *, fault: str = "", environment: dict[str, str] | None = None, descriptors: int = 0) -> Process:
        """A daemon in the foreground, started without waiting for it. `descriptors`: as many as it may ever have."""
        variables = os.environ | (environment or {}) | ({"SPECIATE_FAULT": fault} if fault else {})
        program = [sys.executable, "-m", "speciate.server.daemon"]
        process = forks.start(
            [*program, f"--workspace={self.workspace}", f"--fixture={FIXTURE}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=variables,
        )  # fmt: skip
        if descriptors:
            psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE, (descriptors, descriptors))
        self._started.append(process)
        return process

    def start(self, *, fault: str = "", environment: dict[str, str] | None = None, descriptors: int = 0) -> Process:
        """A daemon that listens."""
        process = self.candidate(fault=fault, environment=environment, descriptors=descriptors)
        assert report_of(process) == {"won": True}
        return process

    def connect(self) -> Client:
        """Python's client of the workspace, which is made where it is not there: the folder alone."""
        self.workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
        return speciate.connect(self.workspace)

    def control(self, action: str, **more: Any) -> dict[str, Any]:
        dialled = dial(self.workspace, CONTROL, action=action, start=False, **more)
        dialled.line.close()
        result: dict[str, Any] = dialled.answer["result"]
        return result

    def pid(self) -> int:
        return int(self.control("status")["pid"])

    def pids(self) -> list[int]:
        """All daemon processes of the workspace, found by their command lines."""
        lines = {pid: _command_line(pid) for pid in psutil.pids()}
        return [pid for pid, line in lines.items() if "speciate.server.daemon" in line and str(self.workspace) in line]

    def kill(self) -> int:
        """kill -9 the one that serves, and return its pid when it is gone."""
        os.kill(pid := self.pid(), signal.SIGKILL)
        gone(pid)
        return pid

    def close(self) -> None:
        for _ in range(15):  # a client may start another one meanwhile
            with contextlib.suppress(SpeciateError):
                self.control("stop")
            if not (pids := self.pids()):
                break
            for pid in pids:
                gone(pid, 1)
        while pids := self.pids():  # one that a client was just starting, say
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for started in self._started:
                started.poll()
        for started in self._started:
            end(started)


def _command_line(pid: int) -> str:
    """Empty where it is gone. Read where that is quick: each test looks at all processes twice."""
    try:
        if sys.platform == "linux":
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return " ".join(psutil.Process(pid).cmdline())
    except (OSError, psutil.Error):
        return ""


def gone(pid: int, seconds: float = 120) -> None:
    """Wait until this process has ended, whoever's child it is, and whether that has reaped it or not."""
    if not hasattr(os, "pidfd_open"):
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).wait(seconds)
        return
    with contextlib.suppress(ProcessLookupError):
        watch = os.pidfd_open(pid)
        try:
            select.select([watch], [], [], seconds)
        finally:
            os.close(watch)


def end(process: Process) -> None:
    """Kill it if it lives, and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def report_of(process: Process) -> dict[str, Any]:
    """What a candidate tells its starter."""
    assert process.stdout
    said = process.stdout.read().decode()
    report: dict[str, Any] = json.loads(said.splitlines()[-1])
    return report


class Stdio:
    """An MCP client of few words: frames to and from `speciate serve`."""

    def __init__(self, workspace: Path, environment: dict[str, str] | None = None) -> None:
        self.process = forks.start(
            [*CLI, "serve", "--workspace", str(workspace), "--fixture", str(FIXTURE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | (environment or {}),
        )  # fmt: skip
        self._serial = 0
        self.seen: list[dict[str, Any]] = []
        """Frames that answered nothing that was waited for."""

    def send(self, method: str, params: dict[str, Any] | None = None, *, notification: bool = False) -> int:
        self._serial += 1
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if not notification:
            message["id"] = self._serial
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        return self._serial

    def next(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the shim ended"
        frame: dict[str, Any] = json.loads(line)
        return frame

    def answer(self, identifier: int) -> dict[str, Any]:
        while (frame := self.next()).get("id") != identifier or "method" in frame:
            self.seen.append(frame)
        return frame

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.answer(self.send(method, params))

    def initialize(self) -> dict[str, Any]:
        answer = self.ask("initialize", LEGACY)
        self.send("notifications/initialized", notification=True)
        return answer

    def call(self, tool: str, arguments: dict[str, Any] | None = None, *, modern: bool = False) -> dict[str, Any]:
        """The result of a tool call."""
        answer = self.answer(self.begin(tool, arguments, modern=modern))
        result: dict[str, Any] = answer["result"]
        return result

    def begin(self, tool: str, arguments: dict[str, Any] | None = None, *, modern: bool = False) -> int:
        params: dict[str, Any] = {"name": tool, "arguments": arguments or {}}
        return self.send("tools/call", params | ({"_meta": MODERN} if modern else {}))

    def close(self) -> int:
        """Close the client's side; the shim's exit status."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(60)
