"""The tasks' readouts by family: where a new task is entered."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from speciate.tasks.anomaly import Anomaly
from speciate.tasks.classification import Classification
from speciate.tasks.control import Control
from speciate.tasks.detection import Detection
from speciate.tasks.forecasting import Forecasting
from speciate.tasks.generation import Generation
from speciate.tasks.multi_label import MultiLabel
from speciate.tasks.ordinal import Ordinal
from speciate.tasks.regression import Regression
from speciate.tasks.retrieval import Retrieval
from speciate.tasks.segmentation import Segmentation
from speciate.tasks.tokens import Tokens
from speciate.tasks.transcription import Transcription
from speciate.vocabulary import Family

READOUTS: dict[Family, Any] = {
    "classification": Classification,
    "multi-label": MultiLabel,
    "ordinal": Ordinal,
    "anomaly": Anomaly,
    "regression": Regression,
    "retrieval": Retrieval,
    "tokens": Tokens,
    "detection": Detection,
    "segmentation": Segmentation,
    "transcription": Transcription,
    "forecasting": Forecasting,
    "control": Control,
    "generation": Generation,
}
PER_UNIT: tuple[Family, ...] = ("tokens",)
"""Families that label each word or residue, so that a backbone must give one state for each."""
AnyReadout = Annotated[
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
"""As it is stored with a model: those that are trained."""
