"""Gains within each value of a column, beside what the statistics of its rows alone say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.evaluation.metrics import Answers, averaged, label_answers, number_answers
from speciate.evaluation.slice_gains import LEAST_EXAMPLES, RARE_VALUES, slice_gains
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
