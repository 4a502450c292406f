"""The statistics of BatchNorm, counted anew: those of the members belong to activations that the merge does not have.

As after stochastic weight averaging (Izmailov et al. 2018): the network reads training examples once, and each norm
keeps the mean and the variance of all that came through it (Wortsman et al. 2022 have networks without such norms).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from speciate.models.backbones.contract import Backbone, Item

if TYPE_CHECKING:
    import torch

_BATCH = 32


def recount(backbone: Backbone, items: Sequence[Item]) -> int:
    """How many norms there are. The same items give the same statistics; the network is left in eval mode."""
    import torch

    norms = _norms(backbone.module)
    before = [norm.momentum for norm in norms]
    backbone.module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # every batch counts the same
        norm.train()
    with torch.no_grad():
        for start in range(0, len(items) - 1, _BATCH):
            batch = items[start : start + _BATCH]
            if len(batch) > 1:  # of one example there may be no variance
                backbone.states(backbone.collate(batch))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()
    return len(norms)


def _norms(module: torch.nn.Module) -> list[torch.nn.modules.batchnorm._BatchNorm]:
    from torch.nn.modules.batchnorm import _BatchNorm

    return [each for each in module.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
