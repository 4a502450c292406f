"""What several models made of the same texts, side by side: a row for each example, the real one first. Speech is shown
as its spectrogram. Runs in a service process."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from speciate.evaluation.reports.stored_answers import LOST, RECOVERY
from speciate.jobs.pool import ImageAnswer
from speciate.modalities.audio import SAMPLE_RATE, log_mel
from speciate.modalities.audio_answers import decode_audio, is_audio_answer, resample
from speciate.modalities.drawing import spectrogram
from speciate.modalities.image_answers import Pixels, decode_image, is_image_answer
from speciate.models.diffusion.contact_sheet import draw_labelled_grid
from speciate.workspace import integrity

_MOST_MODELS, _MOST_ROWS = 6, 10
_NO_IMAGE = np.full((32, 32, 3), 200, np.uint8)
_REAL = "real"


class SideBySideRequest(BaseModel):
    model_config = ConfigDict(frozen=True)
    folder: Path
    """Folder of the evaluation's files."""
    models: tuple[str, ...]
    ids: tuple[str, ...]


def draw_side_by_side(payload: Mapping[str, object]) -> ImageAnswer:
    """The service. `payload`: a SideBySideRequest; of its models the first six, of its examples the first ten."""
    request = SideBySideRequest.model_validate(payload)
    models, ids = request.models[:_MOST_MODELS], request.ids[:_MOST_ROWS]
    examples = integrity.read_table(request.folder / "examples.parquet", LOST, RECOVERY)
    real = dict(zip(examples["example"].to_pylist(), examples["truth"].to_pylist(), strict=True))
    texts = dict(zip(examples["example"].to_pylist(), examples["preview"].to_pylist(), strict=True))
    path = request.folder / "predictions.parquet"
    integrity.check(path, LOST, RECOVERY)
    wanted = [("model", "in", list(models)), ("example", "in", list(ids)), ("repeat", "=", 0)]
    rows = pq.read_table(path, columns=["model", "example", "output"], filters=wanted).to_pylist()
    drawn = {(row["model"], row["example"]): row["output"] for row in rows}
    images, captions = list[Pixels](), list[str]()
    for identity in (each for each in ids if each in real):
        images += [_image(real[identity]), *(_image(drawn.get((model, identity))) for model in models)]
        captions += [f"{_REAL}: {texts[identity] or ''}", *models]
    return {"png": base64.b64encode(draw_labelled_grid(images, captions, len(models) + 1, 96)).decode()}


def _image(cell: str | None) -> Pixels:
    """Grey where there is none."""
    found: Any = json.loads(cell) if cell else None
    if is_audio_answer(found):
        try:
            return spectrogram_of(found)
        except ValueError:
            return _NO_IMAGE
    return decode_image(found) if is_image_answer(found) else _NO_IMAGE


def spectrogram_of(answer: Mapping[str, Any]) -> Pixels:
    """Up to 8 kHz, of an audio answer."""
    samples = resample(*decode_audio(answer), SAMPLE_RATE)
    return spectrogram(log_mel(samples), len(samples) / SAMPLE_RATE, SAMPLE_RATE // 2)
