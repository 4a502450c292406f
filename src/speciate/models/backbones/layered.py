"""A network of texts that is read at two depths: its last states beside those of its middle layer.

What a network was trained for shows in its last layer; how a thing is said shows further down (Tenney et al. 2019). A
linear head on both is better than one on either: evals/LOG.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from speciate.models.backbones.contract import Backbone, BackboneSettings, Item, States

if TYPE_CHECKING:
    import torch


def has_two_depths(backbone: Backbone) -> bool:
    """Whether it has `states_at_two_depths(batch)`, whose `pooled` is (B, 2 W): of the last layer and of the middle
    one, each of unit length."""
    return hasattr(backbone, "states_at_two_depths")


class LayeredBackbone:
    """A network whose pooled state is that of its last and its middle layer. What is saved of it is the plain one."""

    def __init__(self, plain: Backbone) -> None:
        self.plain: Any = plain
        self.module = plain.module
        self.base_model, self.modality, self.unit = plain.base_model, plain.modality, plain.unit
        self.width = 2 * plain.width

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        items: list[Item] = self.plain.prepare(media, per_unit=per_unit)
        return items

    def length(self, item: Item) -> int:
        return int(self.plain.length(item))

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = self.plain.collate(items)
        return batch

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        states: States = self.plain.states_at_two_depths(batch)
        return states

    def settings(self) -> BackboneSettings:
        settings: BackboneSettings = self.plain.settings()
        return settings

    def files(self) -> dict[str, bytes]:
        files: dict[str, bytes] = self.plain.files()
        return files


def plain(backbone: Backbone) -> Backbone:
    """The network as it was."""
    found: Backbone = backbone.plain if isinstance(backbone, LayeredBackbone) else backbone
    return found
