"""Trainings by reward: what they learn, what they say of it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.training.network.metrics import read
from speciate.workspace.workspace import Workspace
from tests.training.language.world import attempt, base, make_pairs, payload, run

QUICK: dict[str, Any] = {
    "changes": "full", "steps": 6, "batch_size": 16, "generations": 4, "learning_rate": 1e-3, "max_new_tokens": 8,
    "judge_every": 3, "judged": 6,
}  # fmt: skip


def _run(workspace: Workspace, folder: Path, method: str, **given: Any) -> dict[str, Any]:
    asked = payload(
        workspace, name="pupil", dataset="pairs", method=method, hyperparameters=QUICK | given,
        base_model=base(folder / "base"), resources={"cpu": 1},
    )  # fmt: skip
    report: dict[str, Any] = run(attempt(workspace, asked, "job-x"))["report"]
    return report


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_a_training_by_reward_is_judged_and_watched(workspace: Workspace, tmp_path: Path, method: str) -> None:
    make_pairs(workspace)
    report = _run(workspace, tmp_path, method)
    watched = report["watched"]
    assert [each["step"] for each in watched["held"]] == [0, 3, 6]
    assert watched["begin"].keys() >= {"reward", "length", "cut", "kl", "entropy", "no_spread", "distinct", "alike"}
    assert watched["rewards"]["exact"]["asked"] == 6 * 16 + 3 * 6
    lines = read(workspace.folders.runs / "job-x.1" / "metrics.jsonl")
    assert lines[-1]["held_step"] == 6
    assert {"rewards/exact/mean", "completions/p95_length"} <= lines[-1].keys()
    assert any("nothing can be learned" in note for note in report["notes"])  # an untrained model says none of it
