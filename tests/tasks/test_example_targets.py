"""Where the target of an example is read."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.datasets.columns import class_name
from speciate.datasets.loading.loader import Example
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.tasks.example_targets import evaluation_examples
from speciate.tasks.task import TaskTerms

MANIFEST = Manifest.model_validate(
    {"name": "d", "version": 1, "id": "d", "modality": "text", "parts": (), "columns": {"tags": "VARCHAR[]"},
     "inputs": ("text",), "label": "tags", "splits": {}, "rows": 1}
)  # fmt: skip


def _truth(task: str, label: Any, column: Any, target: str | None = "tags") -> Any:
    example = Example("1", "one two three", label, "1", "test", {"tags": column})
    (posed,) = evaluation_examples([example], MANIFEST, target, task, TaskTerms())
    return posed.target


def test_lists_are_read_whole_where_the_label_is_cut() -> None:
    tags = ["B-international-organisation", "I-international-organisation", "I-international-organisation"]
    cut = class_name(tags)
    assert len(cut) == 64
    assert _truth("token-classification", cut, tags) == tags
    assert _truth("token-classification", cut, tags, None) == tags


def test_a_label_that_was_given_since_stands_before_the_column() -> None:
    assert _truth("token-classification", "O O O", ["B", "O", "O"]) == ["O", "O", "O"]


def test_a_class_is_the_label() -> None:
    assert _truth("text-classification", "a", " a ") == "a"


def test_a_cell_that_is_no_target_names_dataset_and_column() -> None:
    with pytest.raises(SpeciateError, match="'tags' of d@v1 is no target for 'token-classification' everywhere; "):
        _truth("token-classification", "['O', 'O']", ["O", "O"])
