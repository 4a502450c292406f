"""Average precision of boxes against a plain computation of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.evaluation.metrics import corpus
from speciate.evaluation.metrics.answers import Answers, object_answers
from speciate.vocabulary import find_metric

MAP_50 = find_metric("map_50")
sides = st.integers(1, 6)
corners = st.integers(0, 6)
boxes = st.tuples(corners, corners, sides, sides).map(list)
labels = st.sampled_from(["cat", "dog"])
truths = st.lists(st.fixed_dictionaries({"label": labels, "box": boxes}), max_size=4)
scores = st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])
guesses = st.lists(st.fixed_dictionaries({"label": labels, "box": boxes, "score": scores}), max_size=5)
images = st.lists(st.tuples(truths, guesses), min_size=1, max_size=5)


def overlap(one: list[float], other: list[float]) -> float:
    cells = [
        {(x, y) for x in range(box[0], box[0] + box[2]) for y in range(box[1], box[1] + box[3])} for box in (one, other)
    ]
    return len(cells[0] & cells[1]) / len(cells[0] | cells[1])


def plain(pictures: list[tuple[Any, Any]]) -> float:
    """Of each label: match the surest first, then walk down the ranks."""
    values = []
    for label in ("cat", "dog"):
        ranked, total = [], 0
        for objects, found in pictures:
            free = [each["box"] for each in objects if each["label"] == label]
            total += len(free)
            for guess in sorted((each for each in found if each["label"] == label), key=lambda each: -each["score"]):
                best = max(range(len(free)), key=lambda i: (overlap(free[i], guess["box"]), i), default=None)
                hit = best is not None and overlap(free[best], guess["box"]) >= 0.5
                if hit:
                    free.pop(best)
                ranked.append((guess["score"], hit))
        if not total:
            continue
        ranked.sort(key=lambda each: -each[0])
        hits = np.cumsum([hit for _, hit in ranked])
        recall, precision = hits / total, hits / np.arange(1, len(ranked) + 1)
        at = [max((p for r, p in zip(recall, precision, strict=True) if r >= wanted), default=0.0)
              for wanted in np.linspace(0, 1, 101)]  # fmt: skip
        values.append(np.mean(at))
    return float(np.mean(values)) if values else math.nan


def marked(pictures: list[tuple[Any, Any]]) -> Answers:
    return object_answers([{"size": [12, 12], "objects": objects} for objects, _ in pictures],
                          [found for _, found in pictures])  # fmt: skip


def value(answers: Answers) -> float:
    count = len(answers.truth)
    return float(corpus(MAP_50, answers, np.arange(count))(np.ones((1, count)))[0])


@settings(deadline=None)
@given(images)
def test_it_is_what_a_plain_computation_says(pictures: list[tuple[Any, Any]]) -> None:
    assert value(marked(pictures)) == pytest.approx(plain(pictures), nan_ok=True)


@settings(deadline=None)
@given(images, st.randoms(use_true_random=False))
def test_weights_of_clusters_mean_repeated_pictures(pictures: list[tuple[Any, Any]], chance: Any) -> None:
    for place, guess in enumerate([each for _, found in pictures for each in found]):
        guess["score"] += place / 1000  # else copies of a picture would mix among equals
    clusters = np.arange(len(pictures)) // 2
    weights = [chance.randrange(3) for _ in range(clusters[-1] + 1)]
    repeated = [each for each, cluster in zip(pictures, clusters, strict=True) for _ in range(weights[cluster])]
    weighted = corpus(MAP_50, marked(pictures), clusters)(np.array([weights], float))[0]
    assert weighted == pytest.approx(value(marked(repeated)) if repeated else math.nan, nan_ok=True)


def test_boxes_in_a_crowd_count_neither_way() -> None:
    crowd = {"label": "cat", "box": [0, 0, 10, 10], "crowd": True}
    alone = {"label": "cat", "box": [20, 0, 10, 10]}
    guess = [
        {"label": "cat", "box": [20, 0, 10, 10], "score": 0.5},
        {"label": "cat", "box": [1, 1, 2, 2], "score": 0.9},
    ]
    assert value(marked([([crowd, alone], guess)])) == 1
    assert value(marked([([alone], guess)])) == pytest.approx(0.5)


@pytest.mark.parametrize("lost", [None, "cat", [{"label": "cat"}], [{"label": "cat", "box": [1], "score": 1}], 3])
def test_an_error_is_never_better_than_an_answer(lost: Any) -> None:
    cat, guess = {"label": "cat", "box": [0, 0, 4, 4]}, {"label": "cat", "box": [0, 0, 4, 4], "score": 0.5}
    good = value(marked([([cat], [guess]), ([], [])]))
    assert good == 1
    assert value(marked([([cat], lost), ([], [])])) < good
    assert value(marked([([cat], [guess]), ([], lost)])) < good


def test_answers_may_be_stored_as_coco_writes_them() -> None:
    cat = {"label": "cat", "box": [0, 0, 4, 4]}
    assert value(marked([([cat], [{"category": "cat", "bbox": [0, 0, 4, 4]}])])) == 1
