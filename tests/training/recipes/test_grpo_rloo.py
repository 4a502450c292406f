"""Trainings by reward: what they learn, what they say of it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from speciate.errors import Code, SpeciateError
from speciate.jobs.run import Stopped
from speciate.training.networks.training_log import read_metrics
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
from tests.training.world import make_dataset, model_path, train_now

VOWELS = {"kind": "regex", "pattern": ".*[aeiou].*", "name": "vowels"}
"""What some answers of a model that knows nothing have."""

QUICK: dict[str, Any] = {
    "changes": "full", "max_steps": 6, "batch_size": 16, "num_generations": 4, "learning_rate": 1e-3,
    "max_new_tokens": 8,
    "judge_every": 3, "judged": 6,
}  # fmt: skip


def _run(workspace: Workspace, folder: Path, method: str, **given: Any) -> dict[str, Any]:
    asked = payload(
        workspace, name="pupil", dataset="pairs", method=method, hyperparameters=QUICK | given,
        base_model=base(folder / "base"), resources={"cpu": 1},
    )  # fmt: skip
    report: dict[str, Any] = run(attempt(workspace, asked, "job-x"))["report"]
    return report


def test_a_training_by_reward_is_judged_and_watched(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace, tested=[0, 6], prompt=[f"is {at % 58} good?" for at in range(60)])  # 58 is 0 again
    report = _run(workspace, tmp_path, "grpo")
    watched = report["watched"]
    assert watched["gain"]["best_of"] == 3
    assert "1 of 2 test questions stand in the training split" in " ".join(report["notes"])
    assert [each["step"] for each in watched["held"]] == [0, 3, 6]
    assert watched["begin"].keys() >= {"reward", "length", "cut", "kl", "entropy", "no_spread", "distinct", "alike"}
    assert watched["rewards"]["exact"]["asked"] == 6 * 16 + 3 * 6
    lines = read_metrics(workspace.folders.runs / "job-x.1" / "metrics.jsonl")
    assert lines[-1]["held_step"] == 6
    assert {"rewards/exact/mean", "completions/p95_length"} <= lines[-1].keys()
    assert any("nothing can be learned" in note for note in report["notes"])  # an untrained model says none of it


@pytest.mark.parametrize(("method", "how"), [("grpo", "kill"), pytest.param("rloo", "pause", marks=pytest.mark.slow)])
def test_a_training_by_reward_that_is_broken_off_ends_in_the_same_bits(
    workspace: Workspace, tmp_path: Path, method: str, how: str
) -> None:
    make_pairs(workspace)
    given = {"max_steps": 4, "judge_every": 2, "rewards": [VOWELS]}
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


def _colours(workspace: Workspace, name: str, rows: list[tuple[str, str, str]]) -> None:
    questions, answers, splits = zip(*rows, strict=True)
    make_dataset(
        workspace, name, "text", {"prompt": questions, "completion": answers}, labels=[""] * len(rows), splits=splits,
        inputs=["prompt"],
    )  # fmt: skip


ROWS = [
    (f"{colour} {at}?", answer, "validation" if at % 3 == 2 else "train")
    for at in range(90)
    for colour, answer in (("red", "yes"), ("blue", "no"))
]


def _taught(workspace: Workspace, folder: Path, rows: list[tuple[str, str, str]]) -> str:
    """A model that learned these answers, as a folder: nothing of it is known to have seen held-out rows."""
    _colours(workspace, "taught", rows)
    train_now(
        workspace, "job-base", name="says", dataset="taught", method="sft", base_model=base(folder / "base"),
        hyperparameters={
            "changes": "full", "num_train_epochs": 6, "batch_size": 16, "learning_rate": 5e-3, "judged": 0,
            "max_new_tokens": 4,
        },
    )  # fmt: skip
    return f"path:{model_path(workspace, 'says')}"


def _by_reward(workspace: Workspace, base_model: str, method: str, **given: Any) -> dict[str, Any]:
    _colours(workspace, "wanted", ROWS)
    usual = {
        "changes": "full", "max_new_tokens": 4, "num_train_epochs": 4, "batch_size": 64, "judge_every": 15,
        "judged": 60,
        "beta": 0.01,
    }  # fmt: skip
    report: dict[str, Any] = train_now(
        workspace, "job-pupil", name="pupil", dataset="wanted", method=method, base_model=base_model,
        hyperparameters=usual | given,
    )["report"]  # fmt: skip
    return report


@pytest.mark.slow
@pytest.mark.parametrize(("method", "rate"), [("grpo", 2e-3), ("rloo", 1e-3)])
def test_the_exact_reward_rises_from_chance(workspace: Workspace, tmp_path: Path, method: str, rate: float) -> None:
    """A model that says yes as often as no, whatever it is asked, learns from a number alone when which is wanted."""
    both = [(asked, said, "train") for asked, _, split in ROWS if split == "train" for said in ("yes", "no")]
    report = _by_reward(workspace, _taught(workspace, tmp_path, both), method, learning_rate=rate)
    watched = report["watched"]
    assert watched["held"][0]["metric"] == pytest.approx(0.5, abs=0.15)
    assert watched["gain"]["interval"][0] > 0
    assert report["validation"]["value"] > 0.9
    assert watched["end"]["reward"] > watched["begin"]["reward"] + 0.2
    assert watched["warnings"] == []
    greedy, drawn = watched["held"][-1]["length"], watched["end"]["length"]
    assert greedy == pytest.approx(drawn, abs=0.5), "the end of an answer counts in both, or in neither"


@pytest.mark.slow
@pytest.mark.parametrize("stop", [False, True])
def test_a_reward_that_is_not_what_is_wanted_is_found_out(workspace: Workspace, tmp_path: Path, stop: bool) -> None:
    """A model that knows when yes is right is paid for each yes: what is kept is the model before that."""
    taught = _taught(workspace, tmp_path, [row for row in ROWS for _ in range(2) if row[2] == "train"])
    paid = [{"kind": "regex", "pattern": "yes"}]
    report = _by_reward(workspace, taught, "grpo", learning_rate=3e-3, rewards=paid, stop_on_hacking=stop)
    held = report["watched"]["held"]
    print([(each["step"], each["reward"], each["metric"]) for each in held], report["training"])
    assert held[0]["metric"] > 0.9
    assert held[-1]["reward"] > held[0]["reward"] + 0.3
    assert held[-1]["metric"] < held[0]["metric"] - 0.3
    assert "metric_falls" in [each["pattern"] for each in report["watched"]["warnings"]]
    assert any(note.startswith("Suspicious: on held-out examples the reward rose") for note in report["notes"])
    assert report["validation"]["value"] == pytest.approx(held[0]["metric"])
    assert report["training"]["ended"] == ("limit" if stop else "finished")
    assert report["training"]["steps"] == (held[-1]["step"] if stop else 60)


@pytest.mark.parametrize(
    ("given", "columns", "why", "how"),
    [
        ({"batch_size": 10}, {}, "no whole number of questions with 4 answers", "'batch_size': 8"),
        ({"kl_limit": 0.1, "beta": 0}, {}, "not measured where beta is 0", "0.001"),
        ({"batch_size": 400}, {}, "A step asks 100 questions, and pairs@v1 has 50", "'batch_size': 200} or less"),
        ({}, {"chosen": None}, "'exact' compares with the true answer, and pairs@v1 has none", "'kind': 'model'"),
        ({"rewards": [{"kind": "numeric"}]}, {"chosen": None}, "'numeric' compares", "target"),
        ({"rewards": [{"kind": "code"}]}, {}, "reads the column 'tests', which pairs@v1 does not have", "`column`"),
        ({"rewards": [{"kind": "code", "column": "prompt"}]}, {}, "would see what it is judged by", "inputs"),
    ],
)
def test_a_training_by_reward_that_cannot_be_is_refused_before_a_job(
    workspace: Workspace, tmp_path: Path, given: dict[str, Any], columns: dict[str, Any], why: str, how: str
) -> None:
    make_pairs(workspace, **columns)
    with pytest.raises(SpeciateError) as refusal:
        payload(
            workspace, name="pupil", dataset="pairs", method="grpo", hyperparameters=QUICK | given,
            base_model=base(tmp_path / "base"),
        )  # fmt: skip
    assert refusal.value.code == Code.INVALID
    assert why in refusal.value.message
    assert how in refusal.value.recovery


def test_a_limit_ends_it_at_the_last_weights_of_which_nothing_is_suspicious(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Nothing is held out, and the first step is too far: what is kept is the base model."""
    make_pairs(workspace)
    folder = tmp_path / "base"
    asked = payload(
        workspace, name="pupil", dataset="pairs", method="grpo", base_model=base(folder), resources={"cpu": 1},
        hyperparameters=QUICK | {"judged": 0, "length_limit": 1.5, "rewards": [VOWELS]},
    )  # fmt: skip
    made = attempt(workspace, asked, "job-x")
    report = run(made)["report"]
    assert report["training"]["ended"] == "limit"
    assert report["training"]["steps"] == 1
    assert "length_limit=1.5" in report["watched"]["stopped"]
    assert any("ended at step 1" in note and "of step 0" in note for note in report["notes"])
    begun, kept = (load_file(each / "model.safetensors") for each in (folder, made.outputs / "model"))
    assert all(np.array_equal(kept[name], value) for name, value in begun.items())


