"""The label that a dataset stores and the same value in a column of it are one."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.datasets.loading.loader import Example
from speciate.datasets.roles import label_column
from speciate.evaluation.predictors.by_source import from_column
from speciate.tasks.families.classification import as_label


@pytest.mark.parametrize("values", [[True, False], [1.0, 3.0], [1, 3], [" yes", "no"], ["1.5", "x"]])
def test_what_stands_in_a_column_is_written_as_the_label_is(values: list[Any]) -> None:
    stored = label_column(values).values
    assert [as_label(value) for value in values] == stored
    examples = [Example(str(i), "text", None, "", "test", {"old": value}) for i, value in enumerate(values)]
    assert [answer.output for answer in from_column(examples, "old", "classification", "text")] == stored


@pytest.mark.parametrize("nothing", [None, "", float("nan"), "  "])
def test_nothing_is_no_label(nothing: Any) -> None:
    assert as_label(nothing) is None
