"""Task heads by family: the table in which a new task is entered."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from speciate.tasks.families.anomaly import Anomaly
from speciate.tasks.families.classification import Classification
from speciate.tasks.families.control import Control
from speciate.tasks.families.depth import Depth
from speciate.tasks.families.detection import Detection
from speciate.tasks.families.forecasting import Forecasting
from speciate.tasks.families.generation import Generation
from speciate.tasks.families.image_generation import ImageGeneration
from speciate.tasks.families.multi_label import MultiLabel
from speciate.tasks.families.ordinal import Ordinal
from speciate.tasks.families.panoptic import Panoptic
from speciate.tasks.families.regression import Regression
from speciate.tasks.families.retrieval import Retrieval
from speciate.tasks.families.segmentation import Segmentation
from speciate.tasks.families.speech_synthesis import SpeechSynthesis
from speciate.tasks.families.tokens import Tokens
from speciate.tasks.families.transcription import Transcription
from speciate.vocabulary import Family

TASK_HEADS: dict[Family, Any] = {
    "classification": Classification,
    "multi-label": MultiLabel,
    "ordinal": Ordinal,
    "anomaly": Anomaly,
    "regression": Regression,
    "retrieval": Retrieval,
    "tokens": Tokens,
    "detection": Detection,
    "segmentation": Segmentation,
    "panoptic": Panoptic,
    "depth": Depth,
    "transcription": Transcription,
    "forecasting": Forecasting,
    "control": Control,
    "generation": Generation,
    "image-generation": ImageGeneration,
    "speech-synthesis": SpeechSynthesis,
}
PER_UNIT: tuple[Family, ...] = ("tokens",)
"""Families that label each word or residue, so that a backbone must give one state for each."""
AnyTaskHead = Annotated[
    Classification
    | MultiLabel
    | Ordinal
    | Anomaly
    | Regression
    | Retrieval
    | Tokens
    | Detection
    | Segmentation
    | Transcription
    | Forecasting
    | Control,
    Field(discriminator="family"),
]
"""A task head as it is stored with a model: those that are trained."""