def test_examples_without_a_truth_are_asked_where_no_reward_needs_one(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace, chosen=None)
    report = _run(workspace, tmp_path, "grpo", max_steps=1, rewards=[VOWELS])
    assert report["validation"]["value"] is None
    assert [sorted(each) for each in report["watched"]["held"]] == [["length", "reward", "step"]] * 2
    assert report["watched"]["gain"] is None


def test_questions_that_leave_no_room_for_an_answer_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace, prompt=["is it good? " * 60] * 60)
    with pytest.raises(SpeciateError, match="0 of 50 training questions have at most 248 tokens"):
        _run(workspace, tmp_path, "grpo")


def test_a_reward_that_raises_ends_the_run_by_name(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace)
    (tmp_path / "bad.py").write_text(
        "def bad(questions, answers, truths, columns):\n    raise RuntimeError('broken')\n"
    )
    reward = {"kind": "python", "file": f"{tmp_path}/bad.py:bad", "name": "mine"}
    with pytest.raises(SpeciateError, match=r"'mine'.*raised.*broken"):
        _run(workspace, tmp_path, "grpo", rewards=[reward])


def test_rewards_that_tell_nothing_apart_are_said_so_though_distance_is_taken_from_them(
    workspace: Workspace, tmp_path: Path
) -> None:
    """rloo puts the distance to the base model into the reward, and that differs from answer to answer."""
    make_pairs(workspace)
    never = {"kind": "regex", "pattern": "never said"}
    report = _run(workspace, tmp_path, "rloo", rewards=[never], beta=5.0, learning_rate=1e-2, max_steps=4, judged=0)
    assert report["watched"]["end"]["no_spread"] == 1.0
    assert any("get the same reward" in note for note in report["notes"])
