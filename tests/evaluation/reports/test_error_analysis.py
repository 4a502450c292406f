"""The confusion of stored answers is scikit-learn's."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from speciate.evaluation.reports.error_analysis import (
    NO_ANSWER,
    OTHERS,
    calibration,
    confusion,
    failures,
    worst_examples,
)
from speciate.evaluation.statistics import Floats
from speciate.workspace.workspace import Workspace
from tests.data import fresh
from tests.evaluation import handmade
from tests.evaluation.handmade import answer, report, row

LABELS = ["ant", "bee", "cat", "dog", "eel"]


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Any]:
    workspace, chance = Workspace(fresh(tmp_path / "w")), random.Random(7)
    references = {f"ex-{i}": chance.choice(LABELS) for i in range(300)}
    said = [
        answer("m@v1", one, reference if chance.random() < 0.6 else chance.choice(LABELS))
        for one, reference in references.items()
    ]
    said += [answer("other@v1", one, "ant" if place % 3 else None) for place, one in enumerate(references)]
    name = handmade.store(workspace, report([row("other@v1", 0.2), row("m@v1", 0.7)]), references, said)
    workspace.close()
    folder = str(tmp_path / "w" / "evaluations" / name)
    return {
        "folder": folder,
        "metric": "accuracy",
        "models": ["m@v1"],
        "pairs": 4,
        "labels": 20,
        "references": references,
        "said": said,
    }


def test_counts_are_those_of_scikit_learn(asked: dict[str, Any]) -> None:
    (found,) = confusion(asked)["models"]
    references, said = (
        asked["references"],
        {one["example"]: one["output"] for one in asked["said"] if one["model"] == "m@v1"},
    )
    expected = confusion_matrix([references[one] for one in said], list(said.values()), labels=LABELS)
    assert found["labels"] == LABELS
    assert found["counts"] == expected.tolist()
    assert found["wrong"] == expected.sum() - np.trace(expected)


def test_the_most_frequent_mistakes_come_first_with_their_share_of_the_reference(asked: dict[str, Any]) -> None:
    (found,) = confusion(asked)["models"]
    counts, place = np.array(found["counts"]), {name: i for i, name in enumerate(LABELS)}
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    assert [count for _, _, count, _ in found["pairs"]] == sorted(wrong[wrong > 0].tolist(), reverse=True)[:4]
    assert found["more_pairs"] == (wrong > 0).sum() - 4
    for reference, said, count, share in found["pairs"]:
        assert count == counts[place[reference], place[said]]
        assert share == pytest.approx(count / counts[place[reference]].sum(), abs=1e-4)


def test_examples_without_an_answer_are_a_column_of_their_own(asked: dict[str, Any]) -> None:
    (found,) = confusion(asked | {"models": ["other@v1"]})["models"]
    assert found["labels"][-1] == NO_ANSWER
    assert sum(line[-1] for line in found["counts"]) == 100
    assert sum(map(sum, found["counts"])) == found["answers"] == 300


def test_labels_beyond_the_limit_are_one_and_nothing_is_lost(asked: dict[str, Any]) -> None:
    (found,) = confusion(asked | {"labels": 2})["models"]
    assert len(found["labels"]) == 3
    assert found["labels"][-1] == OTHERS
    assert found["others"] == 3
    assert sum(map(sum, found["counts"])) == 300


def test_answers_that_are_no_labels_have_no_confusion(asked: dict[str, Any]) -> None:
    assert confusion(asked | {"metric": "mae"}) == {"models": []}


# The bins of confidence are scikit-learn's.


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Floats, Floats]:
    root = tmp_path_factory.mktemp("w")
    random = np.random.default_rng(3)
    sure = np.concatenate([random.uniform(0, 1, 500), [0.0, 0.1, 0.3, 1.0]])  # ends and edges of bins, too
    right = random.random(sure.size) < sure
    references = {f"ex-{i}": "yes" for i in range(sure.size)}
    said = [
        answer("m@v1", f"ex-{i}", "yes" if r else "no", confidence=float(c))
        for i, (c, r) in enumerate(zip(sure, right, strict=True))
    ]
    said += [answer("silent@v1", one, "yes") for one in references]
    workspace = Workspace(root / "w")
    name = handmade.store(workspace, report([row("m@v1", 0.5), row("silent@v1", 1.0)]), references, said)
    workspace.close()
    asked = {"folder": str(root / "w" / "evaluations" / name), "metric": "accuracy", "models": ["m@v1", "silent@v1"]}
    return asked, sure, right


def test_bins_are_those_of_scikit_learn(world: tuple[dict[str, Any], Floats, Floats]) -> None:
    asked, sure, right = world
    found = calibration(asked)["models"][0]
    share, stated = calibration_curve(right, sure, n_bins=10)
    assert [one[4] for one in found["bins"]] == pytest.approx(share, abs=1e-4)
    assert [one[3] for one in found["bins"]] == pytest.approx(stated, abs=1e-4)
    assert sum(one[2] for one in found["bins"]) == found["n"] == sure.size


def test_the_expected_error_weighs_each_bin_by_its_answers(
    world: tuple[dict[str, Any], Floats, Floats],
) -> None:
    asked, sure, _ = world
    found = calibration(asked)["models"][0]
    expected = sum(count * abs(accuracy - stated) for _, _, count, stated, accuracy in found["bins"]) / sure.size
    assert found["error"] == pytest.approx(expected, abs=1e-3)


def test_a_model_without_confidence_has_no_bins(world: tuple[dict[str, Any], Floats, Floats]) -> None:
    asked, sure, _ = world
    silent = calibration(asked)["models"][1]
    assert (silent["n"], silent["without"], silent["error"], silent["bins"]) == (0, sure.size, None, [])
    assert calibration(asked | {"metric": "mae"}) == {"models": []}


# The worst examples, from stored answers.


def stored(
    folder: Path, references: dict[str, str], answers: list[dict[str, Any]], metric: str, **more: Any
) -> dict[str, Any]:
    workspace = Workspace(folder / "w")
    name = handmade.store(workspace, report([row("m@v1", 0.5, metric=metric)]), references, answers, **more)
    workspace.close()
    path = str(folder / "w" / "evaluations" / name)
    return {"folder": path, "metric": metric, "candidate": "m@v1", "count": 3}


def test_errors_come_first_then_the_surest_wrong_answers(tmp_path: Path) -> None:
    references = dict.fromkeys("abcde", "yes")
    said = [
        answer("m@v1", "a", "yes", confidence=0.9), answer("m@v1", "b", "no", confidence=0.6),
        answer("m@v1", "c", "no", confidence=0.99), answer("m@v1", "d"), answer("m@v1", "e", "no"),
    ]  # fmt: skip
    found = worst_examples(stored(tmp_path, references, said, "accuracy", previews=["a text"] * 5))
    assert found["wrong"] == 4
    assert [one["id"] for one in found["examples"]] == ["d", "c", "b"]
    assert found["examples"][0] == {"id": "d", "truth": "yes", "error": "it failed", "preview": "a text"}


def test_numbers_are_worst_where_they_are_furthest_off(tmp_path: Path) -> None:
    references = {"a": "1.0", "b": "-5.0", "c": "3.0"}
    said = [answer("m@v1", name, number=2.0, error=None) for name in references]
    asked = stored(
        tmp_path, references, said, "mae", columns={"age": ["31.123456", None, "7"], "city": ["Rome", "Oslo", "Bonn"]}
    )
    found = worst_examples(asked | {"inputs": ["age", "city"]})
    assert [one["id"] for one in found["examples"]] == ["b", "a", "c"]
    assert [one["preview"] for one in found["examples"]] == [
        "city: Oslo",
        "age: 31.12, city: Rome",
        "age: 7, city: Bonn",
    ]


def test_other_answers_are_worst_by_the_metric_of_the_example_alone(tmp_path: Path) -> None:
    references = dict.fromkeys("abc", "[]")
    said = [answer("m@v1", name, "[]", score=value) for name, value in zip("abc", (0.9, 0.2, 1.0), strict=True)]
    found = worst_examples(stored(tmp_path, references, said, "dice"))
    assert [one["id"] for one in found["examples"]] == ["b", "a"]


def test_of_repeated_answers_the_worst_counts_and_an_example_is_shown_once(tmp_path: Path) -> None:
    said = [answer("m@v1", "a", one, confidence=0.5) for one in ("yes", "no", "yes")]
    found = worst_examples(stored(tmp_path, {"a": "yes"}, said, "accuracy"))
    assert found["wrong"] == 1
    assert [one["output"] for one in found["examples"]] == ["no"]


def test_why_models_failed_is_told_of_each() -> None:
    told = (("b", "cut"), ("b", None), ("a", "no label"), ("a", "cut"), ("a", "cut"))
    given: list[Any] = [{"model": model, "error": error} for model, error in told]
    assert failures(given) == [
        {"model": "a", "errors": 3, "commonest": "cut"},
        {"model": "b", "errors": 1, "commonest": "cut"},
    ]
