"""Of methods that no row of docs/training.md has a model is exported and asked elsewhere: distillation, merging, mixed
rows, and sft."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speciate.datasets.loading.loader import Example
from speciate.exports import export_gates
from speciate.exports.card_check import compare, run_card
from speciate.exports.judging import evaluation_of_parent
from speciate.exports.reload_check import load_questions
from speciate.modalities.bundles import bundle
from speciate.models import registry
from speciate.tasks import predictor
from speciate.workspace.workspace import Workspace
from tests.data import run_job
from tests.exports.test_convert import converted, needs_engines, parent, waves
from tests.models.language.world import tiny_model
from tests.training.language.world import make_sums
from tests.training.merging.test_merge_models import begin, merge_now, tune
from tests.training.world import make_dataset, thirds, train_now

pytestmark = pytest.mark.slow
pytest.importorskip("torch")


def leaves(workspace: Workspace, tmp_path: Path, model: str, form: str) -> None:
    out = tmp_path / "out"
    report = run_job(workspace, "export_model", model=model, path=str(out))["report"]
    assert report["form"] == form
    version = registry.resolve(workspace.database, workspace.folders, model)
    test = evaluation_of_parent(version.card, f"{version.card.dataset}:test", None, workspace)
    examples = load_questions(workspace.folders, test)[:50]
    told = run_card(out, [each.media for each in examples], images=form == "transformers")
    assert compare(told, predictor.load(version.path).predict(examples)).n > 10


def films(workspace: Workspace, count: int = 240) -> None:
    texts = [f"{('a fine day', 'an awful bore', 'rain and fog')[i % 3]} {i % 17} {i % 5}" for i in range(count)]
    labels = [("good", "bad", "wet")[i % 3] for i in range(count)]
    make_dataset(workspace, "films", "text", {"text": texts}, labels=labels, splits=thirds(count), inputs=["text"])


def test_a_distilled_network(workspace: Workspace, tmp_path: Path) -> None:
    films(workspace)
    quick = {"num_train_epochs": 2, "learning_rate": [1e-3]}
    teacher = train_now(
        workspace, "job-a", name="lines", dataset="films", method="classical",
        hyperparameters={"candidates": ["logistic"]},
    )["model"]  # fmt: skip
    made = train_now(
        workspace, "job-b", name="small", dataset="films", method="distill", base_model="new:bert", teacher=teacher,
        hyperparameters=quick,
    )  # fmt: skip
    leaves(workspace, tmp_path, str(made["model"]), "transformers")


def test_merged_networks(workspace: Workspace, tmp_path: Path) -> None:
    begin(workspace)
    parents = [tune(workspace, "one", 1), tune(workspace, "two", 2)]
    made = merge_now(workspace, models=tuple(parents), method="soup")
    leaves(workspace, tmp_path, str(made["model"]), "sealed")


@pytest.mark.parametrize("candidate", ["logistic", "boosting", "neighbours"])
def test_a_model_of_mixed_rows(workspace: Workspace, tmp_path: Path, candidate: str) -> None:
    labels = [("calm", "urgent")[i % 3 == 0] for i in range(90)]
    media = [
        bundle({"note.text": f"{('strong pain', 'slept well')[label == 'calm']} {i}".encode(), "photo.image": png(i)})
        for i, label in enumerate(labels)
    ]
    make_dataset(workspace, "rounds", "multimodal", {}, labels=labels, splits=thirds(90), media=media)
    made = train_now(
        workspace, name="urgency", dataset="rounds", method="classical", task="multimodal-classification",
        hyperparameters={"candidates": [candidate]},
    )  # fmt: skip
    leaves(workspace, tmp_path, str(made["model"]), "sealed")


def test_a_language_model_says_the_same_by_its_pipeline(workspace: Workspace, tmp_path: Path) -> None:
    make_sums(workspace)
    quick: dict[str, Any] = {
        "changes": "full", "num_train_epochs": 4, "batch_size": 16, "learning_rate": 5e-3, "max_new_tokens": 4,
    }  # fmt: skip
    made = train_now(
        workspace, name="adder", dataset="sums", method="sft", base_model=tiny_model(tmp_path / "base"),
        hyperparameters=quick,
    )  # fmt: skip
    out = tmp_path / "out"
    assert run_job(workspace, "export_model", model=made["model"], path=str(out))["report"]["form"] == "published"
    asked = [f"what is {a} plus {b}?" for a in range(5) for b in range(10)]
    version = registry.resolve(workspace.database, workspace.folders, str(made["model"]))
    examples = [Example(str(place), text, None, str(place), "", {}) for place, text in enumerate(asked)]
    ours = predictor.load(version.path).predict(examples)
    assert run_card(out, asked, images=False)["answers"] == [each.output for each in ours]


@needs_engines
def test_a_version_for_onnxruntime(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_gates, "_SLOWER", 100.0)  # a busy machine decides how long 13,000 weights take
    waves(workspace)
    parent(workspace, tmp_path)
    made = converted(workspace, model="own", format="onnx")
    leaves(workspace, tmp_path, str(made["model"]), "sealed")


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((24, 24, 3), 2 * number % 256, np.uint8)).save(out, "PNG")
    return out.getvalue()
