"""Every architecture that can be trained here resumes to the bit, from a checkpoint on disk and in new objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from speciate.models.backbones import architectures
from speciate.training.networks.batches import PreparedItems
from speciate.training.networks.optimizer import LoopParameters, Precision
from speciate.training.networks.training_checkpoints import Checkpoints
from speciate.training.networks.training_loop import Training
from tests.models.backbones.folders import PROTEINS, TEXTS
from tests.models.backbones.test_media import MEDIA
from tests.training.networks.world import TwoLabels

QUICK = ("new:mlp", "new:gru")
"""All others take minutes together."""
COUNT = 10


def media(modality: str) -> Sequence[Any]:
    """Of different lengths, where the modality has any."""
    chance = np.random.default_rng(0)
    match modality:
        case "image":
            return [chance.integers(0, 256, (16, 20, 3), np.uint8) for _ in range(COUNT)]
        case "audio":
            return [chance.normal(0, 0.1, 2000 + 600 * at).astype(np.float32) for at in range(COUNT)]
        case "time-series":
            return [chance.normal(at, 1 + at, (2, 20 + 3 * at)).astype(np.float32) for at in range(COUNT)]
        case "tabular":
            return [{"size": 1.5 * at, "made": None if at == 2 else at, "kind": "ab"[at % 2]} for at in range(COUNT)]
        case "volume":
            sizes = ((6 + at, 10, 12) for at in range(COUNT))
            return [
                {"voxels": chance.normal(at, 2, size).astype(np.float32), "spacing": np.ones(3, np.float32)}
                for at, size in enumerate(sizes)
            ]
        case "point-cloud" | "video" | "episode":
            return [*MEDIA[modality], *MEDIA[modality]]
    texts = {"text": TEXTS, "protein": PROTEINS}[modality]
    return [texts[at % len(texts)] * (1 + at % 2) for at in range(COUNT)]


def training(name: str, precision: Precision = "float32") -> Training:
    modality = architectures.modality_of(name)
    assert modality is not None
    given = media(modality)
    backbone = architectures.build(name, given, 3)
    torch.manual_seed(3)
    head = torch.nn.Linear(backbone.width, 2)
    items = PreparedItems(given, backbone.prepare, backbone.length)
    norms = any(isinstance(each, _BatchNorm) for each in backbone.module.modules())
    parameters = LoopParameters(
        num_train_epochs=2, batch_size=4, per_device_train_batch_size=None if norms else 2, precision=precision
    )
    return Training(backbone, head, TwoLabels(), items, np.arange(COUNT) % 2, parameters, 3)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=() if each in QUICK else pytest.mark.slow)
        for each in (*architectures.ARCHITECTURES, "timm:resnet10t")
    ],
)
def test_it_resumes_to_the_bit(name: str, precision: Precision, tmp_path: Path) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    whole, first, second = (training(name, precision) for _ in range(3))
    before = first.digest()
    whole.run_until(whole.total)
    first.judge(first._items, np.arange(COUNT) % 2)  # leaves nothing behind that training would trip over
    first.run_until(4)  # in the second epoch
    first.judge(first._items, np.arange(COUNT) % 2)
    Checkpoints(tmp_path).save(first.state(), {})
    saved = Checkpoints(tmp_path).newest()
    assert saved is not None
    second.restore(saved.state)
    for each in (first, second):
        each.run_until(each.total)
    assert first.digest() == second.digest()
    assert second.digest() == whole.digest() != before
