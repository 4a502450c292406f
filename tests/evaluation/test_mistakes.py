"""The worst examples, from stored answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speciate.evaluation.mistakes import failures, worst
from speciate.workspace.workspace import Workspace
from tests.evaluation import handmade
from tests.evaluation.handmade import answer, report, row


def stored(
    folder: Path, truths: dict[str, str], answers: list[dict[str, Any]], metric: str, **more: Any
) -> dict[str, Any]:
    workspace = Workspace(folder / "w")
    name = handmade.store(workspace, report([row("m@v1", 0.5, metric=metric)]), truths, answers, **more)
    workspace.close()
    path = str(folder / "w" / "evaluations" / name)
    return {"folder": path, "metric": metric, "candidate": "m@v1", "count": 3}


def test_errors_come_first_then_the_surest_wrong_answers(tmp_path: Path) -> None:
    truths = dict.fromkeys("abcde", "yes")
    said = [
        answer("m@v1", "a", "yes", confidence=0.9), answer("m@v1", "b", "no", confidence=0.6),
        answer("m@v1", "c", "no", confidence=0.99), answer("m@v1", "d"), answer("m@v1", "e", "no"),
    ]  # fmt: skip
    found = worst(stored(tmp_path, truths, said, "accuracy", previews=["a text"] * 5))
    assert found["wrong"] == 4
    assert [one["id"] for one in found["examples"]] == ["d", "c", "b"]
    assert found["examples"][0] == {"id": "d", "truth": "yes", "error": "it failed", "preview": "a text"}


def test_numbers_are_worst_where_they_are_furthest_off(tmp_path: Path) -> None:
    truths = {"a": "1.0", "b": "-5.0", "c": "3.0"}
    said = [answer("m@v1", name, number=2.0, error=None) for name in truths]
    asked = stored(
        tmp_path, truths, said, "mae", columns={"age": ["31.123456", None, "7"], "city": ["Rome", "Oslo", "Bonn"]}
    )
    found = worst(asked | {"inputs": ["age", "city"]})
    assert [one["id"] for one in found["examples"]] == ["b", "a", "c"]
    assert [one["preview"] for one in found["examples"]] == [
        "city: Oslo",
        "age: 31.12, city: Rome",
        "age: 7, city: Bonn",
    ]


def test_other_answers_are_worst_by_the_metric_of_the_example_alone(tmp_path: Path) -> None:
    truths = dict.fromkeys("abc", "[]")
    said = [answer("m@v1", name, "[]", score=value) for name, value in zip("abc", (0.9, 0.2, 1.0), strict=True)]
    found = worst(stored(tmp_path, truths, said, "dice"))
    assert [one["id"] for one in found["examples"]] == ["b", "a"]


def test_of_repeated_answers_the_worst_counts_and_an_example_is_shown_once(tmp_path: Path) -> None:
    said = [answer("m@v1", "a", one, confidence=0.5) for one in ("yes", "no", "yes")]
    found = worst(stored(tmp_path, {"a": "yes"}, said, "accuracy"))
    assert found["wrong"] == 1
    assert [one["output"] for one in found["examples"]] == ["no"]


def test_why_models_failed_is_told_of_each() -> None:
    told = (("b", "cut"), ("b", None), ("a", "no label"), ("a", "cut"), ("a", "cut"))
    given: list[Any] = [{"model": model, "error": error} for model, error in told]
    assert failures(given) == [
        {"model": "a", "errors": 3, "commonest": "cut"},
        {"model": "b", "errors": 1, "commonest": "cut"},
    ]
