"""A picture's states as maps, for heads that answer place by place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from speciate.errors import Code, SpeciateError

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


def as_maps(states: States) -> torch.Tensor:
    """(B, T, W) -> (B, W, height, width). INVALID where the states are no grid."""
    if states.grid is None:
        raise SpeciateError(
            Code.INVALID,
            "This base model gives no grid of states, so nothing in a picture can be placed by it.",
            "Use a base model that reads images, such as 'new:vit'.",
        )
    return states.sequence.mT.reshape(len(states.sequence), -1, *states.grid)
