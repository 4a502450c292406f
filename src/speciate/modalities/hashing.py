"""Hashes of texts, and short codes of fixed length (perceptual hash, MinHash) by which near-duplicates are found among
many images or texts: candidates share a key, and are then compared whole. Both steps take arrays of sketches, uint8
(N, width).

The hashes are polynomials modulo 2**64, mixed: they spread well, and do not resist deliberate collisions. Python's own
`hash` differs between processes."""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import Sketches, Vector

Hashes = npt.NDArray[np.uint64]

WIDTH = 512
"""Length of the vectors of `hash_vector`."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SPACE = ord(" ")


def mix(x: Hashes) -> Hashes:
    """A bijection that spreads every bit over all 64: the finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def characters(text: str) -> Hashes:
    """(T,): the code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)


def words(text: str) -> Hashes:
    """(W,): a hash of each word of a text whose words are divided by single spaces."""
    codes = np.append(characters(text), np.uint64(_SPACE))
    ends = np.flatnonzero(codes == _SPACE)
    codes[ends] = 0
    starts = np.concatenate([[0], ends[:-1] + 1])
    powers = np.cumprod(np.full((ends - starts).max() + 1, _BASE))
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    return mix(np.add.reduceat(codes * powers[place], starts))


def runs(items: Hashes, length: int) -> Hashes:
    """(T,) -> (T - length + 1,): a hash of every run of `length` items; empty where there are fewer."""
    count = max(len(items) - length + 1, 0)
    found = np.full(count, np.uint64(length))
    for place in range(length):
        found = found * _BASE + items[place : place + count]
    return mix(found)


def hash_vector(text: str, shortest: int, longest: int) -> Vector:
    """(WIDTH,) of length 1: the runs of characters in `text` by signed feature hashing (Weinberger et al. 2009).

    The sign keeps collisions from adding up. Counts enter by their root, so that common runs do not drown the others.
    """
    items = characters(text)
    found, counts = np.unique(
        np.concatenate([runs(items, n) for n in range(shortest, longest + 1)]), return_counts=True
    )
    signs = np.where(found & np.uint64(1), 1.0, -1.0)
    sums = np.bincount((found >> np.uint64(55)).astype(np.intp), signs * np.sqrt(counts), WIDTH)
    return (sums / max(float(np.linalg.norm(sums)), 1e-12)).astype(np.float32)


GRID = 32
"""Side of the gray image that a sketch is made from."""

_SIDE = 8
_PERMUTATIONS, _ROWS = 64, 4
_CHUNK = 4096
_FEW_WORDS, _FEW_CHARACTERS = 20, 60
_LEAST_WORDS, _LEAST_CHARACTERS = 8, 40
_SHORT = b"\xff\x00st"
"""The last four values of a short text; a long one has them by chance once in 2**32."""
_LONGEST_WORD = 20  # characters on average; beyond it the script has no spaces


class ImageSketches:
    """64 bits of a perceptual hash, then an 8 x 8 gray image that has the last word.

    The hash (pHash, Zauner 2010): which of the 8 x 8 lowest frequencies, by DCT-II of 32 x 32, exceed the median of all
    but the first. It proposes; drawings on a plain ground share too many of its bits, so the small images must agree
    everywhere, too. In a smooth image, a sky or a dark corner, most bits are noise: what compression and scaling do
    is a gray value or two, whatever the contrast. Such pairs are proposed, and decided, by the gray values themselves.

    Measured on 392 crops of two photographs beside copies of theirs (JPEG at quality 35 and 60, scaled by 2/3): all
    pairs are found; 99 % where they are darkened as far as to a fifth and eight gray values or more are left. Of 5,000
    handwritten digits no two are near. Blank pages with one and the same shading are, whatever their noise.
    """

    width = 8 + _SIDE * _SIDE
    threshold = 54 / 64
    """Share of the hash's bits that agree."""
    leniency = 16 / 64
    """How much smaller that share may be where the gray values agree."""
    tolerance = 0.2
    """Most by which two small images may differ anywhere, once each has mean 0 and spread 1."""
    shift, drift, share = 6.0, 1.5, 0.02
    """Gray values agree: their means to `shift`, and the rest everywhere to `drift` and this share of their range."""
    structure, faint, slope = 24, 6, 3
    """Less than `structure` between the darkest and the brightest of a small image: perhaps a blank page, like every
    other. It is one with less than `faint`, or less than `slope` without the two darkest and the two brightest, in
    which there may be a few letters."""

    def sketch(self, gray: npt.NDArray[np.uint8]) -> bytes | None:
        """gray: (GRID, GRID) -> `width` bytes; None for a blank image."""
        values = gray.astype(np.float32)
        small = np.asarray((_MEANS @ values @ _MEANS.T).ravel(), np.float32)
        ordered = np.sort(small)
        darkest, extent = float(ordered[0]), float(ordered[-1] - ordered[0])
        if extent < self.structure and (extent < self.faint or ordered[-3] - ordered[2] < self.slope):
            return None
        waves = (_DCT @ values @ _DCT.T).ravel()
        bits = (waves > np.partition(waves[1:], 31)[31])[_DEALT]
        return bytes(np.packbits(bits, bitorder="little")) + _stretched(small, darkest, extent)

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        """(N, 16): the pairs of the hash's five bands of 13 bits, then six grids laid over the gray values' waves.

        Where three bits of the hash or fewer differ, two of the bands, and so one of the pairs, are equal.
        """
        bits = np.ascontiguousarray(sketches[:, :8]).view("<u8")
        bands = (bits >> (np.arange(5, dtype=np.uint64) * np.uint64(13))) & np.uint64(0x1FFF)
        first, second = np.triu_indices(5, 1)
        pair = np.arange(len(first), dtype=np.uint64)
        hashed = (pair << np.uint64(26)) | (bands[:, first] << np.uint64(13)) | bands[:, second]
        return np.concatenate([hashed, _cells(sketches)], axis=1)

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        least = self.threshold if threshold is None else threshold
        agreeing = (64 - np.bitwise_count(a[:, :8] ^ b[:, :8]).sum(axis=1, dtype=np.int64)) / 64
        near: npt.NDArray[np.bool_] = agreeing >= least
        places = np.flatnonzero(near)  # few of those that share a key by chance
        near[places] = self._same_image(a[places], b[places])
        places = np.flatnonzero(~near & (agreeing >= least - self.leniency))
        near[places] = self._same_gray_values(a[places], b[places])
        return near

    def _same_image(self, a: Sketches, b: Sketches) -> npt.NDArray[np.bool_]:
        """(M,) however bright each is and of whatever contrast."""
        return np.asarray(np.abs(_centred(a) - _centred(b)).max(axis=1) <= self.tolerance)

    def _same_gray_values(self, a: Sketches, b: Sketches) -> npt.NDArray[np.bool_]:
        """(M,)"""
        first, second = gray_values(a), gray_values(b)
        apart = first - second
        shift = apart.mean(axis=1, keepdims=True)
        drift = self.drift + self.share * np.minimum(np.ptp(first, axis=1), np.ptp(second, axis=1))
        return np.asarray((np.abs(shift[:, 0]) <= self.shift) & (np.abs(apart - shift).max(axis=1) <= drift))


