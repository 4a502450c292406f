"""What a modality must know: how its media look from outside, how they decode, and what stands for them in a table.

`inspect` and `decode` see foreign bytes: they run in caged processes only, may use heavy libraries, and raise nothing
but `DecodeError`. All other functions see decoded media and are pure. Every modality passes tests/modalities/.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Quality = Literal["partial", "refused", "error"]

THUMBNAIL = 160
"""Longest side of a thumbnail in pixels."""


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


Vector = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Media = TypeVar("Media")


class Modality(Protocol[Media]):
    name: str
    suffixes: tuple[str, ...]
    """Of files that hold one example each, lower case, with the dot."""
    analyzer: Literal["word", "char"] | None
    """How a classical learner counts what `describe` returns: words, characters; None where it is a vector."""
    ngrams: tuple[int, int]
    """Shortest and longest run that is counted."""

    def sniff(self, head: bytes, name: str) -> bool:
        """Whether the first 4 KiB (and the file's name) look like one medium of this modality."""
        ...

    def inspect(self, data: bytes) -> Header:
        """Read the header only."""
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

    def describe(self, media: Media) -> Vector | str:
        """What a classical learner sees: a float32 vector (D,) of the same length for like media, or a document."""
        ...

    def thumbnail(self, media: Media) -> Pixels:
        """(H, W, 3), the longest side at most THUMBNAIL pixels."""
        ...
