"""Texts as answers: what is asked, and what is answered without a model."""

from __future__ import annotations

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.tasks.families.generation import Generation
from speciate.tasks.predictor import constant
from speciate.tasks.task import TaskTerms
from tests.tasks.world import examples

(EXAMPLE,) = examples(np.zeros(3))


def target(cell: object) -> object:
    posed = Generation.evaluation_example(EXAMPLE, cell, TaskTerms())
    return posed and posed.target


def test_the_target_is_the_text_of_the_cell() -> None:
    assert target(" two\n words ") == " two\n words "
    assert target(42) == "42"
    assert target(None) is None
    assert target(" \n") is None
    with pytest.raises(ValueError, match="is no text"):
        target(["a", "b"])


@pytest.mark.parametrize("task", ["text-generation", "image-text-to-text"])
def test_the_baseline_is_the_commonest_text(task: str) -> None:
    (made,) = constant(task, ["b", "a", "b"], TaskTerms()).predict([EXAMPLE])
    assert made.output == "b"


def test_a_conversation_asks_for_its_last_turn_where_no_column_answers() -> None:
    said = '[{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]'
    asks = EXAMPLE._replace(media=said)
    posed = Generation.evaluation_example(asks, None, TaskTerms())
    assert posed is not None
    assert (posed.example.media, posed.target) == ("why?", "so")
    assert truth_of(asks, "because") == "because"
    assert truth_of(EXAMPLE._replace(media="why?"), None) is None


def truth_of(example: Example, cell: object) -> object:
    posed = Generation.evaluation_example(example, cell, TaskTerms())
    return posed and posed.target
