"""OBJ: a text that says nothing of its size, so its lines are counted before and after trimesh reads it.

It seems cut where its last line has no end, or where many vertices belong to no face.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError
from speciate.modalities.forms.mesh_scenes import Declared, Loaded, joined, plain, scene_of

_UNUSED = 0.1
"""An OBJ of which more vertices than this share belong to no face seems cut."""
_VERTEX = re.compile(rb"(?m)^[ \t]*v[ \t]+\S")
_COMMENT, _INDENT = re.compile(rb"#[^\r\n]*"), re.compile(rb"(?m)^[ \t]+")
_LF, _CR, _SPACE, _TAB = b"\n\r \t"


def looks_like_obj(data: bytes) -> bool:
    return _VERTEX.search(data) is not None


def declared(data: bytes) -> Declared:
    """By its lines that name vertices, and the triangles that its faces are cut into."""
    lines = _lines(data)
    return Declared("OBJ", lines.vertices, int(np.maximum(lines.corners - 2, 0).sum()))


def load(data: bytes, said: Declared, others: Mapping[str, bytes]) -> Loaded:
    """`others`: the files beside it, its materials and their textures, by their names."""
    if not data.endswith((b"\n", b"\r")) and data.rsplit(b"\n", 1)[-1].lstrip()[:1] in (b"f", b"v"):
        raise DecodeError("partial", "It ends within a line, so that nothing tells whether it is whole.")
    lines = _lines(data)
    if (lines.corners < 3).any():
        raise DecodeError("partial", "A face has fewer than three corners.")
    loaded = joined(scene_of(lines.joined, "obj", {plain(name): member for name, member in others.items()}))
    if len(loaded.faces) != said.faces:
        raise DecodeError("partial", f"{len(loaded.faces):,} triangles where its lines give {said.faces:,}.")
    unused = said.vertices - lines.used()
    if unused > _UNUSED * said.vertices:
        raise DecodeError("partial", f"{unused:,} of {said.vertices:,} vertices belong to no face: it seems cut.")
    return loaded


@lru_cache(maxsize=1)
def _lines(data: bytes) -> _Lines:
    """Of the last file that was asked for: what it declares is asked before, with and after what it holds."""
    return _Lines(data)


class _Lines:
    """The lines of an OBJ, counted all at once: as many as millions are no work for a loop."""

    def __init__(self, data: bytes) -> None:
        self.joined = data.replace(b"\\\n", b" ").replace(b"\\\r\n", b" ") if b"\\" in data else data
        bare = _COMMENT.sub(b"", self.joined) if b"#" in self.joined else self.joined
        if bare[:1] in (b" ", b"\t") or any(indent in bare for indent in (b"\n ", b"\n\t", b"\r ", b"\r\t")):
            bare = _INDENT.sub(b"", bare)
        self._bytes = np.frombuffer(bare + b"\n", np.uint8)
        ends = np.flatnonzero((self._bytes == _LF) | (self._bytes == _CR))
        starts = np.concatenate([[0], ends[:-1] + 1])
        there = ends - starts > 1
        self._starts, self._ends = starts[there], ends[there]
        second = self._bytes[self._starts + 1]
        begins = np.where((second == _SPACE) | (second == _TAB), self._bytes[self._starts], 0)
        self._faces = begins == ord("f")
        words = self._words()
        self.vertices = int((words[begins == ord("v")] > 1).sum())
        self.corners = words[self._faces] - 1
        """(F,) of each face."""

    def _words(self) -> npt.NDArray[np.int64]:
        """(L,) of each line."""
        blank = self._bytes <= _SPACE
        begins = ~blank
        begins[1:] &= blank[:-1]
        places = np.flatnonzero(begins)
        counts: npt.NDArray[np.int64] = np.searchsorted(places, self._ends) - np.searchsorted(places, self._starts)
        return counts

    def used(self) -> int:
        """How many vertices the faces name; where they count backwards, as some may, all."""
        named = self._named()
        if b"/" in named:
            named = re.sub(rb"/\S*", b"", named)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # numpy only warns where it stops early
                numbers = np.fromstring(named, np.int64, sep=" ")
        except (ValueError, DeprecationWarning) as error:
            raise DecodeError("error", f"A face names no number: {str(error)[:100]}.") from error
        if (numbers == 0).any():
            raise DecodeError("partial", "A face names vertex 0, and an OBJ counts from 1.")
        return len(np.unique(numbers)) if numbers.min(initial=1) > 0 else self.vertices

    def _named(self) -> bytes:
        """What the faces name, corner by corner."""
        edges = np.zeros(len(self._bytes) + 1, np.int8)
        edges[self._starts[self._faces] + 1] = 1
        edges[self._ends[self._faces] + 1] = -1  # with the end of the line, which parts its words from the next
        inside = np.cumsum(edges[:-1], dtype=np.int8).astype(bool)
        named: bytes = self._bytes[inside].tobytes()
        return named
