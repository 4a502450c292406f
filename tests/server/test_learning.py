"""The curves of a training that really ran, as get_job shows them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.learning import learning
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.training.test_networks import QUICK, flowers

pytest.importorskip("torch")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """With the real clock: a run that is silent for too long by another one would be stopped."""
    made = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    yield made
    made.close()


@pytest.mark.slow
def test_a_training_has_curves_as_a_table_and_as_a_picture(workspace: Workspace) -> None:
    from PIL import Image

    flowers(workspace)
    spec = {
        "name": "net", "dataset": "flowers", "method": "full", "base_model": "new:tab-resnet", "hyperparameters": QUICK,
    }  # fmt: skip
    engine, pool = Engine(workspace), Pool(workspace.folders, workspace.settings, size=1)
    engine.start()
    try:
        job = engine.wait(engine.submit("train", spec).id, timeout=120)
        assert job.state == "succeeded", job.error
        found = learning(engine, pool, job)
        assert found is not None
        curves = found.curves
        assert curves.job == job.id
        assert {"step", "loss", "held_value"} <= set(curves.columns)
        assert len(curves.rows) <= min(curves.lines, 26)
        loss = [row[curves.columns.index("loss")] for row in curves.rows]
        assert loss[-1] < loss[0] / 2
        assert len(json.dumps(curves.model_dump())) < 8000  # a result stays small
        with Image.open(io.BytesIO(found.png)) as picture:
            assert max(picture.size) <= 1024
            assert len(picture.convert("RGB").getcolors(100_000) or ()) > 3
        # What is being written may end in the middle of a line.
        with (engine.folder(job).path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 1')
        again = learning(engine, pool, job)
        assert again is not None
        assert again.curves == curves
    finally:
        engine.stop()
        pool.close()


def test_a_job_that_does_not_learn_has_no_curves(workspace: Workspace) -> None:
    flowers(workspace)
    engine, pool = Engine(workspace), Pool(workspace.folders, workspace.settings, size=1)
    engine.start()
    try:
        spec = {"name": "trees", "dataset": "flowers", "method": "classical"}
        job = engine.wait(engine.submit("train", spec).id, timeout=120)
        assert learning(engine, pool, job) is None
    finally:
        engine.stop()
        pool.close()
