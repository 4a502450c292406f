"""The course of a protein's chains as a small picture: alpha carbons joined by lines, what is near before the rest.

Seen along the direction in which they are least spread. One chain goes from blue to red as it is numbered; of several
each has a colour of its own. What is far pales.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speciate.modalities.biology.structures import Structure, alpha_carbons
from speciate.modalities.contract import LARGEST_THUMBNAIL, Pixels

_FINER = 2
"""Drawn so many times as large, then made small: lines without steps."""
_MARGIN, _WIDEST, _THINNEST = 16, 7.0, 1.5
_GAP = 4.6
"""Ångström: neighbours farther apart than this are not joined. Alpha carbons are 3.8 apart."""
_PALE = 0.65
_CHAINS = np.array(
    [(31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207), (140, 86, 75),
     (227, 119, 194), (188, 189, 34), (127, 127, 127)], np.float64
)  # fmt: skip
_COURSE = np.array([(40, 60, 200), (0, 160, 200), (40, 170, 60), (230, 170, 0), (210, 40, 30)], np.float64)


def backbone(structure: Structure) -> Pixels:
    """(320, 320, 3)"""
    from PIL import Image, ImageDraw

    places, residues = alpha_carbons(structure)
    seen = _turned(places)
    side = LARGEST_THUMBNAIL * _FINER
    extent = max(float(np.ptp(seen[:, :2], axis=0).max()), 8.0)
    scale = (side - 2 * _MARGIN * _FINER) / extent
    middle = (seen[:, :2].max(axis=0) + seen[:, :2].min(axis=0)) / 2
    flat = (seen[:, :2] - middle) * (scale, -scale) + side / 2
    depth = seen[:, 2] - seen[:, 2].min()
    depth /= max(float(depth.max()), 1e-9)  # 1 is near
    width = float(np.clip(1.6 * scale, _THINNEST * _FINER, _WIDEST * _FINER))
    colours = _colours(structure["chain"][residues], residues / max(len(structure["sequence"]) - 1, 1))
    card = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(card)
    for place in _joined(places, structure["chain"][residues], depth):
        near = (depth[place] + depth[place + 1]) / 2
        paled = colours[place] + (255 - colours[place]) * _PALE * (1 - near)
        line = [tuple(flat[place]), tuple(flat[place + 1])]
        thick = round(width * (0.6 + 0.4 * near))
        draw.line(line, fill="white", width=thick + 2 * _FINER)  # an edge, so that what crosses is told apart
        draw.line(line, fill=tuple(paled.round().astype(int).tolist()), width=thick)
        for x, y in line:
            radius = thick / 2 - 0.5
            draw.ellipse(
                (x - radius, y - radius, x + radius, y + radius), fill=tuple(paled.round().astype(int).tolist())
            )
    if len(places) == 1:
        draw.ellipse((side / 2 - 8, side / 2 - 8, side / 2 + 8, side / 2 + 8), fill="black")
    return np.asarray(card.resize((LARGEST_THUMBNAIL, LARGEST_THUMBNAIL), Image.Resampling.LANCZOS))


def _turned(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(S, 3) along the directions in which they are spread, most first, turned and not mirrored."""
    centred = places - places.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), range(3)] < 0, -1, 1)  # the same each time
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1
    return np.asarray(centred @ axes)


def _joined(places: npt.NDArray[np.float64], chain: npt.NDArray[np.int32], depth: npt.NDArray[np.float64]) -> list[int]:
    """Places of alpha carbons that are joined to the next one, the farthest first."""
    near = np.linalg.norm(np.diff(places, axis=0), axis=1) < _GAP
    joined = np.flatnonzero(near & (np.diff(chain) == 0))
    if not len(joined):  # of a model of a few residues, or one with alpha carbons far apart
        joined = np.flatnonzero(np.diff(chain) == 0)
    found: list[int] = joined[np.argsort(depth[joined] + depth[joined + 1], kind="stable")].tolist()
    return found


def _colours(chain: npt.NDArray[np.int32], course: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(S, 3)"""
    if chain[-1]:
        return _CHAINS[chain % len(_CHAINS)]
    steps = np.linspace(0, 1, len(_COURSE))
    return np.stack([np.interp(course, steps, channel) for channel in _COURSE.T], axis=1)
