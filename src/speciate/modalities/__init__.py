"""The table of modalities. A new one is a file in this folder and a line in the table, or an entry point.

May use: vocabulary, errors and third-party readers, which are imported in functions only.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from speciate.errors import Call, unknown
from speciate.modalities.contract import Modality
from speciate.vocabulary import MODALITY_GROUP

MODALITIES = {
    "text": "speciate.modalities.text:TEXT",
    "image": "speciate.modalities.image:IMAGE",
    "audio": "speciate.modalities.audio:AUDIO",
    "video": "speciate.modalities.video.video:VIDEO",
    "dicom": "speciate.modalities.medical.dicom:DICOM",
    "protein": "speciate.modalities.biology.protein:PROTEIN",
    "molecule": "speciate.modalities.biology.molecule:MOLECULE",
    "tabular": "speciate.modalities.tabular:TABULAR",
    "time-series": "speciate.modalities.time_series:TIME_SERIES",
    "mesh": "speciate.modalities.geometry.mesh:MESH",
    "point-cloud": "speciate.modalities.geometry.point_cloud:POINT_CLOUD",
    "nifti": "speciate.modalities.medical.nifti:NIFTI",
    "episode": "speciate.modalities.robotics.episode:EPISODE",
    "multimodal": "speciate.modalities.multimodal:MULTIMODAL",
}
_loaded: dict[str, Modality[Any]] = {}


def find(name: str) -> Modality[Any]:
    """The modality of this name, or NOT_FOUND with near names."""
    if name not in _loaded:
        known = MODALITIES if name in MODALITIES else table()
        if name not in known:
            raise unknown("modality", name, known, next=[Call("list_options", {"kind": "modality"})])
        module, _, attribute = known[name].partition(":")
        _loaded[name] = getattr(importlib.import_module(module), attribute)
    return _loaded[name]


def table() -> dict[str, str]:
    """Name -> "module:object": ours first, which a third party cannot replace."""
    return _third_parties() | MODALITIES


@cache
def _third_parties() -> dict[str, str]:
    """Looked for once per process: it means reading the metadata of everything that is installed."""
    return {point.name: point.value for point in entry_points(group=MODALITY_GROUP)}
