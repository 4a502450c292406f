"""A network of texts that is read at two depths: its last states beside those of its middle layer.

What a network was trained for shows in its last layer; how a thing is said shows further down (Tenney et al. 2019). A
linear head on both is better than one on either: evals/LOG.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from speciate.models.backbones.contract import Backbone, BackboneSettings, Item, States

if TYPE_CHECKING:
    import torch


class TwoDepths(Protocol):
    """What a backbone needs to be read at two depths."""

    def states_at_two_depths(self, batch: Mapping[str, torch.Tensor]) -> States:
        """`pooled` is (B, 2 W): of the last layer and of the middle one, each of unit length."""
        ...


def has_two_depths(backbone: Backbone) -> TypeGuard[Any]:
    return hasattr(backbone, "states_at_two_depths")


class LayeredBackbone:
    """The same network, whose pooled state is that of both layers. What is saved of it is the plain one."""

    def __init__(self, plain: Backbone) -> None:
        self.plain: Any = plain
        self.module = plain.module
        self.base_model, self.modality, self.unit = plain.base_model, plain.modality, plain.unit
        self.width = 2 * plain.width

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        return self.plain.prepare(media, per_unit=per_unit)

    def length(self, item: Item) -> int:
        return self.plain.length(item)

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        return self.plain.collate(items)

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        return self.plain.states_at_two_depths(batch)

    def settings(self) -> BackboneSettings:
        return self.plain.settings()

    def files(self) -> dict[str, bytes]:
        return self.plain.files()


def plain(backbone: Backbone) -> Backbone:
    """The network as it was."""
    return backbone.plain if isinstance(backbone, LayeredBackbone) else backbone
