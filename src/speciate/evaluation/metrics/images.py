"""Metrics of drawn images: how far their distribution is from that of the real ones, and what a training chooses by.

The Fréchet distance (Heusel et al. 2017, "FID") is that of two Gaussians, here over 31 numbers of an image that this
file computes and that no weights decide. They see where an image is bright, its colours, and which way its edges run.
Raise `VERSION` when they change: distances of two versions are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.evaluation.metrics.metric import Answers, Statistic
from speciate.evaluation.statistics import Floats
from speciate.modalities.image_answers import decode_image, is_image_answer
from speciate.tasks.families.image_generation import resized

VERSION = 1
_SIDE, _CELLS, _DIRECTIONS, _WAVES = 32, 2, 4, 3
WIDTH = _WAVES**2 + 6 + _DIRECTIONS * _CELLS**2
_RIDGE = 1e-9
"""Added to variances, so that few or equal images have a root, too."""
_COMBINED = 64
"""Resamples whose covariances are in memory at once."""


def embed_image(pixels: npt.NDArray[np.uint8]) -> Floats:
    """(31,), each between -1 and 1: the lowest 3 x 3 waves of brightness, mean and spread of each colour, and in 2 x 2
    cells how strong the edges of four directions are."""
    image = resized(pixels, _SIDE).astype(np.float64) / 255
    gray = image @ (0.299, 0.587, 0.114)
    waves = _cosines() @ gray @ _cosines().T
    colours = [image.mean((0, 1)), image.std((0, 1))]
    rows, columns = np.gradient(gray)
    strength, angle = np.hypot(rows, columns), np.mod(np.arctan2(rows, columns), np.pi)
    direction = np.floor(angle / np.pi * _DIRECTIONS + 0.5).astype(int) % _DIRECTIONS
    half = _SIDE // _CELLS
    edges = [
        strength[top : top + half, left : left + half][direction[top : top + half, left : left + half] == each].sum()
        for top in range(0, _SIDE, half)
        for left in range(0, _SIDE, half)
        for each in range(_DIRECTIONS)
    ]
    return np.concatenate([waves.ravel(), *colours, np.array(edges) / half**2 * _DIRECTIONS])


@cache
def _cosines() -> Floats:
    """(3, 32): the first waves of the discrete cosine transform; a constant image of 1 has 1 in the first place."""
    places = (np.arange(_SIDE) + 0.5) / _SIDE
    return np.stack([np.cos(np.pi * wave * places) for wave in range(_WAVES)]) / _SIDE


def _frechet_distance(answers: Answers) -> Statistic:
    """An answer that failed is a black image."""
    real = np.stack([_embedded(each) for each in answers.references])
    drawn = np.stack([_embedded(each) for each in answers.given])
    parts = np.concatenate([np.ones((len(real), 1)), _moments(real), _moments(drawn)], axis=1)
    return Statistic(parts, _distance_of_sums)


def _embedded(answer: Mapping[str, Any] | None) -> Floats:
    if answer is None or not is_image_answer(answer):
        return embed_image(np.zeros((_SIDE, _SIDE, 3), np.uint8))
    return embed_image(decode_image(answer))


def _moments(vectors: Floats) -> Floats:
    """(n, D + D * D): the vectors and their outer products."""
    products = vectors[:, :, None] * vectors[:, None, :]
    return np.concatenate([vectors, products.reshape(len(vectors), -1)], axis=1)


def _distance_of_sums(sums: Floats) -> Floats:
    """(B, 1 + 2 * (D + D * D)) -> (B,); NaN without examples."""
    found = [_distances(sums[start : start + _COMBINED]) for start in range(0, len(sums), _COMBINED)]
    return np.concatenate(found) if found else np.zeros(0)


def _distances(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        count, halves = sums[:, :1], np.split(sums[:, 1:], 2, axis=1)
        (real_mean, real), (drawn_mean, drawn) = (_mean_and_covariance(half / count) for half in halves)
    defined = np.isfinite(real).all((1, 2)) & np.isfinite(drawn).all((1, 2))
    found = np.full(len(sums), math.nan)
    if defined.any():
        root = np.linalg.cholesky(real[defined] + _RIDGE * np.eye(WIDTH))
        product = np.linalg.eigvalsh(_symmetric(root.transpose(0, 2, 1) @ drawn[defined] @ root)).clip(0)
        traces = np.trace(real[defined], axis1=1, axis2=2) + np.trace(drawn[defined], axis1=1, axis2=2)
        apart = np.square(real_mean[defined] - drawn_mean[defined]).sum(1)
        found[defined] = (apart + traces - 2 * np.sqrt(product).sum(1)).clip(0)
    return found


def _mean_and_covariance(moments: Floats) -> tuple[Floats, Floats]:
    mean, products = moments[:, :WIDTH], moments[:, WIDTH:].reshape(-1, WIDTH, WIDTH)
    return mean, _symmetric(products - mean[:, :, None] * mean[:, None, :])


def _symmetric(matrices: Floats) -> Floats:
    return (matrices + matrices.transpose(0, 2, 1)) / 2


def _denoising_error(answers: Answers) -> Floats:
    """(n,): an answer is the error itself; drawn images have none."""
    return np.array([float(each) if isinstance(each, float | int) else math.nan for each in answers.given], float)


MEANS: dict[str, Callable[[Answers], Floats]] = {"denoising_error": _denoising_error}
STATISTICS: dict[str, Callable[[Answers], Statistic]] = {"frechet_distance": _frechet_distance}
