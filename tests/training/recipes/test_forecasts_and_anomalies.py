"""Series foretold and anomalies found, from a dataset to a served model that is evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import load_examples
from speciate.errors import Code, SpeciateError
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.evaluation.evaluate import plan as plan_evaluation
from speciate.evaluation.run_evaluation import run as evaluate
from speciate.jobs.run import Run
from speciate.models import registry
from speciate.tasks import predictor
from speciate.workspace.workspace import Workspace
from tests.tasks.learning import waves
from tests.training.world import make_dataset, model_path, run_folder, thirds, train_now

FORECAST, ANOMALIES = "time-series-forecasting", "anomaly-detection"


def _waves(workspace: Workspace, splits: tuple[str, ...] = ("train", "validation", "test")) -> Any:
    series = [one.tolist() for one in waves(40, 0)]
    return make_dataset(
        workspace, "waves", "time-series", {"left": [one[0] for one in series], "right": [one[1] for one in series]},
        labels=["wave"] * 40, splits=thirds(40, splits), inputs=["left", "right"],
    )  # fmt: skip


def _parts(workspace: Workspace, labels: tuple[str, str] = ("fine", "broken"), odd_in_validation: bool = True) -> Any:
    """Normal rows lie near a line; odd ones beside it, at values that are usual each by itself."""
    generator = np.random.default_rng(0)
    along = generator.normal(size=300)
    splits = ["train"] * 150 + ["validation"] * 60 + ["test"] * 90
    odd = np.array([i % 3 == 0 and (split == "test" or (odd_in_validation and split == "validation"))
                    for i, split in enumerate(splits)])  # fmt: skip
    x, y = along, np.where(odd, generator.permutation(along) + 0.5, along) + generator.normal(0, 0.1, 300)
    named = [labels[int(one)] for one in odd]
    return make_dataset(
        workspace,
        "parts",
        "tabular",
        {"x": x.tolist(), "y": y.tolist()},
        labels=named,
        splits=splits,
        inputs=["x", "y"],
    )


def evaluated(workspace: Workspace, dataset: str, *models: str) -> Any:
    spec = EvaluateSpec(models=models, dataset=dataset, latency=False)
    folder = run_folder(workspace, "job-e", plan_evaluation(spec, workspace).payload_json())
    return evaluate(Run(folder))["report"]


@pytest.mark.parametrize(
    "splits", [("train", "validation", "test"), pytest.param(("train", "test"), marks=pytest.mark.slow)]
)
def test_series_are_foretold_better_than_by_their_last_period(workspace: Workspace, splits: tuple[str, ...]) -> None:
    manifest = _waves(workspace, splits)
    result = train_now(workspace, name="waves-model", dataset="waves", method="classical", task=FORECAST)
    card = registry.resolve(workspace.database, workspace.folders, "waves-model@v1").card
    assert card.recipe["terms"][1] == 6  # a tenth of 60 steps
    assert result["report"]["validation"]["value"] < 0.5
    report = evaluated(workspace, "waves", "waves-model@v1", "constant:")
    values = {row["model"]: row["value"] for row in report["leaderboard"]}
    assert values["waves-model@v1"] < values["constant:"]
    (example, *_) = load_examples(workspace.folders, manifest, ("test",))
    (served,) = predictor.load(model_path(workspace, "waves-model@v1")).predict([example])
    assert np.shape(served.output) == (2, 6)
    assert np.abs(np.array(served.output) - example.media.mean(1)[:, None]).max() < 3 * np.ptp(example.media)


def test_models_of_different_horizons_are_not_compared(workspace: Workspace) -> None:
    _waves(workspace)
    for horizon in (3, 5):
        train_now(
            workspace, f"job-{horizon}", name="waves-model", dataset="waves", method="classical", task=FORECAST,
            hyperparameters={"horizon": horizon, "candidates": ["ridge"]},
        )  # fmt: skip
    with pytest.raises(SpeciateError, match="3, 5") as caught:
        evaluated(workspace, "waves", "waves-model@v1", "waves-model@v2")
    assert caught.value.code is Code.INVALID
    alone = evaluated(workspace, "waves", "waves-model@v2", "constant:")
    assert alone["n"] == 10


def test_anomalies_are_found_by_what_the_validation_split_shows(workspace: Workspace) -> None:
    _parts(workspace)
    settings = {"positive_label": "broken"}
    result = train_now(
        workspace, name="parts-model", dataset="parts", method="classical", task=ANOMALIES, hyperparameters=settings
    )
    report = result["report"]
    assert report["validation"]["value"] > 0.9
    assert report["labels"] == ["normal", "broken"]
    assert {one["name"].split(": ")[1] for one in report["candidates"]} == {"neighbours", "covariance", "isolation"}
    found = evaluated(workspace, "parts", "parts-model@v1", "constant:")
    values = {row["model"]: row["value"] for row in found["leaderboard"]}
    assert values["parts-model@v1"] > 0.9
    assert values["constant:"] == 0.5


@pytest.mark.parametrize("with_validation", [True, False])
def test_without_a_known_anomaly_the_tightest_learner_is_kept_and_said(
    workspace: Workspace, with_validation: bool
) -> None:
    manifest = _parts(workspace, ("fine", "anomaly"), odd_in_validation=False)
    if not with_validation:
        make_dataset(
            workspace, "more", "tabular", {"x": list(np.arange(40.0)), "y": list(np.arange(40.0) + np.arange(40) % 3)},
            labels=["fine"] * 40, splits=["train"] * 40, inputs=["x", "y"],
        )  # fmt: skip
    name = manifest.name if with_validation else "more"
    given = {} if with_validation else {"folds": 2}
    report = train_now(
        workspace, name="parts-model", dataset=name, method="classical", task=ANOMALIES, hyperparameters=given
    )["report"]
    assert any("No anomaly was held out" in note for note in report["notes"])
    assert report["validation"]["value"] is None
    (kept,) = [one["name"] for one in report["candidates"] if one["chosen"]]
    assert "isolation" not in kept  # which cuts along columns, so shuffled rows are the least odd to it
    if with_validation:
        found = evaluated(workspace, "parts", "parts-model@v1", "constant:")
        assert {row["model"]: row["value"] for row in found["leaderboard"]}["parts-model@v1"] > 0.9


def test_anomalies_among_the_training_examples_are_said_to_teach_nothing(workspace: Workspace) -> None:
    x = [float(i) for i in range(40)]
    make_dataset(
        workspace, "lumps", "tabular", {"x": x, "y": x}, labels=["malignant", "benign"] * 20,
        splits=["train"] * 30 + ["validation"] * 10, inputs=["x", "y"],
    )  # fmt: skip
    report = train_now(
        workspace, name="lumps-model", dataset="lumps", method="classical", task=ANOMALIES,
        hyperparameters={"positive_label": "malignant", "candidates": ["neighbours"]},
    )["report"]  # fmt: skip
    assert "15 examples labelled 'malignant' are not learned from." in report["notes"]
    assert not any("excluded" in note for note in report["notes"])


def test_which_label_is_not_normal_must_be_known(workspace: Workspace) -> None:
    _parts(workspace)
    with pytest.raises(SpeciateError, match="none is 'anomaly'") as caught:
        train_now(workspace, name="parts-model", dataset="parts", method="classical", task=ANOMALIES)
    assert "positive_label" in str(caught.value)


def test_texts_unlike_the_others_are_found(workspace: Workspace) -> None:
    words = ("river lake sea water", "wave water rain", "rain river flood", "sea lake wave")
    texts = [f"{words[i % 4]} {words[(i // 4) % 4]} {i}" for i in range(120)]
    odd = [i % 5 == 0 and i % 2 == 1 for i in range(120)]
    texts = [
        f"invoice payment bank account {i}" if one else text
        for i, (one, text) in enumerate(zip(odd, texts, strict=True))
    ]
    labels = ["anomaly" if one else "fine" for one in odd]
    make_dataset(workspace, "notes", "text", {"text": texts}, labels=labels, splits=thirds(120), inputs=["text"])
    report = train_now(workspace, name="notes-model", dataset="notes", method="classical", task=ANOMALIES)["report"]
    assert report["validation"]["value"] > 0.9


def test_a_horizon_beyond_every_series_is_said(workspace: Workspace) -> None:
    _waves(workspace)
    with pytest.raises(SpeciateError, match="long enough to learn from: a horizon of 5000 steps"):
        train_now(
            workspace, name="m", dataset="waves", method="classical", task=FORECAST, hyperparameters={"horizon": 5000}
        )
