"""The Fréchet distance of drawn images, held to its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from speciate.evaluation.metrics import alone, contributions, corpus
from speciate.evaluation.metrics.images import WIDTH, embed_image
from speciate.evaluation.metrics.metric import Answers, object_answers
from speciate.modalities.image_answers import decode_image, encode_image, is_image_answer
from speciate.modalities.media_answers import shorten_cell
from speciate.vocabulary import find_metric

FRECHET = find_metric("frechet_distance")
Images = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def images(count: int, seed: int, bright: int = 0) -> Images:
    draw = np.random.default_rng(seed)
    made = draw.normal(110 + bright, 20, (count, 12, 12, 3)) + draw.normal(0, 15, (count, 1, 1, 3))
    return made.clip(0, 255).astype(np.uint8)


def answers(real: Images, drawn: Images) -> Answers:
    return object_answers([encode_image(each) for each in real], [encode_image(each) for each in drawn])


def distance(given: Answers, weights: np.ndarray | None = None) -> float:
    count = len(given.references)
    weights = np.ones((1, count)) if weights is None else weights
    return float(corpus(FRECHET, given, np.arange(count))(weights)[0])


def defined(real: Images, drawn: Images) -> float:
    """By the definition, with scipy's root of a matrix."""
    one, two = (np.stack([embed_image(each) for each in part]) for part in (real, drawn))
    a, b = (np.cov(each.T, bias=True) + 1e-9 * np.eye(WIDTH) for each in (one, two))
    apart = np.square(one.mean(0) - two.mean(0)).sum()
    return float(apart + np.trace(a + b - 2 * np.real(sqrtm(a @ b))))


def test_it_is_what_the_definition_says_and_zero_for_the_same_images() -> None:
    real, drawn = images(60, 0), images(60, 1, 25)
    assert distance(answers(real, drawn)) == pytest.approx(defined(real, drawn), abs=2e-4)
    assert distance(answers(real, real[::-1])) == pytest.approx(0, abs=1e-6)
    assert distance(answers(real, images(60, 2))) < distance(answers(real, drawn))


def test_a_resample_by_weights_is_the_distance_of_the_repeated_images() -> None:
    real, drawn = images(10, 0), images(10, 1)
    weights = np.array([[3, 0, 1, 1, 0, 2, 1, 1, 1, 0]], float)
    places = np.repeat(np.arange(10), weights[0].astype(int))
    assert distance(answers(real, drawn), weights) == pytest.approx(
        distance(answers(real[places], drawn[places])),
        rel=1e-6,  # few images: roots of eigenvalues that are 0 but for rounding
    )


def test_a_failed_answer_counts_as_a_black_image_and_drawn_images_have_no_denoising_error() -> None:
    real = images(8, 0)
    given = answers(real, real)
    given.given[0] = None
    assert distance(given) > 0.01
    assert np.isfinite(alone(FRECHET, given)).all()
    assert alone(FRECHET, given)[0] > alone(FRECHET, given)[1]
    error = find_metric("denoising_error")
    assert np.isnan(contributions(error, answers(real, real))).all()
    told = object_answers([None, None], [0.5, 1.5])
    assert contributions(error, told).tolist() == [0.5, 1.5]


def test_an_image_answer_comes_back_pixel_for_pixel_and_is_shown_by_its_size() -> None:
    [image] = images(1, 3)
    answer = encode_image(image)
    assert is_image_answer(answer)
    assert (decode_image(answer) == image).all()
    assert not is_image_answer({**answer, "mime": "text/html"})
    with pytest.raises(ValueError, match="image"):
        decode_image({**answer, "data": "bm9uZQ=="})
    assert shorten_cell('{"mime": "image/png"') == '{"mime": "image/png"'
