"""Small changes to media that leave alone what they are of, whatever that is: pure, with chance from one generator.

How far each goes is written beside it. `flip` is no such change in general (a mirrored digit or letter is another
one), so it is made only where somebody asks for it by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Medium = npt.NDArray[Any]
Chance = np.random.Generator

_LIGHT = 0.15
"""Share by which brightness and contrast change at most."""
_SHIFT = 0.05
"""Share of the height and width by which a picture moves at most; its edge goes on where it came from."""
_GRAIN = 5.0
"""Standard deviation of noise in pictures, of 255."""
_DECIBELS = 3.0
"""By which a sound becomes louder or softer at most."""
_NOISE = 0.03
"""Noise as a share of a series' or sound's own spread: 30 dB below it (Um et al. 2017 for series)."""
_SCALE = 0.05
"""Spread of the factor of each channel of a series."""


class Transform(NamedTuple):
    what: str
    change: Callable[[Medium, Chance], Medium]
    moves: bool = False
    """Whether what stands at a place stands elsewhere after it: truths with places do not fit any more."""


def light(image: Medium, chance: Chance) -> Medium:
    """(H, W, 3) uint8."""
    brightness, contrast = 1 + chance.uniform(-_LIGHT, _LIGHT, 2)
    mean = image.mean()
    return _pixels((image - mean) * contrast + mean * brightness)


def shift(image: Medium, chance: Chance) -> Medium:
    """(H, W, 3) uint8, by whole pixels, at least one; what is smaller than twenty stays where it is."""
    height, width = image.shape[:2]
    most = int(_SHIFT * height), int(_SHIFT * width)
    down, right = (int(chance.integers(-each, each + 1)) for each in most)
    if down == right == 0:
        down, right = most
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return np.asarray(image[rows][:, columns])


def grain(image: Medium, chance: Chance) -> Medium:
    """(H, W, 3) uint8."""
    return _pixels(image + chance.normal(0, _GRAIN, image.shape))


def flip(image: Medium, chance: Chance) -> Medium:
    return np.ascontiguousarray(image[:, ::-1])


def gain(sound: Medium, chance: Chance) -> Medium:
    """(T,) float32; never beyond full scale."""
    factor = 10 ** (chance.uniform(-_DECIBELS, _DECIBELS) / 20)
    return (sound * min(factor, 1 / max(float(np.abs(sound).max()), 1e-9))).astype(np.float32)


def hiss(sound: Medium, chance: Chance) -> Medium:
    """(T,) float32."""
    noisy = sound + chance.normal(0, _NOISE * float(sound.std()), sound.shape)
    return np.clip(noisy, -1, 1).astype(np.float32)


def jitter(series: Medium, chance: Chance) -> Medium:
    """(C, T) float64; a step without a value stays without one."""
    return np.asarray(series + chance.normal(0, 1, series.shape) * _NOISE * _spread(series))


def scale(series: Medium, chance: Chance) -> Medium:
    """(C, T) float64."""
    return np.asarray(series * chance.normal(1, _SCALE, (len(series), 1)))


TRANSFORMS: Mapping[str, Mapping[str, Transform]] = {
    "image": {
        "light": Transform("a little lighter or darker, with more or less contrast", light),
        "shift": Transform("moved by up to a twentieth", shift, moves=True),
        "grain": Transform("with noise", grain),
        "flip": Transform("mirrored: only where left and right mean the same", flip, moves=True),
    },
    "audio": {
        "gain": Transform("louder or softer by up to 3 dB", gain),
        "noise": Transform("with noise 30 dB below", hiss),
    },
    "time-series": {
        "jitter": Transform("with noise of a thirtieth of its spread", jitter),
        "scale": Transform("each channel times about 1: not where the size is what is learned", scale),
    },
}
USUAL: Mapping[str, tuple[str, ...]] = {
    "image": ("light", "shift"), "audio": ("gain", "noise"), "time-series": ("jitter",),
}  # fmt: skip
"""Where nobody names any."""


def changed(modality: str, kinds: Sequence[str], medium: Medium, chance: Chance) -> Medium:
    for kind in kinds:
        medium = TRANSFORMS[modality][kind].change(medium, chance)
    return medium


def _pixels(values: Medium) -> Medium:
    return np.clip(values.round(), 0, 255).astype(np.uint8)


def _spread(series: Medium) -> Medium:
    """(C, 1)"""
    known = np.where(np.isfinite(series), series, np.nan)
    found = np.nanstd(known, axis=1, keepdims=True) if known.size and np.isfinite(known).any() else np.zeros((1, 1))
    return np.nan_to_num(found)
