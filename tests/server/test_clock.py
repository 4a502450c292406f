"""A real daemon whose clock somebody sets a year on and a year back while it works, by Debian's libfaketime."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.processes import Daemons, Stdio

_LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_LIBRARY is None, reason="libfaketime is not installed (apt-get install faketime)"),
]


def called(shell: Stdio, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = shell.call(tool, arguments)
    assert not answer["isError"], answer["content"][0]["text"]
    found: dict[str, Any] = answer["structuredContent"]
    return found


def test_work_goes_on_and_nothing_is_deleted_while_the_clock_jumps(
    daemons: Daemons, client: Callable[[], Stdio], tmp_path: Path
) -> None:
    said = tmp_path / "faketime"
    said.write_text("+0")
    daemons.workspace.mkdir()
    (daemons.workspace / "settings.toml").write_text('policy = "auto"\n[retention]\nruns_days = 7\n')
    daemons.start(
        environment={
            "LD_PRELOAD": str(_LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(said), "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
        }
    )  # fmt: skip
    shell = client()
    shell.initialize()
    (tmp_path / "trace").mkdir()
    jobs = []
    for number, offset in enumerate(("+0", "+365d", "-365d", "+0")):
        begun = shell.call("start_work", {"key": f"work{number}", "seconds": 3.0, "trace": str(tmp_path / "trace")})
        jobs.append(begun["structuredContent"]["job"])
        time.sleep(1.5)  # it lives
        said.write_text(offset)
        began = time.monotonic()
        view = called(shell, "wait_for_job", job=jobs[-1], timeout_seconds=40)
        assert view["state"] == "succeeded", view
        assert time.monotonic() - began < 30
        assert 0 <= view["run_seconds"] < 60
        found = called(shell, "manage_data", action="gc", dry_run=True)
        assert "runs" not in found["resolved"]["kinds"], found
    view = daemons.control("status")
    assert 0 <= view["running_seconds"] < 600
    assert called(shell, "get_job", job=jobs[0])["state"] == "succeeded"
    assert all((daemons.workspace / "runs" / f"{job}.1").is_dir() for job in jobs)
    log = (daemons.workspace / "daemon.log").read_text()
    assert "the clock was set by +315360" in log
