"""Words of models, ready to be asked by BM25 (the library bm25s).

What was counted is kept in a folder by what it was counted of, so that a process that begins reads it in milliseconds.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from bm25s import BM25  # brings scipy, which only a search needs

_FORM = 1
"""Raise it where `words` or the library's arrays change: what was kept before is then counted anew."""
_KEPT = 4
"""Countings in a folder; older ones go."""


class Words:
    """Texts (N,) by the words in them. Thread-safe."""

    def __init__(self, texts: Sequence[str], folder: Path | None = None) -> None:
        """`folder`: where countings are kept; None: nowhere."""
        self._count = len(texts)
        place = None if folder is None else folder / f"words-{_digest(texts)}"
        self._bm25 = _read(place) or _counted(texts, place)

    def scores(self, text: str) -> npt.NDArray[np.float64] | None:
        """(N,) how well the words of `text` fit, 0 where none does; None where no text has any of them."""
        asked = [word for word in words(text) if word in self._bm25.vocab_dict]
        if not asked or not self._count:
            return None
        return np.asarray(self._bm25.get_scores(asked), np.float64)


def words(text: str) -> list[str]:
    """Lower case; `vit_base_patch16` is one word and its parts."""
    found = re.findall(r"[a-z0-9][a-z0-9_.\-]*", text.lower())
    return [part for word in found for part in dict.fromkeys((word.strip("._-"), *re.split(r"[_.\-]+", word))) if part]


def _counted(texts: Sequence[str], place: Path | None) -> BM25:
    from bm25s import BM25

    bm25 = BM25()
    bm25.index([words(text) for text in texts], show_progress=False)
    if place is not None and texts:
        _keep(bm25, place)
    return bm25


def _keep(bm25: BM25, place: Path) -> None:
    """In one step, so that nobody reads half of it. What cannot be kept is counted again another time."""
    temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        bm25.save(str(temporary), show_progress=False)
        temporary.rename(place)
        kept = sorted(place.parent.glob("words-*"), key=lambda each: each.stat().st_mtime)
        for old in kept[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError:  # somebody else was first, or the disk is full
        shutil.rmtree(temporary, ignore_errors=True)


def _read(place: Path | None) -> BM25 | None:
    if place is None or not place.is_dir():
        return None
    from bm25s import BM25

    try:
        found = BM25.load(str(place))
    except (OSError, ValueError, KeyError):  # of a disk that was full, or another version of the library
        return None
    return found if isinstance(found, BM25) else None


def _digest(texts: Sequence[str]) -> str:
    found = hashlib.sha256(str(_FORM).encode())
    for text in texts:
        found.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return found.hexdigest()[:24]
