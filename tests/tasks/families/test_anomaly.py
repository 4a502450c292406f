"""Anomalies: what teaches, and how odd becomes how probable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.errors import SpeciateError
from speciate.tasks.families.anomaly import Anomaly
from speciate.tasks.task import TaskTerms
from tests.tasks.learning import example

ONE = example("a", None)
TASK_HEAD = Anomaly.fit(["normal"], {"positive_label": "broken", "normal_share": 0.9})
scores = st.floats(-1e6, 1e6, allow_subnormal=False)


def calibrated(normal: list[float]) -> Anomaly:
    return TASK_HEAD.calibrated(np.array(normal)[:, None], np.zeros(len(normal), int))


def odds(task_head: Anomaly, values: list[float]) -> list[float]:
    made = task_head.predictions(np.array(values)[:, None])
    return [one.probabilities["broken"] for one in made if one.probabilities]


def test_only_what_is_not_odd_teaches() -> None:
    terms = TaskTerms("broken")
    assert [one.target for one in Anomaly.training_examples(ONE, "fine", terms)] == ["normal"]
    assert [one.target for one in Anomaly.training_examples(ONE, None, terms)] == ["normal"]
    assert Anomaly.training_examples(ONE, "broken", terms) == []


def test_questions_need_a_label() -> None:
    terms = TaskTerms("broken")
    made = [Anomaly.evaluation_example(ONE, cell, terms) for cell in ("fine", "broken", None, "")]
    assert [one and one.target for one in made] == ["normal", "broken", None, None]
    posed = Anomaly.evaluation_example(ONE, "anomaly", TaskTerms())
    assert posed is not None
    assert posed.target == "anomaly"


def test_as_many_normal_ones_are_called_normal_as_was_said() -> None:
    generator = np.random.default_rng(0)
    task_head = calibrated(generator.normal(size=2000).tolist())
    given = task_head.predictions(generator.normal(size=(4000, 1)))
    assert np.mean([one.output == "normal" for one in given]) == pytest.approx(0.9, abs=0.02)
    assert len(task_head.normal_scores) < 300


@settings(deadline=None)
@given(st.lists(scores, min_size=1, max_size=30), st.lists(scores, min_size=2, max_size=30, unique=True))
def test_what_is_odder_is_more_probably_odd(normal: list[float], asked: list[float]) -> None:
    task_head = calibrated(normal)
    probabilities = odds(task_head, sorted(asked))
    assert all(0 <= chance <= 1 for chance in probabilities)
    assert probabilities == sorted(probabilities)
    for one in task_head.predictions(np.array(asked)[:, None]):
        assert one.probabilities is not None
        assert one.confidence == one.probabilities[one.output] >= 0.5


def test_beyond_all_normal_ones_there_are_still_differences() -> None:
    low, high, higher = odds(calibrated([1.0, 2.0, 3.0, 4.0]), [3.0, 10.0, 1000.0])
    assert low < 0.5 < high < higher < 1


def test_one_normal_example_is_enough_to_tell_sides() -> None:
    less, same, more = odds(calibrated([5.0]), [4.0, 5.0, 6.0])
    assert less < same < more


def test_without_a_held_out_normal_example_nothing_is_known() -> None:
    with pytest.raises(SpeciateError, match="no normal example"):
        TASK_HEAD.calibrated(np.array([[1.0]]), np.array([1]))


def test_no_network_is_trained() -> None:
    with pytest.raises(SpeciateError, match="classical"):
        TASK_HEAD.head(8)


def test_it_is_the_same_after_json() -> None:
    task_head = calibrated([1.0, 2.0, 2.5])
    assert Anomaly.model_validate_json(task_head.model_dump_json()) == task_head
    assert task_head.labels == ("normal", "broken")
