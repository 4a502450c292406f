"""The plain networks for series that line up: that they are the published ones, and what other lengths come to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from speciate.models.backbones import architectures
from speciate.models.backbones.contract import Backbone
from speciate.tasks.families.classification import Classification

DIGITS = Classification(labels=tuple("0123456789"))
MEDIA = [np.random.default_rng(at).normal(3, 2, (1, 40)).astype(np.float32) for at in range(6)]


def states(backbone: Backbone, *media: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return backbone.states(backbone.collate(backbone.prepare(media))).pooled


@pytest.mark.parametrize(("name", "parameters"), [("new:mlp", 15_210), ("new:cnn", 5_210), ("new:gru", 5_134)])
def test_it_has_as_many_parameters_as_were_published(name: str, parameters: int) -> None:
    """As the authors' notebook prints them, for 40 steps and ten labels."""
    backbone = architectures.build(name, MEDIA, 0)
    head = DIGITS.head(backbone.width)
    found = sum(each.numel() for module in (backbone.module, head) for each in module.parameters())
    assert found == parameters


@pytest.mark.parametrize("name", ["new:mlp", "new:cnn", "new:gru"])
def test_a_shorter_series_goes_on_with_the_mean_of_all(name: str) -> None:
    backbone, short = architectures.build(name, MEDIA, 0), MEDIA[0][:, :25]
    mean = np.float32(np.mean(MEDIA))
    longer = np.concatenate([short, np.full((1, 15), mean)], axis=1)
    torch.testing.assert_close(states(backbone, short), states(backbone, longer), atol=1e-5, rtol=0)
    ending = architectures.build(name, MEDIA, 0, ending=True)
    before = np.concatenate([np.full((1, 15), mean), short], axis=1)
    torch.testing.assert_close(states(ending, short), states(ending, before), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["new:mlp", "new:cnn", "new:gru"])
def test_a_longer_series_is_made_as_long_as_the_longest_in_training(name: str) -> None:
    backbone, slow = architectures.build(name, MEDIA, 0), np.linspace(0, 6, 400, dtype=np.float32)[None]
    quick = np.linspace(0, 6, 40, dtype=np.float32)[None]
    torch.testing.assert_close(states(backbone, slow), states(backbone, quick), atol=1e-4, rtol=0)
    ending = architectures.build(name, MEDIA, 0, ending=True)
    assert torch.equal(states(ending, slow), states(ending, slow[:, -40:]))


@pytest.mark.parametrize("name", ["new:mlp", "new:cnn", "new:gru"])
def test_where_something_happens_is_not_forgotten(name: str) -> None:
    backbone, early, late = (
        architectures.build(name, MEDIA, 0),
        np.zeros((1, 40), np.float32),
        np.zeros((1, 40), np.float32),
    )
    early[0, 8:12], late[0, 24:28] = 9, 9
    assert not torch.allclose(states(backbone, early), states(backbone, late), atol=0.01)
