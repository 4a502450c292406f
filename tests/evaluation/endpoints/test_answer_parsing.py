from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.evaluation.endpoints.answer_parsing import UnreadableAnswer, parse_answer
from speciate.evaluation.endpoints.prompts import Output, Prompt, prompt_form

LABELS = ("Cat", "dog", "grey wolf", "c", "C++", "n/a")


def said(text: str, family: str = "classification", output: Output | None = None, labels: Any = LABELS) -> Any:
    prediction = parse_answer(prompt_form(Prompt(output=output), family, "text", labels=labels), text)
    assert (prediction.confidence, prediction.probabilities) == (None, None)
    return prediction.output


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Cat", "Cat"),
        ("  cat.\n", "Cat"),
        ('"DOG"', "dog"),
        ("**dog**", "dog"),
        ("Answer: dog", "dog"),
        ("The answer is: 'Grey  Wolf'.", "grey wolf"),
        ("Label = dog", "dog"),
        ("C++", "C++"),
        ("c", "c"),
        ("(C)", "c"),
        ("N/A", "n/a"),
        ('{"label": "dog"}', "dog"),
        ('```json\n{"label": "dog"}\n```', "dog"),
        ("<think>dog? no: </think>\n\nCat", "Cat"),
    ],
)
def test_a_label_is_known_by_its_name_alone(text: str, label: str) -> None:
    assert said(text) == label


@pytest.mark.parametrize(
    "text",
    [
        "", "horse", "cat dog", "Cat or dog", "not a cat", "I think it is a cat", "cat\nbecause it purrs", "ca",
        '{"label": "horse"}', '{"labels": ["dog"]}', '{"label": ["dog"]}', '{"label": true}', "{dog", "Answer:", "...",
    ],
)  # fmt: skip
def test_another_label_or_several_or_none_is_an_error_and_no_guess(text: str) -> None:
    with pytest.raises(UnreadableAnswer):
        said(text)


def test_labels_that_differ_only_in_case_must_be_written_as_they_are() -> None:
    assert said("B", labels=("b", "B")) == "B"
    with pytest.raises(UnreadableAnswer, match=r"may be 'Ab' or 'aB'"):
        said("ab", labels=("Ab", "aB"))


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=2, unique=True), st.data())
def test_a_label_as_it_is_written_is_always_itself(labels: list[str], data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(labels))
    assert said(json.dumps({"label": label}), output="json_schema", labels=labels) == label


@given(st.text())
def test_whatever_is_said_the_answer_is_a_label_or_an_error(text: str) -> None:
    with suppress(UnreadableAnswer):
        assert said(text) in LABELS


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('{"labels": ["dog", "cat", "dog"]}', ["Cat", "dog"]),
        ('{"labels": []}', []),
    ],
)
def test_several_labels_are_sorted_and_each_once(text: str, labels: list[str]) -> None:
    assert said(text, "multi-label") == labels


@pytest.mark.parametrize(
    "text", ['{"labels": "dog"}', '{"labels": ["dog", "horse"]}', '["dog"]', "dog", '{"labels": [["dog"]]}']
)
def test_one_unknown_label_among_several_spoils_the_answer(text: str) -> None:
    with pytest.raises(UnreadableAnswer):
        said(text, "multi-label")


@pytest.mark.parametrize(
    ("text", "output", "number"),
    [
        ('{"number": 3}', None, 3.0),
        ('{"number": "-2.5e1"}', None, -25.0),
        ("Answer: 4.5", "free", 4.5),
        ("17", "free", 17.0),
    ],
)
def test_a_number_is_read(text: str, output: Output | None, number: float) -> None:
    answer = said(text, "regression", output, ())
    assert (answer, type(answer)) == (number, float)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("3", None), ('{"number": null}', None), ('{"number": true}', None), ('{"number": NaN}', None),
        ('{"number": 1e999}', None), ('{"number": ' + "9" * 400 + "}", None), ("inf", "free"), ("4 or 5", "free"),
        ("1,234", "free"), ("about 3", "free"), ("[" * 100_000, None),
    ],
)  # fmt: skip
def test_what_is_no_finite_number_is_an_error(text: str, output: Output | None) -> None:
    with pytest.raises(UnreadableAnswer):
        said(text, "regression", output, ())


@pytest.mark.parametrize(
    ("family", "output", "text", "answer"),
    [
        ("transcription", None, " so  it\nis ", "so it is"),
        ("transcription", "json_schema", '{"text": "so  it is"}', "so it is"),
        ("generation", None, "\nfirst\n  second\n", "first\n  second"),
        ("generation", "json_schema", '{"text": "x"}', "x"),
        ("generation", None, "", ""),
    ],
)
def test_free_text_is_the_whole_text(family: str, output: Output | None, text: str, answer: str) -> None:
    assert said(text, family, output, ()) == answer
