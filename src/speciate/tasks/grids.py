"""The states of a picture or volume as maps, for heads that answer place by place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from speciate.errors import Code, SpeciateError

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


def as_maps(states: States, axes: int = 2) -> torch.Tensor:
    """(B, T, W) -> (B, W, height, width), or with the depth before where `axes` is 3. INVALID where the states are no
    such grid."""
    if states.grid is None or len(states.grid) != axes:
        raise SpeciateError(
            Code.INVALID,
            f"This base model gives no grid of states with {axes} axes, so nothing can be placed by it.",
            "Use a base model that reads images, such as 'new:vit', or one for volumes, such as 'new:unet3d'.",
        )
    return states.sequence.mT.reshape(len(states.sequence), -1, *states.grid)
