"""A label is held to what the model that answered can say; a class that is meant to be new is said to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.predictions.feedback import make_feedback
from speciate.serving.record_feedback import KnownAnswers, UnknownClass, check_label, known_answers
from speciate.workspace.workspace import Folders

TONES = KnownAnswers("classification", ("bad", "good", "mixed"))
MODEL = "films@v1"


def given(label: Any, **more: Any) -> Any:
    return make_feedback(prediction="pred-x", label=label, source="human", **more)


@pytest.mark.parametrize("label", ["good", " good ", "mixed"])
def test_a_class_of_the_model_is_taken(label: Any) -> None:
    check_label(MODEL, given(label), TONES)


@pytest.mark.parametrize("label", [1, 1.0, "1", True, "true"])
def test_a_class_is_the_same_in_every_form_in_which_a_dataset_takes_it(label: Any) -> None:
    check_label(MODEL, given(label), KnownAnswers("ordinal", ("1", "2", "true")))


def test_a_mistyped_class_is_refused_with_the_one_that_is_near_and_the_way_of_a_new_one() -> None:
    with pytest.raises(UnknownClass) as raised:
        check_label(MODEL, given("goood"), TONES)
    assert raised.value.code is Code.INVALID
    assert "'goood' is none of the 3 classes of films@v1; did you mean 'good'?" in str(raised.value)
    assert "new_class=true" in str(raised.value)
    with pytest.raises(UnknownClass, match="known: 'bad', 'good', 'mixed'"):
        check_label(MODEL, given("\u202eevil"), TONES)
    with pytest.raises(UnknownClass):
        check_label(MODEL, given("  "), TONES)
    check_label(MODEL, given("goood", new_class=True), TONES)


@pytest.mark.parametrize("label", [["good", "bad"], "good|bad", '["good"]', [], "mixed; bad"])
def test_of_several_labels_each_must_be_one(label: Any) -> None:
    check_label(MODEL, given(label), TONES._replace(family="multi-label"))


@pytest.mark.parametrize("label", [["good", "bda"], "good|bda"])
def test_of_several_labels_the_odd_one_is_named(label: Any) -> None:
    with pytest.raises(UnknownClass, match=r"'bda' .* did you mean 'bad'"):
        check_label(MODEL, given(label), TONES._replace(family="multi-label"))


def test_a_model_of_numbers_is_told_numbers() -> None:
    for label in (3, 2.5, "7.25"):
        check_label(MODEL, given(label), KnownAnswers("regression", ()))
    for label in ("high", True, [1], 10**400):
        with pytest.raises(SpeciateError, match="answers numbers"):
            check_label(MODEL, given(label), KnownAnswers("regression", ()))


@pytest.mark.parametrize(
    "known", [KnownAnswers(None, ()), KnownAnswers("classification", ()), KnownAnswers("generation", ("a",))]
)
def test_what_a_model_can_say_is_not_always_known(known: KnownAnswers) -> None:
    check_label(MODEL, given("whatever it is"), known)


def test_a_score_is_no_label() -> None:
    check_label(MODEL, make_feedback(prediction="pred-x", score=0.5, source="agent"), TONES)


def test_the_classes_are_those_of_the_card_beside_the_weights(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "films" / "v1"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"task": "text-classification", "labels": ["bad", "good"]}))
    assert known_answers(Folders(tmp_path), "films@v1") == KnownAnswers("classification", ("bad", "good"))
    for gone in ("films@v2", "api:somebody/model", "../films@v1", "pkg:minilm"):
        assert known_answers(Folders(tmp_path), gone) == KnownAnswers(None, ())
    (folder / "model.json").write_text("{")
    assert known_answers(Folders(tmp_path), "films@v1") == KnownAnswers(None, ())
