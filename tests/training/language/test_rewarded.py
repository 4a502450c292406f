"""Trainings by reward: what they learn, what they say of it, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from speciate.jobs.run import Stopped
from speciate.training.network.metrics import read
from speciate.workspace.workspace import Workspace
from tests.training.language.world import (
    Killed,
    attempt,
    base,
    broken_off,
    make_pairs,
    model_id,
    payload,
    run,
    saving_each_step,
)  # fmt: skip
from tests.training.world import make_dataset, train_now

VOWELS = {"kind": "regex", "pattern": ".*[aeiou].*", "name": "vowels"}
"""What some answers of a model that knows nothing have."""

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


@pytest.mark.parametrize(("method", "how"), [("grpo", "kill"), ("rloo", "pause")])
def test_a_training_by_reward_that_is_broken_off_ends_in_the_same_bits(
    workspace: Workspace, tmp_path: Path, method: str, how: str
) -> None:
    make_pairs(workspace)
    given = {"steps": 4, "judge_every": 2, "rewards": [VOWELS]}
    asked = payload(
        workspace, name="pupil", dataset="pairs", method=method, hyperparameters=QUICK | given,
        base_model=base(tmp_path / "base", dropout=0.1), resources={"cpu": 1},
    )  # fmt: skip
    whole = run(attempt(workspace, asked, "job-whole"))
    with saving_each_step():
        folder = attempt(workspace, asked, "job-broken")
        with broken_off(3, how), pytest.raises(Killed if how == "kill" else Stopped):
            run(folder)
        result = run(attempt(workspace, asked, "job-broken", folder))
    assert model_id(result) == model_id(whole)
    assert result["report"]["watched"] == whole["report"]["watched"]


def _colours(workspace: Workspace, name: str, answers: list[str]) -> None:
    """Is a red or a blue one good? In turn; every third question is held out."""
    asked = [f"is {('red', 'blue')[at % 2]} {at // 2} good?" for at in range(len(answers))]
    splits = ["validation" if at // 2 % 3 == 2 else "train" for at in range(len(answers))]
    make_dataset(
        workspace, name, "text", {"prompt": asked, "completion": answers}, labels=[""] * len(answers), splits=splits,
        inputs=["prompt"],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_exact_reward_rises_from_chance(workspace: Workspace, tmp_path: Path, method: str) -> None:
    """A model that says yes or no by chance learns from a number alone which is wanted."""
    chance = random.Random(0)
    _colours(workspace, "chance", [chance.choice(("yes", "no")) for _ in range(180)])
    _colours(workspace, "wanted", ["yes", "no"] * 90)
    train_now(
        workspace, "job-base", name="says", dataset="chance", method="sft", base_model=base(tmp_path / "base"),
        hyperparameters={
            "changes": "full", "epochs": 6, "batch_size": 16, "learning_rate": 3e-3, "max_new_tokens": 4, "judged": 0,
        },
    )  # fmt: skip
    report = train_now(
        workspace, "job-pupil", name="pupil", dataset="wanted", method=method, base_model="says@v1",
        hyperparameters={
            "changes": "full", "epochs": 4, "batch_size": 64, "generations": 8, "learning_rate": 1e-3,
            "max_new_tokens": 4, "judge_every": 15, "judged": 60, "beta": 0.01,
        },
    )["report"]  # fmt: skip
    watched = report["watched"]
    print(watched)
    assert watched["held"][0]["metric"] < 0.7
    assert watched["gain"]["interval"][0] > 0
    assert report["validation"]["value"] > 0.9
    assert watched["end"]["reward"] > watched["begin"]["reward"] + 0.2
