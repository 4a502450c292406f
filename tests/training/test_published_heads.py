"""A base model's own head in trainings as a user has them: planned, trained, evaluated, trained on, exported."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation import evaluate
from speciate.evaluation.reports.report import find_report
from speciate.models import registry
from speciate.models.published.architectures import check_head
from speciate.models.published.published_model import load_model
from speciate.tasks.predictor import load
from speciate.training import train
from speciate.training.planning.training_plan import plan_training
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace
from tests.evaluation.world import perform
from tests.models.published import doubles
from tests.training.world import make_dataset, model_path, png, thirds, train_now

COUNT = 60
QUICK = {"num_train_epochs": 10, "learning_rate": [3e-3], "batch_size": 8}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doubles.bert(root / "sentiment", ("NEGATIVE", "POSITIVE"))
        doubles.vit(root / "colours")
        doubles.detr(root / "boxes")
    return root


def make_texts(
    workspace: Workspace, labels: tuple[str, ...] = ("bad", "good"), name: str = "reviews", count: int = COUNT
) -> Manifest:
    draw = np.random.default_rng(3)
    given = [labels[place // 3 % len(labels)] for place in range(count)]
    words = ("awful hate", "very good", "not green")
    texts = [f"{words[labels.index(each)]} {' '.join(draw.choice(doubles.WORDS.split(), 3))}" for each in given]
    return make_dataset(workspace, name, "text", {"text": texts}, labels=given, splits=thirds(count), inputs=["text"])


def make_images(workspace: Workspace, labels: tuple[str, ...] = ("red", "green"), count: int = COUNT) -> Manifest:
    draw, made = np.random.default_rng(4), []
    given = [labels[place // 3 % len(labels)] for place in range(count)]
    for each in given:
        image = draw.integers(60, 160, (40, 44, 3)).astype(np.uint8)
        image[8:28, 6:30] = list(doubles.COLOURS.values())[labels.index(each)]
        made.append(png(image))
    return make_dataset(workspace, "photos", "image", {}, labels=given, splits=thirds(count), media=made)


def learn(workspace: Workspace, base: Path | str | None, job: str = "job-x", **spec: Any) -> dict[str, Any]:
    named = {"base_model": f"path:{base}" if isinstance(base, Path) else base} if base else {}
    given = {"dataset": "reviews", "name": "sorter", "method": "full", "hyperparameters": QUICK} | named | spec
    return train_now(workspace, job, **given)


@pytest.mark.parametrize(
    "method",
    ["full", pytest.param("lora", marks=pytest.mark.slow(reason="test_own_heads.py: adapters beside a kept head"))],
)
def test_a_published_classifier_keeps_its_head_from_the_plan_to_the_answers(
    workspace: Workspace, folders: Path, method: str
) -> None:
    make_texts(workspace, count=120)
    base = folders / "sentiment"
    planned = plan_training(workspace, "reviews", base_model=f"path:{base}")
    assert {each.method: each.head for each in planned.candidates} == {
        "probe": None, "lora": "published", "full": "published",
    }  # fmt: skip
    rate = [3e-3] if method == "full" else [1e-2]
    made = learn(workspace, base, method=method, hyperparameters=QUICK | {"learning_rate": rate})
    report = made["report"]
    assert report["published_head"]["labels_from"] == {"bad": ["NEGATIVE"], "good": ["POSITIVE"]}
    assert report["published_head"]["new_labels"] == []
    assert report["validation"]["value"] > 0.8
    path = model_path(workspace, made["model"])
    assert json.loads((path / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]
    model = load(path)
    assert model.labels == ("bad", "good")
    evaluated = perform(workspace, evaluate.KIND, {"models": [made["model"], f"path:{base}"], "dataset": "reviews"})
    rows = {row.model: row for row in find_report(workspace.database, evaluated["evaluation"]).leaderboard}
    assert rows[made["model"]].value is not None
    assert rows[made["model"]].value > 0.8
    assert rows[made["model"]].errors == 0
    card = registry.resolve(workspace.database, workspace.folders, made["model"]).card
    assert card.recipe["published_head"]["kept"] == "published"
    assert card.recipe["spec"]["hyperparameters"]["head"] == "published"


def test_new_labels_begin_at_zero_beside_known_ones_and_the_card_says_so(workspace: Workspace, folders: Path) -> None:
    make_images(workspace, ("red", "green", "scratch"))
    spec = TrainSpec(dataset="photos", name="eye", method="full", base_model=f"path:{folders / 'colours'}")
    plan = train.plan(spec, workspace)
    assert (plan.resolved["head"], plan.resolved["new_labels"]) == ("published", ["scratch"])
    brief = QUICK | {"num_train_epochs": 2}  # what it has learned is not asked
    made = learn(workspace, folders / "colours", dataset="photos", name="eye", hyperparameters=brief)
    assert made["report"]["published_head"]["new_labels"] == ["scratch"]
    assert any("no label for scratch: their rows began at zero" in note for note in made["report"]["notes"])
    assert load(model_path(workspace, made["model"])).labels == ("green", "red", "scratch")


def test_where_no_label_is_known_a_new_head_is_put_on_unless_the_published_one_is_asked_for(
    workspace: Workspace, folders: Path
) -> None:
    make_texts(workspace, ("sports", "politics"))
    base = f"path:{folders / 'sentiment'}"

    def head(**hyperparameters: Any) -> Any:
        spec = TrainSpec(dataset="reviews", name="x", method="full", base_model=base, hyperparameters=hyperparameters)
        return train.plan(spec, workspace).resolved.get("head")

    assert head() == "new"
    assert head(head="published") == "published"
    assert head(head="new") == "new"
    made = learn(workspace, folders / "sentiment")
    assert (model_path(workspace, made["model"]) / "backbone.safetensors").is_file()


def test_a_head_that_cannot_be_kept_is_refused_with_the_call_that_works(workspace: Workspace, folders: Path) -> None:
    make_texts(workspace)
    asked = {"hyperparameters": {"head": "published"}}
    for more, message in (
        ({"base_model": "new:bert"}, "was published without a head"),
        ({"base_model": f"path:{folders / 'colours'}"}, "cannot be trained on text"),
    ):
        with pytest.raises(SpeciateError, match=message) as refused:
            train.plan(TrainSpec(dataset="reviews", name="x", method="full", **asked, **more), workspace)
        assert refused.value.code is Code.INVALID
    make_images(workspace)
    with pytest.raises(SpeciateError, match="cannot be trained on image"):
        train.plan(
            TrainSpec(dataset="photos", name="x", method="full", base_model=f"path:{folders / 'boxes'}"), workspace
        )


def test_a_model_with_a_kept_head_is_trained_on_with_its_labels_and_a_new_one(
    workspace: Workspace, folders: Path
) -> None:
    make_texts(workspace)
    first = learn(workspace, folders / "sentiment")
    make_texts(workspace, ("bad", "good", "mixed"), "more")
    second = learn(workspace, None, "job-y", dataset="more", continue_from=first["model"], method=None, name="sorter")
    found = second["report"]["published_head"]
    assert found["labels_from"] == {"bad": ["bad"], "good": ["good"]}
    assert found["new_labels"] == ["mixed"]
    assert load(model_path(workspace, second["model"])).labels == ("bad", "good", "mixed")


def test_a_recipe_with_a_kept_head_is_repeated_to_the_same_model(workspace: Workspace, folders: Path) -> None:
    make_texts(workspace)
    first = learn(workspace, folders / "sentiment", method="lora")
    again = train_now(workspace, "job-y", like=first["model"])
    assert again["report"]["repetition"]["same_model"]


def test_a_table_of_labels_says_which_rows_an_unnamed_head_keeps(workspace: Workspace, tmp_path: Path) -> None:
    from speciate.models.published.manifest import write_manifest

    make_texts(workspace)
    torch.manual_seed(0)
    doubles.bert(tmp_path / "unnamed", ("LABEL_0", "LABEL_1"))
    spec = TrainSpec(dataset="reviews", name="x", method="full", base_model=f"path:{tmp_path / 'unnamed'}")
    assert train.plan(spec, workspace).resolved["head"] == "new"
    write_manifest(tmp_path / "unnamed", "unnamed", {"LABEL_0": "bad", "LABEL_1": "good"})
    assert train.plan(spec, workspace).resolved["head"] == "published"


def test_the_saved_folder_is_one_that_transformers_reads_and_answers_alike(workspace: Workspace, folders: Path) -> None:
    from transformers import pipeline

    make_texts(workspace)
    path = model_path(workspace, learn(workspace, folders / "sentiment")["model"])
    texts = ["very good day", "awful film hate", "the food"]
    asked = pipeline("text-classification", model=str(path), device="cpu", top_k=None)
    model = load_model(path, check_head(path, "saved"))
    from speciate.models.published.asking import ask

    for answer, found in zip(ask(model, texts), asked(texts), strict=True):
        for each in found:
            assert (answer.probabilities or {})[each["label"]] == pytest.approx(each["score"], abs=1e-5)
