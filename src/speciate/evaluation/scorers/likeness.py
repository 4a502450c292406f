"""The scorer `likeness:MODEL`: how like each drawn image is to its text, by a registered model of images and texts.

A plan resolves the model (`settle`), so that the run needs nothing of the catalog: `likeness:NAME@v1|FOLDER`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation.scorers.sandboxed_scorers import ScorerError, ScoreResult
from speciate.modalities.image_answers import decode_image, is_image_answer
from speciate.models import registry, sealed
from speciate.models.published.architectures import find_head
from speciate.models.published.likeness import ADAPTER, cosines
from speciate.tasks.published_predictor import PublishedPredictor, load_published
from speciate.vocabulary import Task
from speciate.workspace.workspace import Workspace

PREFIX, _BAR = "likeness:", "|"


def settle(workspace: Workspace, ref: str | None, task: Task) -> str | None:
    """Any other scorer as it is. Raises NOT_FOUND for the model, INVALID where it is none of images and texts, or where
    no image is drawn."""
    if ref is None or not ref.startswith(PREFIX) or _BAR in ref:
        return ref
    if task.family != "image-generation":
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} scores images that were drawn from texts, and this evaluation is of {task.name!r}.",
            "Call again without scorer, or with another one.",
        )
    version = registry.resolve(workspace.database, workspace.folders, ref.removeprefix(PREFIX))
    head = find_head(version.path)
    if head is None or head.adapter != ADAPTER:
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref} is no model of images and texts: CLIP, SigLIP and their kin are.",
            "Register one, register_model(name='clip', source='path:/dir' or 'hf:ORG/NAME'), and name it.",
            next=[Call("search_models", {"query": "clip", "modality": "image"}, "for some")],
        )
    return f"{PREFIX}{version.ref}{_BAR}{version.path}"


def metric_of(ref: str) -> str:
    """`likeness:NAME@v1`"""
    return ref.partition(_BAR)[0]


def score_images(ref: str, run_folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[ScoreResult]:
    """A cosine for each image; an answer that is none has no score."""
    there = [place for place, row in enumerate(rows) if is_image_answer(row["prediction"]["output"])]
    images = [decode_image(rows[place]["prediction"]["output"]) for place in there]
    texts = [str(rows[place]["example"]["input"]) for place in there]
    found = dict(zip(there, cosines(_model(ref.partition(_BAR)[2]).model, images, texts), strict=True))
    name = metric_of(ref)
    failed = ScorerError("raised", "the answer is no image")
    return [{name: found[place]} if place in found else failed for place in range(len(rows))]


@cache
def _model(folder: str) -> PublishedPredictor:
    sealed.check(Path(folder))
    return load_published(Path(folder))
