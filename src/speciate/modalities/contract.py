"""The contract of a modality: how its files are recognised and decoded, and which values describe a medium in a table.

`inspect`, `decode`, `summarize` and `marks` see foreign bytes: they run in sandboxed processes only, may use heavy
libraries, and raise nothing but `DecodeError`. All other functions see decoded media and are pure: the same medium
gives the same answer in every process. Every modality passes tests/modalities/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, overload, runtime_checkable

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
    """A medium's own declarations."""

    decoded_bytes: int
    fields: dict[str, str | int | float]


class FileSummary(NamedTuple):
    """The facts that a dataset version stores beside a file's bytes."""

    header: Header
    fingerprint: str
    measures: dict[str, int | float]
    sketch: bytes | None
    caution: str | None = None
    """Why a person should look at the file before it is used, although it decodes. It is quarantined as partial, unless
    the caller wants such files as they are."""


Vector = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Sketches = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Media = TypeVar("Media")
"""An array of uint8, int32 or float32, a JSON value, or a dict of such: what can leave a sandbox
(datasets/loading/decoding.py)."""


@runtime_checkable
class Sketching(Protocol):
    """Short codes of fixed length by which near-duplicates are found; modalities/hashing.py has two kinds."""

    width: int
    """Bytes of one sketch."""

    def keys(self, sketches: Sketches) -> npt.NDArray[np.uint64]:
        """(N, width) -> (N, B): near-duplicates share at least one key with high probability, others seldom."""
        ...

    def near(self, a: Sketches, b: Sketches, threshold: float | None = None) -> npt.NDArray[np.bool_]:
        """(M, width), (M, width) -> (M,): which pairs are near-duplicates.

        `threshold`: the least similarity, 0 to 1; None: the kind's own, at which it was measured.
        """
        ...


@runtime_checkable
class SketchingByPart(Protocol):
    """Sketches of examples with several parts, which are near if any of their parts are
    (modalities/part_sketches.py)."""

    def columns(self, sketches: Sequence[bytes | None], part: str | None = None) -> dict[str, SketchColumn]:
        """Sketches of examples -> for each part, or the one that is named, its own sketches in their order."""
        ...

    def is_valid(self, sketch: bytes) -> bool:
        """Whether it can be unpacked."""
        ...


class SketchColumn(NamedTuple):
    sketches: list[bytes | None]
    """None if the part is missing, or has too little content to be told from others."""
    sketching: Sketching | PairwiseSimilarity


@runtime_checkable
class PairwiseSimilarity(Protocol):
    """Codes of any length by which near-duplicates are found, comparing all at once (biology/homology.py)."""

    def pairs(self, codes: Sequence[bytes], threshold: float | None = None) -> Places:
        """(M, 2) places of near-duplicates among different codes, the smaller first; `threshold` as above."""
        ...


