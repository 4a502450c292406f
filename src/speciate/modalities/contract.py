"""What a modality must know: how its media look from outside, how they decode, and what stands for them in a table.

`inspect` and `decode` see foreign bytes: they run in caged processes only, may use heavy libraries, and raise nothing
but `DecodeError`. All other functions see decoded media and are pure: the same medium gives the same answer in every
process. Every modality passes tests/modalities/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

Quality = Literal["partial", "refused", "error"]

THUMBNAIL = 160
"""Longest side of a thumbnail in pixels, unless its modality needs more to be recognised."""
LARGEST_THUMBNAIL = 320


class DecodeError(Exception):
    """Why a medium is not used.

    `quality`: `partial` (decodes to less than it declares), `refused` (beyond a budget, not even tried) or `error` (not
    readable as this modality).
    """

    def __init__(self, quality: Quality, detail: str) -> None:
        super().__init__(quality, detail)
        self.quality, self.detail = quality, detail

    def __str__(self) -> str:
        return self.detail


class Header(NamedTuple):
    """What a medium declares of itself."""

    decoded_bytes: int
    fields: dict[str, str | int | float]


class Judgement(NamedTuple):
    """What a version keeps of a file beside its bytes."""

    header: Header
    fingerprint: str
    measures: dict[str, int | float]
    sketch: bytes | None
    caution: str | None = None
    """Why a person should look before it is used, although it decodes: it is set aside as partial, unless the caller
    wants such files as they are."""


Vector = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Sketches = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Media = TypeVar("Media")
"""An array of uint8, int32 or float32, a JSON value, or a dict of such: what can leave a cage (loading/crossing.py)."""


@runtime_checkable
class Sketching(Protocol):
    """How short codes of fixed length tell near-duplicates; modalities/hashing.py has two kinds."""

    width: int
    """Bytes of one sketch."""

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        """(N, width) -> (N, B): near-duplicates share at least one key with high probability, others seldom."""
        ...

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        """(M, width), (M, width) -> (M,): which pairs are near-duplicates.

        `threshold`: the least similarity, 0 to 1; None is the kind's own, at which it was measured.
        """
        ...


@runtime_checkable
class SketchingByPart(Protocol):
    """How examples of several parts are near one another: in any of their parts (modalities/part_sketches.py)."""

    def columns(self, sketches: Sequence[bytes | None], part: str | None = None) -> dict[str, SketchColumn]:
        """Sketches of examples -> for each part, or the one that is named, its own sketches in their order."""
        ...

    def is_sound(self, sketch: bytes) -> bool:
        """Whether it can be taken apart."""
        ...


class SketchColumn(NamedTuple):
    sketches: list[bytes | None]
    """None where the part is missing, or has too little in it to be told from others."""
    sketching: Sketching | PairwiseSimilarity


@runtime_checkable
class PairwiseSimilarity(Protocol):
    """How codes of any length tell near-duplicates, where no few bytes do: all are seen at once (homology.py)."""

    def pairs(self, codes: Sequence[bytes], threshold: float | None = None) -> Places:
        """(M, 2) places of near-duplicates among different codes, the smaller first; `threshold` as above."""
        ...


class Modality(Protocol[Media]):
    """A modality is a subclass, so that it has what it leaves out: no sketch, no axis to cut windows from."""

    name: str
    suffixes: tuple[str, ...]
    """Of files that hold one example each, lower case, with the dot."""
    borrows: tuple[str, ...] = ()
    """Those of other modalities' files that it reads, too, where it is named: the sound of a video."""
    analyzer: Literal["word", "char"] | None = None
    """How a classical learner counts what `describe` returns: words, characters; None where it is a vector."""
    ngrams: tuple[int, int] = (1, 1)
    """Shortest and longest run that is counted."""
    sketching: Sketching | SketchingByPart | PairwiseSimilarity | None = None
    """The kind of code that `sketch` makes; None where no code tells near-duplicates."""
    window_unit: Literal["seconds", "steps"] | None = None
    """What `window` counts in; None where a medium has no such axis, and `window` is not called."""
    mark_units: tuple[str, ...] = ()
    """What else windows may be counted in: units whose beginnings `marks` tells in `window_unit`, such as frames."""
    default_group: str | None = None
    """The field of `inspect` or `row_fields` that groups examples where the caller names no group, such as the
    patient."""
    thumbnail_side: int = THUMBNAIL
    """Longest side of what `thumbnail` draws, at most LARGEST_THUMBNAIL."""

    def sniff(self, head: bytes, name: str) -> bool:
        """Whether the first 4 KiB (and the file's name) look like one medium of this modality."""
        ...

    def inspect(self, data: bytes) -> Header:
        """Read the header only. Its fields become columns."""
        ...

    def decode(self, data: bytes) -> Media:
        """The whole medium, after its header passed the budget and checked against what it declares."""
        ...

    def admit(self, value: Any) -> Media:
        """The medium that a cell of a table or an inline row holds; DecodeError where it holds none."""
        ...

    def fingerprint(self, media: Media) -> str:
        """The same text for media that differ only in ways which carry no meaning (container, case, spacing)."""
        ...

    def measure(self, media: Media) -> dict[str, int | float]:
        """What only the decoded medium tells and a person would filter by. Becomes columns; finite, cheap."""
        ...

    def describe(self, media: Media) -> Vector | str:
        """What a classical learner sees: a float32 vector (D,) of the same length for like media, or a document."""
        ...

    def features(self, media: Media) -> Vector:
        """float32 (D,), finite, D the same for every medium: distances between them tell what is alike and what is odd.

        Needs no training, no weights and no network.
        """
        ...

    def thumbnail(self, media: Media) -> Pixels:
        """(H, W, 3), the longest side at most `thumbnail_side` pixels."""
        ...

    def sketch(self, media: Media) -> bytes | None:
        """`sketching.width` bytes, of a Kinship any number; None where the medium has too little in it to be told from
        others."""
        return None

    def row_fields(self, media: Media) -> dict[str, str | int | float]:
        """Columns that a row of a table gets beside its own, where its medium lies in a cell: most get none."""
        return {}

    def judge(self, data: bytes) -> Judgement:
        """All that ingest wants to know of a file; DecodeError exactly where `decode` raises it.

        Another way than this to the same end is for formats that can be judged for less than it takes to decode them.
        """
        media = self.decode(data)
        return Judgement(self.inspect(data), self.fingerprint(media), self.measure(media), self.sketch(media))

    def window(self, media: Media, start: float, stop: float) -> Media:
        """From `start` up to `stop` in `window_unit`, 0 <= start < stop; less where the medium ends before."""
        assert self.window_unit is None, f"{self.name} names an axis, but cuts no windows from it."
        return media

    def decode_window(self, data: bytes, start: float, stop: float) -> Media:
        """The window of a file. Another way than this is for formats of which a part can be read without the rest."""
        return self.window(self.decode(data), start, stop)

    def marks(self, data: bytes, unit: str) -> list[float]:
        """Where the units of `mark_units` begin, in `window_unit`, ascending, and where the last one ends. Caged."""
        raise AssertionError(f"{self.name} names {unit}, but does not tell where they begin.")
