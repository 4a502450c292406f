"""A published head as one ONNX graph beside its publisher's files, for onnxruntime and for `register_model`, which asks
such a folder like the model that it came from (models/published/onnx_model.py).

The graph computes the network alone; preprocessing and what is made of the outputs stay with transformers' classes.
The exporter of torch does not follow every network, and may fix what it should leave free. So the graph is compared
with the module on other inputs than it was traced on, and is not written where it differs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speciate.errors import Code, SpeciateError
from speciate.exports.onnx_export import check_contained, export_program
from speciate.models import sealed, trust
from speciate.models.model_folder import NETWORK
from speciate.models.published.architectures import check_head, find_head
from speciate.models.published.network import PublishedNetwork
from speciate.models.published.published_model import PublishedModel, load_model

if TYPE_CHECKING:
    import torch

_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "text-classification": ("logits",), "token-classification": ("logits",), "image-classification": ("logits",),
    "object-detection": ("logits", "pred_boxes"),
}  # fmt: skip
"""Adapters whose graph is tried -> what the answers are made of."""
_TEXTS = ("a fine day", "It rained, and nobody came to the old house by the sea.", "no")
_OTHERS = ("nobody", "two of them came late, and one did not come")
_SIDE, _FURTHEST = 96, 1e-4


def why_not(folder: Path) -> str | None:
    """Why a folder with a published head leaves as no graph; None where it is tried. Imports no torch."""
    head = find_head(folder)
    if head is None or head.adapter not in _OUTPUTS:
        return f"a head for {head.task if head else 'another purpose'} is not tried as one graph"
    return "its words have places on a page" if head.reads_boxes else None


def is_published(folder: Path) -> bool:
    """Whether it keeps a head that it was published with."""
    return find_head(folder) is not None


def write_published_graph(folder: Path, target: Path, ref: str) -> tuple[str, ...]:
    """Fill `target`; the names of its files. Raises INVALID where the exporter cannot follow, REFUSED where its graph
    computes something else."""
    import torch

    head = check_head(folder, ref)
    model = load_model(folder, head)
    wanted = _OUTPUTS[head.adapter]
    given, others = _batch(model, _TEXTS, 0), _batch(model, _OTHERS, 1)
    names = list(given)
    module = _module(model.module, names, wanted)
    # the exporter may free what it can; of images the publisher's processor fixes the sides
    axes = range(4) if head.modality == "text" or head.adapter == "object-detection" else range(1)
    free = tuple(
        dict.fromkeys((axis for axis in axes if axis < each.ndim), torch.export.Dim.AUTO) for each in given.values()
    )
    network = PublishedNetwork(model, ref, folder)
    export_program(network, module, tuple(given.values()), free, names, wanted, target / NETWORK)  # type: ignore[arg-type]
    check_contained(target / NETWORK)
    _compare(target / NETWORK, module, others, ref)
    listed = json.loads((folder / sealed.MANIFEST).read_text()) if (folder / sealed.MANIFEST).is_file() else ()
    taken = sorted(listed) or trust.choose(path.name for path in folder.iterdir()).files
    for name in taken:
        if not name.endswith((".safetensors", ".index.json")) and name != NETWORK:
            shutil.copyfile(folder / name, target / sealed.exported_name(name, taken))
    return tuple(sorted(path.name for path in target.iterdir()))


def _batch(model: PublishedModel, texts: tuple[str, ...], seed: int) -> dict[str, torch.Tensor]:
    if model.head.modality == "text":
        return dict(model.processor(list(texts), padding=True, return_tensors="pt"))
    draw = np.random.default_rng(seed)
    images = [draw.integers(0, 255, (_SIDE, _SIDE, 3)).astype(np.uint8) for _ in texts]
    return dict(model.processor(images=images, return_tensors="pt"))


def _module(network: Any, names: list[str], wanted: tuple[str, ...]) -> torch.nn.Module:
    import torch

    class Named(torch.nn.Module):
        """Tensors by their place in, the wanted outputs out."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *given: torch.Tensor) -> Any:
            found = self.network(**dict(zip(names, given, strict=True)), return_dict=True)
            return tuple(found[name] for name in wanted)

    return Named().eval()


def _compare(file: Path, module: Any, batch: Mapping[str, torch.Tensor], ref: str) -> None:
    import onnxruntime  # type: ignore[import-untyped]  # has no types
    import torch

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    known = {each.name for each in session.get_inputs()}
    with torch.inference_mode():
        said = [each.numpy() for each in module(*batch.values())]
    found = session.run(None, {name: each.numpy() for name, each in batch.items() if name in known})
    apart = max(float(np.abs(one - other).max()) for one, other in zip(said, found, strict=True))
    if not apart <= _FURTHEST * max(1.0, *(float(np.abs(each).max()) for each in said)):
        raise SpeciateError(
            Code.REFUSED,
            f"{ref} cannot leave as one ONNX graph: on other inputs than it was traced on, its numbers differ by "
            f"{apart:.1g}.",
            "As safetensors it leaves as save_pretrained writes it.",
        )
