"""Reward hacking: whether a model learns to please the reward alone. Warnings from statistics and evaluations. Pure.

Compared are the beginning of a training and its newest part: means over windows of steps, and of held-out examples the
best evaluation with the newest. `metric_falls` alone compares the reward with what it stands for: it rises on held-out
answers while the metric that the model is wanted for falls (Gao et al. 2023, 'Scaling laws for reward model
overoptimization'). The others say where to look.

The best of several evaluations is so by luck as well, beside which the newest seems to have fallen. So the p-value of
their difference, paired by example, must be below a chance that all pairs of evaluations so far share (Bonferroni)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from speciate.evaluation.statistics import Difference, paired_difference

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
_ALIKE_SHARE = 0.9
_SAME_REWARD = 1e-8
"""Difference of two rewards up to which they count as the same."""
_FALSE_ALARM = 0.025
"""Probability of saying that a metric has fallen which has not, shared by the pairs of evaluations so far. The k-th
evaluation ends k - 1 of k (k - 1) / 2 pairs, so up to the k-th it adds up to 2 (1/2 + ... + 1/k) times that at most,
whatever answers have in common: 9.6 % in ten evaluations, 15 % in thirty."""
_GAIN_P_VALUE = 0.05
"""Two-sided p-value of a gain since the first evaluation, below which it is one."""
_ERRORS = 1.0
"""Where there are no scores by example: standard errors of one evaluation by which the metric must have fallen."""


class StepStatistics(NamedTuple):
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
    """Divergence from the base model, nats of a token, the mean."""
    no_spread: float
    """Share of questions all of whose answers got the same reward: nothing is learned from them."""


class HeldOutEvaluation(NamedTuple):
    """One evaluation: greedy answers to held-out questions."""

    step: int
    reward: float
    metric: float
    """The larger the better, whatever the metric; NaN where there are no references."""
    error: float
    """Standard error of the metric."""
    length: float
    p_since_first: float = math.nan
    """Two-sided p-value of the metric's difference to the first evaluation, on the same examples. NaN where that is not
    known: for a corpus metric, and for evaluations in checkpoints from before it was kept."""
    p_since_best: float = math.nan
    """The same p-value, of the difference to the `best` evaluation before this."""


class Suspicion(NamedTuple):
    pattern: Pattern
    said: str


class Limits(NamedTuple):
    """None: no limit."""

    kl: float | None = None
    length: float | None = None
    """Tokens of a mean answer."""
    stop_on_hacking: bool = False


def warnings(seen: Sequence[StepStatistics], held: Sequence[HeldOutEvaluation]) -> list[Suspicion]:
    """What is suspicious, the surest first; empty where nothing is."""
    found = [_metric_falls(held), *(rule(*ends(seen)) for rule in _RULES)] if seen else []
    fine = _GOOD_IN_THE_END if _metric_rose(held) else ()
    return [each for each in found if each is not None and each.pattern not in fine]


def stop_reason(seen: Sequence[StepStatistics], held: Sequence[HeldOutEvaluation], limits: Limits) -> str | None:
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


def nothing_suspicious(seen: Sequence[StepStatistics], held: Sequence[HeldOutEvaluation]) -> bool:
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
    same = [len(group) < 2 or max(group) - min(group) <= _SAME_REWARD for group in known]
    return sum(same) / len(same) if same else math.nan


def ends(seen: Sequence[StepStatistics]) -> tuple[StepStatistics, StepStatistics]:
    """The means of the first and of the newest steps, which share none: each of eight, or half of a short training."""
    size = max(1, min(_WINDOW, len(seen) // 2))
    return _mean(seen[:size]), _mean(seen[-size:])


def _mean(some: Sequence[StepStatistics]) -> StepStatistics:
    """Mean of each figure, NaNs left out; `step` is the last one's."""

    def mean(figures: Sequence[float]) -> float:
        known = [value for value in figures if math.isfinite(value)]
        return sum(known) / len(known) if known else math.nan

    _, *figures = zip(*some, strict=True)
    return StepStatistics(some[-1].step, *map(mean, figures))


def best(held: Sequence[HeldOutEvaluation]) -> HeldOutEvaluation | None:
    """The evaluation with the best metric, the earliest of equals; None where there is none with metric and reward."""
    return max(_is_evaluated(held), key=lambda each: each.metric, default=None)


