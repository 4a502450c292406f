"""A training on pictures that is killed or paused ends in the same bits as one that is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.jobs.run import Stopped
from speciate.workspace.workspace import Workspace
from tests.language.seeing_world import tiny_qwen
from tests.training.language.vision.seeing_world import QUICK, make_colours
from tests.training.language.world import Killed, attempt, broken_off, model_id, payload, run, saving_each_step

pytestmark = pytest.mark.slow

WAYS: dict[str, dict[str, Any]] = {
    "lora": {"changes": "lora", "dropout": 0.2, "eyes": "kept"},
    "full": {"changes": "full", "eyes": "learned"},
    "in parts": {"changes": "full", "eyes": "kept", "micro_batch": 4},
}
"""4 steps an epoch, two epochs."""


@pytest.mark.parametrize(
    ("way", "breaks"),
    [
        ("lora", [("kill", 3), ("pause", 6)]),
        ("full", [("pause", 1), ("kill", 4), ("kill", 7)]),
        ("in parts", [("kill", 5)]),
    ],
)
def test_a_training_that_is_broken_off_ends_in_the_same_bits(
    workspace: Workspace, tmp_path: Path, way: str, breaks: list[tuple[str, int]]
) -> None:
    make_colours(workspace)
    asked = payload(
        workspace, name="looker", dataset="seen", method="sft", hyperparameters=QUICK | {"epochs": 2} | WAYS[way],
        base_model=tiny_qwen(tmp_path / "base", dropout=0.1), resources={"cpu": 1},
    )  # fmt: skip
    whole = run(attempt(workspace, asked, "job-whole"))
    last = None
    with saving_each_step():
        for how, at in breaks:
            folder = attempt(workspace, asked, "job-broken", last)
            with broken_off(at, how), pytest.raises(Killed if how == "kill" else Stopped):
                run(folder)
            last = folder
        result = run(attempt(workspace, asked, "job-broken", last))
    assert model_id(result) == model_id(whole)
    assert result["report"]["training"] == whole["report"]["training"]
