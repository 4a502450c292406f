"""What an endpoint answered to the pinned questions at one time, and whether two times are of one model. Pure.

Endpoints are not deterministic, so each question is asked twice at a time, and the test is one of exchangeability: of
an unchanged endpoint the four answers to a question (two before, two now) may be paired in three ways, and no way is
likelier than another to pair like with like. Where the pairing by time alone is the purest, the question speaks for a
change; where another one is, against it; ties say nothing. Under no change each speaks for one with probability 1/3, so
the tail of Binomial(m, 1/3) is an exact p-value, whatever the noise is.
"""

from __future__ import annotations

from math import comb
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

LEVEL = 0.001
"""How rarely an unchanged endpoint may be called changed, per comparison."""
_SLACK = 0.05
"""Nats by which mean log-probabilities of one model may differ from machine to machine."""
_LEAST = 0.5
"""The share of questions that must have an answer at both times."""


class Told(BaseModel):
    """One answer: a digest of its text, or of the way in which it was withheld; the mean log-probability of a token."""

    model_config = ConfigDict(frozen=True)
    digest: str
    logprob: float | None = None


class Fingerprint(BaseModel):
    """`answers[question][time]`; None: none came. `served`, `systems`: what the provider said, as `model` and as
    `system_fingerprint`."""

    model_config = ConfigDict(frozen=True)
    form: int
    asked: float
    """Seconds since the epoch."""
    answers: tuple[tuple[Told | None, ...], ...]
    served: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether enough was answered to say anything."""
        return sum(None not in pair for pair in self.answers) >= _LEAST * len(self.answers)

    @property
    def disagreement(self) -> float:
        """The share of questions that were answered in two ways at one time."""
        pairs = [pair for pair in self.answers if None not in pair]
        return sum(_apart(*pair) > 0 for pair in pairs) / max(len(pairs), 1)


class Likeness(NamedTuple):
    """`differ`: questions that speak for a change, `alike`: that speak against it."""

    changed: bool
    why: tuple[str, ...]
    differ: int
    alike: int
    p: float


def compare(before: Fingerprint, now: Fingerprint) -> Likeness:
    """A change is what the provider says by another `model`, or what the answers show at LEVEL. A new
    `system_fingerprint` alone is none: providers change it with their machines."""
    why = []
    if before.served and now.served and not set(before.served) & set(now.served):
        why.append(f"it says that it serves {_listed(now.served)}, before {_listed(before.served)}")
    differ = alike = 0
    if before.form == now.form:
        for old, new in zip(before.answers, now.answers, strict=True):
            match _speaks(old, new):
                case True:
                    differ += 1
                case False:
                    alike += 1
    p = _tail(differ, differ + alike)
    if p < LEVEL:
        why.append(
            f"{differ} of {len(now.answers)} pinned questions are answered otherwise, beyond how far it disagrees with "
            f"itself (p = {p:.2g})"
        )
        if set(before.systems) and set(now.systems) and not set(before.systems) & set(now.systems):
            why.append("its system_fingerprint is another one, too")
    return Likeness(bool(why), tuple(why), differ, alike, p)


def _speaks(old: tuple[Told | None, ...], new: tuple[Told | None, ...]) -> bool | None:
    """Whether the pairing by time is the purest of the three; None where none is purer than all others."""
    if None in old or None in new or len(old) != 2 or len(new) != 2:
        return None
    (a, b), (c, d) = old, new
    by_time, *across = (_apart(a, b) + _apart(c, d), _apart(a, c) + _apart(b, d), _apart(a, d) + _apart(b, c))
    if by_time < min(across):
        return True
    return False if min(across) < by_time and across[0] != across[1] else None


def _apart(one: Told | None, other: Told | None) -> float:
    """0: the same; 1: other words; between them the same words that were less or more likely."""
    if one is None or other is None or one.digest != other.digest:
        return 1.0
    if one.logprob is None or other.logprob is None:
        return 0.0
    by = abs(one.logprob - other.logprob)
    return 0.0 if by <= _SLACK else min(by, 0.9)


def _tail(count: int, of: int) -> float:
    """P(X >= count) for X of Binomial(of, 1/3)."""
    return float(sum(comb(of, k) * 2 ** (of - k) for k in range(count, of + 1)) / 3**of)


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(names)
