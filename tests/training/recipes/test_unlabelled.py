"""Heads that learn from their own answers to examples without a label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.models import packaged
from speciate.training.recipes import unlabelled
from speciate.training.recipes.classical import logistic
from speciate.workspace.workspace import Workspace
from tests.data import ingest
from tests.training.world import train_now


def _learn(inputs: Any, targets: Any, seed: int, weights: Any) -> Any:
    return logistic(1.0)(inputs, targets, seed, weights)


def _clouds(count: int, seed: int) -> tuple[Any, Any]:
    """Three clouds in ten dimensions, of which few examples show the shape badly."""
    chance = np.random.default_rng(seed)
    targets = np.arange(count) % 3
    return np.eye(10)[targets] * 3 + chance.normal(0, 1, (count, 10)), targets


def test_with_two_examples_of_each_label_the_rest_shows_where_clouds_lie() -> None:
    inputs, targets = _clouds(6, 0)
    others, _ = _clouds(600, 1)
    asked, wanted = _clouds(900, 2)
    plain = _learn(inputs, targets, 0, None).scores(asked).argmax(axis=1)
    taught = unlabelled.self_trained(_learn, lambda: others)(inputs, targets, 0).scores(asked).argmax(axis=1)
    assert (taught == wanted).mean() > (plain == wanted).mean() + 0.05
    assert (taught == wanted).mean() > 0.85


def test_labels_flow_along_neighbours_to_their_cloud() -> None:
    inputs, targets = _clouds(6, 0)
    others, _ = _clouds(600, 1)
    asked, wanted = _clouds(900, 2)
    plain = _learn(inputs, targets, 0, None).scores(asked).argmax(axis=1)
    taught = unlabelled.spread_labels(_learn, lambda: others)(inputs, targets, 0).scores(asked).argmax(axis=1)
    assert (taught == wanted).mean() > (plain == wanted).mean() + 0.05


def test_of_each_label_its_surest_answers_are_taken() -> None:
    shares = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.45, 0.55]])
    assert unlabelled._surest(shares, 0.5).tolist() == [0, 2, 3]


@pytest.mark.slow
@pytest.mark.skipif(not packaged.installed("minilm"), reason="the weights come as a package")
def test_a_probe_with_few_labels_tries_heads_that_learn_from_the_rest(workspace: Workspace) -> None:
    sentences = {"glad": "I love this, it is wonderful number {}", "cross": "This is terrible and I hate it, number {}"}
    rows = [
        {
            "text": sentences[("glad", "cross")[i % 2]].format(i),
            "mood": ("glad", "cross")[i % 2] if i < 40 or i >= 140 else None,
            "split": "train" if i < 140 else "validation",
        }
        for i in range(180)
    ]
    ingest(workspace, "data", rows=rows, modality="text", label="mood", inputs=["text"])
    report = train_now(workspace, name="model", dataset="data", method="probe")["report"]
    assert any("self-trained" in one["name"] and one["value"] is not None for one in report["candidates"])
    assert any("100 examples without a label" in note for note in report["notes"])
