"""kill -9 of a fetch in the middle of a large file: the job goes on, asks for no byte that it has, and ends in the same
model as a fetch that nothing struck."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, Job
from speciate.jobs.process_identity import signal_group
from speciate.models import registry, sealed
from speciate.workspace.workspace import Workspace
from tests.models.hub_server import Hub, serving

pytestmark = [pytest.mark.durable, pytest.mark.slow]

pytest.importorskip("huggingface_hub")
PIECE = 10 << 20
"""Bytes that the hub's client writes at once: so many a kill may cost."""
HELD = 2 * PIECE + (PIECE >> 1)
WEIGHTS = save({"weights": np.arange(10 << 20, dtype=np.float32)})
FILES = {"config.json": json.dumps({"model_type": "bert"}).encode(), "model.safetensors": WEIGHTS, "vocab.txt": b"a\nb"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving({"org/large": dict(FILES)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def kill_once_it_has(workspace: Workspace, engine: Engine, job: Job, size: int) -> int:
    """Kill worker and supervisor once so much of the large file is on disk; how much was there afterwards."""
    partial = workspace.folders.cache / "published"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (now := engine.get(job.id)).state not in ENDED:
        there = max((path.stat().st_size for path in partial.glob("*/*/.cache/partial/*")), default=0)
        run = workspace.folders.runs / now.run_id
        if there >= size:
            whom = [path.read_text() for name in ("supervisor", "worker") if (path := run / name).exists()]
            assert [signal_group(who, signal.SIGKILL) for who in whom] == [True, True]
            return max(path.stat().st_size for path in partial.glob("*/*/.cache/partial/*"))
        time.sleep(0.01)
    raise AssertionError(f"the fetch never came to {size:,} bytes: {engine.get(job.id)}")


def identity_of_what_was_published(folder: Path) -> str:
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return sealed.seal(folder)


def test_a_killed_fetch_goes_on_where_it_was_and_ends_in_the_same_model(hub: Hub, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    engine = Engine(workspace)
    engine.start()
    hub.held = HELD
    try:
        job = engine.submit("fetch", {"name": "theirs", "source": "hf:org/large"})
        there = kill_once_it_has(workspace, engine, job, 2 * PIECE)
        hub.released.set()
        ended = engine.wait(job.id, timeout=60)
        assert ended.state == "succeeded", ended.error
        assert (ended.result or {})["model"] == "theirs@v1"
        version = registry.resolve(workspace.database, workspace.folders, "theirs")
        assert version.card.id == sealed.check(version.path) == identity_of_what_was_published(tmp_path / "published")
        assert (version.path / "model.safetensors").read_bytes() == WEIGHTS
        assert len(list(workspace.folders.runs.glob(f"{job.id}.*"))) == 2, "one attempt was killed, one ended"
    finally:
        hub.released.set()
        engine.stop()
        workspace.close()
    bodies = [
        line for line in hub.asked if line.startswith("GET") and line.partition(" bytes=")[0].endswith(".safetensors")
    ]
    assert [line.partition(" bytes=")[2] for line in bodies] == ["", f"{there}-"], (
        "what was there is not asked for again"
    )
    assert hub.sent["config.json"] == len(FILES["config.json"])
    assert hub.sent["model.safetensors"] <= len(WEIGHTS) + HELD - there
