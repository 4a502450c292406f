"""A network and the head of its task as one ONNX graph, from inputs with names to probabilities, and what makes them.

    text     input_ids, attention_mask (batch, sequence) int64      tokenizer.json
    image    pixel_values (batch, 3, side, side) float32            preprocessing.json: side, filter, mean, std

    classification, multi-label    probabilities (batch, labels)
    regression                     value (batch, 1), in the target's own units
    rows of tables                 onnx_table.py, of columns as they are
    tokens                         probabilities (batch, sequence, labels); a word has those of its first token

`preprocessing.json` says all of it: inputs and outputs with their shapes, labels, thresholds, and how a medium becomes
an input. The card's program needs onnxruntime, and tokenizers or Pillow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciate.errors import Call, Code, SpeciateError
from speciate.exports import onnx_published, onnx_table, snippets
from speciate.exports.onnx_export import check_contained, export_program
from speciate.models import model_folder
from speciate.models.backbones.contract import Backbone
from speciate.models.backbones.exported import check_installed
from speciate.models.model_card import ModelCard
from speciate.tasks.network_predictor import MANIFEST, NetworkPredictor, has_head, load_network, saved_task_head

if TYPE_CHECKING:
    import torch

GRAPH, PREPROCESSING = "model.onnx", "preprocessing.json"
_FAMILIES = ("classification", "multi-label", "regression", "tokens")
_MODALITIES = ("text", "image")
_NAMES: Mapping[str, tuple[str, ...]] = {"text": ("input_ids", "attention_mask"), "image": ("pixel_values",)}
_AXES: Mapping[str, tuple[str, ...]] = {"text": ("batch", "sequence"), "image": ("batch",)}
_SHAPES: Mapping[str, list[str | int]] = {"tokens": ["batch", "sequence", "labels"], "regression": ["batch", 1]}
"""Shapes of outputs that are not (batch, labels)."""
_MEDIA: Mapping[str, list[str]] = {"text": ["a fine day", "It rained, and nobody came.", "no"]}


def check_graph(folder: Path, card: ModelCard) -> None:
    """Raise INVALID where the model cannot leave as one graph. Imports no torch."""
    check_installed("onnx", "onnxscript", "onnxruntime")
    modality = model_folder.modality(folder)
    if model_folder.is_export(folder):
        why = "it is an export itself: name the version that it was made from"
    elif has_rows(folder):
        found = onnx_table.why_not(folder)
        if found is None:
            return
        why = found
    elif onnx_published.is_published(folder):
        found = onnx_published.why_not(folder)
        if found is None:
            return
        why = found
    elif not has_head(folder):
        why = "it has no network with the head of a task"
    elif saved_task_head(folder).family not in _FAMILIES:
        why = f"answers of {card.task} are made of the network's numbers by code"
    elif modality not in _MODALITIES:
        why = f"media of {modality} are prepared by code"
    else:
        return
    raise SpeciateError(
        Code.INVALID,
        f"{card.ref} cannot leave as one ONNX graph: {why}.",
        "As safetensors it leaves with a program in Python that answers without speciate.",
        next=[Call("export_model", {"model": card.ref, "path": "/new/folder"})],
    )


def has_rows(folder: Path) -> bool:
    """Whether its answers are computed of arrays, with no network."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(manifest.get("representation", {}).get("kind", "embeddings") != "embeddings")


def write_graph(folder: Path, target: Path, card: ModelCard) -> tuple[str, tuple[str, ...]]:
    """Fill `target`; returns the card's program and the packages that it needs."""
    if has_rows(folder):
        made = onnx_table.write_table_graph(folder, target / GRAPH, target / PREPROCESSING, card)
        check_contained(target / GRAPH)
        return made
    import torch

    predictor = load_network(folder)
    backbone, task_head = predictor.backbone, predictor.task_head
    modality = backbone.modality
    module = _module(predictor)
    given: tuple[torch.Tensor, ...]
    if modality == "text":
        batch = backbone.collate(backbone.prepare(_MEDIA["text"]))
        given = (batch["ids"], batch["attended"].long())
        (target / "tokenizer.json").write_bytes(backbone.files()["tokenizer.json"])
    else:
        side = int(backbone.settings()["preprocessing"]["side"])
        given = (torch.rand(3, 3, side, side),)
    output = "value" if task_head.family == "regression" else "probabilities"
    free = tuple(dict.fromkeys(range(len(_AXES[modality])), torch.export.Dim.AUTO) for _ in given)
    export_program(backbone, module, given, free, _NAMES[modality], (output,), target / GRAPH)
    _name_axes(target / GRAPH, _AXES[modality])
    check_contained(target / GRAPH)
    (target / PREPROCESSING).write_text(json.dumps(_described(predictor, output), indent=1), encoding="utf-8")
    helper = "tokenizers" if modality == "text" else "pillow"
    return snippets.of_onnx(modality, task_head.family), ("numpy", "onnxruntime", helper)


def _module(predictor: NetworkPredictor) -> torch.nn.Module:
    import torch

    backbone, task_head = predictor.backbone, predictor.task_head
    family, known = task_head.family, vars(task_head)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.head = backbone.module, predictor.head

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            states = backbone.states(_batch(backbone, given))
            logits: torch.Tensor = self.head(states.sequence if family == "tokens" else states.pooled)
            match family:
                case "multi-label":
                    return torch.sigmoid(logits)
                case "regression":
                    value: torch.Tensor = logits * known["spread"] + known["mean"]
                    return value
            return torch.softmax(logits / known["temperature"], -1)

    return Whole().eval()


def _batch(backbone: Backbone, given: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    if backbone.modality == "image":
        return {"pixels": given[0]}
    ids, attended = given
    return {"ids": ids, "attended": attended.bool(), "counted": attended.bool()}


def _described(predictor: NetworkPredictor, output: str) -> dict[str, Any]:
    backbone, task_head = predictor.backbone, predictor.task_head
    settings, known = backbone.settings(), vars(task_head)
    about: dict[str, Any] = {
        "task": predictor.task, "family": task_head.family, "labels": list(task_head.labels),
        "outputs": {output: _SHAPES.get(task_head.family, ["batch", "labels"])},
    }  # fmt: skip
    if "thresholds" in known:
        about["thresholds"] = list(known["thresholds"])
    if "commonest" in known:
        about["commonest"] = known["commonest"]
    if backbone.modality == "text":
        about["inputs"] = {name: {"shape": list(_AXES["text"]), "type": "int64"} for name in _NAMES["text"]}
        about |= {
            "tokenizer": "tokenizer.json",
            "max_tokens": settings["max_tokens"],
            "pad_token_id": settings["config"].get("pad_token_id") or 0,
        }
    else:
        own = settings["preprocessing"]
        shape = ["batch", 3, own["side"], own["side"]]
        about["inputs"] = {"pixel_values": {"shape": shape, "type": "float32"}}
        about |= {"side": own["side"], "mean": list(own["mean"]), "std": list(own["std"])}
        about |= {"resample": own.get("resample", 2), "steps": "RGB, resized by Pillow's filter to side x side, / 255"}
    return about


def _name_axes(file: Path, names: tuple[str, ...]) -> None:
    """Dimensions that the exporter calls s1 or s22 get the names of what they count."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    graph = model.graph
    first = graph.input[0].type.tensor_type.shape.dim
    renamed = {first[place].dim_param: name for place, name in enumerate(names) if first[place].dim_param}
    pattern = re.compile("|".join(rf"\b{re.escape(each)}\b" for each in renamed) or r"(?!)")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = pattern.sub(lambda found: renamed[found.group()], side.dim_param)
    onnx.save(model, file)
