"""Reward models: what they learn of pairs, what they say, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.loading.loader import Example
from speciate.modalities.messages import Message
from speciate.models import registry
from speciate.tasks import predictor
from speciate.tasks.preference import Offer, written
from speciate.workspace.workspace import Workspace
from tests.language.world import messages
from tests.training.language.world import base, make_pairs
from tests.training.world import model_path, train_now

QUICK: dict[str, Any] = {"changes": "full", "epochs": 3, "batch_size": 10, "learning_rate": 3e-3}


def _train(workspace: Workspace, folder: Path, **given: Any) -> dict[str, Any]:
    report: dict[str, Any] = train_now(
        workspace, "job-x", name="judge", dataset="pairs", method="reward", base_model=base(folder / "base"),
        hyperparameters=QUICK | given,
    )["report"]  # fmt: skip
    return report


def _example(text: str) -> Example:
    return Example("x", text, None, "x", "test", {})


@pytest.mark.parametrize("changes", ["full", "lora"])
def test_a_reward_model_tells_held_out_pairs_apart_and_gives_numbers(
    workspace: Workspace, tmp_path: Path, changes: str
) -> None:
    make_pairs(workspace)
    report = _train(workspace, tmp_path, changes=changes)
    assert report["validation"]["value"] == 1.0
    assert report["metric"] == "accuracy"
    assert report["training"]["held"]["accuracy"] == 1.0
    card = registry.resolve(workspace.database, workspace.folders, "judge").card
    assert (card.task, card.method) == ("preference", "reward")
    judge = predictor.load(model_path(workspace, "judge"))
    good, bad = (judge.predict([_example(messages("is 7 good?", said))])[0].output for said in ("yes", "no"))
    assert good > bad
    asked = (Message("user", "is 7 good?"),)
    first, second = judge.predict(
        [_example(written(Offer(asked, "yes", "no"))), _example(written(Offer(asked, "no", "yes")))]
    )
    assert (first.output, second.output) == ("first", "second")
    assert first.probabilities is not None
    assert second.probabilities is not None
    assert first.probabilities["first"] == pytest.approx(second.probabilities["second"])
