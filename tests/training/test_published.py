"""Published results on MNIST-1D hold in their order, on a small budget. Values: `evals/reproduce_mnist1d.py`."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.workspace.workspace import Workspace
from tests.data import ingest, run_job

PUBLISHED = {
    "learning_rate": [0.01],
    "batch_size": 100,
    "weight_decay": 0,
    "warmup_ratio": 0,
    "lr_scheduler_type": "constant",
}
SMALL = PUBLISHED | {"num_train_epochs": 12, "early_stopping_patience": 12, "folds": 2}


@pytest.mark.slow
def test_a_cnn_surely_beats_an_mlp_and_that_logistic_regression_on_signals(workspace: Workspace) -> None:
    """Greydanus & Kobak 2024: 94, 68 and 32 %; the first two need more passes than here to come there."""
    ingest(workspace, "signals", source="pkg:mnist1d", modality="time-series", label="label", inputs=["values"])
    linear = _train(workspace, "linear", method="classical", hyperparameters={"candidates": ["linear"], "folds": 2})
    mlp = _train(workspace, "mlp", method="full", base_model="new:mlp", hyperparameters=SMALL)
    cnn = _train(workspace, "cnn", method="full", base_model="new:cnn", hyperparameters=SMALL)
    for worse, better in ((linear, mlp), (mlp, cnn)):
        report = run_job(workspace, "evaluate", models=[worse, better], dataset="signals", latency=False)["report"]
        values = {row["model"]: row["value"] for row in report["leaderboard"]}
        (compared,) = report["comparisons"]
        print(values, compared)
        assert compared["candidate"] == better
        assert compared["interval"][0] > 0.1
        if worse == linear:
            low, high = next(row["interval"] for row in report["leaderboard"] if row["model"] == linear)
            assert low < 0.32 < high


def _train(workspace: Workspace, name: str, **how: Any) -> str:
    result = run_job(workspace, "train", name=name, dataset="signals", resources={"cpu": 1}, **how)
    return str(result["model"])
