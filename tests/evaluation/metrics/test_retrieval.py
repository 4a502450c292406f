"""The nearest is that which scikit-learn finds by the cosine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
