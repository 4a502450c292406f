"""Warnings about training examples before the first step: truncated answers, one answer for all, leaks. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_RUN = 13
"""Words in a row that two texts do not share by chance (Brown et al. 2020, appendix C)."""
_MOST_ALIKE = 0.5
_FEWEST = 20
"""With fewer examples, one answer for half of them is no warning."""


class Truncation(NamedTuple):
    """Counts of `examples`: `cut` are longer than `limit`, `lost` have no answer left; `enough` tokens would do for 95
    of 100."""

    examples: int
    cut: int
    lost: int
    limit: int
    enough: int

    @property
    def hopeless(self) -> bool:
        """More than half of the examples have nothing left to learn."""
        return 2 * self.lost > self.examples


def truncation(lengths: Sequence[int], learned: Sequence[int], limit: int) -> Truncation:
    """`learned`: trained tokens of each example after truncation."""
    ordered = sorted(lengths)
    enough = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))] if ordered else 0
    return Truncation(
        len(lengths), sum(each > limit for each in lengths), sum(not each for each in learned), limit, enough
    )


def most_common_answer(answers: Sequence[str]) -> tuple[str, float] | None:
    """The answer that at least half of many examples share, with its share."""
    if len(answers) < _FEWEST:
        return None
    text, count = Counter(map(normalize, answers)).most_common(1)[0]
    share = count / len(answers)
    return (text, share) if share >= _MOST_ALIKE else None


def count_duplicates(learned: Sequence[tuple[str, str]]) -> int:
    """Pairs of question and answer that repeat an earlier one."""
    return len(learned) - len({(normalize(question), normalize(answer)) for question, answer in learned})


def find_leaks(learned: Sequence[str], held_out: Sequence[str]) -> list[int]:
    """Places of the held-out texts that equal a training text but for case and spacing, or share 13 words in a row with
    one."""
    whole = {normalize(text) for text in learned}
    runs = {run for text in learned for run in _runs(text)}
    return [
        place
        for place, text in enumerate(held_out)
        if normalize(text) in whole or any(run in runs for run in _runs(text))
    ]


def normalize(text: str) -> str:
    return " ".join(text.casefold().split())


def _runs(text: str) -> list[int]:
    """Hashes of all runs of 13 words."""
    words = re.findall(r"\w+", text.casefold())
    return [hash(tuple(words[at : at + _RUN])) for at in range(len(words) - _RUN + 1)]
