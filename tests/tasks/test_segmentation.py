"""Labels of pixels: from cells to truths, to targets, to answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from speciate.modalities.label_maps import from_runs
from speciate.tasks.contract import Terms
from speciate.tasks.predictor import constant
from speciate.tasks.segmentation import Segmentation, stretched
from tests.tasks.learning import example, pictures, train, value

PICTURE = example("a", np.zeros((20, 40, 3), np.uint8))
SQUARE = {"category": "dog", "segmentation": json.dumps([[10, 5, 30, 5, 30, 15, 10, 15]])}
SPOT = {"category": "cat", "segmentation": json.dumps([[12, 8, 16, 8, 16, 12, 12, 12]])}


def posed(count: int, seed: int) -> list[Any]:
    made = enumerate(pictures(count, seed))
    return [Segmentation.pose(example(f"{place}", pixels), objects, Terms()) for place, (pixels, objects) in made]


def test_a_network_draws_squares_and_discs_and_the_commonest_label_does_not() -> None:
    learned, asked = posed(120, 1), posed(40, 2)
    predictor = train("image-segmentation", Segmentation, "image", learned, 120)
    assert value("dice", predictor, asked) > 0.75
    assert value("dice", constant("image-segmentation", [one.truth for one in learned], Terms()), asked) < 0.1


@pytest.mark.parametrize("cell", [[SQUARE, SPOT], [SPOT, SQUARE]])
def test_small_regions_lie_above_large_ones(cell: Any) -> None:
    made = Segmentation.pose(PICTURE, cell, Terms())
    assert made is not None
    truth = made.truth
    pixels = from_runs(truth["rle"], truth["size"])
    assert (truth["labels"], truth["size"]) == (["cat", "dog"], [20, 40])
    assert [(pixels == code).sum() for code in range(3)] == [600, 16, 184]
    assert pixels[9, 13] == 1
    assert json.loads(json.dumps(truth)) == truth


def test_a_large_picture_has_a_small_truth() -> None:
    large = example("a", np.zeros((1024, 512, 3), np.uint8))
    made = Segmentation.pose(large, [{"category": "dog", "segmentation": [[0, 0, 256, 0, 256, 512, 0, 512]]}], Terms())
    assert made is not None
    assert made.truth["size"] == [256, 128]
    assert from_runs(made.truth["rle"], [256, 128])[:128, :64].all()
    assert len(json.dumps(made.truth)) < 3000


def test_one_mask_as_run_lengths_is_a_label_of_its_own() -> None:
    made = Segmentation.pose(PICTURE, json.dumps({"size": [20, 40], "counts": [400, 400]}), Terms())
    assert made is not None
    assert made.truth["labels"] == ["1"]
    assert from_runs(made.truth["rle"], [20, 40])[:, 20:].all()


def test_what_is_answered_is_what_was_learned() -> None:
    """Scores that are sure of the targets come back as the truth, at the size that is learned."""
    made = Segmentation.pose(PICTURE, [SQUARE, SPOT], Terms())
    assert made is not None
    readout = Segmentation.of([made.truth], {})
    (target,) = readout.targets([made.truth])
    (given,) = readout.predictions([(np.arange(3)[:, None, None] == target) * 5.0])
    assert given.output["labels"] == ["cat", "dog"]
    assert (from_runs(given.output["rle"], given.output["size"]) == target).all()


def test_labels_that_training_has_not_seen_teach_nothing() -> None:
    made = Segmentation.pose(PICTURE, [SQUARE], Terms())
    assert made is not None
    (target,) = Segmentation(labels=("cat",), side=32).targets([made.truth])
    assert sorted(np.unique(target).tolist()) == [0, 255]


@pytest.mark.parametrize(("height", "width", "side"), [(4, 7, 32), (9, 9, 9), (50, 3, 32), (1, 1, 32)])
def test_maps_are_stretched_as_torch_does_it(height: int, width: int, side: int) -> None:
    maps = np.random.default_rng(0).normal(size=(3, height, width))
    wanted = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], size=(side, side), mode="bilinear")[0]
    assert stretched(maps, side) == pytest.approx(wanted.numpy())


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (7, "no list of objects"),
        ("dog", "no JSON"),
        ([{"segmentation": "[]"}], "category"),
        ([{"category": "dog", "segmentation": None}], "no segmentation"),
        ([{"category": "dog", "segmentation": [[1, 2, 3]]}], "polygon"),
        ([{"category": "dog", "segmentation": [[1, 2, 3, 4]]}], "three points"),
        ([{"category": "dog", "segmentation": {"size": [2, 2], "counts": [1, 2]}}], "do not fill"),
        ([{"category": "dog", "segmentation": {"size": [10**9, 10**9], "counts": [1]}}], "cannot be"),
    ],
)
def test_a_cell_that_is_no_regions_says_so(cell: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Segmentation.pose(PICTURE, cell, Terms())


def test_it_is_the_same_after_json() -> None:
    readout = Segmentation(labels=("cat", "dog"), side=64)
    assert Segmentation.model_validate_json(readout.model_dump_json()) == readout
