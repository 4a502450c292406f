"""How like images and texts are, by published models of both: the cosine that transformers' own outputs give."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from speciate.models.published.architectures import check_head
from speciate.models.published.likeness import ADAPTER, cosines
from speciate.models.published.published_model import load_model
from tests.models.published import doubles


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_pair_has_the_cosine_of_its_vectors_whatever_is_asked_beside_it(tmp_path: Path, family: str) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (doubles.clip if family == "clip" else doubles.siglip)(tmp_path / "model")
    head = check_head(tmp_path / "model", family)
    assert head.adapter == ADAPTER
    model = load_model(tmp_path / "model", head)
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 255, (32, 32, 3)).astype(np.uint8) for _ in range(3)]
    texts = ["a red square", "good film", "a very long day of a red film"]
    found = cosines(model, images, texts)
    assert all(-1 <= each <= 1 for each in found)
    assert len(set(found)) == 3
    for image, text, together in zip(images, texts, found, strict=True):
        assert cosines(model, [image], [text])[0] == pytest.approx(together, abs=1e-5)
    assert cosines(model, images[:1], texts[1:2])[0] != pytest.approx(found[0], abs=1e-6)
