"""Average precision of boxes against a plain computation of it."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.evaluation.metrics import corpus
from speciate.evaluation.metrics.metric import Answers, object_answers
from speciate.vocabulary import Metric, find_metric

MAP_50, MAP = find_metric("map_50"), find_metric("map")
sides = st.integers(1, 6)
corners = st.integers(0, 6)
boxes = st.tuples(corners, corners, sides, sides).map(list)
labels = st.sampled_from(["cat", "dog"])
references = st.lists(st.fixed_dictionaries({"label": labels, "box": boxes}), max_size=4)
scores = st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])
guesses = st.lists(st.fixed_dictionaries({"label": labels, "box": boxes, "score": scores}), max_size=5)
images = st.lists(st.tuples(references, guesses), min_size=1, max_size=5)


def overlap(one: list[float], other: list[float]) -> float:
    cells = [
        {(x, y) for x in range(box[0], box[0] + box[2]) for y in range(box[1], box[1] + box[3])} for box in (one, other)
    ]
    return len(cells[0] & cells[1]) / len(cells[0] | cells[1])


def plain(images: list[tuple[Any, Any]]) -> float:
    """Of each label: match the surest first, then walk down the ranks."""
    values = []
    for label in ("cat", "dog"):
        ranked, total = [], 0
        for objects, found in images:
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


def marked(images: list[tuple[Any, Any]]) -> Answers:
    return object_answers([{"size": [12, 12], "objects": objects} for objects, _ in images],
                          [found for _, found in images])  # fmt: skip


def value(answers: Answers, metric: Metric = MAP_50) -> float:
    count = len(answers.references)
    return float(corpus(metric, answers, np.arange(count))(np.ones((1, count)))[0])


@settings(deadline=None)
@given(images)
def test_it_is_what_a_plain_computation_says(images: list[tuple[Any, Any]]) -> None:
    assert value(marked(images)) == pytest.approx(plain(images), nan_ok=True)


@settings(deadline=None)
@given(images, st.randoms(use_true_random=False))
def test_weights_of_clusters_mean_repeated_images(images: list[tuple[Any, Any]], chance: Any) -> None:
    for place, guess in enumerate([each for _, found in images for each in found]):
        guess["score"] += place / 1000  # else copies of an image would mix among equals
    clusters = np.arange(len(images)) // 2
    weights = [chance.randrange(3) for _ in range(clusters[-1] + 1)]
    repeated = [each for each, cluster in zip(images, clusters, strict=True) for _ in range(weights[cluster])]
    weighted = corpus(MAP_50, marked(images), clusters)(np.array([weights], float))[0]
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


def cocos(images: list[tuple[Any, Any]]) -> tuple[float, float]:
    """What pycocotools says of the same: mean over overlaps, and at 0.5."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    code = {"cat": 1, "dog": 2}
    reference = [
        {"id": 100 * i + k + 1, "image_id": i, "category_id": code[each["label"]], "bbox": each["box"],
         "area": each["box"][2] * each["box"][3], "iscrowd": int(each.get("crowd", False))}
        for i, (objects, _) in enumerate(images) for k, each in enumerate(objects)
    ]  # fmt: skip
    found = [
        {"image_id": i, "category_id": code[each["label"]], "bbox": each["box"], "score": each["score"]}
        for i, (_, boxes) in enumerate(images) for each in boxes
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": i} for i in range(len(images))], "annotations": reference,
            "categories": [{"id": number, "name": name} for name, number in code.items()],
        }  # fmt: skip
        dataset.createIndex()
        judged = COCOeval(dataset, dataset.loadRes(found), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0]), float(judged.stats[1])


def scene(random: np.random.Generator, images: int) -> list[tuple[Any, Any]]:
    """Boxes as detectors give them: near the true ones, some missed, some made up, some of a crowd."""
    made = []
    for _ in range(images):
        objects = [
            {"label": str(random.choice(["cat", "dog"])), "box": (random.random(4) * 40 + 5).tolist()}
            | ({"crowd": True} if random.random() < 0.1 else {})
            for _ in range(random.integers(0, 7))
        ]
        seen = [each for each in objects if random.random() < 0.8]
        boxes = [
            {"label": each["label"], "box": (np.array(each["box"]) + random.normal(0, 2, 4)).tolist(),
             "score": float(random.random())}
            for each in seen
        ]  # fmt: skip
        boxes += [
            {"label": str(random.choice(["cat", "dog"])), "box": (random.random(4) * 40 + 5).tolist(),
             "score": float(random.random() / 2)}
            for _ in range(random.integers(0, 4))
        ]  # fmt: skip
        made.append((objects, boxes))
    return made


@pytest.mark.parametrize("seed", range(6))
def test_both_are_pycocotools(seed: int) -> None:
    pytest.importorskip("pycocotools")
    images = scene(np.random.default_rng(seed), 25)
    assert [value(marked(images), metric) for metric in (MAP, MAP_50)] == pytest.approx(cocos(images), rel=1e-9)


def test_weighted_images_are_pycocotools_of_copies() -> None:
    pytest.importorskip("pycocotools")
    images, weights = scene(np.random.default_rng(9), 8), np.array([0, 2, 1, 3, 0, 1, 1, 2])
    copies = [images[i] for i in np.repeat(np.arange(8), weights)]
    got = corpus(MAP, marked(images), np.arange(8))(weights[None, :].astype(float))[0]
    assert got == pytest.approx(value(marked(copies), MAP), rel=1e-6)
    assert value(marked(copies), MAP) == pytest.approx(cocos(copies)[0], rel=1e-9)
