"""Two tokenizations of one text, and two vocabularies, brought together. Pure.

Places: two sequences of tokens are cut where a token of both ends at the same byte; what lies between two such places
is a group of each, and both groups write the same text. Outcomes: what may come next after the same text, told as
finely as both vocabularies can: a token that both have is an outcome of its own; one that a single side has counts as
the token with which the other side would begin to write it (by such rules of strings Sreenivas et al. 2026, "X-Token",
arXiv 2605.21699, project one vocabulary onto another).
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

NOWHERE = -1
"""Of a token that stands in no group."""
REST, END = 0, 1
"""Outcomes that are always there: whatever no text of the other side begins like, and the end of the answer."""


class Groups(NamedTuple):
    """For each token of both sides its group, numbered from 0 in the order of the text, or NOWHERE."""

    student: list[int]
    teacher: list[int]
    same: int
    """Groups that write the same. One more may stand behind them: a token of each that begins at the last place."""


def aligned(student: Sequence[bytes], teacher: Sequence[bytes], more: bool, ended: bool) -> Groups:
    """`student`, `teacher`: what each token writes. The teacher has one more token, which ends its text; the student
    where there is `more`, an end if it `ended`.

    A place within a character is none, and none lies behind the first byte in which the texts differ. What stands
    before the last place is in a group; of equal texts that is everything.

    >>> aligned([b"hel", b"lo", b"!"], [b"hello", b"!"], True, True)
    Groups(student=[0, 0, 1, 2], teacher=[0, 1, 2], same=3)
    >>> aligned([b"a", b"b", b"c"], [b"a", b"d"], True, True)
    Groups(student=[0, 1, -1, -1], teacher=[0, 1, -1], same=1)
    """
    one, other = b"".join(student), b"".join(teacher)
    differ = (place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    same = next(differ, min(len(one), len(other)))
    ends, others = list(itertools.accumulate(map(len, student))), list(itertools.accumulate(map(len, teacher)))
    places = sorted(place for place in {*ends} & {*others} if 0 < place <= same and _whole(one, place))

    def group(end: int) -> int:
        found = bisect_left(places, end)
        return found if found < len(places) else NOWHERE

    mine, its = [*map(group, ends), *[NOWHERE] * more], [*map(group, others), NOWHERE]
    if NOWHERE in mine:  # the student went on from the last place
        mine[mine.index(NOWHERE)] = its[its.index(NOWHERE)] = len(places)
    return Groups(mine, its, len(places) + (ended and one == other))


def _whole(text: bytes, place: int) -> bool:
    """Whether a character ends there: in UTF-8 all bytes of one but the first begin with 10."""
    return place == len(text) or text[place] & 0xC0 != 0x80


def before(groups: Groups, group: int) -> Groups:
    """Without that group and those behind it."""

    def left(side: Sequence[int]) -> list[int]:
        return [each if each < group else NOWHERE for each in side]

    return Groups(left(groups.student), left(groups.teacher), min(groups.same, group))


class Outcomes(NamedTuple):
    """For each row of both heads the outcome that it counts for."""

    student: list[int]
    teacher: list[int]
    size: int
    """Outcomes that there are."""
    shared: int
    """Texts that a token of both writes."""


def outcomes(
    student: Mapping[int, bytes], teacher: Mapping[int, bytes], ends: tuple[Set[int], Set[int]], rows: tuple[int, int],
    begins: Mapping[bytes, bytes],
) -> Outcomes:  # fmt: skip
    """`ends`, `rows`: of student and teacher. `begins`: how the other side would begin to write what one side alone has
    a token for; where it does not say, or that is no token of both, it is the longest one of both with which it begins.
    """
    shared = {*student.values()} & {*teacher.values()} - {b""}
    number = {text: END + 1 + place for place, text in enumerate(sorted(shared))}

    def outcome(text: bytes) -> int:
        if text in number:
            return number[text]
        first = begins.get(text, b"")
        if first not in number:
            first = next((text[:size] for size in range(len(text) - 1, 0, -1) if text[:size] in number), b"")
        return number.get(first, REST)

    def side(spelling: Mapping[int, bytes], own: Set[int], size: int) -> list[int]:
        return [END if row in own else outcome(spelling.get(row, b"")) for row in range(size)]

    return Outcomes(
        side(student, ends[0], rows[0]), side(teacher, ends[1], rows[1]), END + 1 + len(shared), len(shared)
    )
