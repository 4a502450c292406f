"""Short codes of fixed length by which near-duplicates are found among many: one kind for pictures, one for texts.

Candidates share a key, and are then compared whole. Both steps take arrays of sketches, uint8 (N, width).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import Sketches
from speciate.modalities.hashing import Hashes, characters, mix, runs, words

GRID = 32
"""Side of the gray picture that a sketch is made from."""

_SIDE = 8
_PERMUTATIONS, _ROWS = 64, 4
_CHUNK = 4096
_FEW_WORDS, _FEW_CHARACTERS = 20, 60
_LONGEST_WORD = 20  # characters on average; beyond it the script has no spaces


class Pictures:
    """64 bits of a perceptual hash, then an 8 x 8 gray picture that has the last word.

    The hash (pHash, Zauner 2010): which of the 8 x 8 lowest frequencies, by DCT-II of 32 x 32, exceed the median of all
    but the first. It proposes; drawings on a plain ground share too many of its bits, so the small pictures must agree
    everywhere, too. Of 5,000 handwritten digits no two are near; of photographs, recompressed or rescaled, 97 % are.
    """

    width = 8 + _SIDE * _SIDE
    threshold = 54 / 64
    """Share of the hash's bits that agree."""
    tolerance = 0.2
    """Most by which two small pictures may differ anywhere, once each has mean 0 and spread 1."""
    structure = 24
    """Less than this between the darkest and the brightest of a small picture: a blank page, like every other."""

    def sketch(self, gray: npt.NDArray[np.uint8]) -> bytes | None:
        """gray: (GRID, GRID) -> `width` bytes; None where nothing is to be seen."""
        values = gray.astype(np.float32)
        small = _MEANS @ values @ _MEANS.T
        darkest, brightest = float(small.min()), float(small.max())
        if brightest - darkest < self.structure:
            return None
        small = (small - darkest) * (255 / (brightest - darkest))  # so that rounding does not count
        waves = (_DCT @ values @ _DCT.T).ravel()
        bits = (waves > np.partition(waves[1:], 31)[31])[_DEALT]
        return bytes(np.packbits(bits, bitorder="little")) + bytes(small.round().astype(np.uint8))

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        """(N, 10): the pairs of the hash's five bands of 13 bits. Where three bits or fewer differ, two are equal."""
        bits = np.ascontiguousarray(sketches[:, :8]).view("<u8")
        bands = (bits >> (np.arange(5, dtype=np.uint64) * np.uint64(13))) & np.uint64(0x1FFF)
        first, second = np.triu_indices(5, 1)
        pair = np.arange(len(first), dtype=np.uint64)
        return np.asarray((pair << np.uint64(26)) | (bands[:, first] << np.uint64(13)) | bands[:, second])

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        agreeing = 64 - np.bitwise_count(a[:, :8] ^ b[:, :8]).sum(axis=1, dtype=np.int64)
        apart = _centred(a) - _centred(b)
        least = self.threshold if threshold is None else threshold
        return np.asarray((agreeing >= least * 64) & (np.abs(apart).max(axis=1) <= self.tolerance))


class Shingles:
    """64 one-byte MinHash values (Broder 1997; one byte each: Li and König 2010) of a text's runs of three words.

    The share of equal values estimates the Jaccard similarity of the two sets of runs, with an error of about 0.05. A
    text of a script without spaces is cut into runs of five characters instead. A short text is near nothing: short
    ones from a template ("delivered late, order 12") differ in what matters, and would hang together in one chain.
    """

    width = _PERMUTATIONS
    threshold = 0.8
    """Jaccard similarity."""

    def sketch(self, text: str) -> bytes | None:
        """text: words divided by single spaces -> `width` bytes; None for fewer than 20 words or 60 characters."""
        count = text.count(" ") + 1
        if len(text) < _FEW_CHARACTERS or (count < _FEW_WORDS and len(text) < _LONGEST_WORD * count):
            return None
        shingles = runs(words(text), 3) if count >= _FEW_WORDS else runs(characters(text), 5)
        least = np.full((_PERMUTATIONS, 1), np.iinfo(np.uint64).max)
        for start in range(0, len(shingles), _CHUNK):
            permuted = _FACTORS * shingles[start : start + _CHUNK] + _SHIFTS
            least = np.minimum(least, permuted.min(axis=1, keepdims=True))
        return least.ravel().astype(np.uint8).tobytes()

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        """(N, 16): runs of four values. At a similarity of 0.8 one of them is equal in 9,998 of 10,000 pairs."""
        bands = np.ascontiguousarray(sketches).view("<u4").astype(np.uint64)
        return (np.arange(_PERMUTATIONS // _ROWS, dtype=np.uint64) << np.uint64(32)) | bands

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        by_chance = 1 / 256
        similarity = ((a == b).mean(axis=1) - by_chance) / (1 - by_chance)
        least = self.threshold if threshold is None else threshold
        return np.asarray(similarity >= least)


def _centred(sketches: Sketches) -> npt.NDArray[np.float32]:
    """(N, 64): the small pictures with mean 0 and spread 1, so that neither brightness nor contrast matters."""
    small = sketches[:, 8:].astype(np.float32)
    small = small - small.mean(axis=1, keepdims=True)
    return np.asarray(small / np.maximum(small.std(axis=1, keepdims=True), 1e-6))


def _cosines(count: int, length: int) -> npt.NDArray[np.float32]:
    """(count, length): the first rows of the DCT-II, without scale."""
    frequency, place = np.arange(count)[:, np.newaxis], np.arange(length) + 0.5
    return np.cos(np.pi / length * frequency * place).astype(np.float32)


_DCT = _cosines(_SIDE, GRID)
_MEANS = np.kron(np.eye(_SIDE), np.full(GRID // _SIDE, _SIDE / GRID)).astype(np.float32)
_DEALT = np.argsort(np.arange(_SIDE * _SIDE) % 5, kind="stable")  # neighbouring frequencies go to different bands
_seeds: Hashes = mix(np.arange(1, 2 * _PERMUTATIONS + 1, dtype=np.uint64)).reshape(2, _PERMUTATIONS, 1)
_FACTORS, _SHIFTS = _seeds[0] | np.uint64(1), _seeds[1]

PICTURES = Pictures()
SHINGLES = Shingles()
