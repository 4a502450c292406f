"""Text burned into images: how often it is found, and how often it is seen where there is none.

The figures in docs/deidentification.md are those of `measured()`, which prints them when this file is run as a program.
"""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from speciate.modalities.medical.burned_in_text import find_text_row, why_suspected

WITH_TEXT = {
    "GDCMJ2K_TextGBR.dcm", "examples_jpeg2k.dcm", "examples_palette.dcm", "examples_rgb_color.dcm",
    "examples_ybr_color.dcm",
}  # fmt: skip
"""Of the files that come with pydicom, those that a person sees text in."""
TEXT = "DOE^JANE 1970-03-12"
SIZES = (8, 10, 12, 16, 24, 32)
Pixels = npt.NDArray[Any]


class Real(NamedTuple):
    name: str
    dataset: Dataset
    pixels: Pixels


@cache
def real() -> tuple[Real, ...]:
    """Every image that comes with pydicom and decodes."""
    found = []
    for path in sorted(Path(pydicom.__file__).parent.joinpath("data", "test_files").rglob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dataset = pydicom.dcmread(path)
                found.append(Real(path.name, dataset, dataset.pixel_array))
            except Exception:  # noqa: BLE001 - the broken ones are broken in every way
                continue
    return tuple(found)


def first_frame(pixels: Pixels) -> Pixels:
    coloured = pixels.ndim >= 3 and pixels.shape[-1] in (3, 4)
    return pixels.reshape((-1, *pixels.shape[-3:]))[0] if coloured else pixels.reshape((-1, *pixels.shape[-2:]))[0]


def printed(frame: Pixels, size: int, *, bottom: bool = False) -> Pixels | None:
    """The frame with a line of text as machines print it: of one brightness, the lightest or the darkest there is,
    whichever stands out from what lies below. None where it does not fit."""
    font = ImageFont.load_default(size)
    mask = Image.new("1", (frame.shape[1], frame.shape[0]))
    draw = ImageDraw.Draw(mask)
    left, top, right, low = draw.textbbox((0, 0), TEXT, font=font)
    if right - left > frame.shape[1] - 8 or low - top > frame.shape[0] - 8:
        return None
    draw.text((4, frame.shape[0] - low - 4 if bottom else 4), TEXT, fill=1, font=font)
    letters = np.asarray(mask)
    ground = np.median(frame[letters])
    least, most = frame.min(), frame.max()
    made = frame.copy()
    made[letters] = most if most - ground >= ground - least else least
    return made if most > least else None


class Measured(NamedTuple):
    without: int
    false: int
    """Images without text in which some is suspected."""
    real_text: int
    found: int
    drawn: dict[int, tuple[int, int]]
    """Size of the letters -> found, drawn."""


@cache
def measured() -> Measured:
    plain = [each for each in real() if each.name not in WITH_TEXT]
    texts = [each for each in real() if each.name in WITH_TEXT]
    found, drawn = Counter[int](), Counter[int]()
    for each in plain:
        frame = first_frame(each.pixels)
        if min(frame.shape[:2]) < 100:
            continue
        for size in SIZES:
            for bottom in (False, True):
                made = printed(frame, size, bottom=bottom)
                if made is not None:
                    drawn[size] += 1
                    found[size] += why_suspected(each.dataset, made) is not None
    return Measured(
        len(plain),
        sum(why_suspected(each.dataset, each.pixels) is not None for each in plain),
        len(texts),
        sum(why_suspected(each.dataset, each.pixels) is not None for each in texts),
        {size: (found[size], drawn[size]) for size in SIZES},
    )


@pytest.mark.slow
def test_no_text_is_seen_in_real_images_without_any() -> None:
    assert measured().without >= 50
    assert measured().false == 0


@pytest.mark.slow
def test_text_in_real_images_is_found() -> None:
    assert measured().real_text == len(WITH_TEXT)
    assert measured().found == len(WITH_TEXT)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_printed_lines_are_found(size: int) -> None:
    found, drawn = measured().drawn[size]
    assert drawn >= 10
    assert found / drawn >= (0.9 if size >= 10 else 0.5)


def test_what_a_file_says_of_itself_is_heard() -> None:
    dataset = Dataset()
    dataset.BurnedInAnnotation = "YES"
    assert "Burned In Annotation is YES" in str(why_suspected(dataset, None))
    dataset.BurnedInAnnotation, dataset.RecognizableVisualFeatures = "NO", "YES"
    assert "Recognizable Visual Features" in str(why_suspected(dataset, None))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"Modality": "US"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, True),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, False),
        ({"Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY"]}, False),
    ],
)
def test_without_pixels_the_kind_of_a_file_decides(said: dict[str, Any], expected: bool) -> None:
    dataset = Dataset()
    for keyword, value in said.items():
        setattr(dataset, keyword, value)
    assert (why_suspected(dataset, None) is not None) == expected


def test_a_ruler_and_noise_are_no_text() -> None:
    ruler = np.zeros((200, 200), np.uint8)
    ruler[180:190, 10:190:8] = 255
    ruler[180:190, 11:190:8] = 255
    assert find_text_row(ruler) is None
    for seed in range(5):
        assert find_text_row(np.random.default_rng(seed).integers(0, 4096, (256, 256)).astype(np.uint16)) is None
    assert find_text_row(np.zeros((64, 64))) is None


def test_text_is_found_in_the_last_frame_and_whatever_the_type_of_numbers() -> None:
    frame = np.random.default_rng(1).normal(0.3, 0.02, (128, 300)).astype(np.float32)
    made = printed(frame, 16)
    assert made is not None
    assert find_text_row(np.stack([frame, frame])) is None
    found = find_text_row(np.stack([frame, frame, made]) * 1000 - 500)
    assert found is not None
    assert found.letters >= 5
    assert found.top < 24


if __name__ == "__main__":
    print(measured())
