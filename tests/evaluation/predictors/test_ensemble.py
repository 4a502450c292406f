from __future__ import annotations

import pytest

from speciate.errors import SpeciateError
from speciate.evaluation.compare_models import Cost
from speciate.evaluation.predictors.answering import Answer
from speciate.evaluation.predictors.by_source import combine_answers, combine_costs, combine_repeats
from speciate.workspace.workspace import Workspace
from tests.evaluation import world


def test_probabilities_are_averaged() -> None:
    found = combine_answers([Answer("a", 0.6, {"a": 0.6, "b": 0.4}), Answer("b", 0.9, {"a": 0.1, "b": 0.9})])
    assert found.output == "b"
    assert found.probabilities == pytest.approx({"a": 0.35, "b": 0.65})


def test_without_probabilities_the_most_votes_count_and_of_equals_the_first() -> None:
    assert combine_answers([Answer("a"), Answer("b"), Answer("b")]).output == "b"
    assert combine_answers([Answer("a"), Answer("b")]).output == "a"
    assert combine_answers([Answer(1.0), Answer(4.0)]).output == 2.5
    assert combine_answers([Answer(["x", "y"]), Answer(["x"]), Answer(["x"])]).output == ["x"]


def test_a_member_without_an_answer_is_left_out_and_without_any_there_is_none() -> None:
    assert combine_answers([Answer(None, error="cut"), Answer("b")]).output == "b"
    assert combine_answers([Answer(None, error="cut"), Answer(None, error="slow")]).error == "cut; slow"


def test_costs_add_up_where_all_are_known() -> None:
    assert combine_costs([Cost(1.0, 2.0, None, "here"), Cost(3.0, 5.0, None, "there")]) == Cost(
        4.0, 7.0, None, "here and there"
    )
    assert combine_costs([Cost(1.0), Cost(None)]).usd_per_1k is None


def test_members_that_read_different_columns_are_refused(flowers: Workspace) -> None:
    world.make_dataset(flowers, "slim", splits={"train": 60, "validation": 30, "test": 30}, inputs=("x",))
    slim = world.train_model(flowers, "slim-points", dataset="slim")
    with pytest.raises(SpeciateError, match="read different columns: x; x, y"):
        world.evaluate_models(flowers, models=[f"ensemble:points+{slim}", "points"])


def test_a_member_that_answers_alike_each_time_does_not_cut_the_repeats_of_the_others() -> None:
    local, api = [[Answer(1.0)]], [[Answer(1.0)], [Answer(2.0)], [Answer(3.0)]]
    assert [each.output for (each,) in combine_repeats([local, api])] == [1.0, 1.5, 2.0]
