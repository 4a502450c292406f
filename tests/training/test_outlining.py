"""Voxels labelled one by one, without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from speciate.modalities.scans.label_maps import mask_cell
from speciate.modalities.scans.volumes import Volume
from speciate.tasks.contract import Posed, Terms
from speciate.tasks.predictor import TrainedPredictor, constant, load
from speciate.tasks.segmentation import Segmentation
from speciate.training.classical import logistic
from speciate.training.outlining import ways
from tests.modalities.nifti_samples import organ
from tests.tasks.learning import example, value


def posed(seeds: range) -> list[Posed]:
    found = []
    for seed in seeds:
        made = organ(seed, side=16)
        voxels, labels = (each.transpose(2, 1, 0) for each in (made.voxels, made.labels))
        volume: Volume = {"voxels": voxels.astype(np.float32), "spacing": np.array([1.5, 1, 2], np.float32)}
        one = Segmentation.pose(example(f"{seed}", volume), mask_cell(labels, ["organ", "lesion"]), Terms())
        assert one is not None
        found.append(one)
    return found


def test_voxels_are_told_apart_and_the_commonest_label_at_each_place_does_not(tmp_path: Path) -> None:
    learned, asked = posed(range(8)), posed(range(8, 14))
    truths, examples = [one.truth for one in learned], [one.example for one in learned]
    readout = Segmentation.of(truths, {})
    (way,) = ways(readout, logistic(1.0))
    features = way.represent(examples)
    (learner,) = way.learners
    estimator = learner.learn(features.encode(examples), readout.targets(truths), 0)
    predictor = TrainedPredictor("volume-segmentation", features, estimator, readout)
    assert value("dice", predictor, asked) > 0.8
    assert value("dice", constant("volume-segmentation", truths, Terms()), asked) < 0.6
    predictor.save(tmp_path / "model")
    again = load(tmp_path / "model").predict([one.example for one in asked])
    assert [one.output for one in again] == [one.output for one in predictor.predict([one.example for one in asked])]


def test_a_label_that_is_unknown_is_not_learned_from() -> None:
    """Of two labels one: its voxels count neither as it nor as background."""
    learned = posed(range(2))
    readout = Segmentation(labels=("organ",), side=16, axes=3)
    targets = readout.targets([one.truth for one in learned])
    assert (targets == 255).any()
    (way,) = ways(readout, logistic(1.0))
    inputs = way.represent([]).encode([one.example for one in learned])
    before = way.learners[0].learn(inputs, targets, 0)
    inputs.matrix[targets.ravel() == 255] = 1e3
    after = way.learners[0].learn(inputs, targets, 0)
    assert np.array_equal(before.weight, after.weight)
