"""Boxes, regions and forecasts by a whole network, from a dataset to a served model that is evaluated."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import load_examples
from speciate.models import registry
from speciate.tasks import predictor
from speciate.workspace.workspace import Workspace
from tests.tasks import learning
from tests.tasks.learning import waves
from tests.training.recipes.test_forecasts_and_anomalies import evaluated
from tests.training.world import make_dataset, model_path, png, train_now

pytestmark = pytest.mark.slow
SHORT = {"num_train_epochs": 2, "learning_rate": [2e-3]}
SPLITS = ["train"] * 24 + ["validation"] * 8 + ["test"] * 8


@pytest.mark.parametrize(("task", "metric"), [("object-detection", "map_50"), ("image-segmentation", "dice")])
def test_objects_of_coco_are_learned_by_their_column(workspace: Workspace, task: str, metric: str) -> None:
    made = learning.images(40, 0, (24, 24))
    objects: list[Any] = [
        [one | {"segmentation": json.dumps(one["segmentation"])} for one in shown] for _, shown in made
    ]
    manifest = make_dataset(
        workspace, "shapes", "image", {"objects": objects}, labels=["square"] * 40, splits=SPLITS,
        media=[png(pixels) for pixels, _ in made],
    )  # fmt: skip
    report = train_now(
        workspace, name="shapes-model", dataset="shapes", method="full", base_model="new:vit", task=task,
        hyperparameters=SHORT,
    )["report"]  # fmt: skip
    assert report["labels"] == ["disc", "square"]
    card = registry.resolve(workspace.database, workspace.folders, "shapes-model@v1").card
    assert card.recipe["target"] == "objects"
    found = evaluated(workspace, "shapes", "shapes-model@v1", "constant:")
    assert found["metric"] == metric
    assert all(0 <= row["value"] <= 1 and row["errors"] == 0 for row in found["leaderboard"])
    examples = load_examples(workspace.folders, manifest, ("test",))
    for made_of in predictor.load(model_path(workspace, "shapes-model@v1")).predict(examples):
        assert json.loads(json.dumps(made_of.output)) == made_of.output


def test_a_network_reads_the_end_of_series_and_foretells_what_comes_next(workspace: Workspace) -> None:
    series = [one.tolist() for one in waves(16, 0, 40)]
    manifest = make_dataset(
        workspace, "waves", "time-series", {"left": [one[0] for one in series], "right": [one[1] for one in series]},
        labels=["wave"] * 16, splits=["train"] * 8 + ["validation"] * 4 + ["test"] * 4, inputs=["left", "right"],
    )  # fmt: skip
    train_now(
        workspace, name="waves-model", dataset="waves", method="full", base_model="new:patchtst",
        task="time-series-forecasting", hyperparameters=SHORT,
    )  # fmt: skip
    model = predictor.load(model_path(workspace, "waves-model@v1"))
    (example, *_) = load_examples(workspace.folders, manifest, ("test",))
    longer = example._replace(media=np.hstack([example.media, example.media]))
    ending = example._replace(media=longer.media[:, -32:])
    backbone = model.backbone  # type: ignore[attr-defined]  # a network's
    (one,), (other,) = (backbone.prepare([each.media]) for each in (longer, ending))
    assert (one["values"] == other["values"]).all()
    assert np.shape(model.predict([longer])[0].output) == (2, 4)
    found = evaluated(workspace, "waves", "waves-model@v1", "constant:")
    assert all(np.isfinite(row["value"]) for row in found["leaderboard"])
