"""How good each version is by the feedback on its answers, with intervals, and how far labellers agree. Pure."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from speciate.predictions import prediction_ids
from speciate.predictions.feedback import (
    SOURCES,
    BySource,
    Correctness,
    correctness,
)
from speciate.predictions.reading import StoredFeedback

_DRAWS = 400
"""Resamples of the bootstrap."""
_SESSION_SECONDS = 3600.0
_MOST_OF = 0.8
"""As a watch waits for: what cannot be told is left out, and it must be little."""


class AnswerOutput(NamedTuple):
    """An answer with what is needed of it."""

    id: str
    model: str
    output: Any


class Quality(NamedTuple):
    """How good one version's answers are, by one measure."""

    model: str
    measure: Literal["right", "score", "absolute_error"]
    """`right`: share of the labelled answers that were as the label says; `score`: mean of scores, 0 to 1;
    `absolute_error`: of numbers, in their own unit, less is better."""
    drawn: Literal["random", "any"]
    n: int
    mean: float
    low: float | None
    high: float | None
    """`low` and `high` are the 95 % interval; None where one value alone says nothing of how they vary."""


class AskedAnswer(NamedTuple):
    """An answer with what it answers."""

    id: str
    model: str
    question: str
    """The input as it is logged; equal texts are one question."""


class Preference(NamedTuple):
    """How often answers of one version were preferred to another's to the same question, by the scores that one source
    gave both. One question counts once."""

    model: str
    over: str
    wins: int
    losses: int
    ties: int
    share: float | None
    """Share of wins among the questions that decide; None without any."""
    low: float | None
    high: float | None
    """`low` and `high` are the 95 % interval."""


def estimate_preferences(
    answers: Iterable[AskedAnswer], given: Mapping[str, BySource], *, level: float = 0.95
) -> list[Preference]:
    """Preferences between each two versions whose answers to a question the same source scored. `given`: of
    `latest_by_source`."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    for each in answers:
        for source, said in given.get(each.id, {}).items():
            if said.score is not None:
                scores.setdefault((each.question, source), {}).setdefault(each.model, []).append(said.score)
    decided: dict[tuple[str, str], dict[str, list[int]]] = {}
    for (question, _), by_model in scores.items():
        for one, other in itertools.combinations(sorted(by_model), 2):
            gain = statistics.fmean(by_model[other]) - statistics.fmean(by_model[one])
            verdict = 0 if math.isclose(gain, 0, abs_tol=1e-9) else 1 if gain > 0 else -1
            decided.setdefault((other, one), {}).setdefault(question, []).append(verdict)
    return [_preference(model, over, found.values(), level) for (model, over), found in sorted(decided.items())]


def _preference(model: str, over: str, questions: Iterable[Sequence[int]], level: float) -> Preference:
    """How often one version is preferred over another. Where sources differ on a question, it is a tie."""
    verdicts = [sum(each) for each in questions]
    wins, losses = sum(each > 0 for each in verdicts), sum(each < 0 for each in verdicts)
    ties = len(verdicts) - wins - losses
    if not wins + losses:
        return Preference(model, over, 0, 0, ties, None, None, None)
    share = wins / (wins + losses)
    return Preference(model, over, wins, losses, ties, share, *wilson_interval(share, wins + losses, level))


def estimate_quality(
    answers: Iterable[AnswerOutput], given: Mapping[str, BySource], *, level: float = 0.95
) -> list[Quality]:
    """Every estimate that the feedback allows, by model. `given`: of `latest_by_source`."""
    found: dict[tuple[str, str], list[tuple[str, Correctness]]] = {}
    for each in answers:
        if each.id in given and (verdict := correctness(each.output, given[each.id])) is not None:
            found.setdefault((each.model, verdict.measure), []).append((each.id, verdict))
    by_chance, made = random_sample(given), list[Quality]()
    for (model, _), verdicts in sorted(found.items()):
        drawn = [verdict for name, verdict in verdicts if name in by_chance]
        made += [_estimate(model, "random", drawn, level)] if drawn else []
        any_ = [verdict for _, verdict in verdicts]
        made += [_estimate(model, "any", any_, level)] if len(drawn) < len(any_) else []
    return made


def random_sample(given: Mapping[str, BySource]) -> set[str]:
    """Which answers are a fair draw of all: those that the queue drew at random, and those that it would have drawn,
    had the same source not judged them before (for their doubt, say). Without the latter the random ones were drawn
    from what was left once the doubtful ones were gone, and would make a model look better than it is.

    An answer would have been drawn where one behind it in the random order was, at a later time.
    """
    found = set[str]()
    for source in SOURCES:
        own = [(random_place(name), said[source], name) for name, said in given.items() if source in said]
        last_drawn = -math.inf
        for _, each, name in sorted(own, key=lambda one: one[0], reverse=True):
            if each.drawn == "random" or each.at < last_drawn:
                found.add(name)
            if each.drawn == "random":
                last_drawn = max(last_drawn, each.at)
    return found


def drawn_in_order(asked_about: Mapping[str, float], given: Mapping[str, BySource]) -> set[str]:
    """Which labelled answers are a fair draw, by the random order alone and whatever is claimed of them.

    Whoever labels takes the first answers of the order that were there when the session began (its labels are not an
    hour apart). So a label is of a fair draw where, of all answers up to it in the order, at least `_MOST_OF` are
    labelled. Answers that were picked for what they say lie anywhere in the order and are none. `asked_about`: id ->
    when it was answered, of every answer that the queue may show. `given`: of `latest_by_source`. Pure.
    """
    order = sorted(asked_about, key=random_place)
    found = set[str]()
    for source in SOURCES:
        own = sorted((said[source].at, name) for name, said in given.items() if source in said)
        for begin, end in _sessions([at for at, _ in own]):
            labelled = {name for at, name in own if at <= end}
            there = (name for name in order if asked_about[name] <= begin)
            found |= _prefix(there, labelled)
    return found


def _sessions(times: Sequence[float]) -> list[tuple[float, float]]:
    """First and last of times, ascending, that are not further apart than `_SESSION_SECONDS`."""
    found = list[tuple[float, float]]()
    for at in times:
        joins = bool(found) and at - found[-1][1] <= _SESSION_SECONDS
        found[-1:] = [(found[-1][0], at)] if joins else [*found[-1:], (at, at)]
    return found


def _prefix(order: Iterable[str], labelled: set[str]) -> set[str]:
    """The labelled ones of the longest beginning of the order of which enough are labelled."""
    seen, kept = list[str](), 0
    for place, name in enumerate(order, 1):
        if len(labelled) < _MOST_OF * place:
            break  # not even if all others were next
        if name in labelled:
            seen.append(name)
        if len(seen) >= _MOST_OF * place:
            kept = len(seen)
    return set(seen[:kept])


def _estimate(model: str, drawn: Literal["random", "any"], verdicts: list[Correctness], level: float) -> Quality:
    values, measure = [each.value for each in verdicts], verdicts[0].measure
    mean = statistics.fmean(values)
    low, high = wilson_interval(mean, len(values), level) if measure == "right" else t_interval(values, level)
    if measure == "score" and low is not None and high is not None:
        low, high = max(0.0, low), min(1.0, high)
    return Quality(model, measure, drawn, len(values), mean, low, high)


def wilson_interval(share: float, n: int, level: float) -> tuple[float, float]:
    """Score interval of a proportion."""
    z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return 0.0 if share <= 0 else low, 1.0 if share >= 1 else high  # exact, where rounding leaves 1e-17


def t_interval(values: list[float], level: float) -> tuple[float | None, float | None]:
    """The t interval of a mean; (None, None) for a single value."""
    n = len(values)
    if n < 2:
        return None, None
    mean, half = statistics.fmean(values), _t_quantile(0.5 + level / 2, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return mean - half, mean + half


def _t_quantile(p: float, degrees: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, an expansion from 3 on (within 2 % there)."""
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    z, v = statistics.NormalDist().inv_cdf(p), degrees
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / v + g2 / v**2 + g3 / v**3 + g4 / v**4


