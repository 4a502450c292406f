"""A student learns from other models' answers: of one, of several, of rows without a label, and of its states."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import pytest

from speciate.errors import Code, SpeciateError
from speciate.evaluation.contamination import learned_from
from speciate.models import registry
from speciate.tasks import predictor
from speciate.training import train
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace
from tests.training.recipes.test_continual import LEARN, points, register
from tests.training.world import train_now

pytestmark = pytest.mark.slow

pytest.importorskip("torch")
LABELS = "abc"


class Taught(NamedTuple):
    workspace: Workspace
    jobs: Iterator[int]

    def train(self, name: str, dataset: str, method: str, **more: Any) -> dict[str, Any]:
        return train_now(
            self.workspace, f"job-{next(self.jobs)}", name=name, dataset=dataset, method=method, **more
        )  # fmt: skip

    def distil(self, teacher: Any, dataset: str = "points", **more: Any) -> dict[str, Any]:
        return self.train(
            "small", dataset, "distill", base_model="new:tab-resnet", teacher=teacher, hyperparameters=LEARN | more
        )

    def plan(self, **more: Any) -> Any:
        spec = {"name": "small", "dataset": "points", "method": "distill", "base_model": "new:tab-resnet", **more}
        return train.plan(TrainSpec.model_validate(spec), self.workspace)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taught]:
    """`lines@v1` is a classical teacher of `points`, `net@v1` a network."""
    workspace = Workspace(tmp_path_factory.mktemp("distill") / "workspace")
    register(workspace, "points", points(LABELS, 72))
    made = Taught(workspace, count())
    made.train("lines", "points", "classical")
    made.train("net", "points", "full", base_model="new:tab-resnet", hyperparameters=LEARN)
    yield made
    workspace.close()


def test_a_network_learns_from_a_classical_model_and_says_what_it_kept(taught: Taught) -> None:
    result = taught.distil("lines@v1", alpha=1.0)  # no label is looked at
    report = result["report"]["distillation"]
    student, teacher = report["frontier"]
    assert (student["role"], teacher["role"], teacher["model"]) == ("student", "teacher", "lines@v1")
    assert report["kept"] == pytest.approx(student["value"] / teacher["value"], abs=1e-3)
    assert report["kept"] > 0.9
    assert student["dominated"]  # by so small a teacher
    assert min(student["p50_ms"], teacher["p50_ms"]) > 0
    card = registry.resolve(taught.workspace.database, taught.workspace.folders, result["model"]).card
    assert card.teachers == ("lines@v1",)


def test_rows_without_a_label_are_taught_by_the_teacher_alone(taught: Taught) -> None:
    """All rows of c have lost theirs, and the student knows it all the same, from a teacher that saw it elsewhere."""
    rows = points(LABELS, 72, seed=5)
    hidden = [row | {"label": None} if row["split"] == "train" and at % 4 else row for at, row in enumerate(rows)]
    register(taught.workspace, "hidden", hidden)
    report = taught.distil("lines@v1", "hidden")["report"]
    assert report["distillation"]["unlabelled"] == sum(row["label"] is None for row in hidden)
    assert report["validation"]["value"] > 0.9
    assert any("were learned from the teacher alone" in note for note in report["notes"])
    alone = taught.distil("lines@v1", "hidden", unlabelled=False)["report"]
    assert alone["distillation"]["unlabelled"] == 0
    assert alone["examples"] < report["examples"]


@pytest.mark.slow
def test_several_teachers_are_one_and_states_are_matched(taught: Taught) -> None:
    report = taught.distil(["net@v1", "lines@v1"], features=1.0)["report"]
    assert [row["model"] for row in report["distillation"]["frontier"]] == ["small", "net@v1", "lines@v1"]
    assert report["distillation"]["kept"] > 0.9


@pytest.mark.slow
def test_a_teacher_is_asked_once(taught: Taught, monkeypatch: pytest.MonkeyPatch) -> None:
    taught.distil("lines@v1")
    asked = []
    load = predictor.load

    def counted(path: Any, cache: Any = None, threads: int = 1) -> Any:
        found = load(path, cache, threads)
        if cache is not None and "lines" in str(path):  # not where its latency is measured
            asked.append(path)
        return found

    monkeypatch.setattr(predictor, "load", counted)
    taught.distil("lines@v1", temperature=4.0)
    assert not asked


def test_what_a_teacher_has_learned_does_not_judge_its_student(taught: Taught) -> None:
    """Half of the new validation split was the teacher's training data: what it remembers, it tells."""
    rows = points(LABELS, 72)
    moved = [row | {"split": "validation"} if at % 24 < 3 else row for at, row in enumerate(rows)]
    assert sum(a["split"] == "train" and b["split"] == "validation" for a, b in zip(rows, moved, strict=True)) == 9
    register(taught.workspace, "moved", moved)
    result = taught.distil("lines@v1", "moved")
    assert result["report"]["left_out"] == 9
    assert any("9 validation examples that lines@v1 has learned from" in note for note in result["report"]["notes"])
    workspace = taught.workspace
    card = registry.resolve(workspace.database, workspace.folders, result["model"]).card
    learned = learned_from(workspace.database, workspace.folders, card)
    assert learned is not None
    assert {version.ref for version in learned} == {"moved@v1", "points@v1"}


def test_without_a_validation_split_a_teacher_of_the_same_rows_is_refused(taught: Taught) -> None:
    rows = [row for row in points(LABELS, 72) if row["split"] != "validation"]
    register(taught.workspace, "folded", rows)
    with pytest.raises(SpeciateError, match="lines@v1 has learned from examples of the training split") as error:
        taught.distil("lines@v1", "folded")
    assert error.value.code is Code.INVALID


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ({}, Code.INVALID, "teacher names none"),
        ({"teacher": "nobody@v1"}, Code.NOT_FOUND, "nobody"),
        ({"teacher": "pkg:minilm"}, Code.INVALID, "pkg:minilm does feature-extraction"),
        ({"teacher": "lines@v1", "task": "tabular-ordinal-classification",
          "hyperparameters": {"order": ["a", "b", "c"]}}, Code.INVALID, "the student is to do tabular-ordinal"),
        ({"teacher": "lines@v1", "hyperparameters": {"alpha": 2}}, Code.INVALID, "hyperparameters.alpha is 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_taught_is_refused_before_there_is_a_job(
    taught: Taught, asked: dict[str, Any], code: Code, words: str
) -> None:
    with pytest.raises(SpeciateError, match=words) as error:
        taught.plan(**asked)
    assert error.value.code is code


def test_states_of_what_is_no_network_cannot_be_matched(taught: Taught) -> None:
    with pytest.raises(SpeciateError, match="it has no states"):
        taught.distil("lines@v1", features=1.0)


def test_a_student_of_numbers_learns_a_teachers_numbers(taught: Taught) -> None:
    chance = np.random.default_rng(0)
    rows = [
        {"x": float(x), "y": float(y), "z": 0.0, "label": round(float(3 * x - y), 3),
         "split": ("train", "train", "validation", "test")[at % 4]}
        for at, (x, y) in enumerate(chance.normal(0, 1, (80, 2)))
    ]  # fmt: skip
    register(taught.workspace, "heights", rows)
    taught.train("line", "heights", "classical")
    report = taught.distil(
        "line@v1", "heights", alpha=1.0, learning_rate=[1e-2], num_train_epochs=40, early_stopping_patience=40
    )["report"]
    spread = float(np.std([row["label"] for row in rows]))
    assert report["validation"]["value"] < spread / 2  # its error
