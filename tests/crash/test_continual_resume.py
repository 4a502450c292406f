"""Trainings that go on from a model, or learn from one, end in the same bits after kills and pauses as when left alone.

What is replayed is drawn again by each attempt, what another model says is asked again or found in the cache, and what
mattered of old weights is computed again: all of it must be the same.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.crash.test_training_resume import TINY, World, _killed, _paused, _steps, world
from tests.data import ingest
from tests.training.recipes.test_continual import points

pytestmark = [pytest.mark.durable, pytest.mark.slow]

__all__ = ["world"]  # the fixture
LEARN: dict[str, Any] = TINY | {"num_train_epochs": 12, "early_stopping_patience": 12, "learning_rate": [1e-3]}


@pytest.fixture(scope="module")
def begun(world: World) -> World:
    """`old@v1` knows a and b of `points-ab`."""
    for labels in ("ab", "cd"):
        ingest(world.workspace, f"points-{labels}", rows=points(labels, 96), label="label", inputs=list("xyz"))
    spec = {"name": "old", "dataset": "points-ab", "method": "full", "base_model": "new:tab-resnet"}
    world.ended(world.engine.submit("train", spec | {"hyperparameters": LEARN}).id)
    return world


@pytest.mark.slow
@pytest.mark.parametrize("method", ["replay", "der", "lwf", "ewc", "distill"])
def test_after_kills_and_pauses_it_ends_in_the_same_model(begun: World, method: str) -> None:
    if method == "distill":
        how = {"dataset": "points-ab", "base_model": "new:tab-resnet", "teacher": "old@v1", "hyperparameters": LEARN}
    else:
        how = {"dataset": "points-cd", "continue_from": "old@v1", "hyperparameters": LEARN | {"keep": "last"}}
    spec = {"method": method, **how}
    whole = begun.ended(begun.submit("train", spec))
    card, total, chance = begun.card(whole), _steps(whole), random.Random(method)
    for interrupted in (_killed, _paused):
        job, at = interrupted(begun, spec, total, 2, chance)
        assert at, "it ended before it could be broken"
        assert _steps(job) <= total + len(at)
        assert begun.card(job).id == card.id
        if method in ("replay", "der"):
            rows = [each.result["report"]["replay"] for each in (job, whole) if each.result]
            assert rows[0]["labels"] == rows[1]["labels"] == {"a": 24, "b": 24}
