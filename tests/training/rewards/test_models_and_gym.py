"""Rewards in a run: a reward model, and a task of reasoning-gym from its questions to a training by its own scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.models.language import causal_lm, chat_templates
from speciate.sandbox import is_complete
from speciate.tasks.language_predictor import RewardPredictor, load_reward_model
from speciate.workspace.workspace import Workspace
from tests.data import ingest
from tests.models.language.world import tiny_model
from tests.training.language.world import attempt, payload, run
from tests.training.rewards.opened import QUESTION, ask, opened


def judge(folder: Path) -> str:
    """A tiny reward model, sealed; its id."""
    base = Path(tiny_model(folder / "base").removeprefix("path:"))
    tokenizer = causal_lm.load_tokenizer(base)
    form = chat_templates.usual_format(tokenizer)
    return RewardPredictor(causal_lm.load_scoring_model(base, 1).model, tokenizer, form).save(folder / "judge")


def test_a_reward_model_gives_its_numbers_and_one_answer_that_is_too_long_costs_only_itself(tmp_path: Path) -> None:
    sealed = judge(tmp_path)
    spec = {"kind": "model", "model": "judge@v1", "folder": str(tmp_path / "judge"), "sealed": sealed}
    with opened(tmp_path, spec) as reward:
        one, other = ask(reward, ["yes", "no"])
        assert [one, other] == pytest.approx(
            load_reward_model(tmp_path / "judge").numbers([(QUESTION, "yes"), (QUESTION, "no")])
        )
        assert one != other
        again, missed = ask(reward, ["yes", "no " * 5000])
        assert again == pytest.approx(one)
        assert missed is None
        assert reward.failures.counted == {"raised": 1}
    with pytest.raises(SpeciateError, match="another model") as refused, opened(tmp_path, spec | {"sealed": "0" * 64}):
        pass
    assert refused.value.code is Code.CONFLICT


@pytest.mark.slow
@pytest.mark.skipif(not is_complete(), reason="this kernel has no sandbox")
def test_a_task_of_reasoning_gym_is_trained_on_by_its_own_scores(workspace: Workspace, tmp_path: Path) -> None:
    made = ingest(workspace, "sums", source="gym:chain_sum?train=40&validation=8&test=8&max_terms=2&max_digits=1")
    assert (made.label, made.inputs, made.splits) == (
        "answer",
        ("question",),
        {"train": 40, "validation": 8, "test": 8},
    )
    asked = payload(
        workspace, name="pupil", dataset="sums", method="grpo", base_model=tiny_model(tmp_path / "base"),
        resources={"cpu": 1},
        hyperparameters={
            "rewards": [{"kind": "gym"}, {"kind": "exact", "weight": 0.5}], "changes": "full", "max_steps": 2,
            "batch_size": 8, "num_generations": 4, "max_new_tokens": 4, "judge_every": 1, "judged": 4,
        },
    )  # fmt: skip
    report = run(attempt(workspace, asked, "job-gym"))["report"]
    told = report["watched"]["rewards"]
    assert told["gym"]["failures"] == told["exact"]["failures"] == {}
    assert told["gym"]["asked"] == told["exact"]["asked"] >= 16
