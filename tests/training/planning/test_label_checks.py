"""What a manifest tells of labels that do not fit is said before a job exists."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.datasets.columns import class_name
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.tasks.task import TaskTerms
from speciate.training.planning.label_checks import check_labels
from speciate.vocabulary import find_task


def manifest(**more: Any) -> Manifest:
    given: dict[str, Any] = {
        "name": "d", "version": 1, "id": "d", "modality": "text", "parts": (), "columns": {"text": "VARCHAR"},
        "inputs": ("text",), "label": "label", "splits": {"train": 10, "validation": 5}, "labels": {"a": 5, "b": 5},
        "rows": 10,
    }  # fmt: skip
    return Manifest.model_validate(given | more)


NUMBERS = {"numeric": True, "labels": {}}
UNFIT: list[tuple[str, dict[str, Any], str | None, TaskTerms, str]] = [
    ("text-classification", {"labels": {"a": 10}}, "label", TaskTerms(), "at least two"),
    ("text-classification", NUMBERS, "label", TaskTerms(), "needs classes"),
    (
        "text-classification",
        {"splits": {"train": 3}, "labels": {"a": 2, "b": 1}},
        "label",
        TaskTerms(),
        "of each label",
    ),
    ("text-ordinal-classification", NUMBERS, "label", TaskTerms(), "no ranks"),
    ("text-ordinal-classification", {"labels": {"a": 10}}, "label", TaskTerms(), "at least two"),
    ("text-ordinal-classification", {}, "label", TaskTerms(order=("a", "c")), "the order lacks, such as 'b'"),
    ("text-ordinal-classification", {"labels": {"poor": 5, "good": 5}}, "label", TaskTerms(), "good, poor is higher"),
    ("text-regression", {}, "label", TaskTerms(), "no numbers, such as 'a'"),
    ("text-regression", {"labels": {"nan": 4, "1": 3}}, "label", TaskTerms(), "no numbers, such as 'nan'"),
    ("text-multi-label-classification", NUMBERS, "label", TaskTerms(), "are numbers"),
    ("text-multi-label-classification", {"labels": {"['a', 'b']": 3, "a": 1}}, "label", TaskTerms(), "JSON list"),
    ("text-multi-label-classification", {"columns": {"x": "DOUBLE"}}, "x", TaskTerms(), "'x' of d@v1 is DOUBLE"),
    ("token-classification", NUMBERS, "label", TaskTerms(), "are numbers"),
    ("token-classification", {"labels": {class_name("O " * 40): 1}}, "label", TaskTerms(), "whole labels"),
    ("token-classification", {"columns": {"tags": "BIGINT"}}, "tags", TaskTerms(), "BIGINT"),
    ("automatic-speech-recognition", NUMBERS, "label", TaskTerms(), "are numbers"),
    (
        "automatic-speech-recognition",
        {"labels": {class_name("w" * 65): 1, "x": 1}},
        "label",
        TaskTerms(),
        "whole labels",
    ),
    ("feature-extraction", NUMBERS, "label", TaskTerms(), "are numbers"),
    ("feature-extraction", {"labels": {"a": 1, "b": 1}}, "label", TaskTerms(), "No two examples"),
    ("anomaly-detection", {}, "label", TaskTerms(positive_label="bad"), "not known"),
]


@pytest.mark.parametrize(("task", "changes", "target", "terms", "said"), UNFIT)
def test_what_does_not_fit_is_refused(
    task: str, changes: dict[str, Any], target: str | None, terms: TaskTerms, said: str
) -> None:
    with pytest.raises(SpeciateError, match=said) as refusal:
        check_labels(manifest(**changes), target, find_task(task), terms)
    assert refusal.value.code is Code.INVALID


@pytest.mark.parametrize(("meant", "named"), [(None, "broken"), ("brken", "broken"), ("fin", "fine")])
def test_the_label_that_is_not_normal_is_guessed_in_the_next_call(meant: str | None, named: str) -> None:
    found = manifest(labels={"fine": 350, "broken": 50})
    with pytest.raises(SpeciateError) as refusal:
        check_labels(found, "label", find_task("anomaly-detection"), TaskTerms(positive_label=meant))
    assert f"{{'positive_label': '{named}'}}" in refusal.value.recovery


FIT: list[tuple[str, dict[str, Any], str | None, TaskTerms]] = [
    ("text-classification", {}, "label", TaskTerms()),
    ("text-ordinal-classification", {}, "label", TaskTerms(order=("b", "a", "c"))),
    ("text-ordinal-classification", {"labels": {"1-poor": 5, "2-fair": 5}}, "label", TaskTerms()),
    ("text-regression", {"labels": {"1": 5, "2.5": 5}}, "label", TaskTerms()),
    ("text-multi-label-classification", {"labels": {"a|b": 5, '["a"]': 5}}, "label", TaskTerms()),
    (
        "token-classification",
        {"label": "tags", "columns": {"tags": "VARCHAR[]"}, "labels": {class_name("x" * 65): 1}},
        "tags", TaskTerms(),
    ),
    ("automatic-speech-recognition", {"columns": {"said": "VARCHAR"}}, "said", TaskTerms()),
    ("feature-extraction", {}, "label", TaskTerms()),
    ("time-series-forecasting", {}, None, TaskTerms()),
]  # fmt: skip


@pytest.mark.parametrize(("task", "changes", "target", "terms"), FIT)
def test_what_fits_is_let_through(task: str, changes: dict[str, Any], target: str | None, terms: TaskTerms) -> None:
    check_labels(manifest(**changes), target, find_task(task), terms)
