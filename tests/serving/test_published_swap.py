"""A deployment changes between a head of ours and a published one while it is asked: real versions, real processes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from speciate.sandbox.kernel import is_complete
from speciate.serving.deployment import Deployment
from speciate.serving.deployment_folder import DeploymentFolder, Target, Wanted
from speciate.serving.replica import Runner
from speciate.serving.request_metrics import Metrics
from speciate.settings import Serving
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.serving.test_deployment import serves, until
from tests.training.test_published_heads import QUICK, _quiet, folders, learn, make_texts
from tests.training.world import model_path

__all__ = ["_quiet", "folders"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox"),
]
_CLIENTS = 3


def test_a_swap_between_an_own_head_and_a_published_one_fails_no_request(
    workspace: Workspace, folders: Path, tmp_path: Path, clock: ManualClock
) -> None:
    make_texts(workspace)
    base = folders / "sentiment"
    made = {
        head: learn(workspace, base, f"job-{head}", name=head, hyperparameters=QUICK | {"head": head})
        for head in ("new", "published")
    }
    paths = {head: model_path(workspace, each["model"]) for head, each in made.items()}
    folder = DeploymentFolder(tmp_path / "reviews")
    folder.create()
    options = Serving(load_seconds=120)

    def want(generation: int, head: str) -> str:
        model = made[head]["model"]
        target = Target(
            generation=generation, model=model, path=str(paths[head]), task="text-classification", modality="text",
            inputs=("text",), labels=("bad", "good"),
        )  # fmt: skip
        folder.want(Wanted(use_case="reviews", options=options, target=target))
        return str(model)

    first = want(1, "new")
    wanted = folder.wanted()
    assert wanted

    def launch(target: Target) -> Runner:
        return Runner(workspace.folders.root, tmp_path / "pool", target, options.memory_mb, workspace.settings.cage)

    deployment = Deployment(folder, wanted, launch, Metrics("reviews"), clock)
    deployment.start(pid=1, port=1)
    answered, failed, over = list[tuple[str, Any]](), list[str](), threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                taken = deployment.submit([{"text": "very good day"}], 60)
                answered.append((taken.target.model, taken.answers[0].result(60)["output"]))
            except Exception as error:  # noqa: BLE001 - whatever it is, a request failed
                failed.append(repr(error))

    clients = [threading.Thread(target=ask) for _ in range(_CLIENTS)]
    try:
        until(serves(deployment, first))
        for client in clients:
            client.start()
        for generation, head in ((2, "published"), (3, "new"), (4, "published")):
            until(serves(deployment, want(generation, head)))
            seen = len(answered)
            until(lambda seen=seen: len(answered) > seen + 5)
    finally:
        over.set()
        for client in clients:
            client.join()
        deployment.end(20)
    assert failed == []
    assert {model for model, _ in answered} == {each["model"] for each in made.values()}
    assert len(set(answered)) == len(made), "a version answers one text alike each time"
    assert len(answered) > 20
    print(f"{len(answered)} requests over three swaps, {len(failed)} failed")
