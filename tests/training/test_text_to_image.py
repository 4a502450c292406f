"""Images drawn from texts, through the tools: a folder of images with captions, LoRA on a pipeline, predict, evaluate,
promote and serve."""

from __future__ import annotations

import csv
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers")

from PIL import Image, ImageDraw

from speciate.datasets import versions
from speciate.errors import Code, SpeciateError
from speciate.modalities.image_answers import is_image_answer
from speciate.predictions import reading
from speciate.predictions.label_queue import next_labels
from speciate.predictions.log_files import log_folder
from speciate.promotion import aliases
from speciate.server.tool_api import App, JobStarted
from speciate.serving.deployments import gather_examples
from speciate.serving.predict import Input
from speciate.tools.datasets import create_dataset
from speciate.tools.evaluation import describe_evaluation, evaluate_models
from speciate.tools.exports import export_model
from speciate.tools.jobs import get_job
from speciate.tools.models import register_model
from speciate.tools.predictions import predict
from speciate.tools.promotion import promote_model
from speciate.tools.training import train_model
from speciate.tools.use_cases import define_use_case
from speciate.use_cases import Objective
from tests.models.diffusion import doubles
from tests.models.published import doubles as published_doubles
from tests.training.in_use import offline_app, result  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow
KINDS = ("square", "circle")
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220)}
QUICK = {
    "num_train_epochs": 2,
    "batch_size": 8,
    "learning_rate": 5e-3,
    "num_inference_steps": 3,
    "precision": "float32",
}


