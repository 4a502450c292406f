"""Texts by the words in them: BM25 over several sets of texts as over one.

The formula is that of Lucene and of bm25s (Robertson and Zaragoza 2009, with an idf that is never negative).
Frequencies are kept, and scores are computed for a query's words alone: a further text changes nothing that is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SATURATION, _LENGTH = 1.5, 0.75
"""k1 and b."""

_Numbers = npt.NDArray[np.int64]


class WordCounts:
    """How often each word occurs in each of some texts (N,)."""

    def __init__(self, texts: Sequence[str], before: WordCounts | None = None) -> None:
        """`before`: of texts some of which are these; they are not taken apart again."""
        self._number: dict[str, int] = dict(before._number) if before else {}
        known: dict[str, _Numbers] = before._of_text if before else {}
        self._of_text: dict[str, _Numbers] = {
            text: known[text] if text in known else self._numbers(text) for text in dict.fromkeys(texts)
        }
        found = [self._of_text[text] for text in texts]
        self.lengths: _Numbers = np.array([len(each) for each in found], np.int64)
        place = np.repeat(np.arange(len(found)), self.lengths)
        pairs = np.concatenate([np.zeros(0, np.int64), *found]) * max(len(found), 1) + place
        pairs, self._times = np.unique(pairs, return_counts=True)
        word, self._places = np.divmod(pairs, max(len(found), 1))
        self._starts = np.searchsorted(word, np.arange(len(self._number) + 1))

    def of(self, word: str) -> tuple[_Numbers, _Numbers]:
        """The places of the texts that have the word, and how often each has it."""
        number = self._number.get(word)
        here = slice(0) if number is None else slice(self._starts[number], self._starts[number + 1])
        return self._places[here], self._times[here]

    def _numbers(self, text: str) -> _Numbers:
        return np.array([self._number.setdefault(word, len(self._number)) for word in words(text)], np.int64)


def word_scores(parts: Sequence[WordCounts], text: str) -> npt.NDArray[np.float64] | None:
    """(N,) how well the words of `text` fit each text of all parts, one after another; 0 where none does, None if no
    text has any of them."""
    lengths = np.concatenate([part.lengths for part in parts])
    starts = np.cumsum([0, *(len(part.lengths) for part in parts)])
    scores, fits = np.zeros(len(lengths)), False
    for word in words(text):
        of_parts = [part.of(word) for part in parts]
        places = np.concatenate([each + start for (each, _), start in zip(of_parts, starts[:-1], strict=True)])
        times = np.concatenate([each for _, each in of_parts])
        if not len(places):
            continue
        fits = True
        rarity = np.log1p((len(lengths) - len(places) + 0.5) / (len(places) + 0.5))
        longer = 1 - _LENGTH + _LENGTH * lengths[places] / lengths.mean()
        scores[places] += rarity * times / (times + _SATURATION * longer)
    return scores if fits else None


def words(text: str) -> list[str]:
    """Lower case; `vit_base_patch16` is one word and its parts."""
    found = re.findall(r"[a-z0-9][a-z0-9_.\-]*", text.lower())
    return [part for word in found for part in dict.fromkeys((word.strip("._-"), *re.split(r"[_.\-]+", word))) if part]
