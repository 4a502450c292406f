"""What a manifest tells of labels that do not fit is said before a job exists."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.datasets.classes import class_name
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.tasks.contract import Terms
from speciate.training.checks import check
from speciate.vocabulary import find_task


def manifest(**more: Any) -> Manifest:
    given: dict[str, Any] = {
        "name": "d", "version": 1, "id": "d", "modality": "text", "parts": (), "columns": {"text": "VARCHAR"},
        "inputs": ("text",), "label": "label", "splits": {"train": 10, "validation": 5}, "labels": {"a": 5, "b": 5},
        "rows": 10,
    }  # fmt: skip
    return Manifest.model_validate(given | more)


NUMBERS = {"numeric": True, "labels": {}}
UNFIT: list[tuple[str, dict[str, Any], str | None, Terms, str]] = [
    ("text-classification", {"labels": {"a": 10}}, "label", Terms(), "at least two"),
    ("text-classification", NUMBERS, "label", Terms(), "needs classes"),
    ("text-classification", {"splits": {"train": 3}, "labels": {"a": 2, "b": 1}}, "label", Terms(), "of each label"),
    ("text-ordinal-classification", NUMBERS, "label", Terms(), "no ranks"),
    ("text-ordinal-classification", {"labels": {"a": 10}}, "label", Terms(), "at least two"),
    ("text-ordinal-classification", {}, "label", Terms(order=("a", "c")), "the order lacks, such as 'b'"),
    ("text-ordinal-classification", {"labels": {"poor": 5, "good": 5}}, "label", Terms(), "good, poor is higher"),
    ("text-regression", {}, "label", Terms(), "no numbers, such as 'a'"),
    ("text-regression", {"labels": {"nan": 4, "1": 3}}, "label", Terms(), "no numbers, such as 'nan'"),
    ("text-multi-label-classification", NUMBERS, "label", Terms(), "are numbers"),
    ("text-multi-label-classification", {"labels": {"['a', 'b']": 3, "a": 1}}, "label", Terms(), "JSON list"),
    ("text-multi-label-classification", {"columns": {"x": "DOUBLE"}}, "x", Terms(), "'x' of d@v1 is DOUBLE"),
    ("token-classification", NUMBERS, "label", Terms(), "are numbers"),
    ("token-classification", {"labels": {class_name("O " * 40): 1}}, "label", Terms(), "whole truth"),
    ("token-classification", {"columns": {"tags": "BIGINT"}}, "tags", Terms(), "BIGINT"),
    ("automatic-speech-recognition", NUMBERS, "label", Terms(), "are numbers"),
    ("automatic-speech-recognition", {"labels": {class_name("w" * 65): 1, "x": 1}}, "label", Terms(), "whole truth"),
    ("feature-extraction", NUMBERS, "label", Terms(), "are numbers"),
    ("feature-extraction", {"labels": {"a": 1, "b": 1}}, "label", Terms(), "No two examples"),
    ("anomaly-detection", {}, "label", Terms(positive_label="bad"), "not known"),
]


@pytest.mark.parametrize(("task", "changes", "target", "terms", "said"), UNFIT)
def test_what_does_not_fit_is_refused(
    task: str, changes: dict[str, Any], target: str | None, terms: Terms, said: str
) -> None:
    with pytest.raises(SpeciateError, match=said) as refusal:
        check(manifest(**changes), target, find_task(task), terms)
    assert refusal.value.code is Code.INVALID


@pytest.mark.parametrize(("meant", "named"), [(None, "broken"), ("brken", "broken"), ("fin", "fine")])
def test_the_label_that_is_not_normal_is_guessed_in_the_next_call(meant: str | None, named: str) -> None:
    found = manifest(labels={"fine": 350, "broken": 50})
    with pytest.raises(SpeciateError) as refusal:
        check(found, "label", find_task("anomaly-detection"), Terms(positive_label=meant))
    assert f"{{'positive_label': '{named}'}}" in refusal.value.recovery


FIT: list[tuple[str, dict[str, Any], str | None, Terms]] = [
    ("text-classification", {}, "label", Terms()),
    ("text-ordinal-classification", {}, "label", Terms(order=("b", "a", "c"))),
    ("text-ordinal-classification", {"labels": {"1-poor": 5, "2-fair": 5}}, "label", Terms()),
    ("text-regression", {"labels": {"1": 5, "2.5": 5}}, "label", Terms()),
    ("text-multi-label-classification", {"labels": {"a|b": 5, '["a"]': 5}}, "label", Terms()),
    (
        "token-classification",
        {"label": "tags", "columns": {"tags": "VARCHAR[]"}, "labels": {class_name("x" * 65): 1}},
        "tags", Terms(),
    ),
    ("automatic-speech-recognition", {"columns": {"said": "VARCHAR"}}, "said", Terms()),
    ("feature-extraction", {}, "label", Terms()),
    ("time-series-forecasting", {}, None, Terms()),
]  # fmt: skip


@pytest.mark.parametrize(("task", "changes", "target", "terms"), FIT)
def test_what_fits_is_let_through(task: str, changes: dict[str, Any], target: str | None, terms: Terms) -> None:
    check(manifest(**changes), target, find_task(task), terms)
