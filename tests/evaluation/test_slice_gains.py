"""Gains within each value of a column, beside what the statistics of its rows alone say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.evaluation.metrics import Answers, averaged, label_answers, number_answers
from speciate.evaluation.slice_gains import LEAST_EXAMPLES, RARE_VALUES, SliceGain, slice_gains
from speciate.evaluation.statistics import paired_difference
from speciate.vocabulary import find_metric

N = 60


def answers(right: Any) -> Answers:
    given = ["a" if each else "b" for each in right]
    return label_answers(["a"] * len(right), given, [None] * len(right), ["a", "b"])


@pytest.mark.parametrize("kinds", [1, 2, 5])
@pytest.mark.parametrize("level", [0.95, 0.9])
def test_the_upper_end_that_fails_a_slice_allows_for_all_values_that_were_looked_at(kinds: int, level: float) -> None:
    """Bonferroni: each of K values at 1 - (1 - level) / K."""
    random, n = np.random.default_rng(5), N * kinds
    before, after = random.random(n) < 0.7, random.random(n) < 0.8
    site = np.repeat([f"site {each}" for each in range(kinds)], N).tolist()
    metric = find_metric("accuracy")
    found = slice_gains(metric, [answers(before)], [answers(after)], np.arange(n), site, level)
    assert [each.value for each in found] == sorted(set(site))
    for at, one in enumerate(found):
        rows = slice(at * N, (at + 1) * N)
        sides = [averaged(metric, [answers(side[rows])]) for side in (before, after)]
        alone = paired_difference(*sides, np.arange(N), level)
        strict = paired_difference(*sides, np.arange(N), 1 - (1 - level) / kinds)
        assert (one.n, one.clusters, one.standard_error) == (N, N, alone.standard_error)
        assert (one.gain, one.low, one.high) == pytest.approx((alone.delta, alone.low, alone.high))
        assert one.highest == pytest.approx(strict.high)
        assert (one.highest > one.high) == (kinds > 1)


def test_a_gain_in_an_error_is_its_fall() -> None:
    random = np.random.default_rng(7)
    references = random.normal(size=2 * N).tolist()
    worse = [number + 1.0 + noise for number, noise in zip(references, random.normal(0, 0.1, 2 * N), strict=True)]
    site = ["better"] * N + ["worse"] * N
    before = number_answers(references, worse[:N] + references[N:])
    after = number_answers(references, references[:N] + worse[N:])
    better, lost = slice_gains(find_metric("mae"), [before], [after], np.arange(2 * N), site)
    assert 0.9 < better.low < better.gain < better.high < better.highest < 1.1
    assert -1.1 < lost.low < lost.gain < lost.high < lost.highest < -0.9


def test_a_metric_of_all_rows_is_resampled_within_each_value() -> None:
    """Macro F1 of a value is that of its rows, and no mean over rows; both sides are resampled alike."""
    random = np.random.default_rng(11)
    truth = random.integers(0, 2, 2 * N)
    sides = []
    for share in (0.6, 0.9):
        given = np.where(random.random(2 * N) < share, truth, 1 - truth)
        sides.append(label_answers([*map(str, truth)], [*map(str, given)], [None] * 2 * N, ["0", "1"]))
    site = ["north"] * N + ["south"] * N
    metric, codes = find_metric("f1_macro"), np.arange(2 * N) // 2
    found = slice_gains(metric, sides[:1], sides[1:], codes, site, seed=3)
    for at, one in enumerate(found):
        expected = [f1_macro(side, slice(at * N, (at + 1) * N)) for side in sides]
        assert one.gain == pytest.approx(expected[1] - expected[0], abs=1e-9)
        assert one.low < one.gain < one.high < one.highest
        assert one.clusters == N // 2
    assert found == slice_gains(metric, sides[:1], sides[1:], codes, site, seed=3)


def medians(seed: int | None) -> SliceGain:
    """Of a quantile, whose error is the bootstrap's."""
    random = np.random.default_rng(2)
    references = random.normal(size=N)
    sides = [number_answers(references.tolist(), (references + random.normal(size=N)).tolist()) for _ in range(2)]
    more = {} if seed is None else {"seed": seed}
    return slice_gains(find_metric("median_ae"), sides[:1], sides[1:], np.arange(N), ["all"] * N, **more)[0]


