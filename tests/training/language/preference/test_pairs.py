"""Methods that learn from pairs: which way they move a model, and what is no pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests.language.world import messages
from tests.training.language.world import attempt, base, make_pairs, payload, run

GIVEN = {"changes": "full", "epochs": 3, "batch_size": 10, "learning_rate": 2e-3, "max_new_tokens": 4, "judged": 0}


def _run(workspace: Workspace, folder: Path, method: str, **given: Any) -> dict[str, Any]:
    asked = payload(
        workspace, name="chooser", dataset="pairs", method=method, hyperparameters=GIVEN | given,
        base_model=base(folder / "base"), resources={"cpu": 1},
    )  # fmt: skip
    report: dict[str, Any] = run(attempt(workspace, asked, "job-x"))["report"]
    return report


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("dpo", {}), ("dpo", {"loss": "ipo"}), ("dpo", {"imitation": 0.5, "smoothing": 0.1, "loss": "robust"}),
        ("orpo", {}), ("simpo", {}),
    ],
)  # fmt: skip
def test_the_better_answer_of_held_out_pairs_becomes_likelier(
    workspace: Workspace, tmp_path: Path, method: str, given: dict[str, Any]
) -> None:
    make_pairs(workspace)
    held = _run(workspace, tmp_path, method, **given)["training"]["held"]
    assert held["rewards/accuracies"] == 1.0
    assert held["rewards/margins"] > 0


def test_good_answers_become_likelier_than_bad_ones(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace)
    held = _run(workspace, tmp_path, "kto")["training"]["held"]
    assert held["rewards/chosen"] > held["rewards/rejected"]


def test_what_is_no_pair_is_left_out_and_said(workspace: Workspace, tmp_path: Path) -> None:
    """Every fifth has the same answers, one has none; a whole conversation stands for its last turn."""
    same = ("Yes ", "SURE")
    worse: list[str | None] = [same[at % 2] if at % 5 == 0 else "no" for at in range(60)]
    worse[1], worse[2] = None, messages("is 2 good?", "no")
    make_pairs(workspace, rejected=worse)
    notes = " ".join(_run(workspace, tmp_path, "dpo", steps=1)["notes"])
    assert "1 training examples have no 'rejected' and are left out" in notes
    assert "10 training examples have two answers that are the same and are left out" in notes


def test_pairs_that_are_none_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace, rejected=["Yes", "sure"] * 30)
    with pytest.raises(SpeciateError, match="No training example of pairs@v1 has two different answers"):
        _run(workspace, tmp_path, "dpo")


def test_a_column_that_is_not_there_is_refused_before_a_job(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace)
    with pytest.raises(SpeciateError, match="no column 'worse'") as refusal:
        _run(workspace, tmp_path, "dpo", rejected="worse")
    assert "rejected" in refusal.value.message + refusal.value.recovery
