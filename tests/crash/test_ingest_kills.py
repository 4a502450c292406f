"""kill -9 of an ingest's worker, over and over: the same version as without, and little is read twice."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from speciate.datasets.ingest.survey import MOST_AT_RISK
from speciate.datasets.versions import resolve
from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, Job
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace

pytestmark = [pytest.mark.durable, pytest.mark.slow]


def pictures(folder: Path, count: int) -> Path:
    """Gray noise, no two alike, in four classes; some are damaged."""
    chance = np.random.default_rng(3)
    for i in range(count):
        path = folder / "abcd"[i % 4] / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (24, 24), np.uint8)).save(path, compress_level=1)
        if i % 97 == 0:
            path.write_bytes(path.read_bytes()[:-40])
    return folder


def kill_run(workspace: Workspace, engine: Engine, job: str, at: int) -> bool:
    """Kill the worker and its supervisor once so many files are done; False where the job ends before that."""
    while (now := engine.get(job)).state not in ENDED:
        progress = engine.folder(now).progress()
        if progress is not None and progress.done >= at and kill_all(of_run(workspace, now)):
            return True
        time.sleep(0.002)
    return False


def of_run(workspace: Workspace, job: Job) -> list[psutil.Process]:
    """The supervisor first, so that nobody is left to write how the worker ended."""
    run = str(workspace.folders.runs / job.run_id)
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if run in (line := process.cmdline()):
                found.append(("speciate.jobs.supervisor" not in line, process.pid, process))
    return [process for _, _, process in sorted(found)]


def kill_all(processes: list[psutil.Process]) -> bool:
    """Whether any of them still lived."""
    killed = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
            killed += 1
    return killed > 0


def judged(workspace: Workspace, job: str) -> int:
    """How many files all attempts together judged, as they told: each begins with what it took over."""
    total = 0
    for file in workspace.folders.runs.glob(f"{job}.*/progress.jsonl"):
        done = [json.loads(line)["done"] for line in file.read_text().splitlines()]
        total += int(done[-1] - done[0]) if done else 0
    return total


@pytest.mark.parametrize(
    ("count", "kills"), [pytest.param(2400, 3, id="brief"), pytest.param(10_000, 10, id="long", marks=pytest.mark.slow)]
)
def test_a_killed_ingest_ends_in_the_same_version(tmp_path: Path, count: int, kills: int) -> None:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    engine = Engine(workspace)
    engine.start()
    source, chance, struck = pictures(tmp_path / "source", count), random.Random(count), 0
    try:
        spec = {"source": str(source), "label": "folder"}
        job = engine.submit("ingest", {"name": "killed", **spec})
        for at in sorted(chance.randrange(count) for _ in range(kills)):
            struck += kill_run(workspace, engine, job.id, at)
        ended = engine.wait(job.id, timeout=300)
        assert ended.state == "succeeded", ended.error
        spared = engine.wait(engine.submit("ingest", {"name": "spared", **spec}).id, timeout=300)
        assert spared.state == "succeeded", spared.error
    finally:
        engine.stop()
    total = judged(workspace, job.id)
    print(f"{count} files, {struck} kills, {ended.attempt} attempts, {total} files judged")
    killed, whole = (resolve(workspace.database, name) for name in ("killed", "spared"))
    workspace.close()
    assert struck >= kills / 2
    assert killed.id == whole.id
    assert killed.packs == whole.packs
    assert total <= count + struck * MOST_AT_RISK
