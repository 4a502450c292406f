"""Near-duplicates of videos: how many copies are missed, how many strangers are taken for copies, and by what margin.

    python evals/bench/near_videos.py [ORIGINALS]      # of each kind; default 200

Distances are those of `VideoSketches.distance`: up to 1 is near. Copies are of another codec, size, quality or frame
rate. Those that are brighter or begin a frame later are shown beside: to find them is not promised. Strangers are all
pairs of originals of one kind, some of them hard: one camera, slides of one design, fog.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_sample_image

from speciate.modalities.video.video import VIDEO, VIDEO_SKETCHES
from tests.modalities.video_samples import encode

Chance = np.random.Generator
Frame = npt.NDArray[np.uint8]
Frames = list[Frame]
_SIDE, _COUNT = 96, 24
_EDGES = [0, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, np.inf]
_DOWN, _ACROSS = np.mgrid[:_SIDE, :_SIDE]
_PHOTOS = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]


def _scaled(image: Frame, how: Image.Resampling, side: int = _SIDE) -> Frame:
    return np.asarray(Image.fromarray(image).resize((side, side), how))


def blends(chance: Chance) -> Frames:
    """One soft ground goes over into another."""
    coarse = [chance.integers(0, 255, (6, 6, 3)).astype(np.uint8) for _ in range(2)]
    first, last = (_scaled(each, Image.Resampling.BICUBIC).astype(np.float64) for each in coarse)
    return [(first * (1 - part) + last * part).astype(np.uint8) for part in np.linspace(0, 0.3, _COUNT)]


def fog(chance: Chance) -> Frames:
    """Blends of little contrast, all of about one brightness."""
    contrast = chance.uniform(0.05, 0.3)
    return [(128 + (frame - 128.0) * contrast).astype(np.uint8) for frame in blends(chance)]


def pans(chance: Chance) -> Frames:
    """A window that moves over one of two photographs; some are of its sky alone."""
    photo = _PHOTOS[chance.integers(2)]
    size = int(chance.integers(100, 240))
    room = np.array(photo.shape[:2]) - size
    at, step = chance.uniform(0, 1, 2) * room, chance.uniform(-3, 3, 2)
    ways = [np.clip(at + step * place, 0, room).astype(int) for place in range(_COUNT)]
    return [_scaled(photo[y : y + size, x : x + size], Image.Resampling.BOX) for y, x in ways]


def shapes(chance: Chance) -> Frames:
    """One to three discs move over a plain ground."""
    count = int(chance.integers(1, 4))
    ground, colours = chance.integers(0, 255, 3), chance.integers(0, 255, (count, 3))
    at, step, radius = (
        chance.uniform(10, 86, (count, 2)),
        chance.uniform(-2.5, 2.5, (count, 2)),
        chance.uniform(5, 18, count),
    )
    frames = []
    for place in range(_COUNT):
        frame = np.tile(ground, (_SIDE, _SIDE, 1)).astype(np.uint8)
        for (y, x), size, colour in zip(np.clip(at + step * place, 0, _SIDE), radius, colours, strict=True):
            frame[(_DOWN - y) ** 2 + (_ACROSS - x) ** 2 < size**2] = colour
        frames.append(frame)
    return frames


def camera(chance: Chance) -> Frames:
    """Somebody walks before one of two fixed cameras."""
    scene = _scaled(_PHOTOS[chance.integers(2)][60:380, 60:380], Image.Resampling.BOX)
    at, step, size = chance.uniform(15, 80, 2), chance.uniform(-2, 2, 2), chance.uniform(8, 14)
    colour = chance.integers(0, 255, 3)
    frames = []
    for place in range(_COUNT):
        y, x = at + step * place
        frame = scene.copy()
        frame[((_DOWN - y) / 1.6) ** 2 + (_ACROSS - x) ** 2 < size**2] = colour
        frames.append(np.clip(frame + chance.normal(size=frame.shape) * 2, 0, 255).astype(np.uint8))
    return frames


def textures(chance: Chance) -> Frames:
    """A coarse noise that moves."""
    wide = _scaled(chance.integers(0, 255, (24, 24, 3)).astype(np.uint8), Image.Resampling.BICUBIC, 160)
    down, across = chance.integers(0, 3, 2)
    return [
        np.ascontiguousarray(wide[down * t : down * t + _SIDE, across * t : across * t + _SIDE]) for t in range(_COUNT)
    ]


def slides(chance: Chance) -> Frames:
    """Lines of dark strokes on white, a line more in each quarter."""
    frame = np.full((_SIDE, _SIDE, 3), 245, np.uint8)
    frames = []
    for place in range(_COUNT):
        if place % 6 == 0:
            y = 8 + int(chance.integers(0, 4)) * 3 + place // 6 * 20
            for x in range(8, int(chance.integers(30, 88)), 3):
                if chance.random() < 0.8:
                    frame[y : y + int(chance.integers(4, 8)), x : x + 2] = 30
        frames.append(frame.copy())
    return frames


KINDS: dict[str, Callable[[Chance], Frames]] = {
    "blends": blends, "fog": fog, "pans": pans, "shapes": shapes, "camera": camera, "textures": textures,
    "slides": slides,
}  # fmt: skip
COPIES: dict[str, Callable[[Frames], bytes]] = {
    "x264 again": lambda frames: encode(frames, "matroska"),
    "x264, 2/3, crf 30": lambda frames: encode(frames, "matroska", size=(64, 64), crf="30"),
    "x264, crf 35": lambda frames: encode(frames, crf="35"),
    "mpeg4, qscale 2": lambda frames: encode(frames, "matroska", "mpeg4", qscale="2"),
    "mpeg4 in avi": lambda frames: encode(frames, "avi", "mpeg4"),
    "vp9": lambda frames: encode(frames, "webm", "libvpx-vp9", deadline="realtime", **{"cpu-used": "8"}),
    "mjpeg": lambda frames: encode(frames, "avi", "mjpeg"),
    "half the rate": lambda frames: encode(frames[::2], fps=12),
}
BESIDE: dict[str, Callable[[Frames], bytes]] = {
    "brighter, 2/3": lambda frames: encode(
        [np.clip(x * 0.8 + 30, 0, 255).astype(np.uint8) for x in frames], size=(64, 64)
    ),
    "a frame later": lambda frames: encode(frames[1:]),
}


def stacked(sketches: list[bytes]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(sketches), np.uint8).reshape(len(sketches), -1)


def found(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """As the search finds pairs: by a key, then whole."""
    return np.asarray(
        (VIDEO_SKETCHES.keys(one) == VIDEO_SKETCHES.keys(other)).any(axis=1) & VIDEO_SKETCHES.near(one, other)
    )


class Sketched(NamedTuple):
    originals: npt.NDArray[np.uint8]
    copies: dict[str, npt.NDArray[np.uint8]]
    """By the name of the copy, in the order of the originals; zeros for a blank one."""


def sketched(kind: str, count: int) -> Sketched:
    chance = np.random.default_rng(list(KINDS).index(kind))
    films = [KINDS[kind](chance) for _ in range(count)]
    kept = [(frames, sketch) for frames in films if (sketch := VIDEO.summarize(encode(frames)).sketch)]
    copies = {
        name: stacked([VIDEO.summarize(copy(frames)).sketch or bytes(VIDEO_SKETCHES.width) for frames, _ in kept])
        for name, copy in (COPIES | BESIDE).items()
    }
    return Sketched(stacked([sketch for _, sketch in kept]), copies)


def report(made: dict[str, Sketched]) -> None:
    missed: dict[str, list[int]] = {name: [] for name in COPIES | BESIDE}
    copies_apart, strangers_apart, taken_in_all = [], [], 0
    for kind, (originals, copies) in made.items():
        for name, each in copies.items():
            missed[name].append(int((~found(originals, each)).sum()))
        own = np.concatenate([VIDEO_SKETCHES.distance(originals, copies[name]) for name in COPIES])
        first, second = np.triu_indices(len(originals), 1)
        apart = VIDEO_SKETCHES.distance(originals[first], originals[second])
        taken = int(VIDEO_SKETCHES.near(originals[first], originals[second]).sum())
        copies_apart.append(own)
        strangers_apart.append(apart)
        taken_in_all += taken
        print(f"{kind:9} {len(own):5} copies, farthest {own.max():.2f}; {len(first):6} pairs of strangers, "
              f"nearest {apart.min():.2f}, {taken} taken for copies")  # fmt: skip
    print("missed, by kind of video:", *made)
    for name, counts in missed.items():
        print(f"  {name:18} {counts}" + ("" if name in COPIES else "   (not promised)"))
    promised = sum(sum(missed[name]) for name in COPIES)
    for who, parts, wrong in (
        ("copies", copies_apart, f"{promised} missed"),
        ("strangers", strangers_apart, f"{taken_in_all} taken"),
    ):
        apart = np.concatenate(parts)
        shown = [f"to {edge}: {n}" for edge, n in zip(_EDGES[1:], np.histogram(apart, _EDGES)[0], strict=True)]
        print(f"{who}: {len(apart)}, {wrong}; distances {', '.join(shown)}")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    report({kind: sketched(kind, count) for kind in KINDS})


if __name__ == "__main__":
    main()
