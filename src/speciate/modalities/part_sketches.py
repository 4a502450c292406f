"""Sketches of examples with several parts: the sketches of the parts one after another, each under its part's name.

Two examples are near if any part of one is near the same part of the other: an image with a new report is still the
image that a model was trained on. So each part has its own column of sketches, and pairs are looked for in all of them.
Parts whose modality has no sketch are near if they are equal after normalising. A part with too little content to be
told from others is near none: a blank image, or a short text, which may stand beside many images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import PairwiseSimilarity, SketchColumn, Sketches, Sketching
from speciate.modalities.hashing import TextSketches, is_short_text

KindOf = Callable[[str], Sketching | PairwiseSimilarity | None]
_DIGEST = 16
_NO_MEDIUM = ("tabular",)
"""Modalities whose equal media are no copies: rows of two short columns are often equal."""


class PartSketch(NamedTuple):
    """The sketch of one part."""

    digest: bytes
    """16 bytes of the hash of its fingerprint."""
    code: bytes | None
    """The part's sketch by its modality."""


class EqualDigests:
    """Digests of 16 bytes: near is equal."""

    width = _DIGEST

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        return np.ascontiguousarray(sketches).view("<u8")[:, :1].astype(np.uint64)

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        return np.asarray((a == b).all(axis=1))


EQUAL_DIGESTS = EqualDigests()


def digest_of(fingerprint: str) -> bytes:
    return hashlib.sha256(fingerprint.encode("utf-8", "surrogatepass")).digest()[:_DIGEST]


def pack_sketches(parts: dict[str, PartSketch]) -> bytes:
    """One after another, by name: length and text of the name, the digest, length and bytes of the code."""
    found = bytearray()
    for name in sorted(parts):
        label, code = name.encode(), parts[name].code
        found += len(label).to_bytes(2, "little") + label + parts[name].digest
        found += (0 if code is None else len(code) + 1).to_bytes(4, "little") + (code or b"")
    return bytes(found)


def unpack_sketches(sketch: bytes) -> dict[str, PartSketch]:
    """Raises ValueError for another sketch."""
    parts: dict[str, PartSketch] = {}
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        if at > len(sketch):
            raise ValueError("a sketch of parts that ends early")
        return sketch[at - count : at]

    while at < len(sketch):
        name = take(int.from_bytes(take(2), "little")).decode()
        own = take(_DIGEST)
        length = int.from_bytes(take(4), "little")
        parts[name] = PartSketch(own, take(length - 1) if length else None)
    return parts


def drop_part(sketch: bytes | None, part: str) -> bytes | None:
    """The sketch without one part (NAME.MODALITY), which was cut or changed."""
    if sketch is None:
        return None
    return pack_sketches({name: each for name, each in unpack_sketches(sketch).items() if name != part}) or None


class PartSketches:
    """`kinds`: by the name of a modality, how it sketches, None where it does not."""

    def __init__(self, kinds: KindOf) -> None:
        self._kind_of = kinds

    def columns(self, sketches: Sequence[bytes | None], part: str | None = None) -> dict[str, SketchColumn]:
        """Name of the part -> its column. `part`: without its modality."""
        taken = [{} if sketch is None else unpack_sketches(sketch) for sketch in sketches]
        found: dict[str, SketchColumn] = {}
        for name in sorted({name for each in taken for name in each}):
            own, _, modality = name.rpartition(".")
            if modality in _NO_MEDIUM or part not in (None, own):
                continue
            kind = self._kind_of(modality)
            codes = [_code(each.get(name), kind) for each in taken]
            found[name] = SketchColumn(codes, kind or EQUAL_DIGESTS)
        return found

    def is_valid(self, sketch: bytes) -> bool:
        try:
            parts = unpack_sketches(sketch)
        except ValueError:
            return False
        return all(self._fits(name.rpartition(".")[2], each.code) for name, each in parts.items())

    def _fits(self, modality: str, code: bytes | None) -> bool:
        kind = self._kind_of(modality)
        return code is None or isinstance(kind, PairwiseSimilarity) or (kind is not None and len(code) == kind.width)


def _code(part: PartSketch | None, kind: Sketching | PairwiseSimilarity | None) -> bytes | None:
    if part is None:
        return None
    if kind is None:
        return part.digest
    return None if isinstance(kind, TextSketches) and is_short_text(part.code) else part.code
