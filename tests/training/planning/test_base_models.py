"""What a network learned before is not what judges its successor: on labels that are pure chance, a leak would show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.errors import Code, SpeciateError
from speciate.evaluation import evaluate
from speciate.training import train
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace
from tests.evaluation import world as judging
from tests.training.world import define, make_dataset, train_now

pytestmark = pytest.mark.slow

pytest.importorskip("torch")
COUNT = 240
LEARN = {"num_train_epochs": 150, "early_stopping_patience": 150, "learning_rate": [3e-3], "batch_size": 40}
STAY = {"num_train_epochs": 1, "learning_rate": [1e-9]}
"""What the network knows, it knows from before."""


def _noise(workspace: Workspace, splits: list[str], name: str = "coins") -> str:
    """The same examples in every version; nothing but memory tells heads from tails."""
    chance = np.random.default_rng(3)
    columns = {letter: [float(x) for x in chance.normal(0, 1, COUNT)] for letter in "abcdefgh"}
    labels = ["heads" if x else "tails" for x in chance.integers(0, 2, COUNT)]
    manifest = make_dataset(
        workspace, name, "tabular", columns, labels=labels, splits=splits, inputs=list(columns)
    )  # fmt: skip
    return manifest.ref


def _parent(workspace: Workspace) -> None:
    """Learns the first half by heart."""
    dataset = _noise(workspace, ["train"] * 120 + ["validation"] * 60 + ["test"] * 60)
    made = train_now(
        workspace, "job-a", name="net", dataset=dataset, method="full", base_model="new:tab-resnet",
        hyperparameters=LEARN,
    )  # fmt: skip
    assert made["report"]["left_out"] == 0


def _continued(workspace: Workspace, dataset: str, **more: Any) -> dict[str, Any]:
    spec = {"name": "next", "dataset": dataset, "continue_from": "net@v1", "hyperparameters": STAY}
    return train_now(workspace, "job-b", **{**spec, **more})


def test_a_warm_start_is_not_judged_by_what_its_parent_has_learned(workspace: Workspace) -> None:
    """Half of the new validation split was the parent's training data, which it knows by heart."""
    _parent(workspace)
    moved = _noise(workspace, ["validation"] * 60 + ["train"] * 60 + ["test"] * 60 + ["validation"] * 60, "again")
    report = _continued(workspace, moved)["report"]
    assert report["left_out"] == 60
    assert report["validation"]["n"] == 60
    assert report["validation"]["value"] < 0.7  # of the 60 others it knows nothing; of all 120 it would say 0.75
    assert any("60 validation examples that net@v1 has learned from" in note for note in report["notes"])


@pytest.mark.slow
def test_what_the_grandparent_learned_is_remembered_too(workspace: Workspace) -> None:
    _parent(workspace)
    between = _noise(workspace, ["test"] * 120 + ["train"] * 60 + ["validation"] * 60, "between")
    assert _continued(workspace, between)["report"]["left_out"] == 0
    last = _noise(workspace, ["validation"] * 90 + ["train"] * 30 + ["test"] * 60 + ["validation"] * 60, "last")
    report = train_now(
        workspace, "job-c", name="last", dataset=last, method="probe", base_model="next@v1", hyperparameters={}
    )["report"]
    assert report["left_out"] == 90


@pytest.mark.slow
def test_where_all_validation_examples_were_learned_it_is_refused(workspace: Workspace) -> None:
    _parent(workspace)
    swapped = _noise(workspace, ["validation"] * 120 + ["train"] * 60 + ["test"] * 60, "swapped")
    with pytest.raises(SpeciateError, match="learned from all validation examples") as error:
        _continued(workspace, swapped)
    assert error.value.code is Code.INVALID


def test_folds_of_what_was_learned_are_refused_before_there_is_a_job(workspace: Workspace) -> None:
    _noise(workspace, ["train"] * 180 + ["test"] * 60)
    train_now(
        workspace, "job-a", name="net", dataset="coins", method="full", base_model="new:tab-resnet",
        hyperparameters={"num_train_epochs": 1, "learning_rate": [1e-3], "folds": 2},
    )  # fmt: skip
    with pytest.raises(SpeciateError, match="there is no other"):
        train.plan(TrainSpec(name="next", dataset="coins", continue_from="net@v1"), workspace)


@pytest.mark.slow
def test_the_data_of_a_parent_that_are_gone_are_told(workspace: Workspace) -> None:
    _parent(workspace)
    _noise(workspace, ["train"] * 120 + ["validation"] * 60 + ["test"] * 60, "again")
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM dataset_versions WHERE name = 'coins'"))
    report = _continued(workspace, "again")["report"]
    assert report["left_out"] is None
    assert any("not here any more" in note for note in report["notes"])


@pytest.mark.slow
def test_an_evaluation_knows_what_a_model_s_parents_have_seen(workspace: Workspace) -> None:
    """The successor itself never met these test examples; the weights that it began with did."""
    _parent(workspace)
    fresh = _noise(workspace, ["test"] * 60 + ["train"] * 60 + ["validation"] * 60 + ["test"] * 60, "fresh")
    model = _continued(workspace, fresh)["model"]
    define(workspace, "guess", "tabular-classification", target=0.6)
    result = judging.perform(
        workspace, evaluate.KIND, {"models": [model], "dataset": "fresh", "use_case": "guess", "latency": False}
    )
    assert result["decision"]["verdict"] == "hold"
    assert any("60 of these examples were in its training data" in reason for reason in result["decision"]["reasons"])


@pytest.mark.slow
def test_a_network_is_not_continued_on_rows_that_lack_its_columns(workspace: Workspace) -> None:
    _parent(workspace)
    columns = {letter: [float(i) for i in range(40)] for letter in "abc"}
    make_dataset(
        workspace, "narrow", "tabular", columns, labels=["heads", "tails"] * 20,
        splits=["train"] * 20 + ["validation"] * 10 + ["test"] * 10, inputs=list(columns),
    )  # fmt: skip
    with pytest.raises(SpeciateError, match="narrow@v1 has no input d, e, f, g, h"):
        train.plan(TrainSpec(name="next", dataset="narrow", continue_from="net@v1"), workspace)
