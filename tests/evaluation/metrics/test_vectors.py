"""The nearest is that which scikit-learn finds by the cosine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from speciate.evaluation.metrics import contributions, judged
from speciate.vocabulary import find_metric


def recall(labels: list[str], vectors: list[Any]) -> np.ndarray:
    made = judged("retrieval", labels, vectors, [None] * len(labels), ())
    return contributions(find_metric("recall_at_1"), made)


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(0, 2**31))
def test_it_is_the_label_of_scikit_learns_nearest_neighbour(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, vectors = random.choice(["a", "b", "c"], n).tolist(), random.normal(size=(n, 5))
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine").fit(vectors).kneighbors(return_distance=False)[:, 0]
    wanted = [float(labels[i] == labels[j]) for i, j in enumerate(nearest)]
    counted = [labels.count(label) > 1 for label in labels]
    found = recall(labels, vectors.tolist())
    np.testing.assert_array_equal(np.isnan(found), ~np.array(counted))
    np.testing.assert_array_equal(found[counted], np.array(wanted)[counted])


def test_the_same_vector_for_all_finds_by_chance() -> None:
    assert recall(["a", "a", "a", "b", "b"], [[1.0]] * 5) == pytest.approx([2 / 4, 2 / 4, 2 / 4, 1 / 4, 1 / 4])


def test_an_error_finds_nothing_and_is_found_by_none() -> None:
    vectors = [[1.0, 0.0], None, [0.9, 0.1], [0.0, 1.0]]
    assert recall(["a", "a", "a", "a"], vectors).tolist() == [1, 0, 1, 1]
    assert recall(["a", "a", "b", "b"], vectors).tolist() == [0, 0, 0, 1]


def scores(metric: str, labels: list[str], vectors: list[Any]) -> np.ndarray:
    made = judged("retrieval", labels, vectors, [None] * len(labels), ())
    return contributions(find_metric(metric), made)


@settings(deadline=None)
@given(st.integers(4, 40), st.integers(0, 2**31))
def test_the_ten_nearest_are_rated_as_scikit_learn_rates_them(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, vectors = random.choice(["a", "b", "c"], n).tolist(), random.normal(size=(n, 5))
    near = cosine_similarity(vectors)
    found = {name: scores(name, labels, vectors.tolist()) for name in ("ndcg_at_10", "map_at_10", "recall_at_5")}
    for i, label in enumerate(labels):
        others = [j for j in range(n) if j != i]
        same = np.array([labels[j] == label for j in others])
        if not same.any():
            assert all(np.isnan(each[i]) for each in found.values())
            continue
        assert found["ndcg_at_10"][i] == pytest.approx(ndcg_score([same], [near[i, others]], k=10), rel=1e-9)
        best = same[np.argsort(-near[i, others])]
        assert found["recall_at_5"][i] == best[:5].any()
        hits = [best[: k + 1].mean() for k in range(min(10, len(best))) if best[k]]
        assert found["map_at_10"][i] == pytest.approx(sum(hits) / min(10, same.sum()), rel=1e-9)
        if n <= 11:
            assert found["map_at_10"][i] == pytest.approx(average_precision_score(same, near[i, others]), rel=1e-9)


@pytest.mark.parametrize("metric", ["ndcg_at_10", "map_at_10", "recall_at_5"])
def test_the_same_vector_for_all_is_no_better_than_chance_whatever_their_order(metric: str) -> None:
    labels = [f"l{i // 20}" for i in range(1000)]  # those of one label stand together
    constant = scores(metric, labels, [[1.0]] * 1000).mean()
    random = np.random.default_rng(0).normal(size=(1000, 8)).tolist()
    assert constant == pytest.approx(scores(metric, labels, random).mean(), abs=0.05)
    assert scores(metric, ["a", "a", "b", "b"], [None] * 4).tolist() == [0.0] * 4
