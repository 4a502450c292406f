"""Ids of answers. An id says when it was given, for which use case, and whether the log holds it. Pure, but for chance.

    pred-  42 bits of milliseconds  20 bits of the use case's name  50 bits of chance

Ids sort by time. Whether an answer is logged follows from its id alone, so nobody needs to remember which ones
were left out.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from typing import NamedTuple

from speciate.refs import ALPHABET

NOUN = "pred-"
_TIME, _TAG, _CHANCE = 42, 20, 50
LENGTH = 23
"""Characters: 30 ** 23 is just above 2 ** 112."""
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_DIGITS = {letter: place for place, letter in enumerate(ALPHABET)}
_PREFIX = "chatcmpl-"
"""What OpenAI's clients see before it."""


class PredictionId(NamedTuple):
    at: float
    """Seconds since the epoch, to the millisecond."""
    tag: int
    """Tag of the use case."""


@functools.lru_cache(maxsize=1024)
def tag(use_case: str) -> int:
    return int.from_bytes(hashlib.sha256(use_case.encode()).digest()[:4], "big") >> (32 - _TAG)


def new_prediction_id(use_case: str, at: float, chance: int | None = None) -> str:
    """A new id. `at`: seconds since the epoch."""
    chance = secrets.randbits(_CHANCE) if chance is None else chance
    return _encode_number((int(at * 1000) << (_TAG + _CHANCE)) | (tag(use_case) << _CHANCE) | chance)


def first_after(at: float) -> str:
    """A text that sorts before every id given at `at` or later, and after all earlier ones."""
    return _encode_number(int(at * 1000) << (_TAG + _CHANCE))


def _encode_number(number: int) -> str:
    out = []
    for _ in range(LENGTH // 2):
        number, pair = divmod(number, len(_PAIRS))
        out.append(_PAIRS[pair])
    return NOUN + ALPHABET[number] + "".join(reversed(out))


def parse(text: str) -> PredictionId | None:
    """None where it is no id. The id of a chat completion names its answer, too."""
    digits = text.removeprefix(_PREFIX).removeprefix(NOUN)
    if not text.removeprefix(_PREFIX).startswith(NOUN) or len(digits) != LENGTH:
        return None
    number = 0
    for letter in digits:
        if letter not in _DIGITS:
            return None
        number = number * len(ALPHABET) + _DIGITS[letter]
    if number >> (_TIME + _TAG + _CHANCE):
        return None
    return PredictionId((number >> (_TAG + _CHANCE)) / 1000, (number >> _CHANCE) & ((1 << _TAG) - 1))


def strip_chat_prefix(text: str) -> str:
    return text.removeprefix(_PREFIX)


def hash_to_unit(text: str, what: str = "") -> float:
    """A number in [0, 1) that follows from the id; another one for each `what`."""
    return int.from_bytes(hashlib.sha256(f"{what}{text}".encode()).digest()[:8], "big") / 2**64


def is_sampled(text: str, share: float) -> bool:
    """Whether the answer of this id is among the `share` that is logged. A larger share holds all of a smaller one."""
    return hash_to_unit(text) < share
