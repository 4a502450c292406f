"""Boxes: from cells to targets, to encoded targets, to answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from speciate.errors import SpeciateError
from speciate.tasks.families.detection import Detection
from speciate.tasks.predictor import constant
from speciate.tasks.task import TaskTerms, predict_examples
from tests.tasks.learning import example, images, train, value

PICTURE = example("a", np.zeros((20, 40, 3), np.uint8))


def posed(count: int, seed: int) -> list[Any]:
    made = enumerate(images(count, seed))
    return [
        Detection.evaluation_example(example(f"{place}", pixels), objects, TaskTerms())
        for place, (pixels, objects) in made
    ]


@pytest.mark.slow
def test_a_network_finds_squares_and_discs_and_the_median_box_does_not() -> None:
    learned, asked = posed(160, 1), posed(40, 2)
    predictor = train("object-detection", Detection, "image", learned, 120)
    assert value("map_50", predictor, asked) > 0.4
    assert value("map_50", constant("object-detection", [one.target for one in learned], TaskTerms()), asked) < 0.1


def test_what_is_exactly_on_the_map_comes_back_in_pixels() -> None:
    """One peak in a map of 4 x 8 cells over an image of 20 x 40 pixels."""
    maps = np.zeros((2 + 4, 4, 8))
    maps[1, 2, 3] = 0.9
    maps[1, 2, 4] = 0.8  # beside the peak, so none itself
    maps[2:, 2, 3] = 0.25, 0.5, 0.5, 0.25  # width and height as shares, then the centre within its cell
    task_head = Detection(labels=("cat", "dog"))
    ((made,),) = (each.output for each in predict_examples(task_head, [maps], [PICTURE]))
    assert (made["label"], made["score"]) == ("dog", 0.9)
    assert made["box"] == pytest.approx([3.5 / 8 * 40 - 5, 2.25 / 4 * 20 - 5, 10, 10], abs=0.01)


def test_boxes_end_where_the_image_ends() -> None:
    maps = np.zeros((1 + 4, 4, 8))
    maps[0, 0, 0], maps[1:3, 0, 0] = 0.9, 1.0
    ((made,),) = (each.output for each in predict_examples(Detection(labels=("cat",)), [maps], [PICTURE]))
    assert made["box"] == [0.0, 0.0, 20.0, 10.0]


def test_targets_are_shares_and_leave_out_crowds_and_labels_that_training_has_not_seen() -> None:
    cell = [
        {"category": "dog", "bbox": [10, 5, 20, 10], "iscrowd": False},
        {"category": "dog", "bbox": [0, 0, 40, 20], "iscrowd": True},
        {"category": "cow", "bbox": [0, 0, 10, 10], "iscrowd": False},
    ]
    made = Detection.evaluation_example(PICTURE, cell, TaskTerms())
    assert made is not None
    (target,) = Detection(labels=("cat", "dog")).encode_targets([made.target])
    assert target.tolist() == [[1, 0.5, 0.5, 0.5, 0.5]]
    assert json.loads(json.dumps(made.target)) == made.target


def test_an_image_without_objects_teaches_that_there_are_none() -> None:
    made = Detection.evaluation_example(PICTURE, [], TaskTerms())
    assert made is not None
    assert made.target["objects"] == []
    assert Detection.evaluation_example(PICTURE, None, TaskTerms()) is None
    with pytest.raises(SpeciateError, match="no box"):
        Detection.fit([made.target], {})


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("dog", "no list of objects"),
        ([{"bbox": [0, 0, 1, 1]}], "category"),
        ([{"category": "dog", "bbox": [0, 0, 1]}], "bbox"),
        ([{"category": "dog", "bbox": [0, 0, 0, 1]}], "above 0"),
        ([{"category": "dog", "bbox": [0, 0, float("nan"), 1]}], "bbox"),
        ([{"category": "dog", "bbox": None}], "bbox"),
    ],
)
def test_a_cell_that_is_no_objects_says_so(cell: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Detection.evaluation_example(PICTURE, cell, TaskTerms())


def test_it_is_the_same_after_json() -> None:
    task_head = Detection(labels=("cat", "dog"))
    assert Detection.model_validate_json(task_head.model_dump_json()) == task_head