def random_place(prediction: str) -> float:
    """Place of an answer in the random order, uniform in [0, 1)."""
    return prediction_ids.hash_to_unit(prediction, "queue")


Pattern = frozenset[tuple[Hashable, int]]
"""Label -> how often an answer got it: all that counts of one."""


class Agreement(NamedTuple):
    alpha: float | None
    """None where nothing can be said: fewer than two answers with two labels, or only one kind of label."""
    low: float | None
    high: float | None
    answers: int
    """Answers that at least two labellers have labelled."""
    labellers: int


def agreement(given: Iterable[StoredFeedback], *, seed: int = 0) -> Agreement:
    """Agreement between labellers (a source and who it was): the latest label of each for each answer counts."""
    last: dict[tuple[str, str, str], StoredFeedback] = {}
    for each in sorted(given, key=lambda one: one.at):
        if each.label is not None:
            last[each.prediction, each.source, each.by] = each
    units: dict[str, list[str]] = {}
    for (prediction, _, _), each in last.items():
        units.setdefault(prediction, []).append(str(each.label).strip())
    several = [labels for labels in units.values() if len(labels) > 1]
    value = alpha(several)
    low, high = _bootstrap_interval(several, seed) if value is not None else (None, None)
    return Agreement(value, low, high, len(several), len({(source, by) for _, source, by in last}))


def alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal labels, of any number of labellers with any gaps: 1 is perfect, 0 is chance,
    below 0 is worse than chance. `units`: the labels of each answer; answers with fewer than two are left out.

    Krippendorff, Content Analysis, 4th ed. (2019), chapter 12. Over the coincidences o[c, k] of pairable labels, with n
    of them in all and n[c] of each kind,

        alpha = 1 - (n - 1) * sum(o[c, k], c != k) / sum(n[c] * n[k], c != k)

    Written out here because no library of this project has it; it is thirty lines.
    """
    return alpha_of_patterns(Counter(map(label_pattern, units)))


def label_pattern(labels: Sequence[Hashable]) -> Pattern:
    """Pattern of the labels of one answer: each label with how often it occurs."""
    return frozenset(Counter(labels).items())


def alpha_of_patterns(patterns: Mapping[Pattern, int]) -> float | None:
    """`alpha`. `patterns`: how many answers got their labels so. There are few, however many answers there are."""
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


def _bootstrap_interval(units: Sequence[Sequence[Hashable]], seed: int) -> tuple[float | None, float | None]:
    """95 %: percentiles over draws of answers. A draw with only one kind of label has no alpha and is left out.

    Krippendorff's own interval is over pairs, which is too narrow if answers have several labels each.
    """
    if len(units) < 2:
        return None, None
    chance, patterns = random.Random(seed), [label_pattern(labels) for labels in units]
    known = list(dict.fromkeys(patterns))
    number = {pattern: place for place, pattern in enumerate(known)}
    numbers = [number[pattern] for pattern in patterns]
    draws = (Counter(chance.choices(numbers, k=len(numbers))) for _ in range(_DRAWS))
    drawn = (alpha_of_patterns({known[place]: times for place, times in each.items()}) for each in draws)
    values = sorted(value for value in drawn if value is not None)
    if len(values) < _DRAWS // 2:
        return None, None
    return values[int(0.025 * len(values))], values[min(len(values) - 1, int(0.975 * len(values)))]
