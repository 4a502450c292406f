"""What a dataset teaches without a label, by its modality and the names and types of its columns. Pure.

Boxes of COCO, masks of scans, transcripts of speech, answers to texts and the actions of episodes are targets of their
own tasks. A class per example is a label, and that is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

import pyarrow as pa

from speciate.datasets.readers.coco import OBJECTS
from speciate.modalities.depth_maps import DEPTH
from speciate.modalities.segmentation_masks import MASK
from speciate.vocabulary import Family

_ANSWERS = ("completion", "answer", "response", "output", "chosen")
_CAPTIONS = ("caption", "text")
"""Columns of images' captions, as folders of Hugging Face name them. Of texts such columns are inputs."""
_TRANSCRIPTS = ("transcription", "transcript", "sentence", "text")
_BOXES = re.compile(r"STRUCT<.*\bBBOX: LIST<.*>\[\]")
"""The type of a column of boxes, as a manifest names it."""


class NaturalTarget(NamedTuple):
    task: str
    column: str | None
    """None: the target is in the medium."""
    what: str
    """A sentence for the report."""


def usual_columns(family: Family, modality: str) -> tuple[str, ...]:
    """Usual names of columns with the target of a family of tasks."""
    match family:
        case "detection":
            return (OBJECTS,)
        case "segmentation":
            return (OBJECTS, MASK)
        case "panoptic":
            return (OBJECTS,)
        case "depth":
            return (DEPTH,)
        case "transcription":
            return _TRANSCRIPTS
        case "generation":
            return (*_ANSWERS, *_CAPTIONS) if modality in ("image", "multimodal") else _ANSWERS
        case "image-generation":
            return (*_CAPTIONS, "prompt")
        case "speech-synthesis":
            return _TRANSCRIPTS
    return ()


def holds_boxes(kind: pa.DataType | str | None) -> bool:
    """Whether a column of this type holds a list of objects with boxes; a text is the type's name in a manifest."""
    if kind is None or isinstance(kind, str):
        return kind is not None and _BOXES.fullmatch(kind) is not None
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    place = kind.value_type.get_field_index("bbox")
    return place >= 0 and _is_list(kind.value_type.field(place).type)


def natural_target(modality: str, inputs: Collection[str], columns: Mapping[str, str]) -> NaturalTarget | None:
    """The task that examples without a label are made for; None where nothing tells. `columns`: name -> type."""
    free = {name for name in columns if name not in inputs}
    if modality == "image" and OBJECTS in free and holds_boxes(columns[OBJECTS]):
        return NaturalTarget("object-detection", OBJECTS, f"The column {OBJECTS!r} holds boxes with categories")
    if modality == "image" and DEPTH in free and columns[DEPTH] == "VARCHAR":
        return NaturalTarget("depth-estimation", DEPTH, f"The column {DEPTH!r} holds depth maps")
    if MASK in free and columns[MASK] == "VARCHAR" and modality in ("image", "dicom", "nifti"):
        kind = "image" if modality == "image" else "volume"
        return NaturalTarget(f"{kind}-segmentation", MASK, f"The column {MASK!r} holds masks")
    if modality == "episode":
        return NaturalTarget("behaviour-cloning", None, "Each episode holds the actions to learn")
    family, task = _SPOKEN_OR_WRITTEN.get(modality, (None, ""))
    if family is None:
        return None
    column = next((name for name in usual_columns(family, modality) if name in free and _is_text(columns[name])), None)
    return NaturalTarget(task, column, f"The column {column!r} holds texts") if column else None


_SPOKEN_OR_WRITTEN: dict[str, tuple[Family, str]] = {
    "audio": ("transcription", "automatic-speech-recognition"),
    "text": ("generation", "text-generation"),
    "image": ("generation", "image-text-to-text"),
}


def _is_text(kind: str) -> bool:
    return kind == "VARCHAR"


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
