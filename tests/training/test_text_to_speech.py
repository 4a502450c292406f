"""Speech made from texts, through the tools: recordings with what is spoken in them, a published SpeechT5 trained
further, predict, evaluate, promote and serve."""

from __future__ import annotations

import csv
import json
import warnings
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("soundfile")

from speciate.datasets import versions
from speciate.errors import SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.modalities.audio_answers import decode_audio, is_audio_answer
from speciate.models import registry
from speciate.predictions import reading
from speciate.predictions.label_queue import next_labels
from speciate.predictions.log_files import log_folder
from speciate.promotion import aliases
from speciate.server.tool_api import App
from speciate.serving.deployments import gather_examples
from speciate.settings import Settings
from speciate.tools.datasets import create_dataset
from speciate.tools.evaluation import describe_evaluation, evaluate_models
from speciate.tools.exports import export_model
from speciate.tools.models import register_model
from speciate.tools.predictions import predict
from speciate.tools.promotion import promote_model
from speciate.tools.training import train_model
from speciate.tools.use_cases import define_use_case
from speciate.use_cases import Objective
from speciate.workspace.workspace import Workspace
from tests.models.published import doubles
from tests.training.test_text_to_image import ask, result

pytestmark = pytest.mark.slow
WORDS = "ada bob cid dot eve fay gus hal ivy jon kim lee".split()
QUICK = {
    "num_train_epochs": 30, "batch_size": 8, "learning_rate": [5e-3], "precision": "float32", "early_stopping_patience": 30,
}  # fmt: skip
LEVEL = 0.5


def recordings(folder: Path, count: int = 36, consent: str = "yes") -> Path:
    """Words in a made-up voice, with `metadata.csv` of what is spoken, the split and the consent."""
    folder.mkdir(parents=True)
    draw, rows = np.random.default_rng(0), []
    for number in range(count):
        text = " ".join(draw.choice(WORDS, 2).tolist())
        samples = doubles.say(text) + draw.normal(0, 1e-3, len(doubles.say(text)))
        with wave.open(str(folder / f"{number:03}.wav"), "wb") as out:
            out.setparams((1, 2, 16_000, len(samples), "NONE", ""))
            out.writeframes((samples * 32_767).astype("<i2").tobytes())
        split = ("train", "train", "validation", "test")[number % 4]
        rows.append({"file_name": f"{number:03}.wav", "transcription": text, "split": split, "consent": consent})
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto", roots=[tmp_path]))
    pool = Pool(workspace.folders, workspace.settings, size=1)
    made = App(workspace, Engine(workspace), pool)
    made.engine.start()
    yield made
    made.engine.stop()
    pool.close()
    workspace.close()


def base_model(folder: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doubles.speecht5(folder, **options)
    return folder


def test_from_a_folder_to_production(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_model(tmp_path / "base", vocoder=False)
    made = result(app, create_dataset(app, name="voice", source=str(recordings(tmp_path / "recordings"))))
    assert made["report"]["set_aside"] == 0, made
    define_use_case(
        app, name="speaking", task="text-to-speech", objective=Objective(metric="mel_cepstral_distortion", target=50.0),
        incumbent="constant:",
    )  # fmt: skip
    published = result(app, register_model(app, name="speaker", source=f"path:{base}", license="mit"))
    card = registry.versions(app.workspace.database, "speaker")[-1]
    assert (card.task, card.modality) == ("text-to-speech", "text")
    trained = result(
        app,
        train_model(
            app, name="ours", dataset="voice", method="full", base_model=published["model"], use_case="speaking",
            hyperparameters=QUICK,
        ),
    )  # fmt: skip
    assert trained["report"]["metric"] == "synthesis_loss"
    print(trained["report"]["value"] if "value" in trained["report"] else sorted(trained["report"]))
    model = trained["model"]
