"""A training on pictures that is killed or paused ends in the same bits as one that is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.workspace.workspace import Workspace
from tests.models.language.vision_world import tiny_qwen
from tests.training.language.images_world import QUICK, make_colours
from tests.training.language.world import ends_alike, payload

pytestmark = pytest.mark.slow

WAYS: dict[str, dict[str, Any]] = {
    "lora": {"changes": "lora", "lora_dropout": 0.2, "eyes": "kept"},
    "full": {"changes": "full", "eyes": "learned"},
    "in parts": {"changes": "full", "eyes": "kept", "per_device_train_batch_size": 4},
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
        workspace, name="looker", dataset="seen", method="sft",
        hyperparameters=QUICK | {"num_train_epochs": 2} | WAYS[way],
        base_model=tiny_qwen(tmp_path / "base", dropout=0.1), resources={"cpu": 1},
    )  # fmt: skip
    ends_alike(workspace, asked, breaks)
