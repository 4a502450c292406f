"""A training that keeps a published head is killed at drawn steps, and ends in the same model as one left alone."""

from __future__ import annotations

import io
import itertools
import random
import time
import warnings
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch

from speciate.jobs.engine import Engine
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import ENDED
from speciate.modalities.depth_maps import depth_cell
from speciate.models import registry
from speciate.models.model_card import ModelCard
from speciate.settings import Capacity, Settings
from speciate.workspace.workspace import Workspace
from tests.crash import saving
from tests.crash.test_training_resume import _kill as kill
from tests.models.published import doubles
from tests.training.world import make_dataset, png, thirds

pytestmark = [pytest.mark.durable, pytest.mark.slow]
COUNT, KILLS, PATIENCE = 24, 2, 300.0
SETTINGS: dict[str, Any] = {
    "num_train_epochs": 5, "learning_rate": [1e-3], "batch_size": 4, "early_stopping_patience": 5,
    "precision": "float32", "head": "published",
}  # fmt: skip


class Case(NamedTuple):
    double: str
    modality: str
    task: str
    method: str = "full"


CASES = [
    Case("bert", "text", "text-classification"),
    Case("bert", "text", "text-classification", "lora"),
    Case("modernbert", "text", "text-classification"),
    Case("qwen3", "text", "text-classification", "lora"),
    Case("bert tags", "text", "token-classification"),
    Case("vit", "image", "image-classification", "lora"),
    Case("resnet", "image", "image-classification"),
    Case("detr", "image", "object-detection"),
    Case("rt_detr", "image", "object-detection"),
    Case("segformer", "image", "image-segmentation"),
    Case("wav2vec2", "audio", "audio-classification"),
    Case("wav2vec2 ctc", "audio", "automatic-speech-recognition"),
    Case("whisper", "audio", "automatic-speech-recognition", "lora"),
    Case("speecht5", "audio", "text-to-speech"),
    Case("speecht5", "audio", "text-to-speech", "lora"),
    Case("depth_anything metric", "image", "depth-estimation"),
    Case("mask2former", "image", "panoptic-segmentation"),
    Case("layoutlm", "text", "token-classification", "lora"),
    Case("donut", "image", "image-text-to-text"),
    Case("blip", "image", "image-text-to-text", "lora"),
    Case("clip", "image", "image-classification", "lora"),
    Case("t5", "text", "text-generation"),
    Case("bert score", "text", "text-regression", "lora"),
]


class World(NamedTuple):
    workspace: Workspace
    engine: Engine
    folders: Path
    numbers: Iterator[int]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = Settings(policy="auto", capacity=Capacity(cpu=2))
    workspace = Workspace(tmp_path_factory.mktemp("kills") / "workspace", settings=settings)
    engine = Engine(workspace)
    engine.kinds.add(saving.KIND)
    engine.start()
    yield World(workspace, engine, tmp_path_factory.mktemp("bases"), itertools.count())
    engine.stop()
    workspace.close()