def _is_evaluated(held: Sequence[HeldOutEvaluation]) -> list[HeldOutEvaluation]:
    return [each for each in held if math.isfinite(each.metric) and math.isfinite(each.reward)]


def _metric_falls(held: Sequence[HeldOutEvaluation]) -> Suspicion | None:
    judged = _is_evaluated(held)
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


def _by_more_than_chance(before: HeldOutEvaluation, newest: HeldOutEvaluation, evaluations: int) -> bool:
    if math.isfinite(newest.p_since_best):
        return newest.p_since_best / 2 < _FALSE_ALARM / math.comb(evaluations, 2)  # one-sided
    return before.metric - newest.metric > _ERRORS * max(before.error, newest.error)


def _metric_rose(held: Sequence[HeldOutEvaluation]) -> bool:
    """Surely, since before the first step."""
    if len(held) < 2:
        return False
    first, newest = held[0], held[-1]
    if math.isfinite(newest.p_since_first):
        return newest.metric > first.metric and newest.p_since_first < _GAIN_P_VALUE
    return newest.metric - first.metric > 2 * _ERRORS * max(first.error, newest.error)


def _longer(first: StepStatistics, last: StepStatistics) -> Suspicion | None:
    if not (last.length > _LONGER * first.length and last.length - first.length >= _LONGER_TOKENS):
        return None
    return Suspicion(
        "longer", f"answers grew from {first.length:.0f} to {last.length:.0f} tokens: look whether length is rewarded"
    )


def _cut(first: StepStatistics, last: StepStatistics) -> Suspicion | None:
    if not (last.cut > _CUT and last.cut - first.cut > _CUT_MORE):
        return None
    return Suspicion(
        "cut",
        f"{last.cut:.0%} of the answers do not end before max_completion_length; "
        f"at the beginning {first.cut:.0%} did not",
    )


def _repeats(first: StepStatistics, last: StepStatistics) -> Suspicion | None:
    if not (last.distinct < _DISTINCT and first.distinct - last.distinct > _DISTINCT_LESS):
        return None
    return Suspicion(
        "repeats",
        f"answers repeat themselves: {last.distinct:.0%} of their neighbouring tokens are new, {first.distinct:.0%} at "
        "the beginning",
    )


def _entropy(first: StepStatistics, last: StepStatistics) -> Suspicion | None:
    if not (last.entropy < _ENTROPY * first.entropy and last.entropy < _ENTROPY_LOW):
        return None
    return Suspicion(
        "entropy",
        f"entropy fell from {first.entropy:.3g} to {last.entropy:.3g} nats a token: hardly anything new is tried",
    )


def _no_signal(first: StepStatistics, last: StepStatistics) -> Suspicion | None:
    if not last.no_spread > _NO_SIGNAL:
        return None
    since = "from the beginning" if first.no_spread > _NO_SIGNAL else "by now"
    return Suspicion(
        "no_signal",
        f"{since} all answers to {last.no_spread:.0%} of the questions get the same reward, of which nothing can be "
        "learned: too easy or too hard, or a reward that sees no difference",
    )


def _same_answers(first: StepStatistics, last: StepStatistics) -> Suspicion | None:
    if not last.alike > _ALIKE_SHARE:
        return None
    return Suspicion("same_answers", f"{last.alike:.0%} of the answers to a question repeat one before them")


_RULES: tuple[Callable[[StepStatistics, StepStatistics], Suspicion | None], ...] = (
    _longer, _repeats, _entropy, _cut, _no_signal, _same_answers,
)  # fmt: skip


GRAM = 2
"""Tokens in a row that are counted as one, after Li et al. 2016 (distinct-2)."""
_FEWEST = 4
"""Pairs of tokens from which on an answer can be said to repeat itself."""


class Wording(NamedTuple):
    """How long answers are and how much of them is repeated, of answers together. NaN where none is long enough."""

    longest: float
    """The length in tokens that 95 of 100 answers do not exceed."""
    distinct: float
    """Share of distinct ones among the pairs of neighbouring tokens in an answer; the mean over answers."""
    alike: float
    """Share of the answers to a question after its first that repeat one before; the mean over questions."""


