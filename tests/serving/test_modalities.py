"""Versions of several modalities: the target of each deployment, and that each passes its trial on its own examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.jobs.pool import Pool
from speciate.promotion import aliases
from speciate.serving import deployments
from speciate.serving.deployment_folder import DeploymentFolder, deployment_folder
from speciate.serving.replica import Runner, try_version
from speciate.workspace.workspace import Workspace
from tests.serving.world import move
from tests.training.world import define, make_dataset, png, thirds, train_now

COUNT = 60
LABELS = ["dark" if i % 4 < 2 else "bright" for i in range(COUNT)]
SHADES = [40 if label == "dark" else 200 for label in LABELS]


def _image(workspace: Workspace) -> str:
    media = [png(np.full((12, 12), shade + i % 5, np.uint8)) for i, shade in enumerate(SHADES)]
    make_dataset(workspace, "data", "image", {}, labels=LABELS, splits=thirds(COUNT), media=media)
    return "image-classification"


def _tabular(workspace: Workspace) -> str:
    columns: dict[str, list[Any]] = {"x1": [float(shade) for shade in SHADES], "x2": ["a", None, "b"] * (COUNT // 3)}
    make_dataset(workspace, "data", "tabular", columns, labels=LABELS, splits=thirds(COUNT), inputs=["x1", "x2"])
    return "tabular-classification"


def _numbers(workspace: Workspace) -> str:
    texts = [f"{label} {'very ' * (i % 5)}thing" for i, label in enumerate(LABELS)]
    labels = [float(i % 5) for i in range(COUNT)]
    make_dataset(workspace, "data", "text", {"text": texts}, labels=labels, splits=thirds(COUNT), inputs=["text"])
    return "text-regression"


@pytest.mark.slow
@pytest.mark.parametrize("make", [_image, _tabular, _numbers])
def test_a_version_passes_its_trial_on_examples_of_its_own_data(workspace: Workspace, make: Any) -> None:
    task = make(workspace)
    define(workspace, "reviews", task, metric="mae" if task.endswith("regression") else "accuracy")
    model = str(train_now(workspace, name="model", dataset="data", method="classical", use_case="reviews")["model"])
    move(workspace, model)
    alias = aliases.read(workspace.database, "reviews")
    assert alias
    folder: DeploymentFolder = deployment_folder(workspace.folders, "reviews")
    folder.create()
    pool = Pool(workspace.folders, workspace.settings, size=1)
    target = deployments.target_of(workspace, pool, folder, alias)
    pool.close()
    assert target.warmup
    items = json.loads(Path(target.warmup).read_bytes())
    assert len(items) == 8
    runner = Runner(workspace.folders.root, workspace.folders.cache / "pool", target, 4096, workspace.settings.cage)
    try:
        assert try_version(runner, items, 300).examples == 8
        assert all(one["error"] is None for one in runner.answer(items * 5, 60))
    finally:
        runner.end()
