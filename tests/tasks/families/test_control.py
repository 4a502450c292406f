"""Behaviour cloning: what is asked, what is learned of each step, and by what actions are judged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.errors import SpeciateError
from speciate.evaluation.metrics import contributions, judged
from speciate.modalities.robotics.episode import EPISODE
from speciate.models import estimators
from speciate.models.estimators import UnitRows, side_by_side
from speciate.tasks.families.control import Control, StepStates
from speciate.tasks.task import TaskTerms
from speciate.training.recipes import structured_learners
from speciate.vocabulary import find_metric

TERMS = TaskTerms()


def example(steps: int = 20, draw: int = 0, name: str = "ex-1", **columns: Any) -> Example:
    """The action is the state turned round, doubled."""
    state = np.random.default_rng(draw).normal(size=(steps, 3))
    media = EPISODE.admit({"state": state.tolist(), "action": (-2 * state[:, :2]).tolist()})
    return Example(name, media, None, name, "train", columns)


def posed(one: Example) -> Any:
    found = Control.evaluation_example(one, None, TERMS)
    assert found is not None
    return found


def test_a_question_shows_no_action() -> None:
    question = posed(example())
    assert question.example.media["action"].shape == (20, 0)
    assert question.example.media["about"]["action"] == []
    assert np.shape(question.target["actions"]) == (20, 2)


def test_an_episode_without_actions_has_no_target() -> None:
    blind = example()
    blind.media["action"] = np.zeros((20, 0), np.float32)
    assert Control.evaluation_example(blind, None, TERMS) is None


def test_only_the_beginning_of_an_episode_is_where_a_seed_puts_a_model() -> None:
    assert posed(example(environment="reach", seed=7)).target["seed"] == 7
    assert "seed" not in posed(example(environment="reach", seed=7, window_start=8.0)).target
    assert "seed" not in posed(example(environment="reach")).target


def test_training_examples_are_pieces_that_together_are_the_episode() -> None:
    lessons = Control.training_examples(example(7), None, TERMS)
    assert [len(lesson.target["actions"]) for lesson in lessons] == [2, 2, 2, 1]
    assert len({lesson.example.id for lesson in lessons}) == 4
    whole = posed(example(7)).target["actions"]
    assert [action for lesson in lessons for action in lesson.target["actions"]] == whole


def test_robots_with_other_actions_are_not_learned_together() -> None:
    targets = [{"actions": [[0.0, 1.0]]}, {"actions": [[0.0]]}]
    with pytest.raises(SpeciateError, match="from 1 to 2 numbers"):
        Control.fit(targets, {})
    one, other = example(), example()
    other.media["state"] = other.media["state"][:, :2]
    with pytest.raises(SpeciateError, match="from 2 to 3 numbers"):
        StepStates.fit([one, other])
    with pytest.raises(SpeciateError, match="measures 2 numbers; the model has learned from 3"):
        StepStates.fit([one]).encode([other])


@pytest.mark.parametrize("learner", ["_control_ridge", "_nearest_states", "_control_boosting"])
def test_a_learner_answers_for_each_step_and_survives_being_saved(
    tmp_path: Path, learner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Episodes of different and of equal length."""
    monkeypatch.setattr(structured_learners, "_CONTROL_TREES", 20)
    examples = [example(steps, draw, f"ex-{draw}") for draw, steps in enumerate((40, 40, 60))]
    task_head = Control.fit([posed(one).target for one in examples], {})
    represent = StepStates.fit(examples)
    inputs, encoded = represent.encode(examples), task_head.encode_targets([posed(one).target for one in examples])
    fitted = structured_learners._per_step(getattr(structured_learners, learner))(inputs, encoded, 0)
    estimators.save(fitted, tmp_path / "estimator.safetensors")
    again = estimators.load(tmp_path / "estimator.safetensors")
    scores = again.scores(inputs)
    assert [each.shape for each in scores] == [(40, 2), (40, 2), (60, 2)]
    error = np.abs(np.concatenate(list(scores)) - np.concatenate(list(encoded))).mean()
    assert error < 0.4
    made = task_head.predictions(list(scores))
    assert np.shape(made[2].output["actions"]) == (60, 2)
    alone = again.scores(represent.encode(examples[:1]))
    assert alone[0] == pytest.approx(scores[0])


def test_trees_side_by_side_give_what_each_gives_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structured_learners, "_CONTROL_TREES", 5)
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(200, 4))
    each = [structured_learners._control_trees(rows, rows[:, place] ** 2, 0) for place in range(3)]
    together = side_by_side(each).scores(rows)
    assert together == pytest.approx(np.concatenate([one.scores(rows) for one in each], axis=1))


def test_products_let_a_sum_learn_what_a_state_alone_does_not_tell() -> None:
    one = example(300)
    one.media["action"] = (one.media["state"][:, :1] * one.media["state"][:, 1:2]).astype(np.float32)
    encoded = [one.media["action"].astype(np.float64)]
    errors = []
    for products in (False, True):
        inputs = StepStates.fit([one], products=products).encode([one])
        assert isinstance(inputs, UnitRows)
        scores = structured_learners._per_step(structured_learners._control_ridge)(inputs, encoded, 0).scores(inputs)
        errors.append(float(np.abs(scores[0] - encoded[0]).mean()))
    assert errors[1] < errors[0] / 10


def _scores(metric: str, targets: list[Any], given: list[Any]) -> list[float]:
    answers = judged("control", targets, given, [None] * len(given), ())
    return [float(score) for score in contributions(find_metric(metric), answers)]


def test_errors_are_means_over_an_episode() -> None:
    """So that a long one counts like a short one, and answers of models are paired episode by episode."""
    targets = [{"actions": [[0.0, 0.0], [2.0, 0.0]]}, {"actions": [[1.0, 1.0]]}]
    given = [{"actions": [[0.0, 0.0], [0.0, 0.0]]}, {"actions": [[0.0, 1.0]]}]
    assert _scores("action_mae", targets, given) == [0.5, 0.5]
    assert _scores("action_mse", targets, given) == [1.0, 0.5]


def test_no_answer_is_the_worst_of_all() -> None:
    targets = [{"actions": [[0.0], [2.0]]}, {"actions": [[1.0]]}]
    assert _scores("action_mae", targets, [None, {"actions": [[1.0], [1.0]]}]) == [2.0, 1.0]
    assert _scores("action_mae", targets, [{"actions": [[math.nan], [0.0]]}, {"wrong": 1}]) == [2.0, 1.0]


def test_success_counts_where_there_is_somewhere_to_act() -> None:
    placed, elsewhere = {"actions": [[0.0]], "environment": "reach", "seed": 3}, {"actions": [[0.0]]}
    given: list[Any] = [
        {"actions": [[0.0]], "rollout": {"success": 1}}, {"actions": [[0.0]], "rollout": {"success": 0}}, None,
        {"actions": [[0.0]]}, {"actions": [[0.0]], "rollout": {"success": 1}},
    ]  # fmt: skip
    found = _scores("success_rate", [placed, placed, placed, placed, elsewhere], given)
    assert found[:4] == [1, 0, 0, 0]
    assert math.isnan(found[4])
