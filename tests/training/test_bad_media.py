"""Media that nobody would wish for: silence, damaged files, series of any length. Each is learned from or refused in a
sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.versions import version
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests.data import digit_folder, ingest
from tests.modalities.samples import sound
from tests.training.world import make_dataset, thirds, train_now

RATE = 16_000


def _learn(workspace: Workspace, task: str) -> dict[str, Any]:
    report: dict[str, Any] = train_now(workspace, name="model", dataset="data", method="classical", task=task)["report"]
    return report


def _sounds(folder: Path, silent: int) -> Path:
    """`folder/PITCH/N.wav`, of which every so-many-th is silence."""
    chance, time = np.random.default_rng(0), np.arange(RATE // 4) / RATE
    for number in range(90):
        low = number % 2 == 0
        wave = 0.5 * np.sin(2 * np.pi * (200 if low else 1800) * time * chance.uniform(0.9, 1.1))
        path = folder / ("low" if low else "high") / f"{number:03}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = wave * 0 if number % silent == 0 else wave
        path.write_bytes(sound("WAV", wave.astype(np.float32), samplerate=RATE))
    return folder


def test_silence_among_sounds_is_set_apart_with_the_reason_and_the_rest_is_learned(
    workspace: Workspace, tmp_path: Path
) -> None:
    ingest(workspace, "data", source=str(_sounds(tmp_path / "sounds", 3)), modality="audio", label="folder")
    assert version(workspace.database, "data").report["ok"] == 60
    report = _learn(workspace, "audio-classification")
    assert report["examples"] <= 60, "some are for testing"
    assert report["validation"]["value"] > 0.9


def test_of_silence_alone_no_dataset_is_made_and_a_sentence_says_why(workspace: Workspace, tmp_path: Path) -> None:
    silent = str(_sounds(tmp_path / "sounds", 1))
    with pytest.raises(SpeciateError, match="None of the 90 items can be used"):
        ingest(workspace, "data", source=silent, modality="audio", label="folder")


def test_half_of_the_images_damaged_leaves_a_model_of_the_other_half(workspace: Workspace, tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", count=200, classes=2)
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        if number % 2:
            file.write_bytes(file.read_bytes()[: 20 + number % 7])
    ingest(workspace, "data", source=str(folder), modality="image", label="folder")
    told = version(workspace.database, "data").report
    assert told["ok"] == 100
    report = _learn(workspace, "image-classification")
    assert report["examples"] <= 100, "some are for testing"
    assert report["validation"]["value"] > 0.8


def test_series_of_any_length_are_learned_from_and_answered(workspace: Workspace) -> None:
    chance = np.random.default_rng(0)
    kinds = [i // 4 % 2 for i in range(120)]
    series = []
    for kind in kinds:
        steps = np.arange(int(chance.integers(2, 9)) * 10 + 7 * kind)
        series.append((np.sin(steps * (0.3 + 0.5 * kind)) + chance.normal(0, 0.2, len(steps))).tolist())
    labels = [("slow", "fast")[kind] for kind in kinds]
    make_dataset(
        workspace, "data", "time-series", {"level": series}, labels=labels, splits=thirds(120), inputs=["level"]
    )
    report = _learn(workspace, "time-series-classification")
    assert report["validation"]["value"] > 0.9
    refused = {one["name"]: one["reason"] for one in report["candidates"] if one["value"] is None}
    assert "do not line up" in refused["steps: linear"]


def test_series_too_short_for_anything_are_still_described(workspace: Workspace) -> None:
    chance = np.random.default_rng(0)
    labels = [("low", "high")[i // 4 % 2] for i in range(60)]
    series = [[float(chance.normal(3 * (label == "high"))) for _ in range(3)] for label in labels]
    make_dataset(
        workspace, "data", "time-series", {"level": series}, labels=labels, splits=thirds(60), inputs=["level"]
    )
    assert _learn(workspace, "time-series-classification")["validation"]["value"] > 0.85
