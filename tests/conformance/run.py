"""`make conformance`: the official MCP conformance suite and the Inspector's command line against our daemon.

Needs npm. The suite comes into build/conformance; the server is `speciate serve --http 0` on a fresh workspace with the
fixtures beside this file, behind its bearer token. Exit 0: every scored scenario of both revisions passes, every
`tasks-*` scenario passes, and the Inspector lists and calls a tool over stdio. Where a Chromium and playwright are
there, its page is driven, too, in both eras.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import inspector_web

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "conformance"
MODULES = BUILD / "node_modules"
SUITE = MODULES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
INSPECTOR = MODULES / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
FIXTURES = [f"--fixture={HERE / name}" for name in ("features.py", "tasks.py")]
SPECIATE = [sys.executable, "-m", "speciate.cli"]
REVISIONS = ("2025-11-25", "2026-07-28")
TASKS = (
    "tasks-capability-negotiation", "tasks-dispatch-and-envelope", "tasks-lifecycle", "tasks-mrtr-composition",
    "tasks-mrtr-input", "tasks-request-headers", "tasks-request-state-removal", "tasks-required-task-error",
    "tasks-status-notifications", "tasks-wire-fields",
)  # fmt: skip


class Outcome(NamedTuple):
    name: str
    passed: bool
    summary: str


def install() -> None:
    """Bring the pinned packages, once."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "bearer.mjs"):
        shutil.copy(HERE / name, BUILD / name)
    if not (SUITE.exists() and INSPECTOR.exists()):
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=BUILD, check=True)


def environment(**extra: str) -> dict[str, str]:
    """With the pinned node first, for the Inspector asks for a newer one than most systems have."""
    return os.environ | {"PATH": f"{MODULES / '.bin'}{os.pathsep}{os.environ['PATH']}"} | extra


@contextmanager
def http_server(workspace: Path) -> Iterator[tuple[str, str]]:
    """The address of our server and its token, as `speciate serve --http` prints them."""
    command = [*SPECIATE, "serve", "--http", "0", "--workspace", str(workspace), *FIXTURES]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = token = None
        while url is None or token is None:
            line = server.stdout.readline()
            if not line:
                raise SystemExit(f"the server did not start; see {workspace / 'daemon.log'}")
            url = url or _first(r"http://\S+/mcp", line)
            token = token or _first(r"Bearer (\S+?)['\"]?\s*$", line)
        yield url, token
    finally:
        server.terminate()
        server.wait()
        subprocess.run([*SPECIATE, "stop", "--workspace", str(workspace)], check=False, stdout=subprocess.DEVNULL)


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found.group(found.lastindex or 0) if found else None


def suite(url: str, token: str, name: str, arguments: Sequence[str]) -> Outcome:
    command = [
        "node", "--import", str(BUILD / "bearer.mjs"), str(SUITE), "server", "--url", url, *arguments,
        "--output-dir", str(BUILD / "results"),
    ]  # fmt: skip
    ran = subprocess.run(command, check=False, env=environment(CONFORMANCE_TOKEN=token), capture_output=True, text=True)
    lines = [line for line in ran.stdout.splitlines() if line.startswith(("Total:", "Passed:", "✗"))]
    return Outcome(name, ran.returncode == 0 and bool(lines), " | ".join(lines))


def inspector(workspace: Path) -> Outcome:
    """Lists the tools over stdio and calls one."""
    launch = ["node", str(INSPECTOR), "--cli", "--transport", "stdio"]
    serve = ["--", *SPECIATE, "serve", "--workspace", str(workspace)]
    listed = _json([*launch, "--method", "tools/list", *serve])
    called = _json([*launch, "--method", "tools/call", "--tool-name", "list_jobs", "--tool-arg", "limit=3", *serve])
    subprocess.run([*SPECIATE, "stop", "--workspace", str(workspace)], check=False, stdout=subprocess.DEVNULL)
    names = [tool["name"] for tool in listed.get("tools", [])]
    good = "list_jobs" in names and "jobs" in called.get("structuredContent", {})
    return Outcome("inspector over stdio", good, f"{len(names)} tools listed, list_jobs called")


def inspector_pages(workspace: Path) -> Iterator[Outcome]:
    """The Inspector's page in a browser; none where there is no browser to drive."""
    for era in ("legacy", "modern") if inspector_web.is_possible() else ():
        serve = [*SPECIATE, "serve", "--workspace", str(workspace)]
        try:
            seen = inspector_web.drive(INSPECTOR, serve, era, environment())
        except Exception as error:  # noqa: BLE001 - said in the table, as any failure is
            yield Outcome(f"inspector in a browser, {era}", False, str(error).splitlines()[0])
        else:
            yield Outcome(f"inspector in a browser, {era}", True, seen)
    subprocess.run([*SPECIATE, "stop", "--workspace", str(workspace)], check=False, stdout=subprocess.DEVNULL)


def _json(command: Sequence[str]) -> dict[str, Any]:
    ran = subprocess.run(command, check=False, env=environment(), capture_output=True, text=True, timeout=60)
    if ran.returncode:
        raise SystemExit(f"the Inspector failed: {ran.stderr or ran.stdout}")
    loaded: dict[str, Any] = json.loads(ran.stdout)
    return loaded


def main() -> int:
    install()
    shutil.rmtree(BUILD / "results", ignore_errors=True)
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        with http_server(Path(folder) / "http") as (url, token):
            for revision in REVISIONS:
                outcomes.append(suite(url, token, revision, ["--requirements", revision]))
            for scenario in TASKS:
                outcomes.append(suite(url, token, scenario, ["--scenario", scenario]))
        outcomes.append(inspector(Path(folder) / "stdio"))
        outcomes += inspector_pages(Path(folder) / "pages")
    for outcome in outcomes:
        print(f"{'ok  ' if outcome.passed else 'FAIL'} {outcome.name}: {outcome.summary}")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
