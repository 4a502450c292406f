from __future__ import annotations

import base64

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.evaluation.endpoints.prompts import Prompt, form, request
from speciate.modalities.image import IMAGE
from speciate.modalities.sound.audio import AUDIO

RANDOM = np.random.default_rng(3)


def parts(modality: str, media: object, template: str | None = None) -> list[dict[str, object]]:
    told = form(Prompt(template=template), "classification", modality, labels=("a", "b"))
    content = request(told, Example("x", media, None, "x", "test", {})).messages[-1]["content"]
    assert isinstance(content, list)
    return content


def png(part: dict[str, object]) -> bytes:
    url = part["image_url"]["url"]  # type: ignore[index]
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data)


def test_a_picture_is_sent_without_loss() -> None:
    pixels = RANDOM.integers(0, 256, (30, 50, 3), np.uint8)
    assert np.array_equal(IMAGE.decode(png(parts("image", pixels)[0])), pixels)


@pytest.mark.parametrize(
    ("shape", "sent"), [((1024, 10), (1024, 10)), ((3000, 1500), (1024, 512)), ((9, 4096), (2, 1024))]
)
def test_a_large_picture_is_made_smaller_in_its_own_shape(shape: tuple[int, int], sent: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), np.uint8)
    assert IMAGE.decode(png(parts("image", pixels)[0])).shape == (*sent, 3)


def test_sound_is_sent_as_16_bits_and_what_is_too_loud_is_clipped() -> None:
    sound = np.concatenate([RANDOM.uniform(-1, 1, 1600), [2.0, -2.0]]).astype(np.float32)
    part = parts("audio", sound)[0]
    assert part["type"] == "input_audio"
    data = part["input_audio"]
    assert isinstance(data, dict)
    assert data["format"] == "wav"
    heard = AUDIO.decode(base64.b64decode(data["data"]))
    assert np.abs(heard - sound.clip(-1, 1)).max() < 1e-4


def test_a_template_says_where_the_picture_stands() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    first, picture, second = parts("image", pixels, "Look at {input} and choose: {labels}")
    assert (first["text"], second["text"]) == ("Look at ", " and choose: - a\n- b")
    assert picture["type"] == "image_url"
    assert [part["type"] for part in parts("image", pixels, "Choose: {labels}")] == ["text", "image_url"]
