"""Texts as they are heard, and how many changes lie between two. Nothing here needs a library."""

from __future__ import annotations

import re
from typing import Any

_SPOKEN = {"mr": "mister", "mrs": "missus", "dr": "doctor", "&": "and", "%": "percent"}
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[&%]")
_MOST_SPOKEN = 9_999


def spoken_words(text: Any) -> str:
    """A transcript with nothing that is not heard: in lower case, without punctuation, whole numbers up to 9,999 and
    a few abbreviations as words. English; of other languages numerals stay as they are only if both sides have them.

    >>> spoken_words("Mr. Smith drew 10 of clubs -- twenty-one!")
    'mister smith drew ten of clubs twenty one'
    """
    found = _WORDS.findall(str("" if text is None else text).lower().replace("\u2019", "'"))
    return " ".join(_SPOKEN.get(word, number_words(word)) for word in found)


def number_words(word: str) -> str:
    """`42` -> `forty two`; any other word as it is."""
    if not (word.isascii() and word.isdecimal()) or int(word) > _MOST_SPOKEN:
        return word
    number, parts = int(word), list[str]()
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            parts += [_ONES[number // size], name]
            number %= size
    if number >= 20:
        parts.append(_TENS[number // 10])
        number %= 10
        parts += [_ONES[number]] if number else []
    elif number or not parts:
        parts.append(_ONES[number])
    return " ".join(parts)


def edit_distance(one: str, other: str) -> int:
    """The fewest insertions, deletions and substitutions (Levenshtein 1966).

    >>> edit_distance("kitten", "sitting")
    3
    """
    before = list(range(len(other) + 1))
    for row, left in enumerate(one, 1):
        now = [row]
        for column, right in enumerate(other, 1):
            now.append(min(now[-1] + 1, before[column] + 1, before[column - 1] + (left != right)))
        before = now
    return before[-1]
