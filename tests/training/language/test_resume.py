"""A training of a language model that is killed or paused ends in the same bits as one that is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.workspace.workspace import Workspace
from tests.training.language.world import base, ends_alike, make_pairs, make_sums, payload

pytestmark = pytest.mark.slow

WAYS: dict[str, dict[str, Any]] = {
    "lora": {"changes": "lora", "lora_dropout": 0.2},
    "full": {"changes": "full"},
    "packed": {"changes": "full", "packing": True, "max_length": 96},
    "in parts": {"changes": "lora", "per_device_train_batch_size": 4},
}
"""8 steps an epoch, two epochs; with packing fewer."""


def _asked(workspace: Workspace, folder: Path, way: str) -> dict[str, Any]:
    make_sums(workspace)
    given = {
        "num_train_epochs": 2,
        "batch_size": 10,
        "learning_rate": 3e-3,
        "max_new_tokens": 3,
        "judged": 4,
        **WAYS[way],
    }
    return dict(
        payload(
            workspace, name="adder", dataset="sums", method="sft", hyperparameters=given,
            base_model=base(folder / "base", dropout=0.1), resources={"cpu": 1},
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("way", "breaks"),
    [
        ("lora", [("kill", 3), ("pause", 8)]),
        ("full", [("pause", 1), ("kill", 8), ("kill", 11)]),
        ("packed", [("kill", 2)]),
        ("in parts", [("kill", 5), ("pause", 15)]),
    ],
)
def test_a_training_that_is_broken_off_ends_in_the_same_bits(
    workspace: Workspace, tmp_path: Path, way: str, breaks: list[tuple[str, int]]
) -> None:
    asked = _asked(workspace, tmp_path, way)
    ends_alike(workspace, asked, breaks)


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo", "simpo"])
def test_a_training_on_pairs_that_is_broken_off_ends_in_the_same_bits(
    workspace: Workspace, tmp_path: Path, method: str
) -> None:
    make_pairs(workspace)
    given = {"num_train_epochs": 2, "batch_size": 10, "learning_rate": 3e-3, "max_new_tokens": 3, "judged": 4}
    changes = {"changes": "full" if method == "dpo" else "lora"}
    asked = payload(
        workspace, name="adder", dataset="pairs", method=method, hyperparameters=given | changes,
        base_model=base(tmp_path / "base", dropout=0.1), resources={"cpu": 1},
    )  # fmt: skip
    ends_alike(workspace, asked, [("kill", 6)])


REWARDED: dict[str, tuple[str, dict[str, Any]]] = {
    "reward": (
        "reward",
        {"changes": "lora", "num_train_epochs": 2, "lora_dropout": 0.2, "center_rewards_coefficient": 0.01},
    ),
    "grpo": ("grpo", {"changes": "lora", "beta": 0.05}),
    "grpo twice": (
        "grpo",
        {"changes": "full", "num_iterations": 2, "loss_type": "dr_grpo", "scale_rewards": "batch", "beta": 0},
    ),
    "grpo sequences": (
        "grpo",
        {
            "changes": "full",
            "importance_sampling_level": "sequence",
            "epsilon_high": 0.28,
            "mask_truncated_completions": True,
        },
    ),
    "rloo": ("rloo", {"changes": "lora", "normalize_advantages": True, "per_device_train_batch_size": 4}),
    "ended by a limit": ("grpo", {"changes": "full", "judged": 0, "kl_limit": 0.001, "judge_every": 1}),
}
_OF_REWARDS: dict[str, Any] = {
    "max_steps": 8, "batch_size": 16, "num_generations": 4, "judge_every": 3, "max_new_tokens": 8,
    "rewards": [{"kind": "regex", "pattern": ".*[aeiou].*"}, {"kind": "exact", "weight": 2.0}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("way", "breaks"),
    [
        ("reward", [("kill", 3), ("pause", 8)]),
        ("grpo", [("kill", 1), ("pause", 3), ("kill", 7)]),
        ("grpo twice", [("pause", 3), ("kill", 6)]),  # the pause waits for new answers
        ("grpo sequences", [("kill", 5)]),
        ("rloo", [("pause", 2), ("kill", 6)]),
        ("ended by a limit", [("kill", 1)]),
    ],
)
def test_a_training_by_reward_that_is_broken_off_ends_in_the_same_bits(
    workspace: Workspace, tmp_path: Path, way: str, breaks: list[tuple[str, int]]
) -> None:
    make_pairs(workspace)
    method, given = REWARDED[way]
    usual = {"batch_size": 10, "learning_rate": 3e-3, "judged": 6} | (_OF_REWARDS if method != "reward" else {})
    asked = payload(
        workspace, name="pupil", dataset="pairs", method=method, hyperparameters=usual | given,
        base_model=base(tmp_path / "base", dropout=0.1), resources={"cpu": 1},
    )  # fmt: skip
    ends_alike(workspace, asked, breaks)
