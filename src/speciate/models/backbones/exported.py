"""A backbone whose network is a file of another engine; all that prepares media, and every head, stays ours.

Its folder has `backbone.json` with an entry `exported`, the backbone's own files, and the network where
`backbone.safetensors` would be. The backbone itself is rebuilt on torch's device `meta`, without any weights, for its
`prepare` and `collate`: the same code as before the export, so that only the network can differ. It answers, and cannot
be trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from speciate.errors import Code, SpeciateError
from speciate.models.backbones.contract import Backbone, Item, States
from speciate.models.backbones.runtimes import FILES, Compute, Format, open_network

if TYPE_CHECKING:
    import torch

ENTRY = "exported"
OUTPUTS = ("sequence", "mask", "pooled")


class Exported(BaseModel):
    """What a folder says of its network."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Format
    quantize: Literal["none", "int8"] = "none"
    inputs: dict[str, tuple[int | None, ...]]
    """Of the batch's entries those that the network reads, with their sides; None: any."""
    grid: tuple[int, ...] | None = None
    """Of its States, where positions have places."""
    parameters: int
    """Learned numbers of the network, as before the export."""


class ExportedBackbone:
    def __init__(self, inner: Backbone, said: Exported, width: int, compute: Compute) -> None:
        import torch

        self.base_model, self.modality, self.unit = inner.base_model, inner.modality, inner.unit
        self.width, self.module = width, torch.nn.Module()
        self.exported = said
        self._inner, self._compute = inner, compute

    def prepare(self, media: Sequence[Any], *, per_unit: bool = False) -> list[Item]:
        return self._inner.prepare(media, per_unit=per_unit)

    def length(self, item: Item) -> int:
        return self._inner.length(item)

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        return self._inner.collate(items)

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        import torch

        given = {name: batch[name].numpy() for name in self.exported.inputs}
        for name, sides in self.exported.inputs.items():
            if any(side not in (None, had) for side, had in zip(sides, given[name].shape, strict=True)):
                raise _unlike(self, name, sides, given[name].shape)
        sequence, mask, pooled = (torch.from_numpy(each) for each in self._compute(given))
        return States(sequence.float(), mask.bool(), pooled.float(), self.exported.grid)

    def settings(self) -> dict[str, Any]:
        return self._inner.settings() | {ENTRY: self.exported.model_dump()}

    def files(self) -> dict[str, bytes]:
        return self._inner.files()


def load(
    settings: Mapping[str, Any], folder: Path, rebuild: Callable[[dict[str, Any], Path], Backbone]
) -> ExportedBackbone:
    """From a folder whose hashes were checked. As many threads compute as torch has."""
    import torch

    said = Exported.model_validate(settings[ENTRY])
    plain = {name: value for name, value in settings.items() if name != ENTRY}
    inner = weightless(plain, folder, rebuild)
    file = folder / FILES[said.format][0]
    compute = open_network(said.format, file, torch.get_num_threads(), fastest=said.quantize == "int8")
    return ExportedBackbone(inner, said, int(settings["width"]), compute)


def weightless(settings: dict[str, Any], folder: Path, rebuild: Callable[[dict[str, Any], Path], Backbone]) -> Backbone:
    """The backbone that gave these settings, for what it does before its network; without memory for weights where its
    libraries can do that."""
    import torch

    try:
        with torch.device("meta"):
            return rebuild(settings, folder)
    except (NotImplementedError, RuntimeError, SpeciateError):  # it computes with its weights to know its own shape
        return rebuild(settings, folder)


def said_of(settings: Mapping[str, Any]) -> Exported | None:
    """None of a backbone that was not exported."""
    return Exported.model_validate(settings[ENTRY]) if settings.get(ENTRY) else None


def refuse_training(name: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{name!r} is an export: its network answers, and nothing can be trained on it.",
        "Name the version that it was exported from: the first of its lineage in describe_model.",
    )


def _unlike(backbone: Backbone, name: str, sides: Sequence[int | None], had: Sequence[int]) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The exported network of {backbone.base_model!r} takes {name!r} with sides {tuple(sides)} (None: any); this "
        f"example makes {tuple(had)}.",
        "Ask the version that it was exported from: it takes more.",
    )
