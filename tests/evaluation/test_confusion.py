"""The confusion of stored answers is scikit-learn's."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from speciate.evaluation.confusion import NO_ANSWER, OTHERS, confused
from speciate.workspace.workspace import Workspace
from tests.evaluation import handmade
from tests.evaluation.handmade import answer, report, row

LABELS = ["ant", "bee", "cat", "dog", "eel"]


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Any]:
    workspace, chance = Workspace(tmp_path / "w"), random.Random(7)
    truths = {f"ex-{i}": chance.choice(LABELS) for i in range(300)}
    said = [
        answer("m@v1", one, truth if chance.random() < 0.6 else chance.choice(LABELS)) for one, truth in truths.items()
    ]
    said += [answer("other@v1", one, "ant" if place % 3 else None) for place, one in enumerate(truths)]
    name = handmade.store(workspace, report([row("other@v1", 0.2), row("m@v1", 0.7)]), truths, said)
    workspace.close()
    folder = str(tmp_path / "w" / "evaluations" / name)
    return {
        "folder": folder,
        "metric": "accuracy",
        "models": ["m@v1"],
        "pairs": 4,
        "labels": 20,
        "truths": truths,
        "said": said,
    }


def test_counts_are_those_of_scikit_learn(asked: dict[str, Any]) -> None:
    (found,) = confused(asked)["models"]
    truths, said = asked["truths"], {one["example"]: one["output"] for one in asked["said"] if one["model"] == "m@v1"}
    expected = confusion_matrix([truths[one] for one in said], list(said.values()), labels=LABELS)
    assert found["labels"] == LABELS
    assert found["counts"] == expected.tolist()
    assert found["wrong"] == expected.sum() - np.trace(expected)


def test_the_most_frequent_mistakes_come_first_with_their_share_of_the_truth(asked: dict[str, Any]) -> None:
    (found,) = confused(asked)["models"]
    counts, place = np.array(found["counts"]), {name: i for i, name in enumerate(LABELS)}
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    assert [count for _, _, count, _ in found["pairs"]] == sorted(wrong[wrong > 0].tolist(), reverse=True)[:4]
    assert found["more_pairs"] == (wrong > 0).sum() - 4
    for truth, said, count, share in found["pairs"]:
        assert count == counts[place[truth], place[said]]
        assert share == pytest.approx(count / counts[place[truth]].sum(), abs=1e-4)


def test_examples_without_an_answer_are_a_column_of_their_own(asked: dict[str, Any]) -> None:
    (found,) = confused(asked | {"models": ["other@v1"]})["models"]
    assert found["labels"][-1] == NO_ANSWER
    assert sum(line[-1] for line in found["counts"]) == 100
    assert sum(map(sum, found["counts"])) == found["answers"] == 300


def test_labels_beyond_the_limit_are_one_and_nothing_is_lost(asked: dict[str, Any]) -> None:
    (found,) = confused(asked | {"labels": 2})["models"]
    assert len(found["labels"]) == 3
    assert found["labels"][-1] == OTHERS
    assert found["others"] == 3
    assert sum(map(sum, found["counts"])) == 300


def test_answers_that_are_no_labels_have_no_confusion(asked: dict[str, Any]) -> None:
    assert confused(asked | {"metric": "mae"}) == {"models": []}
