from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.loading.loader import load_examples
from speciate.models import registry
from speciate.tasks import predictor
from speciate.workspace.workspace import Workspace
from tests.language.world import sums, tiny_model
from tests.training.world import make_dataset, model_path, train_now

QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 16, "learning_rate": 5e-3, "max_new_tokens": 4}


def make_sums(workspace: Workspace, name: str = "sums") -> None:
    pairs = sums()
    splits = ["test" if at % 10 == 0 else "validation" if at % 10 == 5 else "train" for at in range(len(pairs))]
    make_dataset(
        workspace, name, "text", {"question": [q for q, _ in pairs], "answer": [a for _, a in pairs]},
        labels=[a for _, a in pairs], splits=splits, inputs=["question"],
    )  # fmt: skip


def test_a_language_model_learns_answers_and_gives_them(workspace: Workspace, tmp_path: Path) -> None:
    make_sums(workspace)
    result = train_now(
        workspace, name="adder", dataset="sums", method="sft", base_model=tiny_model(tmp_path / "base"),
        hyperparameters=QUICK,
    )  # fmt: skip
    print(result)
    card = registry.resolve(workspace.database, workspace.folders, "adder").card
    model = predictor.load(model_path(workspace, "adder"))
    manifest = make_sums
    print(card)
