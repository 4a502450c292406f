"""Whether pairs are told apart without their questions, by which answers they are. Pure.

Where the same few answers recur, as names of classes do, one may be the better nearly wherever it stands: a model that
says it to everybody is right by these pairs, and wrong. Pairs of a model's own mistakes alone are such: what it says
too seldom is always the better answer there, what it says too often always the worse one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_MANY, _TELLING = 20, 0.8
"""Pairs from which on, and the share of them told apart by the answers alone, at which that is said."""


def leaning(pairs: Sequence[tuple[str, str]]) -> str | None:
    """What is to be said of (better, worse) answers; None where the questions matter, as far as this tells."""
    share = told_apart(pairs)
    if len(pairs) < _MANY or share < _TELLING:
        return None
    wins, stands = _counts(pairs)
    often = max(wins, key=lambda each: (2 * wins[each] - stands[each], each))
    return (
        f"{share:.0%} of {len(pairs)} training pairs are told apart by their answers alone: {often[:60]!r} is the "
        f"better one in {wins[often]} of the {stands[often]} where it stands. A model that says it whatever is asked "
        "is right by such pairs. Let each answer be the better one as often as the worse one: pair the right answer "
        "with each of the others, not with a model's mistakes alone."
    )


def told_apart(pairs: Sequence[tuple[str, str]]) -> float:
    """The share in which the better answer wins the larger part of the other pairs that it stands in; equal parts count
    a half. Each pair is judged by the others alone, so answers that stand once tell nothing.

    >>> told_apart([("a", "b")] * 3), told_apart([("a", "b"), ("b", "a")] * 3), told_apart([("a", "b"), ("c", "d")])
    (1.0, 0.0, 0.5)
    """
    wins, stands = _counts(pairs)

    def part(answer: str, won: int) -> float:
        """Laplace's estimate, without one pair."""
        return (wins[answer] - won + 1) / (stands[answer] + 1)

    told = 0.0
    for better, worse in pairs:
        good, bad = part(better, 1), part(worse, 0)
        told += 1.0 if good > bad else 0.5 if good == bad else 0.0
    return told / len(pairs) if pairs else 0.5


def _counts(pairs: Sequence[tuple[str, str]]) -> tuple[Counter[str], Counter[str]]:
    """By answer: pairs in which it is the better, and all in which it stands."""
    wins = Counter(better for better, _ in pairs)
    return wins, wins + Counter(worse for _, worse in pairs)
