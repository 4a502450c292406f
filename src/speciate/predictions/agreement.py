"""How far labellers agree: Krippendorff's alpha for nominal labels, with a bootstrap interval. Pure.

Krippendorff, Content Analysis, 4th ed. (2019), chapter 12; it takes any number of labellers and any gaps. Over the
coincidences o[c, k] of pairable labels, with n of them in all and n[c] of each kind,

    alpha = 1 - (n - 1) * sum(o[c, k], c != k) / sum(n[c] * n[k], c != k)

1 is perfect, 0 is what chance gives, below 0 is worse than chance. The interval is that of a bootstrap over answers
(percentiles), not Krippendorff's own over pairs, which is too narrow where answers have several labels each. Written
out here because no library of this project has it; it is thirty lines.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from speciate.predictions.reading import Given

_DRAWS = 400

Pattern = frozenset[tuple[Hashable, int]]
"""Label -> how often an answer got it: all that counts of one."""


class Agreement(NamedTuple):
    alpha: float | None
    """None where nothing can be said: fewer than two answers with two labels, or only one kind of label."""
    low: float | None
    high: float | None
    answers: int
    """That two labellers at least have labelled."""
    labellers: int


def agreement(given: Iterable[Given], *, seed: int = 0) -> Agreement:
    """Between labellers (a source and who it was): the latest label of each for each answer."""
    last: dict[tuple[str, str, str], Given] = {}
    for each in sorted(given, key=lambda one: one.at):
        if each.label is not None:
            last[each.prediction, each.source, each.by] = each
    units: dict[str, list[str]] = {}
    for (prediction, _, _), each in last.items():
        units.setdefault(prediction, []).append(str(each.label).strip())
    several = [labels for labels in units.values() if len(labels) > 1]
    value = alpha(several)
    low, high = _interval(several, seed) if value is not None else (None, None)
    return Agreement(value, low, high, len(several), len({(source, by) for _, source, by in last}))


def alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """`units`: the labels that each answer got; those with fewer than two say nothing."""
    return _alpha(Counter(map(_pattern, units)))


def _pattern(labels: Sequence[Hashable]) -> Pattern:
    return frozenset(Counter(labels).items())


def _alpha(patterns: Mapping[Pattern, int]) -> float | None:
    """`patterns`: how many answers got their labels so. There are few, however many answers there are."""
    kinds: Counter[Hashable] = Counter()
    apart = 0.0
    for pattern, times in patterns.items():
        count = sum(each for _, each in pattern)
        if count > 1:
            for label, each in pattern:
                kinds[label] += times * each
            equal = sum(each * each for _, each in pattern)
            apart += times * (count**2 - equal) / (count - 1)
    n = kinds.total()
    by_chance = n * n - sum(count * count for count in kinds.values())
    return None if by_chance == 0 else 1 - (n - 1) * apart / by_chance


def _interval(units: Sequence[Sequence[Hashable]], seed: int) -> tuple[float | None, float | None]:
    """95 %: percentiles over draws of answers. A draw with one kind of label alone has no alpha and
    is left out."""
    if len(units) < 2:
        return None, None
    chance, patterns = random.Random(seed), [_pattern(labels) for labels in units]
    known = list(dict.fromkeys(patterns))
    number = {pattern: place for place, pattern in enumerate(known)}
    numbers = [number[pattern] for pattern in patterns]
    draws = (Counter(chance.choices(numbers, k=len(numbers))) for _ in range(_DRAWS))
    drawn = (_alpha({known[place]: times for place, times in each.items()}) for each in draws)
    values = sorted(value for value in drawn if value is not None)
    if len(values) < _DRAWS // 2:
        return None, None
    return values[int(0.025 * len(values))], values[min(len(values) - 1, int(0.975 * len(values)))]
