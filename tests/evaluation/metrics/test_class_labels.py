"""Sets of labels are judged as scikit-learn judges the table of examples and labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from speciate.evaluation.metrics import contributions, corpus, judged
from speciate.evaluation.metrics.metric import Answers
from speciate.vocabulary import find_metric

LABELS = ("a", "b", "c")
SETS = st.lists(st.sets(st.sampled_from(LABELS)).map(sorted), min_size=2, max_size=12)


def answers(reference: list[list[str]], given: list[list[str] | None]) -> Answers:
    return judged("multi-label", reference, given, [None] * len(reference), LABELS)


def f1(made: Answers, weights: np.ndarray | None = None) -> float:
    n = len(made.references)
    return float(
        corpus(find_metric("f1_micro"), made, np.arange(n))(np.ones((1, n)) if weights is None else weights)[0]
    )


def table(sets: list[list[str]]) -> np.ndarray:
    return np.array([[label in labels for label in LABELS] for labels in sets])


@settings(deadline=None)
@given(st.data())
def test_metrics_are_scikit_learns(data: st.DataObject) -> None:
    reference = data.draw(SETS)
    said = data.draw(
        st.lists(st.sets(st.sampled_from(LABELS)).map(sorted), min_size=len(reference), max_size=len(reference))
    )
    made = answers(reference, list(said))
    exact = contributions(find_metric("subset_accuracy"), made)
    assert exact.mean() == pytest.approx(oracle.accuracy_score(table(reference), table(said)))
    if any(reference) or any(said):
        assert f1(made) == pytest.approx(oracle.f1_score(table(reference), table(said), average="micro"))
    else:
        assert np.isnan(f1(made))


@settings(deadline=None)
@given(SETS, st.data())
def test_an_example_drawn_twice_counts_twice(reference: list[list[str]], data: st.DataObject) -> None:
    said = [data.draw(st.sets(st.sampled_from(LABELS)).map(sorted)) for _ in reference]
    counts = np.array([data.draw(st.integers(0, 2)) for _ in reference])
    places = np.repeat(np.arange(len(reference)), counts)
    if not any(reference[i] or said[i] for i in places):
        return
    repeated = answers([reference[i] for i in places], [said[i] for i in places])
    assert f1(answers(reference, list(said)), counts[None, :].astype(float)) == pytest.approx(f1(repeated))


@pytest.mark.parametrize("reference", [[], ["a"], ["a", "b"]])
def test_an_error_is_worse_than_any_answer_that_is_partly_right(reference: list[str]) -> None:
    others = [["a"], ["b", "c"]]
    wrong = answers([reference, *others], [None, *others])
    assert contributions(find_metric("subset_accuracy"), wrong)[0] == 0
    for said in (reference, reference[:1], []):
        assert f1(wrong) <= f1(answers([reference, *others], [said, *others]))
    assert f1(wrong) < f1(answers([reference, *others], [reference, *others]))


def macro(made: Answers) -> float:
    n = len(made.references)
    return float(corpus(find_metric("f1_macro_labels"), made, np.arange(n))(np.ones((1, n)))[0])


@settings(deadline=None)
@given(st.data())
def test_label_by_label_they_are_scikit_learns(data: st.DataObject) -> None:
    reference = data.draw(SETS)
    said = data.draw(
        st.lists(st.sets(st.sampled_from(LABELS)).map(sorted), min_size=len(reference), max_size=len(reference))
    )
    made = answers(reference, list(said))
    wrong = contributions(find_metric("hamming_loss"), made)
    assert wrong.mean() == pytest.approx(oracle.hamming_loss(table(reference), table(said)))
    shown = (table(reference) | table(said)).any(0)
    if not shown.any():
        assert np.isnan(macro(made))
        return
    each = [oracle.f1_score(table(reference)[:, k], table(said)[:, k]) for k in np.flatnonzero(shown)]
    assert macro(made) == pytest.approx(np.mean(each))


def test_an_error_is_wrong_about_every_label() -> None:
    right: list[list[str] | None] = [["a"], ["b", "c"], []]
    reference = [["a"], ["b", "c"], []]
    for place in range(3):
        lost = [None if i == place else each for i, each in enumerate(right)]
        made = answers(reference, lost)
        assert contributions(find_metric("hamming_loss"), made)[place] == 1
        assert macro(made) < macro(answers(reference, right)) == 1


# Ranks are judged as scikit-learn judges them.


RANKS = ("2", "3", "10", "11")
PAIRS = st.lists(st.tuples(st.sampled_from(RANKS), st.sampled_from(RANKS)), min_size=2, max_size=30)


def ordinal_answers(reference: list[str], given: list[str | None], labels: tuple[str, ...] = RANKS) -> Answers:
    return judged("ordinal", reference, given, [None] * len(reference), labels)


def kappa(made: Answers, weights: np.ndarray | None = None) -> float:
    n = len(made.references)
    values = corpus(find_metric("quadratic_kappa"), made, np.arange(n))
    return float(values(np.ones((1, n)) if weights is None else weights)[0])


def rank_error(made: Answers) -> float:
    return float(contributions(find_metric("rank_error"), made).mean())


@settings(deadline=None)
@given(PAIRS)
def test_metrics_are_scikit_learns_on_ranks(pairs: list[tuple[str, str]]) -> None:
    reference, said = [a for a, _ in pairs], [b for _, b in pairs]
    made = ordinal_answers(reference, list(said))
    ranks = [[RANKS.index(label) for label in side] for side in (reference, said)]
    assert rank_error(made) == pytest.approx(oracle.mean_absolute_error(*ranks))
    if len({*reference, *said}) > 1:
        wanted = oracle.cohen_kappa_score(*ranks, labels=range(4), weights="quadratic")
        assert kappa(made) == pytest.approx(wanted, abs=1e-9)
    else:
        assert np.isnan(kappa(made))


@settings(deadline=None)
@given(PAIRS, st.data())
def test_an_ordinal_example_drawn_twice_counts_twice(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    counts = np.array([data.draw(st.integers(0, 2)) for _ in pairs])
    twice = [pairs[i] for i in np.repeat(np.arange(len(pairs)), counts)]
    if not twice:
        return
    weighted = kappa(ordinal_answers([a for a, _ in pairs], [b for _, b in pairs]), counts[None, :].astype(float))
    assert weighted == pytest.approx(kappa(ordinal_answers([a for a, _ in twice], [b for _, b in twice])), nan_ok=True)


def test_an_error_is_as_far_off_as_can_be() -> None:
    for label in RANKS:
        worst = max(rank_error(ordinal_answers([label], [other])) for other in RANKS)
        assert rank_error(ordinal_answers([label], [None])) == worst
        assert rank_error(ordinal_answers([label], ["7"])) == worst


def test_a_label_that_only_the_reference_knows_has_its_rank_among_the_others() -> None:
    assert rank_error(ordinal_answers(["10"], ["11"], ("2", "11"))) == 1
    assert ordinal_answers(["10"], ["2"], ("2", "11")).labels == ("2", "10", "11")
    assert ordinal_answers(["odd"], ["low"], ("low", "high")).labels == ("low", "high", "odd")  # in no natural order
