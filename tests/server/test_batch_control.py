"""A batch that is paused, or cancelled and tried again, or that finds no room: every row is answered once, and each
stop says what it waits for. Kills are in tests/crash/test_predict_kills.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.processes import Daemons, Stdio
from tests.server.small_world import called, ended, points
from tests.server.test_daemon import fill

pytestmark = pytest.mark.slow
ROWS, STEP = 12_000, 256
ENDED = ("succeeded", "failed", "dead", "cancelled", "paused")
needs_mount = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("mount"), reason="only root can mount a small disk"
)


@pytest.fixture
def shell(daemons: Daemons, client: Callable[[], Stdio], tmp_path: Path) -> Stdio:
    """With a model and a table of rows to be answered."""
    daemons.workspace.mkdir()
    (daemons.workspace / "settings.toml").write_text(f'policy = "auto"\nroots = ["{tmp_path}"]\n')
    daemons.start()
    made = client()
    made.initialize()
    ended(made, called(made, "create_dataset", name="points", rows=points(), label="label")["job"])
    ended(made, called(made, "train_model", name="sorter", dataset="points", method="classical")["job"])
    lines = (f"{number % 7 + 10 * (number % 2)},{number / 9}\n" for number in range(ROWS))
    (tmp_path / "rows.csv").write_text("a,b\n" + "".join(lines))
    return made


def begin(shell: Stdio, folder: Path, path: Path) -> str:
    asked = {"model": "sorter@v1", "source": str(folder / "rows.csv"), "path": str(path)}
    return str(called(shell, "predict", **asked)["job"])


def until(shell: Stdio, job: str, happened: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    latest = time.monotonic() + 180
    while not happened(view := called(shell, "get_job", job=job)):
        assert time.monotonic() < latest, str(view)
        time.sleep(0.02)
    return view


def chunks(workspace: Path, job: str) -> Counter[str]:
    """How often each chunk was answered, in all attempts."""
    return Counter(path.name for path in (workspace / "runs").glob(f"{job}.*/checkpoints/chunk-*.json"))


def check_answers(workspace: Path, job: str, path: Path) -> None:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [each["id"] for each in found] == [str(number + 1) for number in range(ROWS)]
    assert not any(each["error"] for each in found)
    assert set(chunks(workspace, job).values()) == {1}, "a chunk was answered twice"
    assert len(chunks(workspace, job)) == -(-ROWS // STEP)


@pytest.mark.parametrize(("stop", "go_on"), [("pause", "resume"), ("cancel", "retry")])
def test_a_batch_that_was_stopped_goes_on_where_it_was(
    shell: Stdio, daemons: Daemons, tmp_path: Path, stop: str, go_on: str
) -> None:
    path = tmp_path / "answers.jsonl"
    job = begin(shell, tmp_path, path)
    for _ in range(2):
        before = len(chunks(daemons.workspace, job))
        until(shell, job, lambda _, before=before: len(chunks(daemons.workspace, job)) > before + 2)  # type: ignore[misc]
        called(shell, "control_job", job=job, action=stop)
        stopped = until(shell, job, lambda view: view["state"] in ENDED)
        assert stopped["state"] == {"pause": "paused", "cancel": "cancelled"}[stop], "it was over too soon"
        assert not path.exists()
        kept = len(chunks(daemons.workspace, job))
        assert before + 2 < kept < ROWS // STEP
        called(shell, "control_job", job=job, action=go_on)
    assert ended(shell, job)["result"]["report"]["answered"] == ROWS
    check_answers(daemons.workspace, job, path)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this machine lets nobody mount: " + made.stderr.decode().strip())
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@needs_mount
def test_answers_wait_for_room_at_their_path_and_none_is_asked_again(
    shell: Stdio, daemons: Daemons, tmp_path: Path, small: Path
) -> None:
    fill(small / "ballast")
    path = small / "answers.jsonl"
    job = begin(shell, tmp_path, path)
    waiting = until(shell, job, lambda view: "full" in str(view.get("reason")) or view["state"] in ENDED)
    assert waiting["state"] in ("queued", "starting", "running"), waiting
    assert str(small) in waiting["reason"], "which disk"
    assert len(chunks(daemons.workspace, job)) == -(-ROWS // STEP), "all is answered already"
    assert [each.name for each in small.iterdir()] == ["ballast"], "nothing half done"
    (small / "ballast").unlink()
    assert ended(shell, job)["result"]["path"] == str(path)
    check_answers(daemons.workspace, job, path)
    assert [each.name for each in small.iterdir()] == ["answers.jsonl"]


@needs_mount
def test_a_batch_waits_for_room_in_the_workspace(daemons: Daemons, client: Callable[[], Stdio], tmp_path: Path) -> None:
    daemons.workspace.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(daemons.workspace)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this machine lets nobody mount: " + made.stderr.decode().strip())
    try:
        (daemons.workspace / "settings.toml").write_text(
            f'policy = "auto"\nroots = ["{tmp_path}"]\n[disk]\nstop_below_gb = 0.06\n'
        )
        daemons.start()
        shell = client()
        shell.initialize()
        ended(shell, called(shell, "create_dataset", name="points", rows=points(), label="label")["job"])
        ended(shell, called(shell, "train_model", name="sorter", dataset="points", method="classical")["job"])
        lines = (f"{number % 7 + 10 * (number % 2)},{number / 9}\n" for number in range(ROWS))
        (tmp_path / "rows.csv").write_text("a,b\n" + "".join(lines))
        path, ballast = tmp_path / "answers.jsonl", daemons.workspace / "ballast"
        job = begin(shell, tmp_path, path)
        until(shell, job, lambda _: len(chunks(daemons.workspace, job)) > 3)
        fill(ballast)
        # It may be told to stop, or meet the full disk before that: either way it says which disk.
        disk = ("the workspace's disk", str(daemons.workspace))
        waiting = until(
            shell, job, lambda view: view["state"] in ENDED or any(name in str(view.get("reason")) for name in disk)
        )
        assert waiting["state"] not in ENDED, waiting
        assert any("manage_data" in alert for alert in called(shell, "get_status")["alerts"])
        assert not path.exists()
        ballast.unlink()
        assert ended(shell, job)["result"]["report"]["answered"] == ROWS
        check_answers(daemons.workspace, job, path)
    finally:
        daemons.close()
        subprocess.run(["umount", "-l", str(daemons.workspace)], check=True)
