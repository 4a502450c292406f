from __future__ import annotations

import numpy as np
import pytest

from speciate.errors import SpeciateError
from speciate.evaluation.metrics import Answers, label_answers
from speciate.evaluation.slice_gains import LEAST, OTHERS, gains
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace
from tests.evaluation import world


def answers(right: np.ndarray) -> Answers:
    given = ["a" if each else "b" for each in right]
    return label_answers(["a"] * len(right), given, [None] * len(right), ["a", "b"])


def test_each_value_of_a_column_is_compared_by_itself_and_rare_ones_together() -> None:
    random, n = np.random.default_rng(3), 300
    site = ["north"] * 150 + ["south"] * 140 + ["east"] * 6 + ["west"] * 4
    before, after = random.random(n) < 0.8, random.random(n) < 0.8
    after[:150] = random.random(150) < 0.5
    for name in ("accuracy", "f1_macro"):
        found = gains(find_metric(name), [answers(before)], [answers(after)], np.arange(n), site)
        assert [each.value for each in found] == [OTHERS, "north", "south"]
        assert [each.n for each in found] == [10, 150, 140]
        north = found[1]
        assert north.high < 0
        assert north.high <= north.highest  # three values together need wider intervals


def test_examples_of_one_group_are_one_reason_to_judge_a_value() -> None:
    site, right = ["north"] * 100 + ["south"] * 100, np.ones(200, bool)
    clusters = np.concatenate([np.zeros(100, int), np.arange(1, 101)]).astype(np.int64)
    found = gains(find_metric("accuracy"), [answers(right)], [answers(right)], clusters, site)
    assert [each.value for each in found] == [OTHERS, "south"]
    assert LEAST > 1


def test_a_candidate_that_is_worse_nowhere_passes_and_says_so(flowers: Workspace) -> None:
    gate = {"rule": "no_slice_worse", "column": "site", "value": 0.1}
    world.define(flowers, gates=[gate])
    result = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)
    assert result["decision"]["verdict"] == "promote"
    assert any("no value of 'site' worse in accuracy by 0.1" in reason for reason in result["decision"]["reasons"])


def test_a_gate_on_a_column_that_is_not_there_is_refused(flowers: Workspace) -> None:
    world.define(flowers, gates=[{"rule": "no_slice_worse", "column": "sight"}])
    with pytest.raises(SpeciateError, match="did you mean 'site'"):
        world.evaluate_models(flowers, models=["points"], use_case="flowering")
    with pytest.raises(SpeciateError, match="needs one"):
        world.define(flowers, gates=[{"rule": "no_slice_worse"}])
