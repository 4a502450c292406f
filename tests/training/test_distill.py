"""A student learns from other models' answers: of one, of several, of rows without a label, and of its states."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.workspace.workspace import Workspace
from tests.data import ingest
from tests.training.test_continual import LEARN, points
from tests.training.world import train_now

pytest.importorskip("torch")
STUDENT = {**LEARN, "epochs": 12}


def dataset(workspace: Workspace, name: str = "points", *, unlabelled: bool = False) -> str:
    rows = points("abc", 72)
    if unlabelled:
        rows = [row | {"label": None} if row["split"] == "train" and at > 24 else row for at, row in enumerate(rows)]
    return str(ingest(workspace, name, rows=rows, label="label", inputs=list("xyz")).ref)


def teacher(workspace: Workspace, data: str, name: str = "big", method: str = "classical", **more: Any) -> str:
    return str(train_now(workspace, f"job-{name}", name=name, dataset=data, method=method, **more)["model"])


def distilled(workspace: Workspace, data: str, teachers: Any, **more: Any) -> dict[str, Any]:
    return train_now(
        workspace, "job-s", name="small", dataset=data, method="distill", base_model="new:tab-resnet", teacher=teachers,
        hyperparameters=STUDENT | more,
    )  # fmt: skip


def test_a_network_learns_from_a_classical_model_and_says_what_it_kept(workspace: Workspace) -> None:
    data = dataset(workspace)
    report = distilled(workspace, data, teacher(workspace, data))["report"]
    print(report)
    assert report["distillation"]["kept"] > 0.9


def test_rows_without_a_label_are_taught_by_the_teacher_alone(workspace: Workspace) -> None:
    whole = dataset(workspace)
    made = teacher(workspace, whole)
    report = distilled(workspace, dataset(workspace, "few", unlabelled=True), [made])["report"]
    print(report)
    assert report["distillation"]["unlabelled"] > 20
