"""Answers that are no answers: not a number, infinite, of another type or shape, too many, too few, none. Each is an
error of that answer, counted and told; no figure is computed over it, and no run ends by it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.loading.loader import Example
from speciate.evaluation.metrics import averaged, corpus_mean, judged
from speciate.evaluation.predictors.answering import Answer, answer_all, check_answer
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run
from speciate.tasks.task import Prediction
from speciate.vocabulary import METRICS, Family
from speciate.workspace.workspace import Workspace

NAN, INFINITY = math.nan, math.inf
REFERENCES: dict[Family, list[Any]] = {
    "classification": ["a", "b", "a"],
    "ordinal": ["1", "2", "3"],
    "anomaly": ["normal", "anomaly", "normal"],
    "regression": [1.0, 2.0, 4.0],
    "multi-label": [["a"], ["a", "b"], []],
    "tokens": [["O", "B-x"], ["O"], ["B-x", "I-x"]],
    "transcription": ["one two", "three", "four"],
    "generation": ["one 2", "three 3", "four"],
    "detection": [
        {"objects": [{"label": "a", "box": [0, 0, 4, 4]}]},
        {"objects": []},
        {"objects": [{"label": "a", "box": [1, 1, 2, 2]}]},
    ],
    "forecasting": [{"steps": [[1.0, 2.0]], "naive": [1.0]}] * 3,
    "retrieval": ["a", "a", "b"],
}
RIGHT: dict[Family, Any] = {
    "classification": "a", "ordinal": "2", "anomaly": "normal", "regression": 1.5, "multi-label": ["a"],
    "tokens": ["O", "B-x"], "transcription": "one two", "generation": "one 2",
    "detection": [{"label": "a", "box": [0, 0, 4, 4], "score": 0.5}], "forecasting": [[1.0, 2.0]],
    "retrieval": [0.5, 1.0],
}  # fmt: skip
BROKEN: list[Any] = [
    NAN, INFINITY, -INFINITY, [NAN], {"a": NAN}, {}, [[]], [[[1]]], [{}], {"output": {"x": []}}, True, 10**400,
    [None], [[1, 2], [3]], "\ud800", -1e308, {"steps": "x"}, [{"label": {}, "box": [NAN] * 4, "score": "high"}],
    [{"label": "a", "box": [1, 2]}], {"labels": [1], "rle": "x", "size": [NAN, -1]}, "nan", [1e308, 1e308, -1e308],
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def _figures(family: Family, given_: Sequence[Answer]) -> dict[str, float]:
    """Each metric of the family."""
    references = REFERENCES[family]
    marked = judged(
        family, references, [one.output for one in given_], [one.probabilities for one in given_],
        sorted(set(map(str, references))) if family in ("classification", "ordinal", "anomaly") else ["a", "b"],
    )  # fmt: skip
    clusters, found = np.arange(len(references)), dict[str, float]()
    for metric in METRICS.values():
        if family not in metric.families or metric.positive:
            continue
        if metric.shape == "mean":
            found[metric.name] = float(np.mean(averaged(metric, [marked])))
        else:
            found[metric.name] = float(corpus_mean(metric, [marked], clusters)(np.ones((1, len(references))))[0])
    return found


def _all_are_numbers_where_right_ones_are(family: Family, answer: Answer) -> None:
    right = [check_answer(Answer(RIGHT[family]), family)] * 3
    assert right[0].error is None
    base, found = _figures(family, right), _figures(family, [right[0], answer, right[0]])
    odd = {name for name, value in found.items() if not math.isfinite(value) and math.isfinite(base[name])}
    assert odd == set()


@pytest.mark.parametrize("family", REFERENCES)
@pytest.mark.parametrize("output", BROKEN, ids=lambda value: repr(value)[:30])
def test_a_broken_answer_is_an_error_or_a_wrong_answer(family: Family, output: Any) -> None:
    answer = check_answer(Answer(output), family)
    json.dumps(answer.output, allow_nan=False)
    assert (answer.output is None) == (answer.error is not None)
    _all_are_numbers_where_right_ones_are(family, answer)


@pytest.mark.parametrize("family", REFERENCES)
@given(output=JSON)
def test_whatever_json_an_answer_is_figures_are_numbers(family: Family, output: Any) -> None:
    answer = check_answer(Answer(output), family)
    _all_are_numbers_where_right_ones_are(family, answer)


@pytest.mark.parametrize(
    ("output", "confidence", "probabilities"),
    [
        ("a", NAN, None), ("a", INFINITY, None), ("a", -0.5, None), ("a", 7, None), ("a", "high", None),
        ("a", [0.5], None), ("a", True, None), ("a", None, {"a": NAN}), ("a", None, {"a": -3.0, "b": 4.0}),
        ("a", None, {"a": "x"}), ("a", None, ["a"]), ("a", None, 0.5), ("a", None, {"a": None}), ("a", 10**400, None),
    ],
)  # fmt: skip
def test_how_sure_an_answer_is_must_be_a_share(output: Any, confidence: Any, probabilities: Any) -> None:
    answer = check_answer(Answer(output, confidence, probabilities), "classification")
    assert answer.output is None
    assert "confidence" in (answer.error or "") or "probabilities" in (answer.error or "")
    assert answer.confidence is None
    assert answer.probabilities is None


@pytest.fixture
def run(workspace: Workspace, tmp_path: Path) -> Run:
    folder = RunFolder(tmp_path / "run")
    folder.create({"payload": {}, "job": "job-x", "workspace": str(workspace.folders.root)})
    return Run(folder)


@pytest.mark.parametrize(
    "said",
    [
        [], [Prediction("a", None, None)], [Prediction("a", None, None)] * 9, None, 7, "abc", [None] * 3, [("a",)] * 3,
        [Prediction("a", "sure", None)] * 3, [Prediction("a", None, [1])] * 3, [Prediction({1, 2}, None, None)] * 3,
        [Prediction("a", NAN, {"a": INFINITY})] * 3, [Prediction("\ud800", None, None)] * 3,
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_a_model_that_gives_too_few_too_many_or_no_answers_fails_on_those(run: Run, said: Any) -> None:
    """And what it gave is on disk, where the next evaluation finds it."""
    examples = examples_of(3)
    found = answer_all(run, "broken", examples, lambda some: said, lambda count: None)
    assert len(found) == 3
    again = answer_all(run, "broken", examples, lambda some: said, lambda count: None)
    for one in (*found, *again):
        assert one.error or (one.output == "a" and one.confidence is None and one.probabilities is None)


def examples_of(count: int) -> list[Example]:
    return [
        Example(id=f"e{number}", media=f"text {number}", label=None, split="test", group=f"e{number}", columns={})
        for number in range(count)
    ]