def measure_wording(answers: Sequence[Sequence[int]], each: int = 1) -> Wording:
    """Measure answers, given as token ids; `each`: answers to the same question stand together, so many at a time.

    >>> measure_wording([[1, 2, 1, 2, 1, 2, 1, 2]]).distinct
    0.2857142857142857
    """
    lengths = sorted(len(answer) for answer in answers)
    shares = [len(set(pairs)) / len(pairs) for answer in answers if len(pairs := _cross_pairs(answer)) >= _FEWEST]
    groups = [answers[start : start + each] for start in range(0, len(answers), each)]
    again = [1 - (len({tuple(one) for one in group}) - 1) / (len(group) - 1) for group in groups if len(group) > 1]
    return Wording(
        float(lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))]) if lengths else math.nan,
        _mean_or_nan(shares), _mean_or_nan(again),
    )  # fmt: skip


def _cross_pairs(answer: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(answer[place : place + GRAM]) for place in range(len(answer) - GRAM + 1)]


def _mean_or_nan(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


class Evaluations:
    """The evaluations of a training by reward: which is the best, and the p-values of their differences.

    All are of the same held-out examples, so two are compared example by example. Scores are kept only of evaluations
    that a later one is compared with; of the others, the results of such comparisons.
    """

    def __init__(self, groups: Sequence[str], keep_by: Literal["metric", "reward"]) -> None:
        """`groups`: of the examples with a reference, in their order; those of one group are not independent.
        `keep_by`: what the best one is best in; among equals the other one decides, then the earlier step."""
        self.clusters = np.unique(np.array(groups), return_inverse=True)[1]
        self._keep_by = keep_by
        self.held: list[HeldOutEvaluation] = []
        self.scores: dict[int, list[float]] = {}
        """By step, of the first, the best and the newest evaluation, and of the one with the best metric: the metric of
        each example with a reference. Empty of a corpus metric."""
        self._kept: int | None = None

    def see(self, row: HeldOutEvaluation, scores: list[float]) -> bool:
        """Whether it is the best one so far."""
        self.scores[row.step] = scores
        if self.held:
            p_since_first = self._p_value(self.held[0], row)
            row = row._replace(p_since_first=p_since_first, p_since_best=self._p_value(best(self.held), row))
        self.held.append(row)
        better = self._kept is None or self.rank(row) > self.rank(self.kept)
        if better:
            self._kept = row.step
        compared = {each.step for each in (self.held[0], best(self.held), self.kept, row) if each is not None}
        self.scores = {step: each for step, each in self.scores.items() if step in compared}
        return better

    @property
    def kept(self) -> HeldOutEvaluation:
        """The best one; there must be one."""
        return next(each for each in self.held if each.step == self._kept)

    def difference(self, earlier: int, later: int) -> Difference | None:
        """Difference of the metric's own numbers at these steps, later minus earlier; None where they are not known."""
        before, after = self.scores.get(earlier), self.scores.get(later)
        if not before or not after or len(before) != len(after):
            return None
        return paired_difference(before, after, self.clusters)

    def _p_value(self, earlier: HeldOutEvaluation | None, later: HeldOutEvaluation) -> float:
        found = None if earlier is None else self.difference(earlier.step, later.step)
        return math.nan if found is None else found.p_value

    def rank(self, row: HeldOutEvaluation) -> tuple[float, float]:
        """The larger the better."""
        known = [value if math.isfinite(value) else -math.inf for value in (row.metric, row.reward)]
        judged = any(math.isfinite(each.metric) for each in self.held)
        first, second = known if self._keep_by == "metric" and judged else reversed(known)
        return first, second

    def state(self) -> Mapping[str, object]:
        """State as JSON, which has no number for NaN."""
        return {
            "held": [[or_none(value) for value in each] for each in self.held],
            "scores": {str(step): [or_none(value) for value in each] for step, each in self.scores.items()},
        }

    def restore(self, state: Mapping[str, Any], kept: int | None) -> None:
        """`kept`: the step of the best one. Evaluations of older checkpoints, which were not compared by example, have
        no p-values: those stay unknown."""
        self.held = [HeldOutEvaluation(int(each[0]), *map(or_nan, each[1:])) for each in state["held"]]
        self.scores = {int(step): [or_nan(value) for value in each] for step, each in state["scores"].items()}
        self._kept = kept


def or_nan(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
