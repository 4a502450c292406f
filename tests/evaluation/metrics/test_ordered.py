"""Ranks are judged as scikit-learn judges them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from speciate.evaluation.metrics import contributions, corpus, judged
from speciate.evaluation.metrics.answers import Answers
from speciate.vocabulary import find_metric

LABELS = ("2", "3", "10", "11")
PAIRS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=2, max_size=30)


def answers(truth: list[str], given: list[str | None], labels: tuple[str, ...] = LABELS) -> Answers:
    return judged("ordinal", truth, given, [None] * len(truth), labels)


def kappa(made: Answers, weights: np.ndarray | None = None) -> float:
    n = len(made.truth)
    values = corpus(find_metric("quadratic_kappa"), made, np.arange(n))
    return float(values(np.ones((1, n)) if weights is None else weights)[0])


def rank_error(made: Answers) -> float:
    return float(contributions(find_metric("rank_error"), made).mean())


@settings(deadline=None)
@given(PAIRS)
def test_metrics_are_scikit_learns_on_ranks(pairs: list[tuple[str, str]]) -> None:
    truth, said = [a for a, _ in pairs], [b for _, b in pairs]
    made = answers(truth, list(said))
    ranks = [[LABELS.index(label) for label in side] for side in (truth, said)]
    assert rank_error(made) == pytest.approx(oracle.mean_absolute_error(*ranks))
    if len({*truth, *said}) > 1:
        wanted = oracle.cohen_kappa_score(*ranks, labels=range(4), weights="quadratic")
        assert kappa(made) == pytest.approx(wanted, abs=1e-9)
    else:
        assert np.isnan(kappa(made))


@settings(deadline=None)
@given(PAIRS, st.data())
def test_an_example_drawn_twice_counts_twice(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    counts = np.array([data.draw(st.integers(0, 2)) for _ in pairs])
    twice = [pairs[i] for i in np.repeat(np.arange(len(pairs)), counts)]
    if not twice:
        return
    weighted = kappa(answers([a for a, _ in pairs], [b for _, b in pairs]), counts[None, :].astype(float))
    assert weighted == pytest.approx(kappa(answers([a for a, _ in twice], [b for _, b in twice])), nan_ok=True)


def test_an_error_is_as_far_off_as_can_be() -> None:
    for label in LABELS:
        worst = max(rank_error(answers([label], [other])) for other in LABELS)
        assert rank_error(answers([label], [None])) == worst
        assert rank_error(answers([label], ["7"])) == worst


def test_a_label_that_only_the_truth_knows_has_its_rank_among_the_others() -> None:
    assert rank_error(answers(["10"], ["11"], ("2", "11"))) == 1
    assert answers(["10"], ["2"], ("2", "11")).labels == ("2", "10", "11")
    assert answers(["odd"], ["low"], ("low", "high")).labels == ("low", "high", "odd")  # in no natural order
