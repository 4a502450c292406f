"""What a person types as a label has the form of the answer that it is held beside."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from speciate.cli import label_commands
from speciate.cli.label_commands import _quality, in_a_line, parse_label


@pytest.mark.parametrize(
    ("typed", "output", "label"),
    [
        ("3.5", 3.2, 3.5), ("3", 3.2, 3), ("good", "bad", "good"), ("3", "4", "3"), ("x", None, "x"),
        ('{"a": 1}', {"a": 2}, {"a": 1}), ("true", True, "true"),
    ],
)  # fmt: skip
def test_a_label_has_the_form_of_the_answer(typed: str, output: Any, label: Any) -> None:
    found = parse_label(typed, output)
    assert (found, type(found)) == (label, type(label))


@pytest.mark.parametrize(("typed", "output"), [("about 3", 3.2), ("NaN", 3.2), ("true", 3.2), ("[1", [1]), ("3", {})])
def test_a_label_of_another_form_is_asked_again(typed: str, output: Any) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_label(typed, output)


def test_what_was_asked_is_shown_in_its_own_letters_and_moves_no_terminal() -> None:
    shown = in_a_line({"text": "Rückgabe für 5 €, 退货\x1b[2J\u202e\n"})
    assert shown == '{"text": "Rückgabe für 5 €, 退货\\u001b[2J\\u202e\\n"}'


def test_a_class_that_the_model_does_not_know_is_asked_about_before_it_is_stored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored: list[tuple[str, bool]] = []

    def control(*_: Any, label: str, new_class: bool = False, **about: Any) -> dict[str, Any]:
        if label not in ("good", "bad") and not new_class:
            return {"unknown": f"{label!r} is no class"}
        stored.append((label, new_class))
        return {"recorded": "pred-x"}

    monkeypatch.setattr(label_commands, "ask_daemon", control)
    for lines in (["godo", "n", "good"], ["mixed", "y"], ["godo", "", ""]):
        typed = iter(lines)
        monkeypatch.setattr("builtins.input", lambda *_, typed=typed: next(typed))
        label_commands._ask_until_stored(
            argparse.Namespace(use_case="reviews"), {"prediction": "pred-x", "drawn": "random", "output": "bad"}
        )
    assert stored == [("good", False), ("mixed", True)]
    told = capsys.readouterr().out
    assert "'godo' is no class" in told
    assert 'stored: "good"' in told
    assert 'stored, as a new class: "mixed"' in told


def test_how_good_answers_are_is_a_sentence() -> None:
    one: Any = {"model": "m@v1", "measure": "right", "mean": 0.75, "low": 0.19, "high": 0.99, "n": 4, "drawn": "random"}
    said = "m@v1: of 4 answers that have a label 75% were right (95 % interval: 19% to 99%), drawn at random"
    assert _quality(one) == said
    few = {**one, "n": 1, "measure": "absolute_error", "mean": 3.25, "low": None, "high": None, "drawn": "any"}
    assert _quality(few).startswith("m@v1: the error of 1 answer is 3.25 on average, however")


def test_the_labels_that_the_model_knows_are_shown_before_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    item = {
        "prediction": "pred-x", "drawn": "random", "by_watch": False, "at": 0.0, "model": "m@v1", "confidence": None,
        "input": {"text": "a"}, "output": "bad", "files": [], "said": {},
    }  # fmt: skip
    shown: dict[str, Any] = {
        "waiting": 1, "items": [item], "agreement": {"alpha": None}, "quality": [], "missed": 0, "root": "/",
        "classes": {"m@v1": ["good", "bad"]},
    }  # fmt: skip
    monkeypatch.setattr(label_commands, "require_terminal", lambda: None)
    monkeypatch.setattr(label_commands, "ask_daemon", lambda *_, **__: shown)
    monkeypatch.setattr("builtins.input", lambda *_: "")
    asked = argparse.Namespace(use_case="reviews", strategy="mixed", count=1, ask=True)
    assert label_commands.labels(asked) == 0
    told = capsys.readouterr()
    assert '  labels    ["good", "bad"]' in told.err
    assert told.out == ""  # no terminal: a question must be seen all the same
