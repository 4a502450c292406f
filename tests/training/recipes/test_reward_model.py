"""Reward models: what they learn of pairs, what they say, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.loading.loader import Example
from speciate.errors import SpeciateError
from speciate.evaluation import evaluate
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.modalities.messages import Message
from speciate.models import registry
from speciate.models.language import causal_lm
from speciate.models.language.chat_templates import ChatFormat
from speciate.server.option_catalog import list_options
from speciate.tasks import predictor
from speciate.tasks.families.preference import AnswerPair, pair_text, parse_pair, preferred_answer
from speciate.tasks.language_predictor import RewardPredictor
from speciate.training.planning.training_plan import plan_training
from speciate.workspace.workspace import Workspace
from tests.models.language.world import messages, tiny_tokenizer
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
)
from tests.training.world import model_path, train_now

QUICK: dict[str, Any] = {"changes": "full", "num_train_epochs": 3, "batch_size": 10, "learning_rate": 3e-3}


def _train(workspace: Workspace, folder: Path, **more: Any) -> dict[str, Any]:
    report: dict[str, Any] = train_now(
        workspace, "job-x", name="judge", dataset="pairs", method="reward", base_model=base(folder / "base"),
        hyperparameters=QUICK | more,
    )["report"]  # fmt: skip
    return report


def _example(text: str) -> Example:
    return Example("x", text, None, "x", "test", {})


@pytest.mark.parametrize("changes", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_reward_model_tells_held_out_pairs_apart_and_gives_numbers(
    workspace: Workspace, tmp_path: Path, changes: str
) -> None:
    make_pairs(workspace)
    report = _train(workspace, tmp_path, changes=changes)
    assert report["validation"]["value"] == 1.0
    assert report["metric"] == "accuracy"
    assert report["training"]["held"]["accuracy"] == 1.0
    card = registry.resolve(workspace.database, workspace.folders, "judge").card
    assert (card.task, card.method) == ("preference", "reward")
    judge = predictor.load(model_path(workspace, "judge"))
    good, bad = (judge.predict([_example(messages("is 7 good?", said))])[0].output for said in ("yes", "no"))
    assert good > bad
    asked = (Message("user", "is 7 good?"),)
    first, second = judge.predict(
        [_example(pair_text(AnswerPair(asked, "yes", "no"))), _example(pair_text(AnswerPair(asked, "no", "yes")))]
    )
    assert (first.output, second.output) == ("first", "second")
    assert first.probabilities is not None
    assert second.probabilities is not None
    assert first.probabilities["first"] == pytest.approx(second.probabilities["second"])


@pytest.mark.slow(reason="the trainer that goes on is that of test_grpo_rloo.py and test_distill_language.py")
def test_a_reward_model_that_is_broken_off_ends_in_the_same_bits(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace)
    asked = payload(
        workspace, name="judge", dataset="pairs", method="reward", base_model=base(tmp_path / "base", dropout=0.1),
        hyperparameters=QUICK | {"max_steps": 4, "judged": 4}, resources={"cpu": 1},
    )  # fmt: skip
    whole = run(attempt(workspace, asked, "job-whole"))
    with saving_each_step():
        folder = attempt(workspace, asked, "job-broken")
        with broken_off(2, "kill"), pytest.raises(Killed):
            run(folder)
        result = run(attempt(workspace, asked, "job-broken", folder))
    assert model_id(result) == model_id(whole)


def test_pairs_of_the_same_answers_are_left_out_and_said(workspace: Workspace, tmp_path: Path) -> None:
    """Every fifth training pair, whose answers differ by case and spaces alone; one has no worse answer."""
    worse: list[str | None] = [("Yes ", "SURE")[at % 2] if at % 5 == 0 else "no" for at in range(60)]
    worse[1] = None
    asked = [f"is {4 if at == 2 else at} good?" for at in range(60)]
    make_pairs(workspace, tested=[4], prompt=asked, rejected=worse)
    report = _train(workspace, tmp_path, max_steps=1)
    assert "13 examples without two different answers were excluded." in report["notes"]
    assert "1 of 1 test pairs stand in the training split as well" in " ".join(report["notes"])
    assert report["examples"] == 59 - 13


@pytest.mark.parametrize(
    ("columns", "more", "why"),
    [
        ({"rejected": None}, {}, "no column 'rejected'"),
        ({}, {"task": "text-classification"}, "'reward' alone learns 'preference'"),
        ({}, {"method": "sft", "task": "preference"}, "'reward' alone learns 'preference'"),
    ],
)
def test_what_is_no_training_of_a_reward_model_is_refused_before_a_job(
    workspace: Workspace, tmp_path: Path, columns: dict[str, Any], more: dict[str, Any], why: str
) -> None:
    make_pairs(workspace, **columns)
    asked = {"name": "judge", "dataset": "pairs", "method": "reward", "base_model": base(tmp_path / "base")} | more
    with pytest.raises(SpeciateError, match=why):
        payload(workspace, **asked)


def test_pairs_that_are_none_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace, rejected=["Yes", "sure"] * 30)
    with pytest.raises(SpeciateError, match="No training example of pairs@v1 has two different answers"):
        _train(workspace, tmp_path)


def test_a_judge_is_evaluated_on_pairs_alone(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace)
    _train(workspace, tmp_path, max_steps=1)
    plan = evaluate.plan(EvaluateSpec(models=("judge", "constant:"), dataset="pairs:validation"), workspace)
    assert (plan.payload_json()["task"], plan.payload_json()["target_column"]) == ("preference", "chosen")
    make_pairs(workspace, "single", rejected=None)
    with pytest.raises(SpeciateError, match="'rejected'"):
        evaluate.plan(EvaluateSpec(models=("judge",), dataset="single:validation"), workspace)


def test_a_text_without_an_answer_is_not_judged(workspace: Workspace, tmp_path: Path) -> None:
    model, tokenizer = (
        causal_lm.load_scoring_model(Path(base(tmp_path / "base").removeprefix("path:")), 0).model,
        tiny_tokenizer(),
    )
    judge = RewardPredictor(model, tokenizer, ChatFormat())
    with pytest.raises(SpeciateError, match="no answer in this text"):
        judge.predict([_example("is it good?")])
    with pytest.raises(SpeciateError, match="cannot judge this") as refusal:
        judge.predict([_example(messages("is it good?", "yes " * 400))])
    assert "where the model can see 256" in refusal.value.foreign


@pytest.mark.parametrize("text", ["", "{", "[]", '{"asked": 1}', '{"asked": [], "first": 1, "second": 2}', "{" * 9999])
def test_what_is_no_pair_is_read_as_none(text: str) -> None:
    assert parse_pair(text) is None


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_chances_of_a_pair_are_those_of_the_pair_the_other_way_round(one: float, other: float) -> None:
    there, back = preferred_answer(one, other).probabilities, preferred_answer(other, one).probabilities
    assert there is not None
    assert back is not None
    assert there["first"] == pytest.approx(back["second"])
    assert sum(there.values()) == pytest.approx(1)


def test_one_method_does_it_and_is_planned(workspace: Workspace, tmp_path: Path) -> None:
    assert [each.name for each in list_options("method", task="preference")] == ["reward"]
    make_pairs(workspace)
    where = base(tmp_path / "base")
    for asked in ({"task": "preference"}, {"method": "reward"}):
        plan = plan_training(workspace, "pairs", base_model=where, **asked)
        assert [(each.method, each.hyperparameters["center_rewards_coefficient"]) for each in plan.candidates] == [
            ("reward", 0.0)
        ]
    plan = plan_training(workspace, "pairs", method="grpo", base_model=where)
    assert plan.candidates[0].hyperparameters["num_generations"] == 8