def shapes(folder: Path, count: int = 36) -> Path:
    """Squares and circles of three colours, with `metadata.csv` of their captions and splits."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        colour, kind = list(COLOURS)[number % 3], KINDS[number // 3 % 2]
        image = Image.new("RGB", (16, 16), (240, 240, 240))
        left, top = random.integers(1, 6, 2).tolist()
        box = (left, top, left + 8, top + 8)
        pen = ImageDraw.Draw(image)
        (pen.rectangle if kind == "square" else pen.ellipse)(box, fill=COLOURS[colour])
        noisy = np.clip(np.asarray(image) + random.normal(0, 6, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:03}.png")
        split = "test" if number % 3 == 2 and number > 17 else "validation" if number % 6 == 5 else "train"
        rows.append({"file_name": f"{number:03}.png", "caption": f"a {colour} {kind}", "split": split})
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def ask(app: App, **where: Any) -> Any:
    """Again where the busy machine still loads the model, as the refusal says."""
    for _ in range(10):
        try:
            return predict(app, inputs=[Input(text="a red square"), Input(text="a red square")], **where)
        except SpeciateError as error:
            if error.code is not Code.UNAVAILABLE:
                raise
    raise AssertionError("the model was not loaded")


def test_from_a_folder_to_production(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = doubles.save(tmp_path / "base")
    result(app, create_dataset(app, name="shapes", source=str(shapes(tmp_path / "shapes"))))
    define_use_case(
        app, name="drawing", task="text-to-image", objective=Objective(metric="frechet_distance", target=50.0),
        incumbent="constant:",
    )  # fmt: skip
    published = result(app, register_model(app, name="shapes-base", source=f"path:{base}"))
    assert published["report"]["set_aside"] == 0
    started = train_model(
        app, name="shapes-lora", dataset="shapes", method="lora", base_model=published["model"], use_case="drawing",
        hyperparameters=QUICK,
    )  # fmt: skip
    trained = result(app, started)
    assert trained["report"]["metric"] == "denoising_error"
    assert trained["report"]["pipeline"]["side"] == doubles.SIDE
    assert isinstance(started, JobStarted)
    shown, *images = get_job(app, started.job, metrics=True)
    assert shown.learning is not None
    assert len(images) == 2  # curves and samples
    assert is_png(images[1].data)

    model = "shapes-lora@v1"
    answered, *drawn = ask(app, model=model)
    assert [each.untrusted.output["width"] for each in answered.predictions] == [doubles.SIDE] * 2
    assert "data" not in answered.predictions[0].untrusted.output
    assert len(drawn) == 2
    assert drawn[0].data != drawn[1].data  # by their ids
    assert ask(app, model=model)[1:] == tuple(drawn)

    manifest = versions.resolve(app.workspace.database, "shapes")
    monkeypatch.chdir(tmp_path)
    root = str(app.workspace.folders.root)
    gather_examples({"root": root, "manifest": manifest.model_dump(mode="json"), "captions": "caption"})
    warmup = json.loads((tmp_path / "warmup.json").read_text())
    assert {each["text"] for each in warmup} <= {f"a {colour} {kind}" for colour in COLOURS for kind in KINDS}
    answers = tmp_path / "answers.jsonl"
    written = result(app, predict(app, model=model, dataset="shapes:test", path=str(answers)))
    assert written["report"]["failed"] == 0, written
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert all(is_image_answer(row["output"]) for row in rows)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        published_doubles.clip(tmp_path / "clip")
    result(app, register_model(app, name="seer", source=f"path:{tmp_path / 'clip'}"))
    judged = result(
        app,
        evaluate_models(
            app, models=["shapes-base", model], dataset="shapes", use_case="drawing", latency=False,
            scorer="likeness:seer",
        ),
    )  # fmt: skip
    view, *sheets = describe_evaluation(app, judged["evaluation"], errors=3)
    assert {row.model for row in view.leaderboard} == {"constant:", "shapes-base@v1", model}
    assert all(row.interval is not None for row in view.leaderboard)
    assert all(-1 <= row.metrics["likeness:seer@v1"].value <= 1 for row in view.leaderboard)
    assert len(sheets) == 1
    assert Image.open(io.BytesIO(sheets[0].data)).size[0] > 300
    assert "iVBOR" not in str(view)

    report = result(app, export_model(app, model=model, path=str(tmp_path / "away")))
    assert "unet/" in report["report"]["files"] if "files" in report.get("report", {}) else True
    from diffusers import StableDiffusionPipeline

    theirs = StableDiffusionPipeline.from_pretrained(
        tmp_path / "away", local_files_only=True, safety_checker=None, requires_safety_checker=False
    )
    theirs.set_progress_bar_config(disable=True)
    assert theirs("a red square", num_inference_steps=2).images[0].size == (doubles.SIDE, doubles.SIDE)
    assert (tmp_path / "away" / "unet" / "config.json").is_file()

    assert judged["decision"]["verdict"] == "hold"  # random weights, and near-copies across the splits
    with pytest.raises(SpeciateError):
        promote_model(app, use_case="drawing", model=model)
    app.workspace.database.transact(
        lambda tx: aliases.move(
            tx, use_case="drawing", model=model, expected=None, action="promote", actor="test", evidence={}
        )
    )
    production, *_ = ask(app, use_case="drawing")
    logged = reading.find(log_folder(app.workspace.folders, "drawing"), production.predictions[0].prediction)
    assert logged is not None
    assert logged.output["sha256"] == production.predictions[0].untrusted.output["sha256"]
    assert is_png(log_folder(app.workspace.folders, "drawing").medium(logged.output["sha256"]).read_bytes())
    queue = next_labels(app.workspace, "drawing")
    assert len(queue.items[0].files) == 1


def test_what_cannot_be_trained_is_refused_with_what_can(app: App, tmp_path: Path) -> None:
    result(app, create_dataset(app, name="shapes", source=str(shapes(tmp_path / "shapes", 6))))
    given: dict[str, Any] = {"name": "x", "dataset": "shapes", "task": "text-to-image"}
    with pytest.raises(SpeciateError, match="no package brings one"):
        train_model(app, method="lora", **given)
    with pytest.raises(SpeciateError, match="does not learn to draw"):
        train_model(app, method="full", base_model="new:vit", **given)
    with pytest.raises(SpeciateError, match="fresh weights"):
        train_model(app, method="lora", base_model="new:vit", **given)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpeciateError, match=r"model_index\.json"):
        train_model(app, method="lora", base_model=f"path:{tmp_path / 'empty'}", **given)


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG")