def test_resamples_are_those_of_the_seed() -> None:
    assert medians(None) == medians(0)
    assert medians(0).gain == medians(1).gain
    assert medians(0).standard_error != medians(1).standard_error


def test_two_shares_that_no_resample_tells_apart_are_not_proved_equal() -> None:
    """Of a share the doubt is that of as many examples without any discordant pair."""
    truth = ["0", "1"] * N
    same = [label_answers(truth, truth, [None] * 2 * N, ["0", "1"])]
    [share] = slice_gains(find_metric("f1_macro"), same, same, np.arange(2 * N), ["all"] * 2 * N)
    equal = np.zeros(2 * N)
    doubt = paired_difference(equal, equal, np.arange(2 * N))
    assert (share.low, share.gain, share.high) == pytest.approx((doubt.low, 0, doubt.high))
    assert doubt.high > 0.01


def test_the_answers_of_a_value_keep_their_probabilities_and_scores() -> None:
    random = np.random.default_rng(9)
    truth = random.integers(0, 2, 2 * N)
    sides = []
    for sharp in (1.0, 4.0):
        right = np.clip(random.beta(sharp, 1, 2 * N), 0.01, 0.99)
        table = [
            {"0": one if label == 0 else 1 - one, "1": one if label else 1 - one}
            for one, label in zip(right, truth, strict=True)
        ]
        sides.append(label_answers([*map(str, truth)], [*map(str, truth)], table, ["0", "1"]))
    site = ["north"] * N + ["south"] * N
    metric = find_metric("log_loss")
    for at, one in enumerate(slice_gains(metric, sides[:1], sides[1:], np.arange(2 * N), site)):
        losses = [averaged(metric, [side])[at * N : (at + 1) * N] for side in sides]
        assert one.gain == pytest.approx(float(np.mean(losses[0] - losses[1])))
        assert one.gain > 0
    judged = find_metric("judge_0123456789ab@0123456789ab")
    scored = [
        side._replace(scores={judged.name: np.arange(2 * N) * factor})
        for side, factor in zip(sides, (1.0, 2.0), strict=True)
    ]
    assert [each.gain for each in slice_gains(judged, scored[:1], scored[1:], np.arange(2 * N), site)] == [29.5, 89.5]


def f1_macro(answers: Answers, rows: slice) -> float:
    truth, given = answers.references[rows], answers.given[rows]
    of_label = []
    for label in range(2):
        right = np.sum((truth == label) & (given == label))
        of_label.append(2 * right / (np.sum(truth == label) + np.sum(given == label)))
    return float(np.mean(of_label))


def test_a_value_is_judged_by_itself_from_its_twentieth_independent_example() -> None:
    """Rows of one group count once."""
    counts = {"enough": LEAST_EXAMPLES, "one too few": LEAST_EXAMPLES - 1, "one group": 1}
    site, codes = list[str](), list[int]()
    for name, independent in counts.items():
        site += [name] * LEAST_EXAMPLES
        first = len(codes)
        codes += [first + at % independent for at in range(LEAST_EXAMPLES)]
    right = answers(np.ones(len(site), bool))
    found = slice_gains(find_metric("accuracy"), [right], [right], np.array(codes), site)
    assert [(each.value, each.n, each.clusters) for each in found] == [
        (RARE_VALUES, 2 * LEAST_EXAMPLES, LEAST_EXAMPLES), ("enough", LEAST_EXAMPLES, LEAST_EXAMPLES),
    ]  # fmt: skip
    assert LEAST_EXAMPLES == 20
