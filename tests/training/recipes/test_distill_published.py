"""Published models as teachers: a classifier under the labels that it was registered with, and what none can teach."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.models.fetch import FetchSpec
from speciate.tasks import predictor
from speciate.training import train
from speciate.training.planning.prior_model_checks import language_model_teaches
from speciate.training.recipes.teachers import teacher_labels
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace
from tests.models.published import doubles
from tests.models.test_pickled_weights import run_job
from tests.training.world import make_dataset, model_path, thirds, train_now

pytestmark = pytest.mark.slow
COUNT = 48


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def registered(workspace: Workspace, folder: Path, name: str, double: str, **said: Any) -> None:
    torch.manual_seed(0)
    doubles.FAMILIES[double].build(folder)
    run_job(workspace, FetchSpec(name=name, source=f"path:{folder}", **said))
    shutil.rmtree(workspace.folders.runs / "job-f.1")


def letters(workspace: Workspace) -> list[str]:
    """Its training texts; the labels have nothing to do with them."""
    draw, words = np.random.default_rng(3), doubles.WORDS.split()
    texts = [" ".join(draw.choice(words, 5)) for _ in range(COUNT)]
    labels = [("good", "bad")[place // 4 % 2] for place in range(COUNT)]
    make_dataset(workspace, "letters", "text", {"text": texts, "answer": texts}, labels=labels,
                 splits=thirds(COUNT), inputs=["text"])  # fmt: skip
    return [text for text, split in zip(texts, thirds(COUNT), strict=True) if split == "train"]


def test_a_published_classifier_teaches_under_the_users_labels(workspace: Workspace, tmp_path: Path) -> None:
    table = {"negative": "bad", "positive": "good"}
    registered(workspace, tmp_path / "base", "theirs", "bert", labels=table)
    texts = letters(workspace)
    assert teacher_labels(model_path(workspace, "theirs@v1")) == ("bad", "good")
    made = train_now(
        workspace, dataset="letters", name="small", method="distill", base_model="new:bert", teacher="theirs@v1",
        hyperparameters={"num_train_epochs": 30, "learning_rate": [3e-3], "alpha": 1.0},
    )  # fmt: skip
    student, teacher = made["report"]["distillation"]["frontier"]
    assert (student["role"], teacher["role"], teacher["model"]) == ("student", "teacher", "theirs@v1")
    asked = [Example(str(place), text, None, str(place), "train", {}) for place, text in enumerate(texts)]
    one, other = (
        [(each.probabilities or {})["good"] for each in predictor.load(model_path(workspace, ref)).predict(asked)]
        for ref in ("theirs@v1", made["model"])
    )
    assert np.corrcoef(one, other)[0, 1] > 0.7, "no label was looked at: what the student knows is the teacher's"


def test_one_whose_labels_nobody_has_matched_is_refused_with_the_call(workspace: Workspace, tmp_path: Path) -> None:
    registered(workspace, tmp_path / "base", "theirs", "bert")
    letters(workspace)
    spec = {"dataset": "letters", "name": "small", "method": "distill", "base_model": "new:bert"}
    with pytest.raises(SpeciateError, match="nobody has said which of yours") as refused:
        train.plan(TrainSpec.model_validate({**spec, "teacher": "theirs@v1"}), workspace)
    (then,) = refused.value.next
    assert (then.tool, then.arguments["name"]) == ("register_model", "theirs")


def test_a_model_that_writes_by_a_head_is_no_language_model_that_teaches(workspace: Workspace, tmp_path: Path) -> None:
    registered(workspace, tmp_path / "base", "writer", "t5", task="text-generation")
    letters(workspace)
    spec = TrainSpec.model_validate(
        {"dataset": "letters", "name": "small", "method": "distill", "teacher": "writer@v1", "target": "answer",
         "task": "text-generation"}
    )  # fmt: skip
    assert not language_model_teaches(spec, workspace)
    with pytest.raises(SpeciateError) as refused:
        train.plan(spec, workspace)
    assert refused.value.code in (Code.INVALID, Code.REFUSED)
