"""What was chosen learns once more, from validation examples as well; from test examples never."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.errors import SpeciateError
from speciate.evaluation import evaluate
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.models import registry
from speciate.tasks import predictor
from speciate.training import train
from speciate.training.train_spec import TrainSpec
from speciate.training.training_context import NOT_REFITTED, REFIT_NOTE
from speciate.workspace.workspace import Workspace
from tests.evaluation import world
from tests.training.world import make_dataset, model_path, train_now

pytest.importorskip("torch")
FAR = 9.0
"""Where validation examples alone lie, beside those that are as in training."""
NETWORK = {"num_train_epochs": 30, "learning_rate": [1e-2], "batch_size": 16, "precision": "float32", "folds": 2}
METHODS = {
    "classical": {"hyperparameters": {"candidates": ["neighbours"]}},
    "full": {"base_model": "new:tab-resnet", "hyperparameters": NETWORK},
}


def places(workspace: Workspace, name: str, tested: Sequence[str] = ("yes", "no")) -> None:
    """Low is no and high is yes; further out it is no again, which validation examples tell. `tested`: labels of test
    examples, which lie there too."""
    chance = np.random.default_rng(0)
    at, labels, splits = list[float](), list[str](), list[str]()
    for split, count in (("train", 80), ("validation", 40)):
        for i in range(count):
            at.append((-3.0, 3.0)[i % 2] + float(chance.normal(0, 0.3)))
            labels.append(("no", "yes")[i % 2])
            splits.append(split)
    for i in range(30):
        at += [FAR + float(chance.normal(0, 0.3))] * 2
        labels += ["no", tested[i % 2]]
        splits += ["validation", "test"]
    make_dataset(workspace, name, "tabular", {"x": at}, labels=labels, splits=splits, inputs=["x"])


def fitted(workspace: Workspace, name: str, method: str, dataset: str, **more: Any) -> dict[str, Any]:
    asked = METHODS[method]
    options = {**asked["hyperparameters"], **more}  # type: ignore[dict-item]  # all are mappings
    return train_now(
        workspace, f"job-{name}", name=name, dataset=dataset, method=method, **{**asked, "hyperparameters": options}
    )


def far_out(workspace: Workspace, name: str) -> Any:
    asked = Example("one", {"x": FAR}, None, "one", "test", {"x": FAR})
    (given,) = predictor.load(model_path(workspace, name)).predict([asked])
    return given.output


@pytest.mark.parametrize("method", METHODS)
def test_refit_learns_validation_examples_and_never_test_examples(workspace: Workspace, method: str) -> None:
    places(workspace, "places")
    places(workspace, "flipped", tested=("no", "yes"))
    fitted(workspace, "before", method, "places", refit=False)
    again = fitted(workspace, "after", method, "places", refit=True)
    other = fitted(workspace, "other", method, "flipped", refit=True)
    assert far_out(workspace, "before") == "yes"
    assert far_out(workspace, "after") == "no"
    assert REFIT_NOTE in again["report"]["notes"]
    assert again["report"]["validation"] == other["report"]["validation"], "its value is from before"
    ids = {registry.resolve(workspace.database, workspace.folders, name).card.id for name in ("after", "other")}
    assert len(ids) == 1, "other labels of test examples change no byte"


def test_a_model_that_learned_validation_examples_has_seen_them_and_leaves_none_to_go_on_by(
    workspace: Workspace,
) -> None:
    places(workspace, "places")
    fitted(workspace, "net", "full", "places", refit=True)
    told = world.perform(workspace, evaluate.KIND, {"dataset": "places", "models": ["net"], "latency": False})
    assert all("seen" not in row for row in told["report"]["leaderboard"]), "no test example"
    plan = evaluate.plan(EvaluateSpec(models=("net",), dataset="places:validation"), workspace)
    assert "by which models are chosen" in plan.resolved["warnings"][0]
    with pytest.raises(SpeciateError, match="has learned from all validation examples of places@v1"):
        train.plan(TrainSpec(name="more", dataset="places", continue_from="net"), workspace)


@pytest.mark.parametrize(
    ("method", "why"),
    [("replay", "False"), ("distill", "False"), ("sft", "has no hyperparameter 'refit'"), ("slda", "has no")],
)
def test_a_method_that_cannot_says_so(workspace: Workspace, method: str, why: str) -> None:
    places(workspace, "places")
    fitted(workspace, "net", "full", "places")
    more: dict[str, Any] = {"continue_from": "net"} if method == "replay" else {}
    more |= {"teacher": ["net"]} if method == "distill" else {}
    spec = TrainSpec(name="more", dataset="places", method=method, hyperparameters={"refit": True}, **more)  # type: ignore[arg-type]  # one of them
    with pytest.raises(SpeciateError) as refused:
        train.plan(spec, workspace)
    if method in ("replay", "distill"):
        assert "hyperparameters.refit is True" in refused.value.message
        assert why in refused.value.message


def test_a_refit_without_time_is_told(workspace: Workspace) -> None:
    places(workspace, "places")
    done = train_now(
        workspace, name="odd", dataset="places", method="classical", task="anomaly-detection",
        hyperparameters={"refit": True, "positive_label": "yes", "candidates": ["neighbours"]},
    )  # fmt: skip
    assert NOT_REFITTED in done["report"]["notes"]
