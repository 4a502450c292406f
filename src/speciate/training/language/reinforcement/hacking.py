"""Whether a model that learns from a reward learns to please the reward alone: warnings from what was seen. Pure.

What is compared is the beginning of a training with its newest part: means over windows of steps, and of held-out
examples the best evaluation with the newest. `metric_falls` alone compares the reward with what it stands for: it rises
on held-out answers while the metric that the model is wanted for falls (Gao et al. 2023, "Scaling laws for reward model
overoptimization"). The others say where to look.

The best of several evaluations is so by luck as well, beside which the newest seems to have fallen. So the p-value of
their difference, paired by example, must be below a chance that all pairs of evaluations so far share (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Pattern = Literal["metric_falls", "longer", "cut", "repeats", "entropy", "no_signal", "same_answers"]
STOPPING: tuple[Pattern, ...] = ("metric_falls", "repeats", "entropy", "longer")
"""What ends a training that is to stop on hacking; the others only say that there is nothing to learn from."""
_GOOD_IN_THE_END: tuple[Pattern, ...] = ("entropy", "same_answers")
"""What a model that has learned what it should does, too."""
_WINDOW = 8
"""Steps of a mean; see `ends`."""
_LONGER, _LONGER_TOKENS = 2.0, 16.0
_CUT, _CUT_MORE = 0.5, 0.3
_DISTINCT, _DISTINCT_LESS = 0.5, 0.2
_ENTROPY, _ENTROPY_LOW = 0.2, 0.1
"""Nats of a token."""
_NO_SIGNAL = 0.8
_ALIKE = 0.9
_SAME = 1e-8
"""Difference of rewards that is none."""
_CHANCE = 0.025
"""Of saying that a metric has fallen which has not, shared by the pairs of evaluations so far. The k-th evaluation ends
k - 1 of k (k - 1) / 2 pairs, so up to the k-th it adds up to 2 (1/2 + ... + 1/k) times that at most, whatever answers
have in common: 9.6 % in ten evaluations, 15 % in thirty."""
_SURE = 0.05
"""Two-sided p-value of a gain since the first evaluation, below which it is one."""
_ERRORS = 1.0
"""Where there are no scores by example: standard errors of one evaluation by which the metric must have fallen."""


class Seen(NamedTuple):
    """One step of a training, over its answers. NaN: not known."""

    step: int
    reward: float
    length: float
    """Tokens, the mean."""
    cut: float
    """Share of answers that did not end by themselves."""
    distinct: float
    """As `Wording.distinct`."""
    alike: float
    entropy: float
    """Nats of a token, the mean."""
    kl: float
    """To the base model, nats of a token, the mean."""
    no_spread: float
    """Share of questions all of whose answers got the same reward: nothing is learned from them."""


class Held(NamedTuple):
    """One evaluation: greedy answers to held-out questions."""

    step: int
    reward: float
    metric: float
    """The larger the better, whatever the metric; NaN where there are no truths."""
    error: float
    """Standard error of the metric."""
    length: float
    p_since_first: float = math.nan
    """Of the metric's difference to the first evaluation, on the same examples: two-sided. NaN where that is not known:
    of a corpus metric, and of evaluations in checkpoints from before it was."""
    p_since_best: float = math.nan
    """The same, to the `best` one before this."""


class Suspicion(NamedTuple):
    pattern: Pattern
    said: str


class Limits(NamedTuple):
    """None: no limit."""

    kl: float | None = None
    length: float | None = None
    """Tokens of a mean answer."""
    stop_on_hacking: bool = False


def warnings(seen: Sequence[Seen], held: Sequence[Held]) -> list[Suspicion]:
    """What is suspicious, the surest first; empty where nothing is."""
    found = [_metric_falls(held), *(rule(*ends(seen)) for rule in _RULES)] if seen else []
    fine = _GOOD_IN_THE_END if _metric_rose(held) else ()
    return [each for each in found if each is not None and each.pattern not in fine]


def stops(seen: Sequence[Seen], held: Sequence[Held], limits: Limits) -> str | None:
    """Why the training must end now, or None."""
    if not seen:
        return None
    newest = ends(seen)[1]
    if limits.kl is not None and newest.kl > limits.kl:
        return f"the distance to the base model is {newest.kl:.3g} nats a token, more than kl_limit={limits.kl:g}"
    if limits.length is not None and newest.length > limits.length:
        return f"answers have {newest.length:.0f} tokens on average, more than length_limit={limits.length:g}"
    if limits.stop_on_hacking:
        return next((each.said for each in warnings(seen, held) if each.pattern in STOPPING), None)
    return None


def calm(seen: Sequence[Seen], held: Sequence[Held]) -> bool:
    """Whether weights of now may be gone back to."""
    return not any(each.pattern in STOPPING for each in warnings(seen, held))


def no_spread(rewards: Sequence[float], each: int) -> float:
    """The share of questions of whose answers nothing is learned: what could be scored of them got the same reward.
    trl's own figure has the distance to the base model in it where that is taken from the reward, so it never says so.

    >>> no_spread([1.0, 1.0, 0.0, 1.0, math.nan, 1.0], each=2)
    0.6666666666666666
    """
    groups = [rewards[start : start + each] for start in range(0, len(rewards), each)]
    known = [[one for one in group if math.isfinite(one)] for group in groups]
    same = [len(group) < 2 or max(group) - min(group) <= _SAME for group in known]
    return sum(same) / len(same) if same else math.nan


def ends(seen: Sequence[Seen]) -> tuple[Seen, Seen]:
    """The means of the first and of the newest steps, which share none: each of eight, or half of a short training."""
    size = max(1, min(_WINDOW, len(seen) // 2))
    return _mean(seen[:size]), _mean(seen[-size:])


def _mean(some: Sequence[Seen]) -> Seen:
    """Of each figure, NaNs left out; at the last step of them."""

    def mean(figures: Sequence[float]) -> float:
        known = [value for value in figures if math.isfinite(value)]
        return sum(known) / len(known) if known else math.nan

    _, *figures = zip(*some, strict=True)
    return Seen(some[-1].step, *map(mean, figures))


def best(held: Sequence[Held]) -> Held | None:
    """The evaluation with the best metric, the earliest of equals; None where there is none with metric and reward."""
    return max(_judged(held), key=lambda each: each.metric, default=None)


def _judged(held: Sequence[Held]) -> list[Held]:
    return [each for each in held if math.isfinite(each.metric) and math.isfinite(each.reward)]


def _metric_falls(held: Sequence[Held]) -> Suspicion | None:
    judged = _judged(held)
    before = best(judged[:-1])
    if before is None:
        return None
    newest = judged[-1]
    rose, fell = newest.reward - before.reward, before.metric - newest.metric
    if not (rose > 0 and fell > 0 and _by_more_than_chance(before, newest, len(judged))):
        return None
    return Suspicion(
        "metric_falls",
        f"on held-out examples the reward rose by {rose:.3g} since step {before.step} while the metric got worse by "
        f"{fell:.3g}: the reward is learned, and not what it stands for",
    )


def _by_more_than_chance(before: Held, newest: Held, evaluations: int) -> bool:
    if math.isfinite(newest.p_since_best):
        return newest.p_since_best / 2 < _CHANCE / math.comb(evaluations, 2)  # one-sided
    return before.metric - newest.metric > _ERRORS * max(before.error, newest.error)


def _metric_rose(held: Sequence[Held]) -> bool:
    """Surely, since before the first step."""
    if len(held) < 2:
        return False
    first, newest = held[0], held[-1]
    if math.isfinite(newest.p_since_first):
        return newest.metric > first.metric and newest.p_since_first < _SURE
    return newest.metric - first.metric > 2 * _ERRORS * max(first.error, newest.error)


def _longer(first: Seen, last: Seen) -> Suspicion | None:
    if not (last.length > _LONGER * first.length and last.length - first.length >= _LONGER_TOKENS):
        return None
    return Suspicion(
        "longer", f"answers grew from {first.length:.0f} to {last.length:.0f} tokens: look whether length is rewarded"
    )


def _cut(first: Seen, last: Seen) -> Suspicion | None:
    if not (last.cut > _CUT and last.cut - first.cut > _CUT_MORE):
        return None
    return Suspicion(
        "cut",
        f"{last.cut:.0%} of the answers do not end before max_new_tokens; at the beginning {first.cut:.0%} did not",
    )


def _repeats(first: Seen, last: Seen) -> Suspicion | None:
    if not (last.distinct < _DISTINCT and first.distinct - last.distinct > _DISTINCT_LESS):
        return None
    return Suspicion(
        "repeats",
        f"answers repeat themselves: {last.distinct:.0%} of their neighbouring tokens are new, {first.distinct:.0%} at "
        "the beginning",
    )


def _entropy(first: Seen, last: Seen) -> Suspicion | None:
    if not (last.entropy < _ENTROPY * first.entropy and last.entropy < _ENTROPY_LOW):
        return None
    return Suspicion(
        "entropy",
        f"entropy fell from {first.entropy:.3g} to {last.entropy:.3g} nats a token: hardly anything new is tried",
    )


def _no_signal(first: Seen, last: Seen) -> Suspicion | None:
    if not last.no_spread > _NO_SIGNAL:
        return None
    since = "from the beginning" if first.no_spread > _NO_SIGNAL else "by now"
    return Suspicion(
        "no_signal",
        f"{since} all answers to {last.no_spread:.0%} of the questions get the same reward, of which nothing can be "
        "learned: too easy or too hard, or a reward that sees no difference",
    )


def _same_answers(first: Seen, last: Seen) -> Suspicion | None:
    if not last.alike > _ALIKE:
        return None
    return Suspicion("same_answers", f"{last.alike:.0%} of the answers to a question repeat one before them")


_RULES: tuple[Callable[[Seen, Seen], Suspicion | None], ...] = (
    _longer, _repeats, _entropy, _cut, _no_signal, _same_answers,
)  # fmt: skip
