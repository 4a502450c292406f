"""A model goes on with new versions: what is replayed, what its head keeps, and what it forgot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.workspace.workspace import Workspace
from tests.data import ingest
from tests.training.world import train_now

pytest.importorskip("torch")
LETTERS = "abcd"
LEARN: dict[str, Any] = {"epochs": 30, "patience": 30, "learning_rate": [3e-3], "batch_size": 16}


def points(labels: str, count: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Around a corner of a cube for each label; half learns, a quarter validates, a quarter judges."""
    chance = np.random.default_rng([seed, *map(ord, labels)])
    names = [labels[i % len(labels)] for i in range(count)]
    corners = np.array([[ord(each) >> bit & 1 for bit in range(3)] for each in names])
    drawn = 2 * corners + chance.normal(0, 0.25, (count, 3))
    splits = ("train", "train", "validation", "test")
    return [
        dict(zip("xyz", map(float, point), strict=True)) | {"label": each, "split": splits[i // len(labels) % 4]}
        for i, (each, point) in enumerate(zip(names, drawn, strict=True))
    ]


def clusters(workspace: Workspace, name: str, labels: str, **more: Any) -> str:
    return str(ingest(workspace, name, rows=points(labels, **more), label="label", inputs=list("xyz")).ref)


def first(workspace: Workspace, labels: str = "ab") -> str:
    dataset = clusters(workspace, f"points-{labels}", labels)
    made = train_now(
        workspace, "job-a", name="net", dataset=dataset, method="full", base_model="new:tab-resnet",
        hyperparameters=LEARN,
    )  # fmt: skip
    return str(made["model"])


def go_on(
    workspace: Workspace, method: str, dataset: str, base: str = "net@v1", job: str = "job-b", **more: Any
) -> Any:
    return train_now(
        workspace, job, name="net", dataset=dataset, method=method, continue_from=base,
        hyperparameters=LEARN | more,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["replay", "der", "lwf", "ewc"])
def test_each_method_goes_on_with_new_labels_beside_the_old(workspace: Workspace, method: str) -> None:
    first(workspace)
    result = go_on(workspace, method, clusters(workspace, "points-cd", "cd"))
    report = result["report"]
    print(method, report["forgetting"], report.get("replay"))
    assert report["labels"] == ["a", "b", "c", "d"]
    (old,) = report["forgetting"]["slices"]
    assert old["dataset"] == "points-ab@v1"


def test_streaming_goes_on_by_itself(workspace: Workspace) -> None:
    first(workspace)
    made = train_now(
        workspace, "job-s", name="eyes", dataset="points-ab", method="slda", base_model="net@v1", hyperparameters={}
    )
    assert made["report"]["validation"]["value"] > 0.9
    result = train_now(
        workspace, "job-t", name="eyes", dataset=clusters(workspace, "points-cd", "cd"), continue_from="eyes@v1"
    )
    print(result["report"])