class TextSketches:
    """64 one-byte MinHash values (Broder 1997; one byte each: Li and König 2010) of a text's runs of three words.

    The share of equal values estimates the Jaccard similarity of the two sets of runs, with an error of about 0.05. A
    text of a script without spaces is cut into runs of five characters instead.

    A short text, of 8 to 19 words, is cut into runs of three characters, with its numbers in each of them: short ones
    from a template ("delivered late, order 12") differ in what matters, and would hang together in one chain. So those
    with other numbers are never near. Its last four values say that it is short, and it is near short ones only.
    Measured on descriptions of packages, by evals/bench/near_texts.py: evals/LOG.md.
    """

    width = _PERMUTATIONS
    threshold, threshold_of_short = 0.8, 0.75
    """Jaccard similarity."""

    def sketch(self, text: str) -> bytes | None:
        """text: words divided by single spaces -> `width` bytes; None for fewer than 8 words or 40 characters, or, of a
        script without spaces, 60."""
        count = text.count(" ") + 1
        if len(text) < _FEW_CHARACTERS or (count < _FEW_WORDS and len(text) < _LONGEST_WORD * count):
            return self._sketch_of_short(text) if count >= _LEAST_WORDS and len(text) >= _LEAST_CHARACTERS else None
        shingles = runs(words(text), 3) if count >= _FEW_WORDS else runs(characters(text), 5)
        return _least(shingles)

    def _sketch_of_short(self, text: str) -> bytes:
        numbers = " ".join(re.findall(r"\d+", text))
        salt = runs(characters(f"#{numbers}"), len(numbers) + 1)
        return _least(mix(runs(characters(f" {text} "), 3) ^ salt))[: -len(_SHORT)] + _SHORT

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        """(N, 16): runs of four values. At a similarity of 0.8 one of them is equal in 9,998 of 10,000 pairs, of short
        texts in 9,983."""
        bands = np.ascontiguousarray(sketches).view("<u4").astype(np.uint64)
        bands[:, -1] = np.where(_is_short(sketches), bands[:, 0], bands[:, -1])  # what all of them share tells nothing
        return (np.arange(_PERMUTATIONS // _ROWS, dtype=np.uint64) << np.uint64(32)) | bands

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        by_chance = 1 / 256
        short = _is_short(a), _is_short(b)
        both = short[0] & short[1]
        equal = a == b
        share = np.where(both, equal[:, : -len(_SHORT)].mean(axis=1), equal.mean(axis=1))
        similarity = (share - by_chance) / (1 - by_chance)
        own = np.where(both, self.threshold_of_short, self.threshold)
        least = own if threshold is None else np.full(len(a), threshold)
        return np.asarray((similarity >= least) & (short[0] == short[1]))


def is_short_text(sketch: bytes | None) -> bool:
    """Whether it is the sketch of a short text, which may stand beside many media."""
    return sketch is not None and len(sketch) == TextSketches.width and sketch.endswith(_SHORT)


def _is_short(sketches: Sketches) -> npt.NDArray[np.bool_]:
    return np.asarray((sketches[:, -len(_SHORT) :] == np.frombuffer(_SHORT, np.uint8)).all(axis=1))


def _least(shingles: Hashes) -> bytes:
    """A byte of the smallest hash under each permutation."""
    least = np.full((_PERMUTATIONS, 1), np.iinfo(np.uint64).max)
    for start in range(0, len(shingles), _CHUNK):
        permuted = _FACTORS * shingles[start : start + _CHUNK] + _SHIFTS
        least = np.minimum(least, permuted.min(axis=1, keepdims=True))
    return least.ravel().astype(np.uint8).tobytes()


def _stretched(small: npt.NDArray[np.float32], darkest: float, extent: float) -> bytes:
    """64 gray values as bytes of their own scale, so that rounding hardly counts.

    The least byte tells the darkest of them, in steps of 4; the greatest tells how far the brightest is from it, in
    steps of 4 %. `gray_values` reads them back.
    """
    low, high = round(darkest / 4), min(round(127 + 16 * math.log2(extent)), 255)
    return bytes((low + (small - darkest) * ((high - low) / extent)).round().astype(np.uint8))


def gray_values(sketches: Sketches) -> npt.NDArray[np.float32]:
    """(N, 64) between 0 and 255."""
    low, scale = _scales(sketches)
    return (sketches[:, 8:] - low) * scale + 4 * low


def _scales(sketches: Sketches) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(N, 1), (N, 1): the least byte, and how many gray values a step from one byte to the next is."""
    across = np.ascontiguousarray(sketches[:, 8:].T)  # numpy is slow along short rows
    low, high = across.min(axis=0).astype(np.float32), across.max(axis=0).astype(np.float32)
    scale = np.exp2((high - 127) / 16) / np.maximum(high - low, 1)
    return low[:, np.newaxis], scale[:, np.newaxis]


def _cells(sketches: Sketches) -> npt.NDArray[np.uint64]:
    """(N, 6): where the mean and seven of the lowest waves of the gray values lie in six grids, shifted differently.

    A cell is 16 gray values by 3 seven times, several times what compression changes: hardly ever do all six part two.
    Its eight numbers, a byte each, are the key.
    """
    found = np.empty((len(sketches), len(_GRIDS)), np.uint64)
    for start in range(0, len(sketches), _CHUNK):
        waves = gray_values(sketches[start : start + _CHUNK]) @ _WAVES
        for grid, shifts in enumerate(_GRIDS):
            found[start : start + _CHUNK, grid] = np.floor(waves + shifts).astype(np.int8).view("<u8").ravel()
    return found


def _centred(sketches: Sketches) -> npt.NDArray[np.float32]:
    """(N, 64): the small images with mean 0 and spread 1, so that neither brightness nor contrast matters."""
    small = sketches[:, 8:].astype(np.float32)
    small = small - small.mean(axis=1, keepdims=True)
    return np.asarray(small / np.maximum(small.std(axis=1, keepdims=True), 1e-6))


def _cosines(count: int, length: int) -> npt.NDArray[np.float32]:
    """(count, length): the first rows of the DCT-II, without scale."""
    frequency, place = np.arange(count)[:, np.newaxis], np.arange(length) + 0.5
    return np.cos(np.pi / length * frequency * place).astype(np.float32)


def _products(frequencies: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(B, 2) -> (B, 64): two-dimensional waves over 8 x 8 whose products with an image are shares of its spread."""
    rows = _cosines(_SIDE, _SIDE)[frequencies]  # (B, 2, 8)
    rows *= np.where(frequencies == 0, 1, np.sqrt(2))[..., np.newaxis] / _SIDE
    return np.asarray(np.einsum("bi,bj->bij", rows[:, 0], rows[:, 1]).reshape(len(frequencies), -1), np.float32)


_DCT = _cosines(_SIDE, GRID)
_MEANS = np.kron(np.eye(_SIDE), np.full(GRID // _SIDE, _SIDE / GRID)).astype(np.float32)
_LOW = np.array([(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1)])
_WAVES = np.ascontiguousarray((_products(_LOW) / np.array([[16], *[[3]] * 7], np.float32)).T)  # in cells
_GRIDS = np.modf(np.outer(np.arange(1, 7), np.sqrt([2, 3, 5, 7, 11, 13, 17, 19])))[0].astype(np.float32)
_DEALT = np.argsort(np.arange(_SIDE * _SIDE) % 5, kind="stable")  # neighbouring frequencies go to different bands
_seeds: Hashes = mix(np.arange(1, 2 * _PERMUTATIONS + 1, dtype=np.uint64)).reshape(2, _PERMUTATIONS, 1)
_FACTORS, _SHIFTS = _seeds[0] | np.uint64(1), _seeds[1]

IMAGE_SKETCHES = ImageSketches()
TEXT_SKETCHES = TextSketches()