def dataset(world: World, case: Case) -> dict[str, Any]:
    """Of the task's kind, made once; what a training is told of it."""
    placed = case.double == "layoutlm"
    name = f"{case.modality}-{case.task}{'-placed' if placed else ''}"
    told = {"dataset": name, "task": case.task}
    columns: dict[str, list[Any]] = {}
    media: list[bytes] = []
    draw, first = np.random.default_rng(0), [place // 3 % 2 == 0 for place in range(COUNT)]
    labels = ["red" if each else "green" for each in first]
    match case.task:
        case "text-classification" | "token-classification" | "text-generation" | "text-regression":
            texts = [
                f"{'good' if each else 'awful'} {' '.join(draw.choice(doubles.WORDS.split(), 4))}" for each in first
            ]
            columns["text"] = [doubles.placed(each, seed) if placed else each for seed, each in enumerate(texts)]
            columns["tags"] = [["B-PER" if word in ("good", "red") else "O" for word in each.split()] for each in texts]
            columns["answer"] = ["good film" if each else "bad day" for each in first]
            columns["score"] = [2.0 if each else -1.0 for each in first]
        case "audio-classification" | "automatic-speech-recognition" | "text-to-speech":
            media = [tone(each, place) for place, each in enumerate(first)]
            columns["spoken"] = ["good film" if each else "bad day" for each in first]
        case _:
            pixels = [draw.integers(60, 160, (40, 40, 3)).astype(np.uint8) for _ in first]
            for image, each in zip(pixels, first, strict=True):
                image[8:28, 6:30] = (220, 30, 30) if each else (30, 200, 40)
            media = [png(image) for image in pixels]
            columns["caption"] = [f"a {label} day" for label in labels]
            columns["depth"] = [depth_cell(np.where(image[..., 0] > 100, 2.0, 8.0)) for image in pixels]
            outline = [[6.0, 8.0, 30.0, 8.0, 30.0, 28.0, 6.0, 28.0]]
            columns["objects"] = [
                [{"category": label, "bbox": [6.0, 8.0, 24.0, 20.0], "segmentation": outline}] for label in labels
            ]
    target = {
        "token-classification": "tags", "automatic-speech-recognition": "spoken", "text-to-speech": "spoken",
        "object-detection": "objects",
        "image-segmentation": "objects", "panoptic-segmentation": "objects", "depth-estimation": "depth",
        "image-text-to-text": "caption", "text-generation": "answer", "text-regression": "score",
    }.get(case.task)  # fmt: skip
    if world.workspace.database.read_one("SELECT 1 FROM dataset_versions WHERE name = ?", [name]) is None:
        make_dataset(
            world.workspace, name, case.modality, columns, labels=labels, splits=thirds(COUNT, ("train", "validation")),
            inputs=["text"] if "text" in columns else (), media=media,
        )  # fmt: skip
    return told | ({"target": target} if target else {})


def tone(low: bool, place: int) -> bytes:
    moments = np.arange(8000 + 400 * (place % 2)) / 16_000
    sound = 0.4 * np.sin(2 * np.pi * (220 if low else 1800) * moments) + 0.01 * np.sin(place * moments)
    with io.BytesIO() as file:
        with wave.open(file, "wb") as out:
            out.setparams((1, 2, 16_000, len(sound), "NONE", ""))
            out.writeframes((sound * 32767).astype("<i2").tobytes())
        return file.getvalue()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.double} {case.method}")
def test_a_killed_training_ends_in_the_same_model(world: World, case: Case) -> None:
    if case.modality == "audio":
        pytest.importorskip("soundfile")
    folder = world.folders / case.double.replace(" ", "-")
    if not folder.is_dir():
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            doubles.FAMILIES[case.double].build(folder)
    spec = dataset(world, case) | {
        "method": case.method, "base_model": f"path:{folder}", "hyperparameters": SETTINGS,
    }  # fmt: skip
    chance = random.Random(f"{case}")
    whole = finished(world, submit(world, spec))
    steps = int((world.engine.get(whole).result or {})["report"]["cost"]["steps"])
    job = submit(world, spec)
    goals = sorted(chance.sample(range(1, max(steps - 1, 3)), KILLS))
    killed = [at for goal in goals if (at := kill_at(world, job, goal)) is not None]
    card = card_of(world, finished(world, job))
    assert killed, (goals, steps)
    assert card.id == card_of(world, whole).id, killed
    assert card.recipe["published_head"]["kept"] == "published"
    print(f"{case.double} {case.method}: killed at {killed} of {steps}")


def submit(world: World, spec: dict[str, Any]) -> str:
    return str(world.engine.submit(saving.KIND.name, {**spec, "name": f"net-{next(world.numbers)}"}).id)


def finished(world: World, job: str) -> str:
    found = world.engine.wait(job, timeout=PATIENCE)
    assert found.state == "succeeded", (found.state, found.error, world.engine.folder(found).log_tail(20))
    return job


def card_of(world: World, job: str) -> ModelCard:
    result = world.engine.get(job).result or {}
    return registry.resolve(world.workspace.database, world.workspace.folders, result["model"]).card


def kill_at(world: World, job: str, goal: int) -> float | None:
    """kill -9 of the worker, and by a coin of its supervisor, once it has told of so many steps; where it was."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = world.engine.get(job)
        if found.state in ENDED:
            return None
        folder: RunFolder = world.engine.folder(found)
        progress = folder.progress() if found.state == "running" else None
        if progress is not None and progress.unit == "steps" and progress.done >= goal:
            return progress.done if kill(folder, supervisor=goal % 2 == 0) else None
        time.sleep(0.002)
    raise AssertionError(f"{job} came nowhere")
