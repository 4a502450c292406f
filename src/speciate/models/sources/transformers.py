"""Checkpoints that transformers names as the example of each architecture, with the tasks that the architecture has a
head for. Which of those heads a checkpoint was trained with, it does not say: so only what its model class is for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from speciate.models.sources.contract import Entry, Packaged
from speciate.models.sources.literals import files

_READS = {
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": ("text", "text-generation"),
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES": ("image", "image-text-to-text"),
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES": ("image", "image-classification"),
    "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES": ("image", "object-detection"),
    "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES": ("image", "image-segmentation"),
    "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES": ("video", "video-classification"),
    "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES": ("audio", "audio-classification"),
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES": ("audio", "automatic-speech-recognition"),
    "MODEL_FOR_CTC_MAPPING_NAMES": ("audio", "automatic-speech-recognition"),
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": ("text", "text-classification"),
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": ("text", "token-classification"),
    "MODEL_FOR_TIME_SERIES_PREDICTION_MAPPING_NAMES": ("time-series", "time-series-forecasting"),
}
"""A table of transformers' auto classes -> what its models read, and our name of the task."""
_DONE = ("text-generation", "image-text-to-text", "automatic-speech-recognition", "object-detection")
"""Tasks that a published checkpoint of such an architecture does as it is; for others it wants a head that learns."""


class Transformers(Packaged):
    name, what, package = "transformers", "the checkpoint that transformers names for each architecture", "transformers"

    def entries(self) -> Iterator[Entry]:
        known: dict[str, str] = {}
        for path in files(self.package, "transformers/models/"):
            if path.name.startswith("configuration_"):
                for repository, kind in _checkpoints(path):
                    known.setdefault(repository, kind)
        for repository, kind in sorted(known.items()):
            heads = _heads().get(kind, ())
            done = tuple(dict.fromkeys(task for _, task in heads if task in _DONE))
            yield Entry(
                ref=f"hf:{repository}",
                what=f"{repository} {kind} fine-tune for {' '.join(sorted({task for _, task in heads}))}",
                access="weights",
                tasks=done or ("feature-extraction",),
                modalities=tuple(dict.fromkeys(modality for modality, _ in heads)),
                hub=repository,
            )


def _checkpoints(path: Path) -> Iterator[tuple[str, str]]:
    """(repository, model type) of each configuration class whose documentation names one."""
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError, OSError):
        return
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        named = [
            word.value.value
            for decorator in node.decorator_list
            if isinstance(decorator, ast.Call)
            for word in decorator.keywords
            if word.arg == "checkpoint" and isinstance(word.value, ast.Constant)
        ]
        kinds = [
            statement.value.value
            for statement in node.body
            if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Constant)
            and "model_type" in ast.unparse(statement).partition("=")[0]
        ]  # fmt: skip
        for repository in named:
            if isinstance(repository, str) and repository.count("/") == 1 and kinds:
                yield repository, str(kinds[0])


@cache
def _heads() -> dict[str, tuple[tuple[str, str], ...]]:
    """Architecture -> (modality, task) of each head that there is for it."""
    from transformers.models.auto import modeling_auto

    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for table, meaning in _READS.items():
        for kind in getattr(modeling_auto, table, {}):
            found[kind] = (*found.get(kind, ()), meaning)
    return found


SOURCE = Transformers()
