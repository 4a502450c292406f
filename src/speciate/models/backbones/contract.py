"""The contract of a backbone: it reads one modality and gives states, whatever the task. Any head applies to them.

    media --prepare--> items --collate--> batch --states--> States

A file of this folder serves one modality and has two functions, which architectures.py calls:

    build(base_model: str, media: Sequence[Any], seed: int, folder: Path | None, **options) -> Backbone
    rebuild(settings: Mapping[str, Any], folder: Path) -> Backbone

`build` makes fresh weights (`new:`, `timm:`: random by `seed`; preprocessing is fitted on `media`, the training
examples) or reads a transformers folder (`folder`, which the resolver of the ref passes; `media` may be empty then).
`options` are settings of the preprocessing, keywords with defaults. `rebuild` makes the same backbone from `settings()`
and a folder with `files()`, with meaningless weights: model_folder.py then loads them with every name matched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from speciate.errors import Code, SpeciateError
from speciate.modalities.medical.volumes import is_volume

if TYPE_CHECKING:
    import torch


Item = dict[str, npt.NDArray[Any]]
"""One medium, preprocessed. Deterministic, so that it is kept over epochs."""


BackboneSettings = dict[str, Any]
"""JSON that a backbone is rebuilt from. All have `base_model` and `modality`, each architecture its own keys beside."""
ModelConfig = dict[str, Any]
"""A config.json of transformers: another for each `model_type`, and for each version of the library."""


class States(NamedTuple):
    sequence: torch.Tensor
    """(B, T, W) float32"""
    mask: torch.Tensor
    """(B, T) bool: positions that stand for a part of the medium (words, residues, patches, frames). False for
    padding and for special tokens."""
    pooled: torch.Tensor
    """(B, W) float32"""
    grid: tuple[int, ...] | None = None
    """Images: T == height * width, row by row; no special tokens in `sequence` then. Volumes: the depth before."""

    def as_maps(self, axes: int = 2) -> torch.Tensor:
        """(B, T, W) -> (B, W, height, width), or (B, W, depth, height, width) if `axes` is 3. INVALID if the states
        are not such a grid."""
        if self.grid is None or len(self.grid) != axes:
            raise SpeciateError(
                Code.INVALID,
                f"This base model gives no grid of states with {axes} axes, so it cannot locate anything.",
                "Use a base model that reads images, such as 'new:vit', or one for volumes, such as 'new:unet3d'.",
            )
        return self.sequence.mT.reshape(len(self.sequence), -1, *self.grid)


class Network(Protocol):
    """What the training loop needs: a backbone, or a published model with its own head."""

    @property
    def base_model(self) -> str:
        """The ref that it came from."""
        ...

    @property
    def modality(self) -> str: ...

    @property
    def width(self) -> int:
        """W of its states."""
        ...

    @property
    def module(self) -> torch.nn.Module:
        """All trainable layers. The caller sets train() or eval()."""
        ...

    @property
    def unit(self) -> str | None:
        """The unit of `per_unit`: "word", "residue"; None if media have no such units."""
        ...

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        """An item for each medium. Raises INVALID for another modality.

        With `per_unit`, the states' sequence has exactly one position per unit, in order, from the first on: labels of
        units line up with it. Units beyond the length limit have no position.
        """
        ...

    def length(self, item: Item) -> int:
        """The item's number of positions: batches of similar length have little padding."""
        ...

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """Items of one `prepare` call's kind as one batch, padded to the longest."""
        ...

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        """Differentiable. A medium's states do not depend on the rest of the batch."""
        ...


class Backbone(Network, Protocol):
    """A network whose states any head applies to."""

    def settings(self) -> BackboneSettings:
        """JSON for `rebuild`: has `base_model` and `modality`, architecture and preprocessing."""
        ...

    def files(self) -> dict[str, bytes]:
        """Further files of a model folder, flat names, such as tokenizer.json."""
        ...


Rebuild = Callable[[BackboneSettings, Path], Backbone]
"""(settings, the folder of its files) -> the backbone, with meaningless weights."""


def refuse_medium(backbone: Backbone, medium: object) -> NoReturn:
    """For `prepare`: a medium of another modality."""
    kind = f"an array of shape {medium.shape}" if isinstance(medium, np.ndarray) else f"a {type(medium).__name__}"
    if is_volume(medium):
        kind = f"a volume of {len(medium['voxels'])} slices"
    raise SpeciateError(
        Code.INVALID,
        f"{backbone.base_model!r} reads {backbone.modality}; this example is {kind}.",
        "Use a base model that reads this modality: list_options(kind='method') names them.",
    )


def refuse_units(backbone: Backbone) -> NoReturn:
    """For `prepare(per_unit=True)`: the backbone's `unit` is None."""
    raise SpeciateError(
        Code.INVALID,
        f"{backbone.base_model!r} reads {backbone.modality}, which has no words or residues to label one by one.",
        "Labels of tokens need text or protein.",
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Fresh weights depend on the seed alone: torch's global generator is seeded, and restored afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