class PackedCodes(Sequence[bytes]):
    """Codes of any length, one after another in one buffer: a million of them are no million objects."""

    def __init__(self, data: npt.NDArray[np.uint8], starts: Places) -> None:
        """`starts`: (N + 1,) where each begins, and where the last one ends."""
        self.data, self.starts = data, starts

    @classmethod
    def of(cls, codes: Sequence[bytes]) -> PackedCodes:
        if isinstance(codes, PackedCodes):
            return codes
        lengths = np.fromiter(map(len, codes), np.int64, len(codes))
        return cls(np.frombuffer(b"".join(codes), np.uint8), np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...

    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        place = range(len(self))[at]
        return self.data[self.starts[place] : self.starts[place + 1]].tobytes()


class Modality(Protocol[Media]):
    """A modality subclasses this, and inherits the defaults: no sketch, no axis to cut windows from."""

    name: str
    suffixes: tuple[str, ...]
    """Suffixes of files with one example each, lower case, with the dot."""
    borrows: tuple[str, ...] = ()
    """Suffixes of other modalities' files that it reads too, if the caller names it: the audio of a video."""
    analyzer: Literal["word", "char"] | None = None
    """How a classical learner counts the document of `describe`: words, characters; None if `describe` gives a
    vector."""
    ngrams: tuple[int, int] = (1, 1)
    """Shortest and longest run that is counted."""
    has_properties: bool = False
    """Whether `properties` gives numbers beside the document of `describe`."""
    sketching: Sketching | SketchingByPart | PairwiseSimilarity | None = None
    """The kind of code that `sketch` makes; None: no near-duplicates are found."""
    window_unit: Literal["seconds", "steps"] | None = None
    """The unit of `window`; None if a medium has no such axis; then `window` is not called."""
    mark_units: tuple[str, ...] = ()
    """Further units for windows, whose beginnings `marks` returns in `window_unit`, such as frames."""
    default_group: str | None = None
    """The field of `inspect` or `row_fields` that groups examples if the caller names no group, such as the patient."""
    thumbnail_side: int = THUMBNAIL
    """Longest side of a thumbnail, at most LARGEST_THUMBNAIL."""

    def sniff(self, head: bytes, name: str) -> bool:
        """Whether the first 4 KiB (and the file's name) look like one medium of this modality."""
        ...

    def inspect(self, data: bytes) -> Header:
        """Read the header only. Its fields become columns."""
        ...

    def decode(self, data: bytes) -> Media:
        """The whole medium. The header must be within the budget, and the medium must be what it declares."""
        ...

    def admit(self, value: Any) -> Media:
        """The medium in a cell of a table or an inline row. Raises DecodeError if there is none."""
        ...

    def fingerprint(self, media: Media) -> str:
        """A text that is the same for media that differ in nothing that carries meaning (container, case, spacing)."""
        ...

    def measure(self, media: Media) -> dict[str, int | float]:
        """Values of the decoded medium that a person would filter by. They become columns; finite, cheap."""
        ...

    def describe(self, media: Media) -> Vector | str:
        """The input of a classical learner: a float32 vector (D,) of one length for similar media, or a document."""
        ...

    def properties(self, media: Media) -> Vector:
        """float32 (D,), finite, D the same for every medium: what experts measure of it, for classical learners beside
        the counts of its document. Only called where `has_properties`."""
        raise AssertionError(f"{self.name} has no properties.")

    def features(self, media: Media) -> Vector:
        """float32 (D,), finite, D the same for every medium: distances between them show similar and odd examples.

        Needs no training, no weights and no network.
        """
        ...

    def thumbnail(self, media: Media) -> Pixels:
        """(H, W, 3), the longest side at most `thumbnail_side` pixels."""
        ...

    def sketch(self, media: Media) -> bytes | None:
        """`sketching.width` bytes (for a PairwiseSimilarity any number); None if the medium has too little content to
        be told from others."""
        return None

    def row_fields(self, media: Media) -> dict[str, str | int | float]:
        """Further columns of a table's row whose medium lies in a cell; most modalities add none."""
        return {}

    def summarize(self, data: bytes) -> FileSummary:
        """All facts of a file for ingest. Raises DecodeError exactly where `decode` does.

        Override it for formats whose facts cost less than decoding.
        """
        media = self.decode(data)
        return FileSummary(self.inspect(data), self.fingerprint(media), self.measure(media), self.sketch(media))

    def window(self, media: Media, start: float, stop: float) -> Media:
        """The medium from `start` up to `stop` in `window_unit`, 0 <= start < stop; less if it ends before."""
        assert self.window_unit is None, f"{self.name} names an axis, but cuts no windows from it."
        return media

    def decode_window(self, data: bytes, start: float, stop: float) -> Media:
        """The window of a file. Override it for formats of which a part can be read without the rest."""
        return self.window(self.decode(data), start, stop)

    def marks(self, data: bytes, unit: str) -> list[float]:
        """Where the units of `mark_units` begin, in `window_unit`, ascending, and where the last one ends."""
        raise AssertionError(f"{self.name} names {unit}, but does not tell where they begin.")
