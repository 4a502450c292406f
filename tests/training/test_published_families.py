"""Published heads of further families, from a dataset to a trained version that answers and is evaluated."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from speciate.errors import SpeciateError
from speciate.evaluation import evaluate
from speciate.evaluation.reports.report import Report, find_report
from speciate.modalities.depth_maps import depth_cell
from speciate.tasks.predictor import load
from speciate.workspace.workspace import Workspace
from tests.evaluation.world import perform
from tests.models.published import doubles
from tests.training.world import define, make_dataset, model_path, png, thirds, train_now

pytestmark = pytest.mark.slow
COUNT = 48
QUICK = {"num_train_epochs": 30, "learning_rate": [3e-3], "batch_size": 8, "head": "published"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Case(NamedTuple):
    double: str
    task: str
    metric: str
    make: Callable[[Workspace], str | None]
    """Makes the dataset `some`; returns its target column."""
    lower: bool = False
    """Whether less is better."""


def _texts(seed: int = 3) -> list[str]:
    draw = np.random.default_rng(seed)
    words = doubles.WORDS.split()[:-2]
    return [" ".join(draw.choice(words, draw.integers(4, 9))) for _ in range(COUNT)]


def _rows(workspace: Workspace, modality: str, columns: dict[str, Any], **more: Any) -> None:
    given = {"labels": ["none"] * COUNT, "splits": thirds(COUNT)} | more
    make_dataset(workspace, "some", modality, columns, **given)


def scores(workspace: Workspace) -> str | None:
    texts = _texts()
    _rows(
        workspace, "text", {"text": texts, "score": [float("good" in each) * 4 - 1 for each in texts]}, inputs=["text"]
    )
    return "score"


def answers(workspace: Workspace) -> str | None:
    texts = _texts()
    found = ["good film" if "good" in each or "fine" in each else "bad day" for each in texts]
    _rows(workspace, "text", {"text": texts, "answer": found}, inputs=["text"])
    return "answer"


def marked(workspace: Workspace) -> str | None:
    passages = _texts()
    texts = [f"this day\n{passage}" for passage in passages]
    _rows(workspace, "text", {"text": texts, "answer": [each.split()[1] for each in passages]}, inputs=["text"])
    return "answer"


def series(workspace: Workspace) -> str | None:
    draw = np.random.default_rng(3)
    values = [(np.sin(np.arange(64) / 2 + draw.uniform(0, 6)) * 2 + 5).round(4).tolist() for _ in range(COUNT)]
    _rows(workspace, "time-series", {"values": values}, inputs=["values"])
    return None


def photos(workspace: Workspace) -> str | None:
    media, names = _images()
    _rows(workspace, "image", {}, labels=names, media=media)
    return None


def captions(workspace: Workspace) -> str | None:
    media, names = _images()
    _rows(workspace, "image", {"text": [f"a {name} day" for name in names]}, media=media)
    return "text"


def depths(workspace: Workspace) -> str | None:
    draw, media, cells = np.random.default_rng(3), [], []
    for _ in range(COUNT):
        floor = int(draw.integers(8, 40))
        image = draw.integers(0, 120, (48, 48, 3)).astype(np.uint8)
        image[floor:] += 100
        distances = np.full((48, 48), 8.0)
        distances[floor:], distances[0] = 2.0, np.nan
        media.append(png(image))
        cells.append(depth_cell(distances))
    _rows(workspace, "image", {"depth": cells}, media=media)
    return "depth"


def things(workspace: Workspace) -> str | None:
    draw, media, cells = np.random.default_rng(3), [], []
    for place in range(COUNT):
        image = draw.integers(60, 160, (64, 64, 3)).astype(np.uint8)
        name = list(doubles.COLOURS)[place // 4 % 2]
        found = []
        for left in (4, 36):
            top = int(draw.integers(4, 30))
            image[top : top + 26, left : left + 24] = doubles.COLOURS[name]
            outline = [[left, top, left + 24, top, left + 24, top + 26, left, top + 26]]
            found.append({"category": name, "bbox": [left, top, 24, 26], "segmentation": json.dumps(outline)})
        media.append(png(image))
        cells.append(found)
    _rows(workspace, "image", {"objects": cells}, media=media)
    return "objects"


def pages(workspace: Workspace) -> str | None:
    texts = [doubles.placed(text, 0) for text in _texts()]  # the same places on each page, the words differ
    tags = [["O" if word.startswith("good@") else "B-TOTAL" for word in each.split()] for each in texts]
    _rows(workspace, "text", {"text": texts, "tags": [json.dumps(each) for each in tags]}, inputs=["text"])
    return "tags"


def _images() -> tuple[list[bytes], list[str]]:
    draw, media = np.random.default_rng(3), []
    names = [list(doubles.COLOURS)[place // 4 % 2] for place in range(COUNT)]  # either in each split
    for name in names:
        image = draw.integers(60, 160, (40, 44, 3)).astype(np.uint8)
        image[8:28, 6:30] = doubles.COLOURS[name]
        media.append(png(image))
    return media, names


CASES = {
    "number": Case("bert score", "text-regression", "mae", scores, lower=True),
    "text to text": Case("t5", "text-generation", "chrf", answers),
    "question": Case("bert answers", "text-generation", "anls", marked),
    "forecast": Case("patchtst", "time-series-forecasting", "mase", series, lower=True),
    "zero-shot": Case("clip", "image-classification", "accuracy", photos),
    "caption": Case("trocr", "image-text-to-text", "chrf", captions),
    "depth": Case("depth_anything metric", "depth-estimation", "abs_rel", depths, lower=True),
    "segments": Case("mask2former", "panoptic-segmentation", "pq", things),
    "page": Case("layoutlm", "token-classification", "token_accuracy", pages),
}


@pytest.mark.parametrize("name", CASES)
def test_a_published_head_learns_and_its_version_is_better_than_the_model_as_it_was(
    workspace: Workspace, tmp_path: Path, name: str
) -> None:
    case, base = CASES[name], tmp_path / "base"
    torch.manual_seed(0)
    doubles.FAMILIES[case.double].build(base)
    target = case.make(workspace)
    define(workspace, "some-use", case.task, metric=case.metric, target_column=target)
    made = train_now(
        workspace, dataset="some", name="learned", use_case="some-use", method="full", base_model=f"path:{base}",
        hyperparameters=QUICK,
    )  # fmt: skip
    assert made["report"]["published_head"]["kept"] == "published"
    report = judge(workspace, [made["model"], f"path:{base}"], case)
    values = {each.model.partition("@")[0]: each.value for each in report.leaderboard}
    before, after = values["path:base"], values["learned"]
    assert before is not None
    assert after is not None
    assert after < before if case.lower else after > before, values
    assert all(each.errors == 0 for each in report.leaderboard)
    assert load(model_path(workspace, made["model"])).task == case.task


def judge(workspace: Workspace, models: list[str], case: Case) -> Report:
    given = {"models": models, "dataset": "some:test", "use_case": "some-use", "latency": False}
    found = perform(workspace, evaluate.KIND, given)
    return find_report(workspace.database, found["evaluation"])


def test_a_horizon_beyond_the_published_one_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    torch.manual_seed(0)
    doubles.patchtst(tmp_path / "base")
    series(workspace)
    with pytest.raises(SpeciateError, match="forecasts 8 steps, and the horizon is 9"):
        train_now(
            workspace, dataset="some", name="learned", method="full", base_model=f"path:{tmp_path / 'base'}",
            task="time-series-forecasting", hyperparameters=QUICK | {"horizon": 9},
        )  # fmt: skip


def test_depth_without_a_published_head_is_refused_with_what_would_do(workspace: Workspace) -> None:
    depths(workspace)
    with pytest.raises(SpeciateError, match="No head of ours does depth"):
        train_now(workspace, dataset="some", name="x", method="full", task="depth-estimation", target="depth")
