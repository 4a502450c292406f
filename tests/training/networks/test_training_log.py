"""The picture of a training: which panels it has."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from speciate.training.networks.training_log import curve_image

LOSS: dict[str, Any] = {"step": 1, "loss": 0.5}
REWARD: dict[str, Any] = {**LOSS, "reward": 0.1, "completions/mean_length": 9.0, "entropy": 1.0}


@pytest.mark.parametrize(
    ("lines", "across", "down"),
    [
        ([], 1, 1),
        ([LOSS, {**LOSS, "step": 2, "held_loss": 0.4, "held_value": 0.4}], 1, 1),
        ([LOSS, {**LOSS, "step": 2, "held_loss": 0.4, "held_value": 0.9}], 2, 1),
        ([REWARD], 3, 2),  # loss, reward, length; entropy
        ([REWARD | {"kl": 0.1, "held_step": 0, "held_value": 0.2, "completions/clipped_ratio": 0.0}], 3, 3),
    ],
)
def test_a_training_by_reward_has_a_panel_for_each_thing_that_is_watched(
    lines: list[dict[str, Any]], across: int, down: int
) -> None:
    assert Image.open(io.BytesIO(curve_image(lines))).size == (480 * across, 300 * down)
