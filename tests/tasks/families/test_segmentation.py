"""Labels of pixels: from cells to targets, to encoded targets, to answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from speciate.errors import SpeciateError
from speciate.modalities.segmentation_masks import from_runs, mask_cell
from speciate.models.backbones.contract import States
from speciate.tasks.families.segmentation import Segmentation, stretch
from speciate.tasks.predictor import constant
from speciate.tasks.task import TaskTerms
from tests.tasks.learning import example, images, train, value

PICTURE = example("a", np.zeros((20, 40, 3), np.uint8))
SQUARE = {"category": "dog", "segmentation": json.dumps([[10, 5, 30, 5, 30, 15, 10, 15]])}
SPOT = {"category": "cat", "segmentation": json.dumps([[12, 8, 16, 8, 16, 12, 12, 12]])}


def posed(count: int, seed: int) -> list[Any]:
    made = enumerate(images(count, seed))
    return [
        Segmentation.evaluation_example(example(f"{place}", pixels), objects, TaskTerms())
        for place, (pixels, objects) in made
    ]


def test_a_network_draws_squares_and_discs_and_the_commonest_label_does_not() -> None:
    learned, asked = posed(120, 1), posed(40, 2)
    predictor = train("image-segmentation", Segmentation, "image", learned, 60)
    assert value("dice", predictor, asked) > 0.75
    assert value("dice", constant("image-segmentation", [one.target for one in learned], TaskTerms()), asked) < 0.1


@pytest.mark.parametrize("cell", [[SQUARE, SPOT], [SPOT, SQUARE]])
def test_small_regions_lie_above_large_ones(cell: Any) -> None:
    made = Segmentation.evaluation_example(PICTURE, cell, TaskTerms())
    assert made is not None
    target = made.target
    pixels = from_runs(target["rle"], target["size"])
    assert (target["labels"], target["size"]) == (["cat", "dog"], [20, 40])
    assert [(pixels == code).sum() for code in range(3)] == [600, 16, 184]
    assert pixels[9, 13] == 1
    assert json.loads(json.dumps(target)) == target


def test_a_large_image_has_a_small_target() -> None:
    large = example("a", np.zeros((1024, 512, 3), np.uint8))
    made = Segmentation.evaluation_example(
        large, [{"category": "dog", "segmentation": [[0, 0, 256, 0, 256, 512, 0, 512]]}], TaskTerms()
    )
    assert made is not None
    assert made.target["size"] == [256, 128]
    assert from_runs(made.target["rle"], [256, 128])[:128, :64].all()
    assert len(json.dumps(made.target)) < 3000


def test_one_mask_as_run_lengths_is_a_label_of_its_own() -> None:
    made = Segmentation.evaluation_example(PICTURE, json.dumps({"size": [20, 40], "counts": [400, 400]}), TaskTerms())
    assert made is not None
    assert made.target["labels"] == ["1"]
    assert from_runs(made.target["rle"], [20, 40])[:, 20:].all()


def test_what_is_answered_is_what_was_learned() -> None:
    """Scores that are sure of the targets come back as the target, at the size that is learned."""
    made = Segmentation.evaluation_example(PICTURE, [SQUARE, SPOT], TaskTerms())
    assert made is not None
    task_head = Segmentation.fit([made.target], {})
    (target,) = task_head.encode_targets([made.target])
    (given,) = task_head.predictions([(np.arange(3)[:, None, None] == target) * 5.0])
    assert given.output["labels"] == ["cat", "dog"]
    assert (from_runs(given.output["rle"], given.output["size"]) == target).all()


def test_labels_that_training_has_not_seen_teach_nothing() -> None:
    made = Segmentation.evaluation_example(PICTURE, [SQUARE], TaskTerms())
    assert made is not None
    (target,) = Segmentation(labels=("cat",), side=32).encode_targets([made.target])
    assert sorted(np.unique(target).tolist()) == [0, 255]


@pytest.mark.parametrize(("height", "width", "side"), [(4, 7, 32), (9, 9, 9), (50, 3, 32), (1, 1, 32)])
def test_maps_are_stretched_as_torch_does_it(height: int, width: int, side: int) -> None:
    maps = np.random.default_rng(0).normal(size=(3, height, width))
    wanted = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], size=(side, side), mode="bilinear")[0]
    assert stretch(maps, side) == pytest.approx(wanted.numpy())


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
        Segmentation.evaluation_example(PICTURE, cell, TaskTerms())


def test_it_is_the_same_after_json() -> None:
    task_head = Segmentation(labels=("cat", "dog"), side=64)
    assert Segmentation.model_validate_json(task_head.model_dump_json()) == task_head


# Volumes

SCAN = example("v", {"voxels": np.zeros((8, 40, 20), np.float32), "spacing": np.array([5, 1, 1.5], np.float32)})


def labels() -> np.typing.NDArray[np.uint8]:
    found = np.zeros((8, 40, 20), np.uint8)
    found[2:6, 10:30, 5:15] = 1
    found[3:5, 18:22, 8:12] = 2
    return found


def test_the_target_of_a_volume_is_its_mask_with_millimetres() -> None:
    made = Segmentation.evaluation_example(SCAN, mask_cell(labels(), ["organ", "lesion"]), TaskTerms())
    assert made is not None
    assert (made.target["labels"], made.target["size"]) == (["organ", "lesion"], [8, 40, 20])
    assert made.target["spacing"] == [5, 1, 1.5]
    assert (from_runs(made.target["rle"], made.target["size"]) == labels()).all()
    assert json.loads(json.dumps(made.target)) == made.target


def test_a_large_volume_has_a_small_target_of_the_same_extent() -> None:
    large = example(
        "v", {"voxels": np.zeros((16, 512, 256), np.float32), "spacing": np.array([5, 0.5, 0.5], np.float32)}
    )
    made = Segmentation.evaluation_example(large, mask_cell(np.ones((16, 512, 256), np.uint8), ["organ"]), TaskTerms())
    assert made is not None
    assert made.target["size"] == [4, 128, 64]
    assert made.target["spacing"] == [20, 2, 2]


def test_what_is_answered_of_a_volume_is_what_was_learned() -> None:
    made = Segmentation.evaluation_example(SCAN, mask_cell(labels(), ["organ", "lesion"]), TaskTerms())
    assert made is not None
    task_head = Segmentation.fit([made.target], {})
    assert (task_head.axes, task_head.side, task_head.labels) == (3, 40, ("lesion", "organ"))
    (target,) = task_head.encode_targets([made.target])
    assert target.shape == (40, 40, 40)
    scores = (np.arange(3)[:, None, None, None] == target) * 5.0
    for given in task_head.predictions([scores, scores.reshape(3, -1).T]):  # a network's, a classical learner's
        assert (from_runs(given.output["rle"], given.output["size"]) == target).all()
        assert given.output["labels"] == ["lesion", "organ"]
    answer = constant("volume-segmentation", [made.target], TaskTerms()).predict([SCAN])[0].output
    assert answer["size"] == [40, 40, 40]
    assert Segmentation.model_validate_json(task_head.model_dump_json()) == task_head


def test_a_mask_of_another_size_is_none_of_a_volume() -> None:
    with pytest.raises(ValueError, match="none of a volume"):
        Segmentation.evaluation_example(SCAN, mask_cell(labels()[:4], ["organ", "lesion"]), TaskTerms())
    with pytest.raises(ValueError, match="no mask"):
        Segmentation.evaluation_example(SCAN, [SQUARE], TaskTerms())


def test_the_loss_of_volumes_falls_where_the_answer_is_right() -> None:
    made = Segmentation.evaluation_example(SCAN, mask_cell(labels(), ["organ", "lesion"]), TaskTerms())
    assert made is not None
    task_head = Segmentation.fit([made.target], {})
    encoded = task_head.encode_targets([made.target])
    right = torch.from_numpy((np.arange(3) == encoded.reshape(1, -1, 1)).astype(np.float32) * 9)
    grid = (task_head.side,) * 3
    mask = torch.ones(right.shape[:2], dtype=torch.bool)
    keep = torch.nn.Identity()
    losses = [
        task_head.loss(keep, States(each, mask, each.mean(1), grid), encoded).item() for each in (right, right.flip(2))
    ]
    assert losses[0] < 0.02 < 2 < losses[1]
    flat = States(right, mask, right.mean(1), (task_head.side, task_head.side**2))
    with pytest.raises(SpeciateError, match="3 axes"):
        task_head.loss(keep, flat, encoded)


def test_a_head_begins_with_the_shares_of_what_it_learns() -> None:
    targets = [
        made.target for made in (Segmentation.evaluation_example(PICTURE, [SQUARE], TaskTerms()),) if made is not None
    ]
    task_head = Segmentation.fit([*targets, {**targets[0], "labels": ["cat"]}], {})
    assert task_head.labels == ("cat", "dog")
    assert task_head.shares == pytest.approx((0.75, 0.125, 0.125))  # the square is a quarter of its image
    head = task_head.head(5)
    with torch.no_grad():
        begun = head(torch.zeros(1, 5, 2, 2)).softmax(1)
    assert begun[0, :, 0, 0].tolist() == pytest.approx([0.75, 0.125, 0.125], abs=1e-6)
    assert Segmentation(labels=("cat",), side=32).head(5).bias.shape == (2,)  # models of before know no shares
