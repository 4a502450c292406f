"""What people and agents see of a lost catalog, and of a copy: real daemons, the command line, a stdio client."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from speciate.workspace.lock import is_held
from tests import forks
from tests.server.processes import CLI, LEGACY, Daemons, Stdio, end

_TAG = {"name": "digits", "task": "image-classification", "objective": {"metric": "accuracy", "target": 0.9}}


def run(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forks.run([*CLI, *arguments, "--workspace", str(workspace)], timeout=120)


def stop(workspace: Path) -> None:
    """Nothing of the daemon is left when it returns."""
    left = run(workspace, "stop")
    assert (left.returncode, left.stderr) == (0, "")
    assert "has ended" in left.stdout
    assert not is_held(workspace / "daemon.lock")
    assert not (workspace / "catalog.duckdb.wal").exists()


def test_every_client_of_a_lost_catalog_hears_the_way_back(daemons: Daemons, client: Callable[[], Stdio]) -> None:
    root = daemons.workspace
    assert run(root, "init", "--policy", "auto").returncode == 0
    assert run(root, "call", "define_use_case", "--args", json.dumps(_TAG)).returncode == 0
    stop(root)
    (root / "catalog.duckdb").unlink()
    before = {path for path in root.rglob("*") if path.name not in {"daemon.log", "daemon.lock", "daemon.json"}}
    way_back = f"speciate rebuild --workspace {root}"
    for command in (
        ("call", "list_jobs"),
        ("backup", str(root.parent / "copy")),
        ("audit", "verify"),
        ("init",),
        ("status",),
    ):
        done = run(root, *command)
        assert done.returncode == 1, command
        assert command == ("init",) or way_back in done.stderr
        assert "Traceback" not in done.stderr
    doctor = run(root, "doctor")
    assert doctor.returncode == 1
    assert way_back in next(line for line in doctor.stdout.splitlines() if line.startswith("  --  catalog"))
    (root / "settings.toml").rename(root.parent / "settings.toml")
    assert way_back in run(root, "init").stderr, "a new one is not made where an old one was"
    (root.parent / "settings.toml").rename(root / "settings.toml")
    answer = client().ask("initialize", LEGACY)
    assert way_back in json.dumps(answer)
    after = {path for path in root.rglob("*") if path.name not in {"daemon.log", "daemon.lock", "daemon.json"}}
    assert after == before
    assert way_back in (root / "daemon.log").read_text()
    rebuilt = run(root, "rebuild")
    assert rebuilt.returncode == 0
    assert "garbage collection leaves them alone" in rebuilt.stdout
    assert run(root, "call", "list_jobs").returncode == 0


def test_a_backup_that_is_opened_says_what_it_is_and_waits_for_a_person(daemons: Daemons, tmp_path: Path) -> None:
    root, copy = daemons.workspace, tmp_path / "copy"
    daemons.start()
    client = Stdio(root)
    try:
        client.initialize()
        for number in range(3):  # of the fixture of the crash suite: longer than this test
            given = {"seconds": 600, "key": f"k{number}", "trace": str(tmp_path)}
            client.ask("tools/call", {"name": "start_work", "arguments": given})
    finally:
        end(client.process)
    jobs = json.loads(run(root, "call", "list_jobs").stdout)["jobs"]
    assert len(jobs) == 3
    assert run(root, "backup", str(copy)).returncode == 0
    try:
        shown = json.loads(run(copy, "call", "list_jobs").stdout)["jobs"]
        assert {job["state"] for job in shown} == {"paused"}
        status = json.loads(run(copy, "status").stdout)
        assert (status["copy_of"], status["paused_as_copied"]) == (str(root), 3)
        alerts = json.loads(run(copy, "call", "get_status").stdout)["alerts"]
        assert "speciate resume" in alerts[0]
        assert f"is a copy of {root}: 3 jobs are paused" in (copy / "daemon.log").read_text()
        resumed = run(copy, "resume")
        assert resumed.returncode == 0
        assert "3 jobs are resumed" in resumed.stdout
    finally:
        Daemons(copy).close()
        for job in jobs:
            run(root, "call", "control_job", "--args", json.dumps({"job": job["job"], "action": "cancel"}))
