"""Texts as answers: what is asked, what is answered without a model, and that nothing trains for it yet."""

from __future__ import annotations

import numpy as np
import pytest

from speciate.errors import Code, SpeciateError
from speciate.tasks.contract import Terms
from speciate.tasks.generation import Generation
from speciate.tasks.predictor import constant
from tests.tasks.world import examples

(EXAMPLE,) = examples(np.zeros(3))


def truth(cell: object) -> object:
    posed = Generation.pose(EXAMPLE, cell, Terms())
    return posed and posed.truth


def test_the_truth_is_the_text_of_the_cell() -> None:
    assert truth(" two\n words ") == " two\n words "
    assert truth(42) == "42"
    assert truth(None) is None
    assert truth(" \n") is None
    with pytest.raises(ValueError, match="is no text"):
        truth(["a", "b"])


@pytest.mark.parametrize("task", ["text-generation", "image-text-to-text"])
def test_the_baseline_is_the_commonest_text(task: str) -> None:
    (made,) = constant(task, ["b", "a", "b"], Terms()).predict([EXAMPLE])
    assert made.output == "b"


def test_nothing_learns_it_and_that_is_said() -> None:
    with pytest.raises(SpeciateError, match="only evaluated for now") as refusal:
        Generation.of(["a"], {})
    assert refusal.value.code is Code.INVALID
    assert "evaluate_models" in refusal.value.recovery
