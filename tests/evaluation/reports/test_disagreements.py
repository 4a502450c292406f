"""Examples on which models differ, from stored answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speciate.evaluation.reports.error_analysis import contested_examples, disagreements
from speciate.workspace.workspace import Workspace
from tests.evaluation import handmade
from tests.evaluation.handmade import answer, report, row

REFERENCES = {"a": "yes", "b": "yes", "c": "no", "d": "no", "e": "yes"}


def stored(
    folder: Path, answers: list[dict[str, Any]], references: dict[str, str], metric: str = "accuracy"
) -> dict[str, Any]:
    workspace = Workspace(folder / "w")
    rows = [row(name, 0.5, metric=metric) for name in sorted({one["model"] for one in answers})]
    name = handmade.store(workspace, report(rows), references, answers)
    workspace.close()
    path = str(folder / "w" / "evaluations" / name)
    return {"folder": path, "metric": metric, "baseline": "old", "candidate": "new", "count": 5}


def labels(model: str, *said: str | None, sure: float = 0.6) -> list[dict[str, Any]]:
    return [answer(model, one, output, confidence=sure) for one, output in zip(REFERENCES, said, strict=True)]


def test_labels_disagree_where_exactly_one_model_is_right(tmp_path: Path) -> None:
    old = labels("old", "yes", "no", "no", "yes", None)
    new = labels("new", "yes", "yes", "yes", "maybe", "yes")
    found = disagreements(stored(tmp_path, old + new, REFERENCES))
    assert found["tally"] == {"both_right": 1, "only_candidate": 2, "only_baseline": 1, "both_wrong": 1}
    assert [one["id"] for one in found["candidate_better"]] == ["e", "b"]  # an error is worse than a wrong answer
    assert found["candidate_better"][0]["baseline"] == "(error: it failed)"
    assert [one["id"] for one in found["baseline_better"]] == ["c"]


def test_numbers_disagree_by_how_much_nearer_one_is(tmp_path: Path) -> None:
    references = {"a": "1.0", "b": "2.0", "c": "3.0"}
    old = [answer("old", one, number=value, error=None) for one, value in zip("abc", (1.0, 4.0, 3.5), strict=True)]
    new = [answer("new", one, number=value, error=None) for one, value in zip("abc", (1.5, 2.0, 3.5), strict=True)]
    found = disagreements(stored(tmp_path, old + new, references, "mae"))
    assert found["tally"] == {"candidate_nearer": 1, "baseline_nearer": 1, "alike": 1}
    assert [one["id"] for one in found["candidate_better"]] == ["b"]
    assert (found["candidate_better"][0]["candidate"], found["candidate_better"][0]["baseline"]) == (2.0, 4.0)


def test_a_repeated_answer_counts_by_most_of_its_repeats(tmp_path: Path) -> None:
    old = labels("old", "no", "no", "no", "no", "no")
    new = [*labels("new", "no", "no", "no", "no", "no"), *(answer("new", "a", "yes") for _ in range(2))]
    found = disagreements(stored(tmp_path, old + new, REFERENCES))
    assert found["tally"] == {"both_right": 2, "only_candidate": 1, "only_baseline": 0, "both_wrong": 2}


def test_contested_examples_split_the_models_in_half(tmp_path: Path) -> None:
    said = [
        *labels("m1", "yes", "yes", "yes", "no", "yes"),
        *labels("m2", "yes", "yes", "no", "no", "no"),
        *labels("m3", "yes", "no", "no", "no", "no"),
        *labels("m4", "yes", "no", "no", "no", "yes"),
    ]
    examples = contested_examples(stored(tmp_path, said, REFERENCES))["examples"]
    assert {one["id"] for one in examples[:2]} == {"b", "e"}
    assert [one["id"] for one in examples[2:]] == ["c"]  # on a and d all agree
    assert examples[2]["answers"] == {"m1": "yes", "m2": "no", "m3": "no", "m4": "no"}


@pytest.mark.parametrize("alike", ["yes", "no"])
def test_models_that_agree_have_nothing_to_show(tmp_path: Path, alike: str) -> None:
    asked = stored(tmp_path, labels("old", *[alike] * 5) + labels("new", *[alike] * 5), REFERENCES)
    found = disagreements(asked)
    assert found["candidate_better"] == found["baseline_better"] == []
    assert contested_examples(asked) == {"examples": []}
