"""Words with their places on a page, as models of documents read them: `Total:@92,31,140,44`.

The four numbers are left, top, right and bottom, from 0 to 1000 of the page's width and height. In a text such words
stand between white space, so that a tag or an answer belongs to a word as in any other text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Box = tuple[int, int, int, int]
_PLACED = re.compile(r"(.+)@(\d{1,4}),(\d{1,4}),(\d{1,4}),(\d{1,4})", re.ASCII | re.DOTALL)
_PAGE = 1000
_NOWHERE: Box = (0, 0, 0, 0)
_END: Box = (_PAGE, _PAGE, _PAGE, _PAGE)
"""Box of the token that ends a text, as LayoutLM was trained."""


class PlacedWords(NamedTuple):
    words: list[str]
    boxes: list[Box]


def placed_words(units: Sequence[str]) -> PlacedWords:
    """Raises ValueError for a word without a place, or with one beyond the page."""
    words, boxes = list[str](), list[Box]()
    for unit in units:
        found = _PLACED.fullmatch(unit)
        if found is None:
            raise ValueError(f"the word {unit[:40]!r} has no place: write it as WORD@LEFT,TOP,RIGHT,BOTTOM, 0 to 1000")
        left, top, right, bottom = (int(each) for each in found.groups()[1:])
        if max(right, bottom) > _PAGE or left > right or top > bottom:
            raise ValueError(f"the place of {unit[:40]!r} is none from 0 to 1000")
        words.append(found.group(1))
        boxes.append((left, top, right, bottom))
    return PlacedWords(words, boxes)


def token_boxes(made: Any, row: int, boxes: Sequence[Box], end: int | None, side: int | None = None) -> Any:
    """(T, 4) int64: the box of each token's word, and those of tokens that are none. `side`: of a pair of texts the one
    whose words have boxes."""
    sides = made.sequence_ids(row) if side is not None else None
    found = []
    ids = made["input_ids"][row]
    for position, word in enumerate(made.word_ids(row)):
        placed = word is not None and (sides is None or sides[position] == side)
        found.append(boxes[word] if placed else _END if int(ids[position]) == end else _NOWHERE)
    return np.array(found, np.int64).reshape(-1, 4)
