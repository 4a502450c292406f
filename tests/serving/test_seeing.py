"""A deployment serves a model that sees: tried on its own examples, asked by parts, in its sandbox."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from speciate.jobs.pool import Pool
from speciate.promotion import aliases
from speciate.serving import deployments
from speciate.serving.deployment_folder import DeploymentFolder, deployment_folder
from speciate.serving.replica import Runner, try_version
from speciate.serving.request_parsing import check_request
from speciate.workspace.workspace import Workspace
from tests.models.language.vision_world import COLOURS, coloured, tiny_qwen
from tests.serving.world import move
from tests.training.language.images_world import QUICK, make_colours
from tests.training.world import define, png, train_now


@pytest.mark.slow
def test_a_deployment_answers_about_pictures_from_the_folder_of_the_version(
    workspace: Workspace, tmp_path: Path
) -> None:
    make_colours(workspace)
    define(workspace, "reviews", "image-text-to-text", metric="exact_match")
    made = train_now(
        workspace, name="looker", dataset="seen", method="sft", base_model=tiny_qwen(tmp_path / "base"),
        use_case="reviews", hyperparameters=QUICK,
    )  # fmt: skip
    move(workspace, str(made["model"]))
    alias = aliases.read(workspace.database, "reviews")
    assert alias
    folder: DeploymentFolder = deployment_folder(workspace.folders, "reviews")
    folder.create()
    pool = Pool(workspace.folders, workspace.settings, size=1)
    target = deployments.target_of(workspace, pool, folder, alias)
    pool.close()
    assert target.warmup
    runner = Runner(workspace.folders.root, workspace.folders.cache / "pool", target, 4096, workspace.settings.cage)
    try:
        runner.load(300)
        assert try_version(runner, json.loads(Path(target.warmup).read_bytes()), 300).examples == 8
        files = [base64.b64encode(png(coloured(name, 900))).decode() for name in COLOURS]
        body = {
            "inputs": [{"parts": {"image": {"data": file}, "question": {"value": "which colour?"}}} for file in files]
        }
        asked = check_request(body, target)
        assert not asked.problems
        assert [one["output"] for one in runner.answer(asked.items, 60)] == list(COLOURS)
    finally:
        runner.end()
