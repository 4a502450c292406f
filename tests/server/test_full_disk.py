"""An ingest and a training on a small disk that somebody fills meanwhile: nothing is lost, and both go on."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.processes import Daemons, Stdio
from tests.server.test_daemon import fill

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0 or not shutil.which("mount"), reason="only root can mount a small disk"),
]
_ROWS = 3_000


@pytest.fixture
def small(daemons: Daemons, tmp_path: Path) -> Iterator[Path]:
    """A workspace on a disk of 300 MB, of which 60 must stay free; yields where the ballast goes."""
    daemons.workspace.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(daemons.workspace)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this machine lets nobody mount: " + made.stderr.decode().strip())
    (daemons.workspace / "settings.toml").write_text(
        f'policy = "auto"\nroots = ["{tmp_path}"]\n[disk]\nstop_below_gb = 0.06\n'
    )
    try:
        yield daemons.workspace / "ballast"
    finally:
        daemons.close()
        subprocess.run(["umount", "-l", str(daemons.workspace)], check=True)


def _rows(path: Path, seed: int) -> Path:
    words = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(_ROWS):
            label = number % 2
            text = " ".join(f"{'good' if label else 'bad'}{words.randrange(500)}" for _ in range(30))
            writer.writerow([text, "good" if label else "bad"])
    return path


def _called(shell: Stdio, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = shell.call(tool, arguments)
    assert not answer["isError"], answer["content"][0]["text"]
    content: dict[str, Any] = answer["structuredContent"]
    return content


def _until(happened: Callable[[], Any], seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


def _ended(shell: Stdio, job: str) -> dict[str, Any]:
    return _until(
        lambda: (view := _called(shell, "wait_for_job", job=job, timeout_seconds=5))["state"] == "succeeded" and view
    )


def _rows_of(shell: Stdio, job: str) -> int:
    """Of the version that an ingest made."""
    made = _called(shell, "describe_dataset", dataset=_ended(shell, job)["result"]["dataset"])
    return int(made.get("datasets", [made])[0]["examples"])


def test_what_is_asked_for_on_a_full_disk_waits_and_says_what_to_do(
    daemons: Daemons, client: Callable[[], Stdio], small: Path, tmp_path: Path
) -> None:
    table = _rows(tmp_path / "rows.csv", 1)
    small.write_bytes(b"x" * (250 << 20))
    daemons.start()
    shell = client()
    shell.initialize()
    job = _called(shell, "create_dataset", name="notes", source=str(table), label="label")["job"]
    waiting = _until(lambda: (view := _called(shell, "get_job", job=job)).get("reason") and view)
    assert (waiting["state"], "waits for room" in waiting["reason"]) == ("queued", True)
    status = _called(shell, "get_status")
    assert status["disk"]["low"]
    assert any("manage_data(action='gc', dry_run=true)" in alert for alert in status["alerts"])
    small.unlink()
    assert _rows_of(shell, job) == _ROWS


def test_a_disk_that_fills_in_the_middle_loses_nothing(
    daemons: Daemons, client: Callable[[], Stdio], small: Path, tmp_path: Path
) -> None:
    daemons.start()
    shell = client()
    shell.initialize()
    for seed in range(3):
        table = _rows(tmp_path / f"rows{seed}.csv", seed)
        job = _called(shell, "create_dataset", name=f"notes{seed}", source=str(table), label="label")["job"]
        _until(lambda job=job: _called(shell, "get_job", job=job)["state"] not in ("queued", "starting"))  # type: ignore[misc]
        fill(small)
        time.sleep(1 + seed)
        with contextlib.suppress(FileNotFoundError):
            small.unlink()
        assert _rows_of(shell, job) == _ROWS
    job = _called(shell, "train_model", name="sorter", dataset="notes0", method="classical")["job"]
    _until(lambda: _called(shell, "get_job", job=job)["state"] not in ("queued", "starting"))
    fill(small)
    time.sleep(2)
    small.unlink()
    assert _ended(shell, job)["result"]["model"]
